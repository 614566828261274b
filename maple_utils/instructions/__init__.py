"""Instruction data: its prompt, where to load it from, how to cut it to size."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from maple_utils.errors import ParameterError
from maple_utils.instructions.loading import COLUMNS, load
from maple_utils.instructions.published import PUBLISHED
from maple_utils.languages import LANGUAGES
from maple_utils.words import tokenize_words


def prompt_text(instruction: str, input: str = "") -> str:
    """Return the Alpaca-style prompt of one row, ending on a newline.

    The last newline keeps the prompt a token prefix of prompt + response. The block for
    the input is left out when the input is empty.
    """
    middle = f"### Input:\n{input}\n\n" if input else ""
    return f"### Instruction:\n{instruction}\n\n{middle}### Response:\n"


def simplest_row(dataset: Dataset) -> dict[str, str]:
    """Return the row of the language with the fewest resources that is the shortest."""

    def size(row: dict[str, str]) -> tuple[int, int]:
        joshi = LANGUAGES[row["language"]].joshi
        return joshi, len(row["instruction"] + row["input"])

    return min(dataset.to_list(), key=size)


def row_lengths(dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """Return each row's language, tokens, words and bytes, of prompt and response.

    Tokens include the end token that training adds. Where words are written without
    spaces, each character counts as one.
    """
    table = dataset.to_pandas()
    pairs = zip(table["instruction"], table["input"], strict=True)
    texts = [prompt_text(*pair) for pair in pairs] + table["output"]
    return pd.DataFrame(
        {
            "language": table["language"],
            "tokens": [len(ids) + 1 for ids in tokenizer(list(texts))["input_ids"]],
            "words": [len(tokenize_words(text)) for text in texts],
            "bytes": [len(text.encode()) for text in texts],
        }
    )


def compare_counts(name: str, dataset: Dataset) -> pd.DataFrame:
    """Compare rows per language with the published ones.

    Returns the columns language, rows, published, difference for `name` in PUBLISHED.
    """
    counts = Counter(dataset["language"])
    table = pd.DataFrame(
        [(code, counts[code], PUBLISHED[name].rows[code]) for code in counts],
        columns=["language", "rows", "published"],
    )
    return table.assign(difference=table["rows"] - table["published"])


def cap(dataset: Dataset, per_language: int, seed: int = 0) -> Dataset:
    """Keep at most `per_language` rows of each language, chosen by `seed`."""
    counts = Counter(dataset["language"])
    return _choose(dataset, dict.fromkeys(counts, per_language), seed)


def sample(dataset: Dataset, total: int, alpha: float = 1.0, seed: int = 0) -> Dataset:
    """Draw `total` rows without repeats, languages in proportion to share**alpha.

    alpha 1 keeps the shares, 0 makes all languages equal (temperature sampling with
    T = 1/alpha). A language that runs out gives its surplus to the others.
    """
    counts = Counter(dataset["language"])
    if not 1 <= total <= len(dataset):
        raise ParameterError(
            f"total: got {total}; allowed: 1 to {len(dataset)}, the rows at hand"
        )
    left, wanted = total, {}
    weights = {code: n**alpha for code, n in counts.items()}
    for code in sorted(counts, key=lambda code: counts[code] / weights[code]):
        share = left * weights[code] / sum(weights.values())
        wanted[code] = min(counts[code], round(share))
        left -= wanted[code]
        del weights[code]
    return _choose(dataset, wanted, seed)


def _choose(dataset: Dataset, wanted: dict[str, int], seed: int) -> Dataset:
    """Keep `wanted[language]` random rows of each language, in their old order."""
    languages = np.asarray(dataset["language"])
    rng = np.random.default_rng(seed)
    kept = [
        rng.permutation(np.flatnonzero(languages == code))[: wanted[code]]
        for code in sorted(wanted)
    ]
    return dataset.select(np.sort(np.concatenate(kept)))


def split_heldout(
    dataset: Dataset, per_language: int, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Split off `per_language` rows of each language; return (train, heldout).

    Parallel rows share an id across languages. They are ranked by a hash of seed and
    id, so that languages hold out the same ids, and train has none of them in any
    language: no translation of a held-out row is trained on.
    """
    ids, languages = dataset["id"], np.asarray(dataset["language"])
    rank = np.asarray(
        [hashlib.sha256(f"{seed}:{value}".encode()).hexdigest() for value in ids]
    )
    heldout: list[int] = []
    for code in sorted(set(languages)):
        rows = np.flatnonzero(languages == code)
        if len(rows) <= per_language:
            raise ParameterError(
                f"heldout: got {per_language} rows per language; allowed: fewer than "
                f"the {len(rows)} rows of {code}"
            )
        heldout.extend(rows[np.argsort(rank[rows], kind="stable")][:per_language])
    hidden = {ids[index] for index in heldout}
    train = [index for index, value in enumerate(ids) if value not in hidden]
    return dataset.select(train), dataset.select(sorted(heldout))


def load_split(
    name: str,
    languages: Sequence[str],
    hub_root: str | Path,
    *,
    train_limit: int,
    heldout: int,
    seed: int,
    workspace_dir: str | Path = ".",
) -> tuple[Dataset, Dataset]:
    """Load instruction data and return (train, heldout), as 02 trains and 03 measures.

    Train has at most `train_limit` rows per language (0 for all), heldout exactly
    `heldout`; `seed` chooses both. Raises as `load` and `split_heldout` do.
    """
    data = load(name, languages, hub_root, workspace_dir)
    if train_limit:
        data = cap(data, train_limit + heldout, seed)
    return split_heldout(data, heldout, seed)


def fingerprint(dataset: Dataset) -> str:
    """Return a sha256 over all rows in their order: the same on every machine."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns(list(COLUMNS)).iter(1000):
        rows = zip(*(batch[column] for column in COLUMNS), strict=True)
        for row in rows:
            digest.update(json.dumps(row, ensure_ascii=False).encode())
    return digest.hexdigest()
