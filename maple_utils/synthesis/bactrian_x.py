"""Bactrian-X (arXiv 2305.15011): translate the question, answer it directly."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pandas as pd

from maple_utils.synthesis import filters
from maple_utils.synthesis.filters import Thresholds
from maple_utils.synthesis.recipes import Job, Synthesis, check_answers, missing, sound
from maple_utils.synthesis.seeds import without_code
from maple_utils.synthesis.teachers import Answer

FIELDS = ["instruction", "input"]
UNANSWERED = "unanswered"  # tries used up or budget reached; a later run asks again
UNTRANSLATED = "translation failed"  # empty, cut off or filtered: not asked about
PROBE = 20  # prompts per language that are judged by language before the rest is asked

# All but MultiAlpaca's filter of inputs that repeat their instruction.
TESTS = {name: test for name, test in filters.TESTS.items() if "repeats" not in name}


@dataclass(frozen=True)
class BactrianX:
    """Translate English seeds, then let the teacher answer in each language.

    Ids are parallel across languages. Instructions about code are left out.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    max_tokens: ClassVar[int] = 1024
    answer_tokens: ClassVar[float] = 200
    mark = staticmethod(without_code)

    def make(self, job: Job) -> Synthesis:
        """Return a row per seed and language.

        Raises ParameterError where the first answers in a language are in another one
        throughout.
        """
        rows = _questions(job)
        asked = rows[rows["finish"] == ""]
        first = asked.groupby("language").head(PROBE)
        answers = job.ask(_prompts(first))
        check_answers(_answered(first, answers), job.teacher)
        answers |= job.ask(_prompts(asked.drop(first.index)))
        rows.update(_answered(asked, answers))
        reasons = filters.reasons(rows, self.thresholds, TESTS)
        unasked = rows["finish"].isin([UNANSWERED, UNTRANSLATED])
        rows = rows.assign(reason=reasons.mask(unasked, rows["finish"]))
        return Synthesis(rows, missing(job.session), next(iter(answers), ""))

    def make_some(self, job: Job, count: int) -> Synthesis:
        """Make the rows of the first `count` seeds."""
        return self.make(replace(job, seeds=job.seeds.head(count)))


def _questions(job: Job) -> pd.DataFrame:
    """Return a row per seed and language whose translation arrived, to be answered.

    `finish` is "", or UNTRANSLATED for those that are not to be asked about.
    """
    parts = []
    for code in job.languages:
        known = job.translate(FIELDS, code)
        texts = {text: answer.text.strip() for text, answer in known.items()}
        part = job.seeds[["id"]].assign(
            language=code,
            **{name: [texts.get(t, t) for t in job.seeds[name]] for name in FIELDS},
            output="",
            finish="",
        )
        if code != "en":
            part.loc[~_all_in(job.seeds, sound(known)), "finish"] = UNTRANSLATED
            part = part[_all_in(job.seeds, known)]
        parts.append(part)
    # Seed by seed: a run that stops while it is answered has all languages alike.
    return pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)


def _all_in(seeds: pd.DataFrame, known: dict[str, Answer]) -> pd.Series:
    return seeds[FIELDS].isin({"", *known}).all(axis=1)


def _prompts(rows: pd.DataFrame) -> dict[str, str]:
    """Return the prompt of each row, with its language."""
    return {_question(row): row.language for row in rows.itertuples()}


def _question(row: Any) -> str:
    return f"{row.instruction}\n\n{row.input}" if row.input else row.instruction


def _answered(rows: pd.DataFrame, answers: dict[str, Answer]) -> pd.DataFrame:
    unanswered = Answer("", UNANSWERED)
    found = [answers.get(_question(row), unanswered) for row in rows.itertuples()]
    return rows.assign(
        output=[answer.text.strip() for answer in found],
        finish=[answer.finish for answer in found],
    )
