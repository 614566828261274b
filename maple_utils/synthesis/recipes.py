"""What a recipe is and makes, and what both recipes need to get there."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import pandas as pd
from datasets import Dataset

from maple_utils.errors import ParameterError
from maple_utils.instructions import COLUMNS
from maple_utils.languages import LANGUAGES
from maple_utils.synthesis.filters import Thresholds, detected_language
from maple_utils.synthesis.requests import Request, Session, ask_all
from maple_utils.synthesis.teachers import (
    TOKENS_PER_BYTE,
    Answer,
    Teacher,
    Translator,
)

SECONDS = 10.0  # an answer, assumed until the cache holds some of the teacher


@dataclass(frozen=True)
class Synthesis:
    """All rows, each with its reason ("" = kept), and what is still to be asked.

    `missing` says in words why there are prompts without an answer; "" for none.
    `prompt` is the first one that the teacher was asked.
    """

    rows: pd.DataFrame
    missing: str
    prompt: str = ""

    @property
    def kept(self) -> pd.DataFrame:
        """The rows of the dataset."""
        return self.rows[self.rows["reason"] == ""]

    @property
    def dropped(self) -> pd.DataFrame:
        """The other rows."""
        return self.rows[self.rows["reason"] != ""]

    def dataset(self) -> Dataset:
        """Return the kept rows, sorted by language; raises where there are none."""
        if self.kept.empty:
            raise ParameterError(
                f"teacher: no row is left of {len(self.rows)}; the reasons were "
                f"{self.dropped['reason'].value_counts().to_dict()}. {self.missing}"
            )
        kept = self.kept.sort_values("language", kind="stable")[list(COLUMNS)]
        return Dataset.from_pandas(kept, preserve_index=False)


@dataclass(frozen=True)
class Job:
    """What a recipe is given: English seeds, languages, who answers, who translates.

    `seeds` has id, instruction, input and output (see `seeds`). Raises ParameterError
    as `included` does.
    """

    seeds: pd.DataFrame
    languages: Sequence[str]
    teacher: Teacher
    translator: Translator
    session: Session

    def __post_init__(self):
        object.__setattr__(self, "seeds", included(self.seeds, self.languages))

    @property
    def rarest(self) -> str:
        """Return the language with the fewest resources, by Joshi's classes."""
        return min(self.languages, key=lambda code: LANGUAGES[code].joshi)

    def texts(self, fields: Sequence[str]) -> list[str]:
        """Return every text of the seeds' fields once, in order, without empty ones."""
        return list(dict.fromkeys(t for name in fields for t in self.seeds[name] if t))

    def translate(self, fields: Sequence[str], code: str) -> dict[str, Answer]:
        """Ask for the fields' translations, by text; none into English."""
        if code == "en":
            return {}
        requests = [Request(code, text) for text in self.texts(fields)]
        return ask_all(self.session, self.translator("en", code), requests)

    def translated(self, fields: Sequence[str], code: str) -> dict[str, Answer]:
        """Return those translations that are in the cache already."""
        if code == "en":
            return {}
        return self.session.cache.get(self.translator("en", code), self.texts(fields))

    def ask(self, requests: Iterable[Request]) -> dict[str, Answer]:
        """Ask the teacher; return the answers by prompt."""
        return ask_all(self.session, self.teacher, requests)

    def estimate(
        self, fields: Sequence[str], requests: Iterable[Request], tokens: float = 200
    ) -> pd.DataFrame:
        """Estimate both steps: translating the fields, and the teacher's requests."""
        texts = self.texts(fields)
        mean = sum(len(text.encode()) for text in texts) / len(texts)
        tables = []
        for code in (code for code in self.languages if code != "en"):
            into = self.translator("en", code)
            asked = [Request(code, text) for text in texts]
            table = estimate(self.session, into, asked, TOKENS_PER_BYTE * mean)
            tables.append(table.assign(step="translate"))
        answers = estimate(self.session, self.teacher, requests, tokens)
        return pd.concat([*tables, answers.assign(step="answer")], ignore_index=True)


class Recipe(Protocol):
    """A way from seeds to instruction data; `max_tokens` is what an answer may need."""

    max_tokens: ClassVar[int]

    def mark(self, seeds: pd.DataFrame) -> pd.DataFrame:
        """Add the column excluded: why a seed is left out, or ""."""

    def make(self, job: Job) -> Synthesis:
        """Ask for everything, and judge what comes."""

    def make_some(self, job: Job, count: int) -> Synthesis:
        """Make the same with the first `count` seeds or prompts per language."""

    def count(self, job: Job) -> pd.DataFrame:
        """Return what `make` has still to ask, as `Job.estimate` does."""


