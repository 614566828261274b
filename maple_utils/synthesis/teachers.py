"""Teachers: whoever answers a prompt. A translator makes a teacher per language pair.

Keys and base URLs of endpoints come from the environment (OPENAI_API_KEY,
OPENAI_BASE_URL) and are kept nowhere.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import openai

from maple_utils.errors import ParameterError
from maple_utils.languages import LANGUAGES

# Assumed where nothing better is known: about 0.3 over the scripts of the kit.
TOKENS_PER_BYTE = 0.3


@dataclass(frozen=True)
class Answer:
    """One answer; `finish` is "stop", "length" (cut off) or "content_filter"."""

    text: str
    finish: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens of prompts and of answers."""

    prompt: float = 0.0
    answer: float = 0.0

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return dollars."""
        return (prompt_tokens * self.prompt + completion_tokens * self.answer) / 1e6


FREE = Price()  # one's own machine
OFFLINE = {  # what does without a server, by the parameter that asked for one
    "teacher": "teacher miniature",
    "base_model": "base_model miniature-llama",
}


@dataclass
class Teacher:
    """Answers prompts, `batch_size` at a time, in several threads at once.

    `name` and `decoding` (JSON-able, with `max_tokens` where there is a limit) identify
    the answers in the cache; `at_once` says that they cost neither money nor time.
    `answer` returns one Answer or text per prompt, in order, or raises Retry where
    asking again may help and ParameterError where it cannot.
    """

    name: str
    answer: Callable[[list[str]], Sequence[str | Answer]]
    decoding: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    price: Price = FREE
    at_once: bool = False
    parameter: str = "teacher"  # that an error names


# (source, target) -> a teacher whose prompts are texts and whose answers are
# translations; language codes as in LANGUAGES.
Translator = Callable[[str, str], Teacher]


class Retry(Exception):  # noqa: N818
    """The answer did not come; asking again may help.

    `reason` is a word for the report, `wait` the seconds that the server asked for, and
    `billed` says that the server answered, so that tokens may have been paid.
    """

    def __init__(self, reason: str, wait: float | None = None, billed: bool = False):
        super().__init__(reason)
        self.reason, self.wait, self.billed = reason, wait, billed


class Refused(ParameterError):  # noqa: N818
    """The endpoint would not take this prompt; others it may."""


def hash_of(*texts: str) -> int:
    """Return a 63-bit number from texts, the same on every machine."""
    return int.from_bytes(hashlib.sha256("\0".join(texts).encode()).digest()[:8]) >> 1


def plain_translator(
    name: str,
    translate: Callable[..., Sequence[str | Answer]],
    decoding: dict[str, Any] | None = None,
    **about: Any,
) -> Translator:
    """Make a translator of `translate(texts, source=..., target=...) -> texts`.

    `about` has the other fields of each Teacher.
    """

    def between(source: str, target: str) -> Teacher:
        pair = {"source": source, "target": target}
        answer = partial(translate, **pair)
        return Teacher(name, answer, {**(decoding or {}), **pair}, **about)

    return between


def prompted_translator(teacher: Teacher) -> Translator:
    """Make a translator of a chat teacher, which is told to translate each text."""

    def translate(texts: list[str], source: str, target: str) -> Sequence[str | Answer]:
        head = (
            f"Translate the text below from {LANGUAGES[source].name} into "
            f"{LANGUAGES[target].name}. Keep line breaks, numbers and names. Write the "
            f"translation only.\n\n"
        )
        return teacher.answer([head + text for text in texts])

    about = {"batch_size": teacher.batch_size, "price": teacher.price}
    return plain_translator(teacher.name, translate, teacher.decoding, **about)


@dataclass(frozen=True)
class Api:
    """One of the ways in which OpenAI's API is asked, and what is read of a choice."""

    send: Callable[..., Any]  # (client, prompt, **fields) -> reply
    read: Callable[[Any], str | None]  # choice -> text


CHAT = Api(
    lambda client, prompt, **fields: client.chat.completions.create(
        messages=[{"role": "user", "content": prompt}], **fields
    ),
    lambda choice: choice.message.content,
)
COMPLETIONS = Api(
    lambda client, prompt, **fields: client.completions.create(prompt=prompt, **fields),
    lambda choice: choice.text,
)


def endpoint(
    model: str, decoding: dict[str, Any], price: Price = FREE, timeout: float = 120.0
) -> Teacher:
    """Return a chat model behind any OpenAI-compatible endpoint; see `through`."""
    return through(client(model, timeout), model, decoding, price)


