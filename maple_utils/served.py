"""A model behind a server, in the place of one that is loaded: the same questions.

`connect` finds out what the server offers. What it returns stands where 03 has a model:
`scoring.generate` and `scoring.loglikelihoods` take it, and `models.switched_to` asks
for an adapter by its name on the server. Address and key come from the environment
(OPENAI_BASE_URL, OPENAI_API_KEY); answers are kept, counted and paid for as in 01.

Log-likelihoods need a server that returns the log-probabilities of a prompt (`echo`).
Not all that do get them right, so they are checked against what the server itself says
of a text while writing it.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import openai
import pandas as pd

from maple_utils import models, scoring
from maple_utils.errors import ParameterError
from maple_utils.scoring import limits
from maple_utils.synthesis.recipes import estimate, missing
from maple_utils.synthesis.requests import Session, ask
from maple_utils.synthesis.teachers import (
    CHAT,
    COMPLETIONS,
    FREE,
    Answer,
    Api,
    Price,
    Teacher,
    client,
    endpoint,
)

PREFIX = "endpoint:"
PARAMETER = "base_model"
KNOWN_TEXT = "one, two, three,"  # what follows it shares no token with it
AGREEMENT = 0.1  # nats per token between writing a text and reading it (ours)
ANSWER_TOKENS = 8  # of an answer, where none was seen (ours)


@dataclass(frozen=True)
class Server:
    """How a server spells what others spell otherwise."""

    name: str
    api: str  # the one to be asked, of those that it may offer
    limit: str = "max_tokens"  # of a chat's answer


# By what its list of models says that it is "owned by". Base models know no chat, so
# that prompts go as plain text wherever that is offered.
SERVERS = {
    "vllm": Server("vLLM", "completions"),
    "llamacpp": Server("llama.cpp", "completions"),
    "me": Server("llama-cpp-python", "completions"),
    "openai": Server("OpenAI", "chat", "max_completion_tokens"),
    "system": Server("OpenAI", "chat", "max_completion_tokens"),
}
OTHER = Server("another server", "completions")


def _nats(choice: Any) -> str:
    """Return tokens and their log-probabilities, as text for the cache."""
    found = choice.logprobs
    if not found or not found.token_logprobs:
        raise ParameterError(
            "scoring: got likelihood, but the server returns no log-probabilities of a "
            "prompt; allowed: generate; e.g. -p scoring generate"
        )
    return json.dumps({"tokens": found.tokens, "nats": found.token_logprobs})


APIS = {
    "chat": CHAT,
    "completions": COMPLETIONS,
    "logprobs": Api(COMPLETIONS.send, _nats),
}


@dataclass(frozen=True, eq=False)
class Served:
    """A model or an adapter on a server, by its name there.

    `marks` tells retrained adapters of one name apart: whatever stands for the weights.
    """

    name: str
    server: Server
    session: Session
    price: Price = FREE
    marks: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 120.0

    def teacher(self, api: str, **fields: Any) -> Teacher:
        """Return who is asked, greedily; what goes into the request keys the cache."""
        fields |= {"temperature": 0.0, "seed": 0}
        sent = dict(fields)
        if api == "chat":
            sent[self.server.limit] = sent.pop("max_tokens")
        about = (self.name, sent, self.price, self.timeout, APIS[api], PARAMETER)
        mark = {"mark": self.marks[self.name]} if self.name in self.marks else {}
        return replace(endpoint(*about), decoding={**fields, **mark, "api": api})

    def writer(self, max_new_tokens: int, stop: str = "\n") -> Teacher:
        """Return who writes answers."""
        limit = {"max_tokens": max_new_tokens, "stop": [stop]}
        return self.teacher(self.server.api, **limit)

    def reader(self) -> Teacher:
        """Return who reads a text and answers with its log-probabilities."""
        return self.teacher("logprobs", max_tokens=1, echo=True, logprobs=1)


def name_of(base_model: str) -> str:
    """Return the name on the server, or "" for a model that is loaded."""
    return base_model.removeprefix(PREFIX) if base_model.startswith(PREFIX) else ""


def spent(model: Served) -> dict[str, Any]:
    """Return what was asked in this run, and what it cost."""
    about = ("asked", "prompt_tokens", "completion_tokens", "dollars", "retries")
    return {name: getattr(model.session, name) for name in about}


def check_bits(bits: int) -> None:
    """Refuse a width that a server cannot have: 4 and 8 are bitsandbytes' own."""
    if bits not in (0, 16):
        raise ParameterError(
            f"bits: got {bits} of a served model; allowed: 16 where it is served so, "
            "else 0 for not known; e.g. -p bits 0"
        )


def connect(
    name: str,
    session: Session,
    scorings: Sequence[str],
    price: Price = FREE,
    marks: Mapping[str, str] | None = None,
) -> tuple[Served, Callable]:
    """Return a served model and what counts its tokens, after a few small requests.

    Args:
        name: of the model on the server.
        session: keeps, counts and paces what is asked.
        scorings: "likelihood" among them has the server's log-probabilities checked.
        price: of a million tokens.
        marks: see `Served`; the keys are names of adapters, which the server must have.

    Raises:
        ParameterError: where address, key, name or log-probabilities will not do.
    """
    try:
        listed = {
            m.id: m.owned_by for m in client(name, parameter=PARAMETER).models.list()
        }
    except openai.OpenAIError as error:
        raise ParameterError(
            f"{PARAMETER}: the server behind OPENAI_BASE_URL does not list its models "
            f"({type(error).__name__}); check the address and OPENAI_API_KEY"
        ) from None  # its text may quote the key
    for wanted in [name, *(marks or {})]:
        if listed and wanted not in listed:
            raise ParameterError(
                f"{PARAMETER}: got {PREFIX}{wanted}; allowed: what the server has, "
                f"{', '.join(sorted(listed)[:8])}"
            )
    server = SERVERS.get(listed.get(name, ""), OTHER)
    model = Served(name, server, session, price, marks or {})
    if server.api == "completions":
        model = _with_api(model)
    if "likelihood" in scorings:
        check_nats(model)
    return model, count_bytes


def _with_api(model: Served) -> Served:
    """Ask for plain text; where the server offers none, for chats."""
    try:
        _answers(model, model.writer(1), [KNOWN_TEXT])
    except ParameterError:
        return replace(model, server=replace(model.server, api="chat"))
    return model


def check_nats(model: Served) -> None:
    """Compare what the server says of a text while writing it and while reading it.

    Some return the log-probability of each token's successor, or none. Raises
    ParameterError in one line.
    """
    refused = f"scoring: got likelihood, for which {model.name!r} cannot be used"
    advice = "allowed: generate; e.g. -p scoring generate"
    if model.server.api == "chat":
        raise ParameterError(f"{refused}: it is served as a chat alone; {advice}")
    writer = model.teacher("logprobs", max_tokens=8, stop=["\n"], logprobs=1)
    written = json.loads(_answers(model, writer, [KNOWN_TEXT])[KNOWN_TEXT].text)
    text = "".join(written["tokens"])
    request = (KNOWN_TEXT, [text])
    read = float(loglikelihoods(model, count_bytes, [request])[0][0])
    apart = abs(read - sum(written["nats"]))
    if not apart <= AGREEMENT * len(written["nats"]):
        raise ParameterError(
            f"{refused}: reading {text!r} it is {apart:.1f} nats from what it was when "
            f"writing it; {advice}"
        )


def _answers(
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
    found = _answers(model, model.writer(max_new_tokens, stop), prompts, counted)
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

    found = _answers(model, model.reader(), wanted, arrived)
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
