"""Who is asked: what servers offer, how they spell it, and a model on one of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import openai

from maple_utils.errors import ParameterError
from maple_utils.synthesis.requests import Session
from maple_utils.synthesis.teachers import (
    CHAT,
    COMPLETIONS,
    FREE,
    Api,
    Price,
    Teacher,
    through,
)

PARAMETER = "base_model"  # that errors name


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
    asked: openai.OpenAI
    price: Price = FREE
    marks: Mapping[str, str] = field(default_factory=dict)

    def teacher(self, api: str, **fields: Any) -> Teacher:
        """Return who is asked, greedily; what goes into the request keys the cache."""
        fields |= {"temperature": 0.0, "seed": 0}
        sent = dict(fields)
        if api == "chat":
            sent[self.server.limit] = sent.pop("max_tokens")
        about = (self.name, sent, self.price, APIS[api], PARAMETER)
        mark = {"mark": self.marks[self.name]} if self.name in self.marks else {}
        teacher = through(self.asked, *about)
        return replace(teacher, decoding={**fields, **mark, "api": api})

    def writer(self, max_new_tokens: int, stop: str = "\n") -> Teacher:
        """Return who writes answers."""
        limit = {"max_tokens": max_new_tokens, "stop": [stop]}
        return self.teacher(self.server.api, **limit)

    def reader(self) -> Teacher:
        """Return who reads a text and answers with its log-probabilities."""
        return self.teacher("logprobs", max_tokens=1, echo=True, logprobs=1)
