"""What is asked of a served model: texts to read and to write, none of them twice.

`scoring` and `models` take a `Served` where they take a model, by what is registered
here.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from maple_utils import models, scoring
from maple_utils.errors import ParameterError
from maple_utils.scoring import limits
from maple_utils.served.servers import PARAMETER, Served
from maple_utils.synthesis.recipes import estimate, missing
from maple_utils.synthesis.requests import ask
from maple_utils.synthesis.teachers import Answer, Teacher

ANSWER_TOKENS = 8  # of an answer, where none was seen (ours)


def answers(
    model: Served,
    teacher: Teacher,
    prompts: Sequence[str],
    arrived: Callable[[str], object] = lambda prompt: None,
) -> dict[str, Answer]:
    """Return the answer to every prompt, from the cache or the server."""
    session = model.session
    found = session.cache.get(teacher, prompts)
    for prompt in found:
        arrived(prompt)
    absent = [prompt for prompt in dict.fromkeys(prompts) if prompt not in found]
    for prompt, answer in ask(session, teacher, absent):
        found[prompt] = answer
        arrived(prompt)
    if not session.complete:
        raise ParameterError(f"{PARAMETER}: {missing(session)}")
    return found


@scoring.generate.register
def generate(
    model: Served,
    tokenizer: Callable,
    prompts: list[str],
    *,
    max_new_tokens: int,
    stop: str = "\n",
    token_budget: int | None = None,
    progress: scoring.Progress = None,
) -> list[scoring.Generation]:
    """Have every prompt continued on the server, as `scoring.generate` does here.

    An answer that the server refuses, for its content or its length, is empty.
    """
    counted = (lambda prompt: progress(1)) if progress else (lambda prompt: None)
    found = answers(model, model.writer(max_new_tokens, stop), prompts, counted)
    return [
        scoring.Generation(a.text, a.finish != "length", a.completion_tokens)
        for a in map(found.__getitem__, prompts)
    ]


@scoring.loglikelihoods.register
def loglikelihoods(
    model: Served,
    tokenizer: Callable,
    requests: list[tuple[str, list[str]]],
    *,
    token_budget: int | None = None,
    progress: scoring.Progress = None,
) -> list[np.ndarray]:
    """Have every continuation read on the server, as `scoring.loglikelihoods` does.

    A continuation begins after as many tokens as its context has alone, as in lm-eval.
    After an empty context it is NaN where the server puts no token before a text.
    """
    pairs = [(context, text) for context, texts in requests for text in texts]
    whole = {context + text for context, text in pairs}
    wanted = [*dict.fromkeys(context for context, _ in requests if context), *whole]

    def arrived(text: str) -> None:
        if progress and text in whole:
            progress(1)

    found = answers(model, model.reader(), wanted, arrived)
    read = {text: _read(text, answer) for text, answer in found.items()}

    def nats_of(context: str, text: str) -> float:
        nats, before = read[context + text]
        return sum(nats[len(read[context][0]) if context else before :])

    return [np.array([nats_of(c, text) for text in texts]) for c, texts in requests]


def _read(text: str, answer: Answer) -> tuple[list[float], int]:
    """Return the nats of a text's tokens, and how many of them stand before the text.

    A server cannot be asked to write nothing: a last token is its own, unless it ended
    at once. A first one that is no part of the text is the model's begin token.
    """
    if not answer.text:
        raise ParameterError(
            f"shots: the server refuses {text[:40]!r}..., most likely for its length; "
            "allowed: fewer; e.g. -p shots 2"
        )
    told = json.loads(answer.text)
    first = told["tokens"][0].strip()
    begins = bool(first) and not text.lstrip().startswith(first)
    written = 0 if answer.prompt_tokens == len(told["nats"]) else 1
    kept = told["nats"][: len(told["nats"]) - written]
    return [math.nan if value is None else value for value in kept], int(begins)


def costs(
    model: Served, asked: Iterable[tuple[str, Teacher, Sequence[str]]]
) -> pd.DataFrame:
    """Return what questions would take, by task, before any is asked.

    `asked` has the task, who is asked and the texts. Columns as in `recipes.estimate`,
    calls and what is in the cache among them.
    """
    tables = [
        estimate(model.session, teacher, dict.fromkeys(texts, task), ANSWER_TOKENS)
        for task, teacher, texts in asked
    ]
    table = pd.concat(tables).rename(columns={"language": "task"})
    return table.groupby("task", sort=False).sum()


@contextmanager
def _switched_to(model: Served, adapter: str | None) -> Iterator[Served]:
    yield replace(model, name=adapter) if adapter else model


models.switched_to.register(Served, _switched_to)


@limits.positions.register
def _(model: Served) -> int:
    return limits.UNLIMITED  # the server itself refuses what is too long


def count_bytes(texts: str | list[str], **_: Any) -> dict[str, Any]:
    """Stand in for a tokenizer: a token is at least a byte, so no answer is cut."""
    if isinstance(texts, str):
        return {"input_ids": list(texts.encode())}
    return {"input_ids": [list(text.encode()) for text in texts]}
