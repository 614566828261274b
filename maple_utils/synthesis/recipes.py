"""What a recipe is and makes, and what both recipes need to get there."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import TYPE_CHECKING

import pandas as pd
from datasets import Dataset

from maple_utils.consistency import MIN_LETTERS
from maple_utils.errors import ParameterError
from maple_utils.instructions import COLUMNS
from maple_utils.languages import LANGUAGES
from maple_utils.synthesis.filters import detected_language
from maple_utils.synthesis.requests import Session, ask_all
from maple_utils.synthesis.teachers import TOKENS_PER_BYTE, Answer, Teacher, Translator

if TYPE_CHECKING:
    from maple_utils.synthesis.bactrian_x import BactrianX
    from maple_utils.synthesis.multialpaca import MultiAlpaca

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

    `seeds` has id, instruction, input and output (see `seeds`).
    """

    seeds: pd.DataFrame
    languages: Sequence[str]
    teacher: Teacher
    translator: Translator
    session: Session

    @property
    def rarest(self) -> str:
        """Return the language with the fewest resources, by Joshi's classes."""
        return min(self.languages, key=lambda code: LANGUAGES[code].joshi)

    def translate(self, fields: Sequence[str], code: str) -> dict[str, Answer]:
        """Ask for the translations of the seeds' fields, by text; none into English.

        Where nobody is asked, texts stand in for their translations, each with its code
        before it: prompts must differ by language, or one would count for all.
        """
        if code == "en":
            return {}
        texts = [text for name in fields for text in self.seeds[name] if text]
        languages = dict.fromkeys(texts, code)
        known = ask_all(self.session, self.translator("en", code), languages)
        if self.session.wanted is None:
            return known
        return {text: Answer(f"{code}: {text}") for text in languages} | known

    def ask(self, languages: dict[str, str]) -> dict[str, Answer]:
        """Ask the teacher prompts, each with its language; return answers by prompt."""
        return ask_all(self.session, self.teacher, languages)


def forecast(recipe: "BactrianX | MultiAlpaca", job: Job) -> pd.DataFrame:
    """Estimate calls, tokens, dollars and minutes before a recipe asks for them.

    The recipe runs with what is in the cache, and what it would ask is counted: prompts
    that depend on answers to come are there with what is known now. Returns the columns
    of `estimate`, and step. Where teacher and translator answer `at_once`, a small part
    of the work is done and timed, filters included; what it asks for is in the cache
    then, like all the rest.
    """
    at_once = job.teacher.at_once and job.translator("en", job.languages[0]).at_once
    pace = _measure_pace(recipe, job) if at_once else None
    wanted: list[tuple[Teacher, dict[str, str]]] = []
    recipe.make(replace(job, session=Session(job.session.cache, wanted=wanted)))
    tables = []
    for teacher, languages in wanted:
        step, tokens = "answer", recipe.answer_tokens
        if teacher is not job.teacher:  # a translation is about as long as its text
            size = mean(len(text.encode()) for text in languages)
            step, tokens = "translate", TOKENS_PER_BYTE * size
        table = estimate(job.session, teacher, languages, tokens)
        tables.append(table.assign(step=step))
    table = pd.concat(tables).groupby(["step", "language"], sort=False).sum()
    if pace is not None:
        table["minutes"] = table["calls"] * pace / 60
    return table.reset_index()


def _measure_pace(recipe: "BactrianX | MultiAlpaca", job: Job) -> float | None:
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
    languages: dict[str, str],
    answer_tokens: float,
) -> pd.DataFrame:
    """Estimate, per language, what asking prompts would take before they are asked.

    Returns the columns language, calls, cached, prompt_tokens, completion_tokens,
    dollars, minutes. Means of stored answers are used where there are some, else
    `answer_tokens`, SECONDS and TOKENS_PER_BYTE.
    """
    longest = teacher.decoding.get("max_tokens", answer_tokens)
    assumed = min(answer_tokens, longest), SECONDS
    tokens, seconds = session.cache.averages(teacher) or assumed
    stored = session.cache.get(teacher, languages)
    rows = pd.DataFrame(
        [(code, len(p.encode()), p in stored) for p, code in languages.items()],
        columns=["language", "bytes", "cached"],
    )
    rows["calls"] = ~rows["cached"]
    rows["prompt_tokens"] = TOKENS_PER_BYTE * rows.pop("bytes") * rows["calls"]
    table = rows.groupby("language", sort=False).sum().reset_index()
    table["completion_tokens"] = table["calls"] * tokens
    table["dollars"] = teacher.price.of(
        table["prompt_tokens"], table["completion_tokens"]
    )
    table["minutes"] = table["calls"] * seconds / session.concurrency / 60
    return table.round({"prompt_tokens": 0, "completion_tokens": 0, "dollars": 4})


def sound(known: dict[str, Answer]) -> dict[str, Answer]:
    """Return the translations that are whole: not empty, cut off or filtered."""
    return {t: a for t, a in known.items() if a.text.strip() and a.finish == "stop"}


def missing(session: Session) -> str:
    """Say in words why prompts are without an answer; "" where none is."""
    if session.stopped:
        return (
            f"Not complete: budget_dollars {session.budget_dollars:g} or budget_tokens "
            f"{session.budget_tokens:,} could be exceeded by the next prompts; "
            "raise it and run again, what was answered is kept."
        )
    if session.unanswered:
        return (
            f"Not complete: {session.unanswered} prompts got no answer; run again, "
            "what was answered is kept."
        )
    return ""


def check_answers(rows: pd.DataFrame, teacher: Teacher) -> None:
    """Stop where at least 5 answers of a language were judged and 9 in 10 are wrong."""
    for code, part in rows.groupby("language"):
        long = part["output"][part["output"].str.count(r"\w") >= MIN_LETTERS]
        found = [detected_language(text, code) for text in long]
        wrong = [guess for guess in found if guess]
        if len(found) >= 5 and len(wrong) >= 0.9 * len(found):
            raise ParameterError(
                f"teacher: {teacher.name!r} answers in another language than "
                f"{LANGUAGES[code].name}: {len(wrong)} of the first {len(found)} "
                f"answers, mostly in {max(set(wrong), key=wrong.count)!r}; take "
                f"another teacher or leave {code} out of languages"
            )
