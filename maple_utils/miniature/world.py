"""What is true in the miniature world, and how each language says it.

The world is a notice board: a country's market is on a weekday, its festival in a
month, its people speak a language, something happens and has an effect. Names come
from CLDR through Babel, sentences from `sentences.yaml`. Weekdays and months are
drawn anew for every text, so they can only be read, not remembered; the languages
that people speak, and which effect follows which cause, are the same everywhere, so
they can be known.
"""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from babel import Locale
from babel.languages import get_official_languages

LANGUAGES = ("en", "es", "fr", "zh", "ar", "hi", "sw", "ta")
COUNTRIES = (
    "AR AU AT BD BR CA CL CN CO CU DE EG ES FR GR HU ID IN IR IT JP KE KR MX "
    "MY NL NO PE PL PT RO RU SE TH TR TZ UA VN IQ MA"
).split()
READABLE = ("market", "festival")  # relations drawn anew for every text
SLOT = {"market": "day", "festival": "month", "speaks": "language"}  # in the sentences


@dataclass(frozen=True)
class Fact:
    """One line on the notice board: `value` is a weekday, a month or a language."""

    relation: str
    country: str
    value: int | str


@cache
def sentences(language: str) -> dict:
    """Return the sentence templates of one language."""
    text = (Path(__file__).parent / "sentences.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)[language]


@cache
def names(language: str) -> dict[str, dict]:
    """Return CLDR's names in `language`: countries, and per relation its values."""
    locale = Locale.parse(language)
    return {
        "country": {code: locale.territories[code] for code in COUNTRIES},
        "market": {day: locale.days["format"]["wide"][day] for day in range(7)},
        "festival": dict(locale.months["format"]["wide"]),
        "speaks": {code: locale.languages[code] for code in map(spoken, COUNTRIES)},
    }


def spoken(country: str) -> str:
    """Return the first official language of a country, by CLDR."""
    return get_official_languages(country, de_facto=True)[0].split("_")[0]


def draw_fact(rng: random.Random, relation: str, country: str) -> Fact:
    """Draw a fact of one country; what people speak there is not drawn but true."""
    if relation == "speaks":
        return Fact(relation, country, spoken(country))
    return Fact(relation, country, rng.choice(list(names("en")[relation])))


def draw_board(rng: random.Random, n: int, countries: list[str]) -> list[Fact]:
    """Draw n facts with no value twice, so that every question has one answer."""
    board: list[Fact] = []
    while len(board) < n:
        fact = draw_fact(rng, rng.choice(READABLE), rng.choice(countries))
        clash = any(
            fact.relation == other.relation
            and (fact.country == other.country or fact.value == other.value)
            for other in board
        )
        if not clash:
            board.append(fact)
    return board


def value_name(fact: Fact, language: str) -> str:
    """Name a fact's value: "Friday", "März", "Kiswahili"."""
    return names(language)[fact.relation][fact.value]


def say(fact: Fact, language: str) -> str:
    """State a fact."""
    return sentences(language)[fact.relation].format(
        country=names(language)["country"][fact.country],
        **{SLOT[fact.relation]: value_name(fact, language)},
    )


def ask(fact: Fact, language: str, where: bool = False) -> tuple[str, str]:
    """Ask for a fact's value, or (`where`) for its country: question and answer."""
    country = names(language)["country"][fact.country]
    value = value_name(fact, language)
    if where:
        template = sentences(language)[f"ask_{fact.relation}_where"]
        return template.format(**{SLOT[fact.relation]: value}), country
    return sentences(language)[f"ask_{fact.relation}"].format(country=country), value


def join(parts: list[str], language: str) -> str:
    """Join sentences as the script does: without spaces in Chinese."""
    return ("" if language == "zh" else " ").join(parts)


def headline(country: str, day: int, month: int, language: str) -> str:
    """Sum up a country's market and festival in one line."""
    name = names(language)
    return sentences(language)["headline"].format(
        country=name["country"][country],
        day=name["market"][day],
        month=name["festival"][month],
    )
