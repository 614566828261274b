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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import openai

from maple_utils.errors import ParameterError
from maple_utils.served.asking import answers, count_bytes, loglikelihoods
from maple_utils.served.servers import OTHER, PARAMETER, SERVERS, Served
from maple_utils.synthesis.requests import Session
from maple_utils.synthesis.teachers import FREE, Price, client

PREFIX = "endpoint:"
KNOWN_TEXT = "one, two, three,"  # what follows it shares no token with it
AGREEMENT = 0.1  # nats per token between writing a text and reading it (ours)


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
    asked = client(name, parameter=PARAMETER)
    listed = _listed(asked)
    lists_all = set(listed.values()) & set(SERVERS)  # others load what they are asked
    for wanted in [name, *(marks or {})]:
        if lists_all and wanted not in listed:
            raise ParameterError(
                f"{PARAMETER}: got {PREFIX}{wanted}; allowed: what the server has, "
                f"{', '.join(sorted(listed)[:8])}"
            )
    server = SERVERS.get(listed.get(name, ""), OTHER)
    model = Served(name, server, session, asked, price, marks or {})
    if server.api == "completions":
        model = _with_api(model)
    if "likelihood" in scorings:
        check_nats(model)
    return model, count_bytes


def _listed(asked: openai.OpenAI) -> dict[str, str]:
    """Return who owns each model that the server lists; none where it cannot tell."""
    try:
        return {model.id: model.owned_by for model in asked.models.list()}
    except (openai.InternalServerError, openai.NotFoundError):
        return {}  # as transformers does without a hub
    except openai.OpenAIError as error:
        raise ParameterError(
            f"{PARAMETER}: the server behind OPENAI_BASE_URL does not list its models "
            f"({type(error).__name__}); check the address and OPENAI_API_KEY"
        ) from None  # its text may quote the key


def _with_api(model: Served) -> Served:
    """Ask for plain text; where the server offers none, for chats."""
    try:
        answers(model, model.writer(1), [KNOWN_TEXT])
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
    written = json.loads(answers(model, writer, [KNOWN_TEXT])[KNOWN_TEXT].text)
    text = "".join(written["tokens"])
    request = (KNOWN_TEXT, [text])
    read = float(loglikelihoods(model, count_bytes, [request])[0][0])
    apart = abs(read - sum(written["nats"]))
    if not text or not apart <= AGREEMENT * len(written["nats"]):
        raise ParameterError(
            f"{refused}: reading {text!r} it is {apart:.1f} nats from what it was when "
            f"writing it; {advice}"
        )
