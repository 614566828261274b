"""Bactrian-X (arXiv 2305.15011): translate the question, answer it directly."""

from collections.abc import Sequence

import pandas as pd

from maple_utils.synthesis import asking, filters
from maple_utils.synthesis.asking import Request, Session, ask_all
from maple_utils.synthesis.filters import Settings
from maple_utils.synthesis.made import (
    PROBE,
    UNANSWERED,
    UNTRANSLATED,
    Made,
    check_answers,
    estimate_translation,
    finished,
    included,
    sound,
    texts_of,
)
from maple_utils.synthesis.teachers import Answer, Teacher, Translator


def make(
    seeds: pd.DataFrame,
    languages: Sequence[str],
    teacher: Teacher,
    translator: Translator,
    session: Session,
    settings: Settings,
) -> Made:
    """Translate English seeds, then let the teacher answer in each language.

    `seeds` has id, instruction and input (`seeds.without_code` marks what is left out).
    Ids are parallel across languages. Raises ParameterError where the first answers in
    a language are in another one throughout.
    """
    seeds = included(seeds, languages)
    rows, failed = _questions(seeds, languages, translator, session)
    first = rows.groupby("language").cumcount() < PROBE
    answers = ask_all(session, teacher, _requests(rows[first]))
    check_answers(_answered(rows[first], answers), teacher, settings)
    answers |= ask_all(session, teacher, _requests(rows))
    rows = pd.concat([_answered(rows, answers), failed], ignore_index=True)
    tests = tuple(name for name in filters.TESTS if "repeats" not in name)
    return finished(rows, filters.reasons(rows, settings, tests), session)


def estimate(
    seeds: pd.DataFrame,
    languages: Sequence[str],
    teacher: Teacher,
    translator: Translator,
    session: Session,
) -> pd.DataFrame:
    """Estimate calls, tokens, dollars and minutes before anything is asked.

    English stands in for translations that are not in the cache yet.
    """
    seeds = included(seeds, languages)
    tables = estimate_translation(texts_of(seeds), languages, translator, session)
    rows = []
    for code in languages:
        known = {} if code == "en" else _cached(session, translator("en", code), seeds)
        rows.append(_translated(seeds, code, known))
    requests = [Request(r.language, _question(r)) for r in pd.concat(rows).itertuples()]
    tables.append(asking.estimate(session, teacher, requests).assign(step="answer"))
    return pd.concat(tables, ignore_index=True)


def _cached(session: Session, between: Teacher, seeds: pd.DataFrame):
    stored = {text: session.cache.get(between, text) for text in texts_of(seeds)}
    return {text: answer for text, answer in stored.items() if answer}


def _questions(seeds, languages, translator, session: Session):
    """Return a row per seed and language, and those whose translation failed."""
    parts, failed = [], []
    for code in languages:
        known = {}
        if code != "en":
            requests = [Request(code, text) for text in texts_of(seeds)]
            known = ask_all(session, translator("en", code), requests)
        here = seeds if code == "en" else seeds[_all_in(seeds, known)]
        good = here if code == "en" else here[_all_in(here, sound(known))]
        parts.append(_translated(good, code, known))
        bad = _translated(here.drop(good.index), code, known)
        failed.append(bad.assign(output="", finish=UNTRANSLATED))
    rows = pd.concat(parts)
    # Seed by seed: a run that stops while it is answered has all languages alike.
    return rows.sort_index(kind="stable").reset_index(drop=True), pd.concat(failed)


def _all_in(seeds: pd.DataFrame, known: dict[str, Answer]) -> list[bool]:
    pairs = zip(seeds["instruction"], seeds["input"], strict=True)
    return [all(text in known for text in pair if text) for pair in pairs]


def _translated(seeds: pd.DataFrame, code: str, known: dict) -> pd.DataFrame:
    def translate(text: str) -> str:
        return known[text].text.strip() if text in known else text

    return pd.DataFrame(
        {
            "id": seeds["id"],
            "language": code,
            "instruction": seeds["instruction"].map(translate),
            "input": seeds["input"].map(translate),
        }
    )


def _question(row) -> str:
    return f"{row.instruction}\n\n{row.input}" if row.input else row.instruction


def _requests(rows: pd.DataFrame) -> list[Request]:
    return [Request(row.language, _question(row)) for row in rows.itertuples()]


def _answered(rows: pd.DataFrame, answers: dict[str, Answer]) -> pd.DataFrame:
    found = [answers.get(_question(row)) for row in rows.itertuples()]
    return rows.assign(
        output=[answer.text.strip() if answer else "" for answer in found],
        finish=[answer.finish if answer else UNANSWERED for answer in found],
    )
