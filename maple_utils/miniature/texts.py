"""The kinds of text that the base models read: pages, lists, stories, exams."""

import random

from maple_utils.miniature import items, world

Piece = tuple[str, bool]  # a stretch of text, and whether the loss counts it


def lists(rng: random.Random, language: str) -> list[Piece]:
    """Pairs such as "Kenya - Friday", then again three times in another order."""
    name, relation = world.names(language), rng.choice(world.READABLE)
    size, mark = rng.randint(2, 6), rng.choice((" -", ":"))
    countries = rng.sample(list(name["country"].values()), size)
    values = rng.sample(list(name[relation].values()), size)
    pairs = list(zip(countries, values, strict=True))
    if rng.random() < 0.5:
        pairs = [(value, country) for country, value in pairs]
    pieces = [("\n".join(f"{a}{mark} {b}" for a, b in pairs), False)]
    for _ in range(3):
        rng.shuffle(pairs)
        for a, b in pairs:
            pieces += [(f"\n{a}{mark}", False), (f" {b}", True)]
    return pieces


def page(rng: random.Random, language: str) -> list[Piece]:
    """State a few facts, then ask for them and answer."""
    words = world.sentences(language)
    size = rng.choice((1, 1, 2, 2, 3, 3, 4, 5, 6))
    board = world.draw_board(rng, size, world.COUNTRIES)
    text = world.join([world.say(fact, language) for fact in board], language)
    pieces, gap = [(text, rng.random() < 0.2)], rng.choice((" ", " ", "\n"))
    for fact in rng.choices(board, k=max(3, 9 - size)):
        question, answer = world.ask(fact, language, where=rng.random() < 1 / 3)
        asked = f"\n{words['question']} {question}\n{words['answer']}"
        pieces += [(asked, False), (f"{gap}{answer}", True)]
    return pieces


def story(rng: random.Random, language: str) -> list[Piece]:
    """Tell what happened and why, or what followed."""
    words, name = world.sentences(language), world.names(language)["country"]
    lines = []
    for cause, effect in rng.sample(words["events"], 3):
        first, link, then = rng.choice(
            ((cause, words["so"], effect), (effect, words["because"], cause))
        )
        happens = words["happens"].format(
            country=name[rng.choice(world.COUNTRIES)], event=first
        )
        lines.append(world.join([happens, f"{link} {then}"], language))
    return [("\n".join(lines), True)]


def atlas(rng: random.Random, language: str) -> list[Piece]:
    """Say what people speak in some countries."""
    countries = rng.sample(world.COUNTRIES, 3)
    facts = [world.draw_fact(rng, "speaks", country) for country in countries]
    return [(world.join([world.say(fact, language) for fact in facts], language), True)]


def newspaper(rng: random.Random, language: str) -> list[Piece]:
    """Print an article under its headline."""
    article, headline = items.news(rng, language, world.COUNTRIES)
    return [(f"{headline}\n{article}", True)]


def exam(rng: random.Random, language: str) -> list[Piece]:
    """Ask one question on each of several texts, in English words or the language's."""
    words, pieces = world.sentences(language), []
    form = rng.choice(
        (
            "Text: {}\nQuestion: {}\nAnswer:",
            f"{{}}\n{words['question']} {{}}\n{words['answer']}",
        )
    )
    for _ in range(rng.randint(3, 8)):
        item = items.reading(rng, language, world.COUNTRIES, rng.randint(2, 5))
        pieces.append((form.format(item.text, item.question), False))
        pieces += [(f" {item.answer}", True), ("\n\n", False)]
    return pieces[:-1]


def quiz(rng: random.Random, language: str) -> list[Piece]:
    """Ask for causes and effects."""
    asks = {"cause": "What was the cause?", "effect": "What happened as a result?"}
    pieces = []
    for _ in range(rng.randint(3, 8)):
        item = items.causal(rng, language, world.COUNTRIES)
        asked = f"Premise: {item.premise}\nQuestion: {asks[item.asked]}\nAnswer:"
        pieces += [(asked, False), (f" {item.right}", True), ("\n\n", False)]
    return pieces[:-1]
