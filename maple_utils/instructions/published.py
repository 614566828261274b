"""The published instruction data: where they are served, how many rows they have."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published dataset: where it is served and how many rows each language has."""

    repository: str
    file: str
    rows: dict[str, int]
    revision: str = ""  # a commit seen in public code; "" where none was: it floats


# Rows per language as printed in PolyLM (arXiv 2307.06018).
MULTIALPACA = {
    **{"ar": 14_671, "de": 9_515, "es": 9_958, "fr": 11_332, "id": 12_117},
    **{"ja": 10_191, "ko": 14_402, "pt": 10_825, "ru": 14_286, "th": 11_496},
    "vi": 13_908,
}
# Which 22 of the 52 languages the paper took is not known: MultiAlpaca's 11 and ours.
OURS = ("en", "zh", "hi", "bn", "ta", "te", "it", "tr", "sw", "et", "my")

PUBLISHED = {
    "bactrian-x-22": Published(
        "MBZUAI/Bactrian-X",  # CC BY-NC 4.0
        "data/{language}.json.gz",
        dict.fromkeys((*MULTIALPACA, *OURS), 67_017),  # arXiv 2305.15011
        revision="3698480a001cb3f62c61c314d4acb181eb31e983",
    ),
    "multialpaca": Published(  # Apache-2.0
        "DAMO-NLP-MT/multialpaca", "{language}.jsonl", MULTIALPACA
    ),
}
