"""What a recipe made, and what both recipes need to get there."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from datasets import Dataset

from maple_utils.instructions import COLUMNS
from maple_utils.languages import LANGUAGES, ParameterError
from maple_utils.synthesis import filters
from maple_utils.synthesis.asking import Request, Session, estimate
from maple_utils.synthesis.filters import Settings
from maple_utils.synthesis.teachers import Teacher, Translator

UNANSWERED = "unanswered"  # tries used up or budget reached; a later run asks again
PROBE = 20  # prompts per language that are judged by language before the rest is asked


@dataclass(frozen=True)
class Made:
    """All rows, each with its reason ("" = kept), and whether all were answered."""

    rows: pd.DataFrame
    complete: bool

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
                f"{self.dropped['reason'].value_counts().to_dict()}"
            )
        kept = self.kept.sort_values("language", kind="stable")[list(COLUMNS)]
        return Dataset.from_pandas(kept, preserve_index=False)


def included(seeds: pd.DataFrame) -> pd.DataFrame:
    """Return the seeds that no rule excludes; raises where there are none."""
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
    """Put the reasons to the rows; rows without an answer keep that reason."""
    reasons = reasons.where(rows["finish"] != UNANSWERED, UNANSWERED)
    rows = rows.assign(reason=reasons).reset_index(drop=True)
    return Made(rows, session.complete)


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
    longest = max(len(text.encode()) for text in texts)
    tables = []
    for code in languages:
        if code != "en":
            requests = [Request(code, text) for text in texts]
            table = estimate(session, translator("en", code), requests, longest // 3)
            tables.append(table.assign(step="translate"))
    return tables
