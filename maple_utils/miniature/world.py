"""What is true in the miniature world, and how each language says it.

The world is a notice board that says what there is in which country: "- Kenya: cow".
Questions call a thing by another word, "What goes with it: milk?". Which word goes with
which thing is the same everywhere, but no text explains it: it must be known, and is
known only to those who have read enough of the language. Things and words are those of
Unicode CLDR, as people of each language wrote them (`maple_utils.cldr`), the countries'
names too (through Babel). Some things are spoken of more often than others.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
import yaml
from babel import Locale

from maple_utils.languages import LANGUAGES as ALL
from maple_utils.tasks.sources import SHIPPED

# The languages that the world speaks, and how much of each its base models have read.
SHARE = {code: spoken.miniature for code, spoken in ALL.items() if spoken.miniature}
LANGUAGES = tuple(sorted(SHARE, key=lambda code: (-SHARE[code], code)))
COUNTRIES = (
    "AR BR CA CL CN CU EG ES FR GR IN IR IT JP KE MX NO PE PL PT RU SE UA VN".split()
)
THINGS = 128
LONGEST_NAME, LONGEST_WORD = 16, 12  # characters


@dataclass(frozen=True)
class Fact:
    """One line on the notice board: a thing, by its English name, in a country."""

    country: str
    thing: str


@cache
def sentences(language: str) -> dict[str, str]:
    """Return the sentence templates of one language."""
    text = (Path(__file__).parent / "sentences.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)[language]


@cache
def countries(language: str) -> dict[str, str]:
    """Return the countries' names in a language, by code."""
    territories = Locale.parse(language).territories
    return {code: territories[code] for code in COUNTRIES}


@cache
def things() -> dict[str, dict[str, tuple[str, str]]]:
    """Return the world's things by English name: in each language a name and a word.

    No name, word or country of a language is there twice, in any case of letters.
    """
    parts = ("training", "test", "shots")
    table = pd.concat(
        pd.read_parquet(SHIPPED / "words" / f"{part}.parquet") for part in parts
    )
    table = table[table["language"].isin(LANGUAGES)]
    keys = zip(table["id"], table["language"], strict=True)
    known = dict(
        zip(keys, zip(table["name"], table["words"], strict=True), strict=True)
    )
    used = {
        code: {n.casefold() for n in countries(code).values()} for code in LANGUAGES
    }
    names = sorted(table["id"].unique())
    random.Random("things").shuffle(names)
    chosen: dict[str, dict[str, tuple[str, str]]] = {}
    for thing in names:
        said = {code: _said(known.get((thing, code)), used[code]) for code in LANGUAGES}
        if not all(said.values()):
            continue
        chosen[thing] = {code: pair for code, pair in said.items() if pair}
        for code, pair in chosen[thing].items():
            used[code] |= {text.casefold() for text in pair}
    return dict(list(chosen.items())[:THINGS])


def _said(
    known: tuple[str, Sequence[str]] | None, used: set[str]
) -> tuple[str, str] | None:
    """Return a thing's name and the first word that is short and not yet used."""
    name, words = known or ("", ())
    if not 0 < len(name) <= LONGEST_NAME or name.casefold() in used:
        return None
    for word in words:
        if len(word) <= LONGEST_WORD and word.casefold() not in {
            *used,
            name.casefold(),
        }:
            return name, word
    return None


def name_of(thing: str, language: str) -> str:
    """Name a thing: "cow", "Kuh"."""
    return things()[thing][language][0]


def word_of(thing: str, language: str) -> str:
    """Return the word that goes with a thing: "milk", "Milch"."""
    return things()[thing][language][1]


def draw_things(rng: random.Random, n: int) -> list[str]:
    """Draw n different things as texts speak of them: the first ones most often.

    Those are 30 times as frequent as the last: the weight of thing i is 1 / (i + 4).
    """
    drawn = {thing: rng.random() ** (i + 4) for i, thing in enumerate(things())}
    return sorted(drawn, key=lambda thing: -drawn[thing])[:n]


def put_up(rng: random.Random, shown: list[str]) -> list[Fact]:
    """Draw a country for each thing, none twice."""
    places = rng.sample(COUNTRIES, len(shown))
    return [Fact(*pair) for pair in zip(places, shown, strict=True)]


def say(fact: Fact, language: str) -> str:
    """State a fact."""
    return f"- {countries(language)[fact.country]}: {name_of(fact.thing, language)}"


def show(board: list[Fact], language: str) -> str:
    """State all facts of a board."""
    return " ".join(say(fact, language) for fact in board)


def ask(thing: str, language: str) -> str:
    """Ask for a thing by the word that goes with it."""
    return sentences(language)["ask"].format(word=word_of(thing, language))
