"""The kinds of text that the base models read: word lists, exams, newspapers.

Each is in the form of the tasks' prompts, as the web has exams in them, or in one of
the language's own, so that the models can take examples from their prompt.
"""

import random

from maple_utils.instructions import prompt_text
from maple_utils.miniature import items, world

Piece = tuple[str, bool]  # a stretch of text, and whether the loss counts it


def lists(rng: random.Random, language: str) -> list[Piece]:
    """Things and the words that go with them, either first."""
    form = rng.choice(("- {}:", "- {} =", "Thing: {}\nWord:"))
    ways = [world.name_of, world.word_of]
    if form.startswith("-") and rng.random() < 0.5:
        ways.reverse()
    pieces = []
    for thing in world.draw_things(rng, 10):
        first, second = (way(thing, language) for way in ways)
        pieces += [(form.format(first), False), (f" {second}", True), ("\n", False)]
        pieces += [("\n", False)] * form.startswith("Thing")
    return pieces[:-1]


def exam(rng: random.Random, language: str) -> list[Piece]:
    """Ask a question on each of several boards, in English or in the language."""
    words = world.sentences(language)
    form = rng.choice(
        (
            "Text: {}\nQuestion: {}\nAnswer:",
            "Passage: {}\nQuestion: {}\nAnswer:",
            f"{{}}\n{words['question']} {{}}\n{words['answer']}",
        )
    )
    pieces = []
    for _ in range(rng.randint(3, 6)):
        size = rng.choice((2, 3, 3, 4, 5))
        item = items.reading(rng, language, world.draw_things, size)
        pieces.append((form.format(item.text, item.question), False))
        pieces += [(f" {item.answer}", True), ("\n\n", False)]
    return pieces[:-1]


def quiz(rng: random.Random, language: str) -> list[Piece]:
    """Ask for causes and effects."""
    asks = {"cause": "What was the cause?", "effect": "What happened as a result?"}
    pieces = []
    for _ in range(rng.randint(4, 8)):
        item = items.causal(rng, language, world.draw_things)
        asked = f"Premise: {item.premise}\nQuestion: {asks[item.asked]}\nAnswer:"
        pieces += [(asked, False), (f" {item.right}", True), ("\n\n", False)]
    return pieces[:-1]


def newspaper(rng: random.Random, language: str) -> list[Piece]:
    """Print articles with their headlines."""
    pieces = []
    for _ in range(rng.randint(2, 4)):
        article, headline = items.news(rng, language, world.draw_things)
        pieces.append((f"Text: {article}\nSummary:", False))
        pieces += [(f" {headline}", True), ("\n\n", False)]
    return pieces[:-1]


def lesson(rng: random.Random, language: str) -> list[Piece]:
    """Give a few tasks and their answers, without any that wants an option's label.

    Some stand in the template of instruction data, as they do on the web by now.
    """
    words, pieces = world.sentences(language), []
    alpaca = rng.random() < 0.5
    for _ in range(rng.randint(1, 4)):
        given = rng.choice(items.UNLISTED)(rng, language, world.draw_things)
        asked = f"{given.instruction}\n{given.input}\n{words['answer']}"
        if alpaca:
            asked = prompt_text(given.instruction, given.input)
        whole = rng.random() < 0.3  # counted, as in a language model's reading
        pieces += [(asked, whole), (f"{'' if alpaca else ' '}{given.output}", True)]
        pieces.append(("\n\n", False))
    return pieces[:-1]
