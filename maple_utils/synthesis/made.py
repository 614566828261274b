"""What a recipe made, and what both recipes need to get there."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from datasets import Dataset

from maple_utils.errors import ParameterError
from maple_utils.instructions import COLUMNS
from maple_utils.languages import LANGUAGES
from maple_utils.synthesis import filters
from maple_utils.synthesis.asking import Request, Session, estimate
from maple_utils.synthesis.filters import Settings
from maple_utils.synthesis.teachers import (
    TOKENS_PER_BYTE,
    Answer,
    Teacher,
    Translator,
)

UNANSWERED = "unanswered"  # tries used up or budget reached; a later run asks again
UNTRANSLATED = "translation failed"  # empty, cut off or filtered: not asked about
PROBE = 20  # prompts per language that are judged by language before the rest is asked


@dataclass(frozen=True)
class Made:
    """All rows, each with its reason ("" = kept), and what is still to be asked.

    `missing` says in words why there are prompts without an answer; "" for none.
    """

    rows: pd.DataFrame
    missing: str

    @property
    def kept(self) -> pd.DataFrame:
        """The rows of the dataset."""
        return self.rows[self.rows["reason"] == ""]

    @property
    def dropped(self) -> pd.DataFrame:
        """The other rows."""
        return self.rows[self.rows["reason"] != ""]

    def report(self) -> pd.DataFrame:
        """Count rows by language and reason."""
        return filters.report(self.rows)

    def dataset(self) -> Dataset:
        """Return the kept rows, sorted by language; raises where there are none."""
        if self.kept.empty:
            raise ParameterError(
                f"teacher: no row is left of {len(self.rows)}; the reasons were "
                f"{self.dropped['reason'].value_counts().to_dict()}. {self.missing}"
            )
        kept = self.kept.sort_values("language", kind="stable")[list(COLUMNS)]
        return Dataset.from_pandas(kept, preserve_index=False)


def included(seeds: pd.DataFrame, languages: Sequence[str]) -> pd.DataFrame:
    """Return the seeds that no rule excludes.

    Raises ParameterError where there are none, or no language to make data in.
    """
    if not languages:
        raise ParameterError(
            "languages: got none; allowed: at least one; e.g. -p languages sw,hi"
        )
    seeds = seeds[seeds["excluded"] == ""] if "excluded" in seeds else seeds
    if seeds.empty:
        raise ParameterError(
            "seeds: none is left after exclusions; allowed: at least one row"
        )
    return seeds


def texts_of(
    seeds: pd.DataFrame, fields: Sequence[str] = ("instruction", "input")
) -> list[str]:
    """Return every text of the fields once, in order, without empty ones."""
    return list(dict.fromkeys(text for f in fields for text in seeds[f] if text))


def finished(rows: pd.DataFrame, reasons: pd.Series, session: Session) -> Made:
    """Put the reasons to the rows; rows that nobody answered keep that reason."""
    unasked = rows["finish"].isin([UNANSWERED, UNTRANSLATED])
    reasons = reasons.mask(unasked, rows["finish"])
    rows = rows.assign(reason=reasons).reset_index(drop=True)
    return Made(rows, missing(session))


def missing(session: Session) -> str:
    """Say in words why prompts are without an answer; "" where none is."""
    if session.stopped:
        return (
            f"Not complete: budget_dollars {session.budget.dollars:g} or budget_tokens "
            f"{session.budget.tokens:,} would not do at worst for the next prompts; "
            "raise it and run again, what was answered is kept."
        )
    if session.unanswered:
        return (
            f"Not complete: {session.unanswered} prompts got no answer; run again, "
            "what was answered is kept."
        )
    return ""


def sound(known: dict[str, Answer]) -> dict[str, Answer]:
    """Return the translations that are whole: not empty, cut off or filtered."""
    return {t: a for t, a in known.items() if a.text.strip() and a.finish == "stop"}


def check_answers(rows: pd.DataFrame, teacher: Teacher, settings: Settings) -> None:
    """Stop where at least 5 answers of a language were judged and 9 in 10 are wrong."""
    for code, part in rows.groupby("language"):
        long = part["output"].str.count(r"\w") >= settings.lid_letters
        found = [
            filters.detected_language(text, code, settings)
            for text in part["output"][long]
        ]
        wrong = [guess for guess in found if guess]
        if len(found) >= 5 and len(wrong) >= 0.9 * len(found):
            raise ParameterError(
                f"teacher: {teacher.name!r} answers in another language than "
                f"{LANGUAGES[code].name}: {len(wrong)} of the first {len(found)} "
                f"answers, mostly in {max(set(wrong), key=wrong.count)!r}; take "
                f"another teacher or leave {code} out of languages"
            )


def estimate_translation(
    texts: Sequence[str],
    languages: Sequence[str],
    translator: Translator,
    session: Session,
) -> list[pd.DataFrame]:
    """Estimate the translation of English texts: a table per language but English."""
    tokens = TOKENS_PER_BYTE * sum(len(text.encode()) for text in texts) / len(texts)
    tables = []
    for code in languages:
        if code != "en":
            requests = [Request(code, text) for text in texts]
            table = estimate(session, translator("en", code), requests, tokens)
            tables.append(table.assign(step="translate"))
    return tables
