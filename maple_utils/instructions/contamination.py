"""Which test items stand in instruction data: shared n-grams of words, in every script.

As GPT-3's authors compare (Brown et al. 2020, arXiv 2005.14165, appendix C), an item
overlaps where it shares 13 words in a row with a training row, letter case and
punctuation aside; they take 8 to 13 by the length of a task's items. Here (ours):

- Words are those of `words.tokenize_words` after NFKC and case folding: marks stay on
  their letters, format characters part nothing.
- Where words are written without spaces, a letter with its marks is a word there, and
  so many letters count as one word (`LETTERS`) that 13 words are as much text.
- An item's texts are its passage, its question and its right answers, each by itself;
  a text of one word (a label, a name) says nothing.
- An item with no text of 13 words overlaps where one row holds every text of it whole.
  If all its texts together have fewer than 8 words, that is too short to tell: such
  items are counted apart, and not as clean.
- Rows of every language are compared with items of every language: rows quote English,
  and are not always in the language that they are filed under.

A passage alone makes all questions about it overlap, as in GPT-3's count. Translations
and paraphrases are not found.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np
import pandas as pd
from datasets import Dataset
from tqdm.auto import tqdm

from maple_utils.errors import ParameterError
from maple_utils.instructions.ngrams import Hashed, Known
from maple_utils.results import OVERLAP_COLUMNS
from maple_utils.tasks import PAPER_TASKS, TASKS, available, check_names, load_task
from maple_utils.tasks.examples import Example
from maple_utils.words import tokenize_words

WORDS, FEWEST = 13, 8  # of an n-gram; of an item that can be told from others
# Letters per word of the same text in other languages: Chinese in XQuAD (1.6 of
# English), Thai in XCOPA (3.0 of Indonesian and Italian); the others are assumed.
LETTERS = {"zh": 1.6, "ja": 2.0, "th": 3.0, "lo": 3.0, "km": 3.0, "my": 3.0}
_BATCH = 1000  # rows at a time


@dataclass(frozen=True)
class Items:
    """The test items of one task in one language; `note` says why there are none."""

    task: str
    language: str
    examples: tuple[Example, ...] = ()
    note: str = ""


def load_items(names: Sequence[str] = (), hub_root: str | Path = "") -> list[Items]:
    """Load all test items of tasks (none: the paper's six), in all their languages.

    What cannot be loaded is no error: it is there without items, and with a note.
    Raises ParameterError for an unknown task.
    """
    chosen = check_names(names) or PAPER_TASKS
    shown = tqdm(chosen, desc="Loading the tests", delay=5)
    return [items for name in shown for items in _load_task(name, hub_root)]


def _load_task(name: str, hub_root: str | Path) -> Iterator[Items]:
    task, unreachable = TASKS[name], dict[str, str]()
    load = partial(load_task, hub_root=hub_root, shots=0, allow_other_counts=True)
    try:
        codes = available(task, hub_root)
    except ParameterError as error:
        yield Items(name, "", note=str(error))
        return
    if not codes:
        yield Items(name, "", note="hub_root does not hold it")
    for code in codes:
        dataset = task.source_of(code).dataset
        if dataset in unreachable:  # where there is no network, each try takes long
            yield Items(name, code, note=unreachable[dataset])
            continue
        try:
            yield Items(name, code, load(name, code).test)
        except ParameterError as error:
            yield Items(name, code, note=str(error))
            if "Connect" in type(error.__cause__).__name__:
                unreachable[dataset] = f"not tried, since {dataset} was out of reach"


def words(text: str) -> list[str]:
    """Return the words of a text as they are compared."""
    return tokenize_words(normalize("NFKC", text).casefold())


def compare(rows: Dataset, tests: Sequence[Items]) -> pd.DataFrame:
    """Compare instruction data with test items, in one pass over the rows.

    Args:
        rows: with the columns of `instructions.load`.
        tests: what `load_items` returns.

    Returns:
        `results.OVERLAP_COLUMNS`, a row per task and language: `items` counts all,
        `overlapping` those that share an n-gram or stand in a row whole, `too_short`
        those that cannot be told, which `share`, the overlapping part, leaves out (NaN
        where none is left).
    """
    parts = [_Part(items) for items in tqdm(tests, "Reading the tests", delay=5)]
    by_length: dict[int, list[np.ndarray]] = {}
    wholes: dict[int, list[_Whole]] = {}  # by the n-gram of their longest text
    for part in parts:
        by_length.setdefault(part.n, []).append(part.grams)
        for whole in part.wholes:
            grams, _ = Hashed([whole.texts[0]]).grams(len(whole.texts[0]))
            by_length.setdefault(len(whole.texts[0]), []).append(grams)
            wholes.setdefault(int(grams[0]), []).append(whole)
    known = {n: Known(np.concatenate(grams)) for n, grams in by_length.items()}
    batches = rows.select_columns(["instruction", "input", "output"]).iter(_BATCH)
    with tqdm(total=len(rows), desc="Comparing with the tests", delay=5) as bar:
        for batch in batches:
            texts = ["\n".join(row) for row in zip(*batch.values(), strict=True)]
            _mark([words(text) for text in texts], known, wholes)
            bar.update(len(texts))
    table = pd.DataFrame(map(vars, tests), columns=["task", "language", "note"])
    table["items"] = [len(items.examples) for items in tests]
    found = {part.n: known[part.n].found() for part in parts}
    table["overlapping"] = [part.overlapping(found[part.n]) for part in parts]
    table["too_short"] = [part.too_short for part in parts]
    told = table["items"] - table["too_short"]
    table["share"] = table["overlapping"] / told.where(told > 0)
    return table[OVERLAP_COLUMNS]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of what `compare` returns as JSON has them: None for NaN."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _mark(
    rows: list[list[str]], known: dict[int, Known], wholes: dict[int, list["_Whole"]]
) -> None:
    """Mark the n-grams and the short items that stand in rows."""
    hashed = Hashed(rows)
    for n, looked_for in known.items():
        grams, row_of = hashed.grams(n)
        places = looked_for.find(grams)
        for gram, row in zip(grams[places].tolist(), row_of[places], strict=True):
            for whole in wholes.get(gram, ()):
                whole.found = whole.found or whole.stands_in(rows[row])


@dataclass
class _Whole:
    """An item without a text of n words: all its texts, the longest first."""

    texts: list[list[str]]
    found: bool = False

    def stands_in(self, row: list[str]) -> bool:
        """Say whether a row has all the texts."""
        joined = f" {' '.join(row)} "
        return all(f" {' '.join(text)} " in joined for text in self.texts)


class _Part:
    """What is looked for of the items of one task in one language."""

    def __init__(self, items: Items) -> None:
        letters = LETTERS.get(items.language.split("-")[0], 1.0)
        self.n, fewest = round(WORDS * letters), round(FEWEST * letters)
        self.too_short = 0
        self.wholes: list[_Whole] = []
        self._long: list[list[int]] = []  # by item: the numbers of its texts of n words
        cut = lru_cache(maxsize=None)(words)  # one passage has many questions
        numbers: dict[str, int] = {}  # of all texts of n words
        for example in items.examples:
            texts = (example.context, example.question, *example.right_answers)
            by_text = {text: cut(text) for text in texts if len(cut(text)) > 1}
            long = [text for text, its in by_text.items() if len(its) >= self.n]
            if long:
                found = [numbers.setdefault(text, len(numbers)) for text in long]
                self._long.append(found)
            elif sum(map(len, by_text.values())) >= fewest:
                whole = sorted(by_text.values(), key=len, reverse=True)
                self.wholes.append(_Whole(whole))
            else:
                self.too_short += 1
        self.grams, self._text = Hashed([cut(t) for t in numbers]).grams(self.n)

    def overlapping(self, found: Known) -> int:
        """Count the items with an n-gram among those found, or found as a whole."""
        texts = set(self._text[found.find(self.grams)].tolist())
        long = sum(not texts.isdisjoint(own) for own in self._long)
        return long + sum(whole.found for whole in self.wholes)
