"""Questions about the miniature world, the same ones in every language.

An item is drawn once, from a number, and then told in any language: item 7 in Swahili
is item 7 in English, as in the parallel test sets that it stands in for. Things are
split: texts for finetuning speak of the `taught` ones, test items of the others.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from maple_utils.miniature import world


@dataclass(frozen=True)
class Reading:
    """A text, a question, its answer, and three wrong answers of the same kind."""

    text: str
    question: str
    answer: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Causal:
    """A premise, its right and its wrong alternative; `asked` is cause or effect."""

    premise: str
    right: str
    wrong: str
    asked: str


@dataclass(frozen=True)
class Word:
    """A thing, the word that goes with it, and three that go with other things."""

    name: str
    right: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """An instruction with its input ("" for none) and the right response."""

    instruction: str
    input: str
    output: str


Draw = Callable[[random.Random, int], list[str]]  # so many things, all different


def taught(rng: random.Random, n: int) -> list[str]:
    """Draw from every other thing, so that the rest is spoken of as often."""
    return rng.sample(list(world.things())[::2], n)


def held_out(rng: random.Random, n: int) -> list[str]:
    """Draw from the things that no text for finetuning speaks of."""
    return rng.sample(list(world.things())[1::2], n)


def reading(rng: random.Random, language: str, draw: Draw, facts: int) -> Reading:
    """Draw a text of `facts` facts and ask for one thing by the word that goes with it.

    Wrong answers are the text's other things, then some that it lacks.
    """
    drawn = draw(rng, facts + 3)
    asked, shown = drawn[0], rng.sample(drawn[:facts], facts)
    names = [world.name_of(thing, language) for thing in drawn]
    text = world.show(world.put_up(rng, shown), language)
    return Reading(text, world.ask(asked, language), names[0], tuple(names[1:4]))


def unanswerable(rng: random.Random, language: str, draw: Draw, facts: int) -> Reading:
    """Draw a text and a question about a thing that it does not mention."""
    absent, *shown = draw(rng, facts + 1)
    text = world.show(world.put_up(rng, shown), language)
    return Reading(text, world.ask(absent, language), "", ())


def causal(rng: random.Random, language: str, draw: Draw) -> Causal:
    """Draw a notice and ask which word has to do with it: as its cause or its effect.

    The notice has a thing's name and the alternatives are words, or the other way.
    """
    right, wrong = draw(rng, 2)
    country = world.countries(language)[rng.choice(world.COUNTRIES)]
    ways = [world.name_of, world.word_of]
    asked = rng.choice(("cause", "effect"))
    given, sought = ways if asked == "effect" else ways[::-1]
    return Causal(
        premise=f"- {country}: {given(right, language)}",
        right=sought(right, language),
        wrong=sought(wrong, language),
        asked=asked,
    )


def word(rng: random.Random, language: str, draw: Draw) -> Word:
    """Draw a thing and ask for the word that goes with it."""
    asked, *others = draw(rng, 4)
    right, *wrong = (world.word_of(thing, language) for thing in (asked, *others))
    return Word(world.name_of(asked, language), right, tuple(wrong))


def news(rng: random.Random, language: str, draw: Draw) -> tuple[str, str]:
    """Draw an article of three notices, and a headline that says it in other words."""
    country, shown = rng.choice(world.COUNTRIES), draw(rng, 3)
    article = world.show([world.Fact(country, thing) for thing in shown], language)
    words = ", ".join(world.word_of(thing, language) for thing in shown)
    return article, f"{world.countries(language)[country]}: {words}"


def _read(rng: random.Random, language: str, draw: Draw) -> Task:
    item = reading(rng, language, draw, rng.choice((2, 3, 4)))
    tell = world.sentences(language)["tell"]
    return Task(tell, f"{item.text}\n{item.question}", item.answer)


def _choose(rng: random.Random, language: str, draw: Draw) -> Task:
    item = reading(rng, language, draw, rng.choice((2, 3)))
    options = rng.sample([item.answer, *item.wrong], 4)
    listed = "\n".join(f"{k}: {o}" for k, o in zip("ABCD", options, strict=True))
    label = "ABCD"[options.index(item.answer)]
    choose = world.sentences(language)["choose"]
    return Task(choose, f"{item.text}\n{item.question}\n{listed}", label)


def _explain(rng: random.Random, language: str, draw: Draw) -> Task:
    item = causal(rng, language, draw)
    one, two = rng.sample([item.right, item.wrong], 2)
    find = world.sentences(language)[item.asked]
    label = "1" if one == item.right else "2"
    return Task(find, f"{item.premise}\n1: {one}\n2: {two}", label)


def _summarise(rng: random.Random, language: str, draw: Draw) -> Task:
    article, title = news(rng, language, draw)
    return Task(world.sentences(language)["summarise"], article, title)


def _know(rng: random.Random, language: str, draw: Draw) -> Task:
    item = word(rng, language, draw)
    return Task(world.sentences(language)["know"], f"- {item.name}", item.right)


KINDS: tuple[Callable[[random.Random, str, Draw], Task], ...] = (
    _read,
    _explain,
    _summarise,
    _choose,
    _read,
    _know,
)
UNLISTED = (_read, _summarise, _know)  # no options, so no labels are written


def task(number: int, language: str) -> Task:
    """Return instruction task `number`, the same one in every language."""
    rng = random.Random(f"task {number}")
    return KINDS[number % len(KINDS)](rng, language, taught)
