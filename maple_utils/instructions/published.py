"""The published instruction data: where they are served, how many rows they have."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published dataset: where it is served and how many rows each language has."""

    repository: str
    file: str
    rows: dict[str, int]
    licence: str
    revision: str = ""  # a commit seen in public code; "" where none was: it floats


MULTIALPACA = ("ar", "de", "es", "fr", "id", "ja", "ko", "pt", "ru", "th", "vi")
# Which 22 of the 52 languages the paper took is not known: MultiAlpaca's 11 and ours.
OURS = ("en", "zh", "hi", "bn", "ta", "te", "it", "tr", "sw", "et", "my")

# Rows per language as printed in PolyLM (arXiv 2307.06018).
MULTIALPACA_ROWS = (
    *(14_671, 9_515, 9_958, 11_332, 12_117, 10_191),
    *(14_402, 10_825, 14_286, 11_496, 13_908),
)
PUBLISHED = {
    "bactrian-x-22": Published(
        "MBZUAI/Bactrian-X",
        "data/{language}.json.gz",
        dict.fromkeys((*MULTIALPACA, *OURS), 67_017),  # arXiv 2305.15011
        "CC BY-NC 4.0",
        revision="3698480a001cb3f62c61c314d4acb181eb31e983",
    ),
    "multialpaca": Published(
        "DAMO-NLP-MT/multialpaca",
        "{language}.jsonl",
        dict(zip(MULTIALPACA, MULTIALPACA_ROWS, strict=True)),
        "Apache-2.0",
    ),
}
