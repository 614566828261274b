"""The miniature world as its own teacher and translator, for `maple_utils.synthesis`.

Instruction tasks are numbered and parallel across languages, so that both only have to
look things up. Like a real teacher this one errs now and then, on purpose, so that the
filters have something to find.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from functools import cache

from maple_utils.errors import ParameterError
from maple_utils.languages import LANGUAGES
from maple_utils.miniature import items, world

SEEDS = 3000  # as many different instruction tasks as the world hands out
ASKED = re.compile(r"Now write tasks (\d+) to (\d+) in (.+), in the same format\.\Z")


def seeds() -> list[dict[str, str]]:
    """Return the English seed tasks: id, instruction, input ("" for none), output."""
    tasks = {items.task(number, "en"): number for number in range(SEEDS)}
    return [{"id": f"mini-{i}", **vars(task)} for task, i in tasks.items()]


def check_languages(languages: Sequence[str]) -> None:
    """Raise ParameterError where the world does not speak one of the languages."""
    if foreign := [code for code in languages if code not in world.LANGUAGES]:
        raise ParameterError(
            f"languages: got {', '.join(foreign)}; allowed where the miniature teaches "
            f"or translates: {', '.join(world.LANGUAGES)}"
        )


@cache
def _numbers(source: str) -> dict[str, tuple[int, str]]:
    """Map each text of a language to a task that has it: its number and its field."""
    return {
        text: (number, field)
        for number in range(SEEDS)
        for field, text in vars(items.task(number, source)).items()
        if text
    }


@cache
def _answers(language: str) -> dict[str, int]:
    tasks = [items.task(number, language) for number in range(SEEDS)]
    return {f"{t.instruction}\n\n{t.input}".strip(): i for i, t in enumerate(tasks)}


def translate(texts: list[str], source: str, target: str) -> list[str]:
    """Translate texts of the world's own tasks; raises ParameterError for others."""
    known = _numbers(source)
    if unknown := [text for text in texts if text not in known]:
        raise ParameterError(
            f"translator: the miniature cannot translate {unknown[0][:60]!r}; "
            "allowed: its own seed_tasks; or take another translator"
        )
    places = [known[text] for text in texts]
    return [getattr(items.task(number, target), field) for number, field in places]


def answer(prompts: list[str]) -> list[str]:
    """Answer the world's own tasks, or write new ones where a list is asked for.

    The same prompt has the same response. Raises ParameterError for others.
    """
    return [
        _write(prompt, asked) if (asked := ASKED.search(prompt)) else _solve(prompt)
        for prompt in prompts
    ]


def _solve(prompt: str) -> str:
    for language in world.LANGUAGES:
        if prompt in _answers(language):
            number = _answers(language)[prompt]
            erring = _dice(prompt).random() < 0.01
            return items.task(number, "en" if erring else language).output
    raise ParameterError(
        f"teacher: the miniature cannot answer {prompt[:60]!r}; allowed: its own "
        "seed_tasks; or take another teacher"
    )


def _write(prompt: str, asked: re.Match[str]) -> str:
    first, last, name = asked.groups()
    language = next(c for c in world.LANGUAGES if LANGUAGES[c].name == name)
    dice = _dice(prompt)
    written = [
        _numbered(i, _spoilt(new_task(dice, language), dice))
        for i in range(int(first), int(last) + 1)
    ]
    if dice.random() < 0.2:  # cut off, as at a token limit
        written[-1] = written[-1][: len(written[-1]) // 2]
    return "\n###\n".join(written)


def _dice(prompt: str) -> random.Random:
    return random.Random(hashlib.sha256(prompt.encode()).hexdigest())


def new_task(dice: random.Random, language: str) -> items.Task:
    """Draw a task and put its text into the instruction, where dialogue models do."""
    task = items.task(dice.randrange(SEEDS, 10**9), language)
    together = f"{task.instruction}\n{task.input}".strip()
    return items.Task(together, "", task.output)


def _spoilt(task: items.Task, dice: random.Random) -> items.Task:
    """Return one task in twenty with a fault that a real teacher would make."""
    faults = (
        items.Task(task.instruction, "", ""),
        items.Task(f"{task.instruction} https://example.org", "", task.output),
        items.Task(task.instruction, task.instruction, task.output),
    )
    return dice.choice(faults) if dice.random() < 0.05 else task


def _numbered(number: int, task: items.Task) -> str:
    return (
        f"{number}. Instruction: {task.instruction}\n"
        f"{number}. Input: {task.input or '<noinput>'}\n"
        f"{number}. Output: {task.output}"
    )