def through(
    asked: openai.OpenAI,
    model: str,
    decoding: dict[str, Any],
    price: Price = FREE,
    api: Api = CHAT,
    parameter: str = "teacher",
) -> Teacher:
    """Return a model that a client, as `client` returns it, asks a prompt a request.

    `decoding` goes into each request as it is. Errors name the `parameter` by which the
    model was asked for.
    """

    def answer(prompts: list[str]) -> list[Answer]:
        try:
            return [_complete(asked, api, model, decoding, text) for text in prompts]
        except openai.APIStatusError as error:
            raise _trouble(error, model, parameter) from None  # it may quote the key

    return Teacher(model, answer, decoding, 1, price, parameter=parameter)


def client(
    model: str, timeout: float = 120.0, parameter: str = "teacher"
) -> openai.OpenAI:
    """Return a client of the server that the environment names.

    The key comes from OPENAI_API_KEY (any word for a server that wants none), the
    server from OPENAI_BASE_URL. Raises ParameterError where one cannot be used.
    """
    key = os.environ.get("OPENAI_API_KEY", "")
    if not key or not key.isascii() or not key.isprintable():
        raise ParameterError(
            f"{parameter}: {model!r} needs the environment variable OPENAI_API_KEY, in "
            f"ASCII (and OPENAI_BASE_URL for another server than OpenAI's); set "
            f"it, or use -p {OFFLINE[parameter]}"
        )
    _check_address(parameter)
    # Retries are the asking loop's, which counts, reports and pays for them.
    return openai.OpenAI(max_retries=0, timeout=timeout)


def _check_address(parameter: str) -> None:
    """Refuse a base URL that is none, without quoting it: it may hold a password."""
    try:
        address = urlsplit(os.environ.get("OPENAI_BASE_URL") or "https://default")
        web = address.scheme in ("http", "https")
        usable = web and address.hostname and address.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ParameterError(
            f"{parameter}: the environment variable OPENAI_BASE_URL holds no address; "
            "allowed: like https://example.org/v1"
        )


def _complete(
    asked: openai.OpenAI, api: Api, model: str, decoding: dict[str, Any], prompt: str
) -> Answer:
    """Send one request; raise Retry where asking again may help."""
    try:
        reply = api.send(asked, prompt, model=model, **decoding)
    except openai.APITimeoutError as error:
        raise Retry("time-out", billed=True) from error  # it may still be answered
    except openai.APIConnectionError as error:
        raise Retry("connection") from error
    except (json.JSONDecodeError, openai.APIResponseValidationError) as error:
        raise Retry("malformed", billed=True) from error
    return _read_reply(reply, prompt, api)


def _trouble(error: openai.APIStatusError, model: str, parameter: str) -> Exception:
    code = error.status_code
    if code in (408, 409, 425, 429) or code >= 500:
        return Retry(str(code), wait=_seconds(error.response.headers))
    advice = {
        401: "check OPENAI_API_KEY",
        403: "check what OPENAI_API_KEY may use",
        404: "check the model's name and OPENAI_BASE_URL",
    }.get(code, f"check the {parameter}'s name and its decoding parameters")
    kind = Refused if code in (400, 413, 422) else ParameterError
    return kind(
        f"{parameter}: the endpoint refuses {model!r} with status {code}; {advice}"
    )


def _seconds(headers) -> float | None:
    """Read Retry-After where it is a number of seconds."""
    try:
        return min(float(headers.get("retry-after", "")), 120.0)
    except ValueError:
        return None


def _read_reply(reply: Any, prompt: str, api: Api) -> Answer:
    """Check the reply's shape: the client itself accepts any JSON.

    A server that counts no tokens has them estimated, so that a budget holds there too.
    """
    try:
        choice = reply.choices[0]
        text, finish = api.read(choice), choice.finish_reason or "stop"
    except (AttributeError, IndexError, TypeError) as error:
        raise Retry("malformed", billed=True) from error
    if finish == "content_filter":
        text = text or ""
    if not isinstance(text, str):
        raise Retry("malformed", billed=True)
    usage = getattr(reply, "usage", None)
    written = getattr(usage, "completion_tokens", None)  # 0 where it ended at once
    return Answer(
        text,
        finish,
        getattr(usage, "prompt_tokens", None) or _guess(prompt),
        _guess(text) if written is None else written,
    )


def _guess(text: str) -> int:
    return math.ceil(TOKENS_PER_BYTE * len(text.encode()))