def forecast(recipe: Recipe, job: Job) -> pd.DataFrame:
    """Estimate calls, tokens, dollars and minutes before a recipe asks for them.

    Returns the columns of `estimate`, and step. Where teacher and translator answer
    `at_once`, a small part of the work is done and timed, filters included; what it
    asks for is in the cache then, like all the rest.
    """
    at_once = job.teacher.at_once and job.translator("en", job.languages[0]).at_once
    pace = _measure_pace(recipe, job) if at_once else None
    table = recipe.count(job)
    return table if pace is None else table.assign(minutes=table["calls"] * pace / 60)


def _measure_pace(recipe: Recipe, job: Job) -> float | None:
    """Return seconds per prompt, or None where nothing is left to ask in that part.

    The first pass warms up. The second finds its answers in the cache: the third takes
    longer by what it asks for, and by the rows that come of it.
    """
    session, seconds = Session(job.session.cache, progress=False), []
    for count in (10, 10, 40):
        asked, start = session.asked, time.perf_counter()
        recipe.make_some(replace(job, session=session), count)
        seconds.append(time.perf_counter() - start)
    asked = session.asked - asked
    return max(seconds[2] - seconds[1], 0) / asked if asked else None


def estimate(
    session: Session,
    teacher: Teacher,
    requests: Iterable[Request],
    answer_tokens: float = 200,
) -> pd.DataFrame:
    """Estimate, per language, what asking would take before anything is asked.

    Returns the columns language, calls, cached, prompt_tokens, completion_tokens,
    dollars, minutes. Means of stored answers are used where there are some, else
    `answer_tokens`, SECONDS and TOKENS_PER_BYTE.
    """
    tokens, seconds = session.cache.averages(teacher) or (answer_tokens, SECONDS)
    pairs = dict.fromkeys((request.language, request.prompt) for request in requests)
    rows = pd.DataFrame(list(pairs), columns=["language", "prompt"])
    rows["cached"] = rows["prompt"].isin(session.cache.get(teacher, rows["prompt"]))
    rows["calls"] = ~rows["cached"]
    sizes = rows["prompt"].map(lambda prompt: len(prompt.encode()))
    rows["prompt_tokens"] = sizes * TOKENS_PER_BYTE * rows["calls"]
    counts = ["calls", "cached", "prompt_tokens"]
    table = rows.groupby("language", sort=False)[counts].sum().reset_index()
    table["completion_tokens"] = table["calls"] * tokens
    table["dollars"] = teacher.price.of(
        table["prompt_tokens"], table["completion_tokens"]
    )
    table["minutes"] = table["calls"] * seconds / session.concurrency / 60
    return table.round({"prompt_tokens": 0, "completion_tokens": 0, "dollars": 4})


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


def sound(known: dict[str, Answer]) -> dict[str, Answer]:
    """Return the translations that are whole: not empty, cut off or filtered."""
    return {t: a for t, a in known.items() if a.text.strip() and a.finish == "stop"}


def missing(session: Session) -> str:
    """Say in words why prompts are without an answer; "" where none is."""
    if session.stopped:
        return (
            f"Not complete: budget_dollars {session.budget.dollars:g} or budget_tokens "
            f"{session.budget.tokens:,} could be exceeded by the next prompts; "
            "raise it and run again, what was answered is kept."
        )
    if session.unanswered:
        return (
            f"Not complete: {session.unanswered} prompts got no answer; run again, "
            "what was answered is kept."
        )
    return ""


def check_answers(rows: pd.DataFrame, teacher: Teacher, thresholds: Thresholds) -> None:
    """Stop where at least 5 answers of a language were judged and 9 in 10 are wrong."""
    for code, part in rows.groupby("language"):
        long = part["output"].str.count(r"\w") >= thresholds.lid_letters
        found = [
            detected_language(text, code, thresholds) for text in part["output"][long]
        ]
        wrong = [guess for guess in found if guess]
        if len(found) >= 5 and len(wrong) >= 0.9 * len(found):
            raise ParameterError(
                f"teacher: {teacher.name!r} answers in another language than "
                f"{LANGUAGES[code].name}: {len(wrong)} of the first {len(found)} "
                f"answers, mostly in {max(set(wrong), key=wrong.count)!r}; take "
                f"another teacher or leave {code} out of languages"
            )
