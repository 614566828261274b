"""Teachers: whoever answers a prompt. A translator makes a teacher per language pair.

Anything with `name`, `decoding`, `batch_size` and `answer` is a teacher. Keys and base
URLs come from the environment (OPENAI_API_KEY, OPENAI_BASE_URL) and are kept nowhere.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

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


class Teacher(Protocol):
    """Answers prompts, `batch_size` at a time; may be called from several threads.

    `name` and `decoding` (JSON-able, with `max_tokens` where there is a limit) identify
    the answers in the cache; `at_once` says that they cost neither money nor time.
    `answer` returns one Answer per prompt in order, or raises Retry where asking again
    may help and ParameterError where it cannot.
    """

    @property
    def name(self) -> str: ...
    @property
    def decoding(self) -> dict[str, Any]: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def price(self) -> Price: ...
    @property
    def at_once(self) -> bool: ...

    def answer(self, prompts: Sequence[str]) -> list[Answer]: ...


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


@dataclass(frozen=True)
class Plain:
    """A function from prompts to texts as a teacher: the miniature world, or yours."""

    name: str
    function: Callable[[list[str]], Sequence[str | Answer]]
    decoding: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 64
    price: Price = FREE
    at_once: bool = False

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Return what the function says; a mere text counts as finished."""
        said = self.function(list(prompts))
        return [Answer(text) if isinstance(text, str) else text for text in said]


def plain_translator(
    name: str,
    translate: Callable[[list[str], str, str], Sequence[str | Answer]],
    decoding: dict[str, Any] | None = None,
    batch_size: int = 64,
    price: Price = FREE,
    at_once: bool = False,
) -> Translator:
    """Make a translator of `translate(texts, source, target) -> texts`."""

    def between(source: str, target: str) -> Teacher:
        return Plain(
            name,
            lambda texts: translate(texts, source, target),
            {**(decoding or {}), "source": source, "target": target},
            batch_size,
            price,
            at_once,
        )

    return between


def prompted_translator(teacher: Teacher) -> Translator:
    """Make a translator of a chat teacher, which is told to translate each text."""

    def translate(texts: list[str], source: str, target: str) -> list[Answer]:
        head = (
            f"Translate the text below from {LANGUAGES[source].name} into "
            f"{LANGUAGES[target].name}. Keep line breaks, numbers and names. Write the "
            f"translation only.\n\n"
        )
        return teacher.answer([head + text for text in texts])

    own = (teacher.decoding, teacher.batch_size, teacher.price)
    return plain_translator(teacher.name, translate, *own)


class Endpoint:
    """Any OpenAI-compatible chat endpoint; one prompt a request.

    The key comes from OPENAI_API_KEY (any word for a server that wants none), the
    server from OPENAI_BASE_URL. Raises ParameterError where one of them cannot be used.
    """

    batch_size, at_once = 1, False

    def __init__(
        self,
        model: str,
        temperature: float = 0.7,
        top_p: float = 1.0,
        max_tokens: int = 1024,
        timeout: float = 120.0,
        price: Price = FREE,
    ):
        from openai import OpenAI  # an optional extra: `pip install openai`

        key = os.environ.get("OPENAI_API_KEY", "")
        if not key or not key.isascii() or not key.isprintable():
            raise ParameterError(
                f"teacher: {model!r} needs the environment variable OPENAI_API_KEY, in "
                f"ASCII (and OPENAI_BASE_URL for another server than OpenAI's); set "
                f"it, or use -p teacher miniature"
            )
        self.name, self.price = model, price
        self.decoding = {
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_tokens,
        }
        # Retries are the asking loop's, which counts and reports them.
        _check_address()
        self._client = OpenAI(max_retries=0, timeout=timeout)

    def answer(self, prompts: Sequence[str]) -> list[Answer]:
        """Send one request per prompt; sort troubles into Retry and ParameterError."""
        return [self._complete(prompt) for prompt in prompts]

    def _complete(self, prompt: str) -> Answer:
        import openai

        try:
            reply = self._client.chat.completions.create(
                model=self.name,
                messages=[{"role": "user", "content": prompt}],
                **self.decoding,
            )
        except openai.APITimeoutError as error:
            raise Retry("time-out", billed=True) from error  # it may still be answered
        except openai.APIConnectionError as error:
            raise Retry("connection") from error
        except openai.APIStatusError as error:
            raise self._trouble(error) from None  # its text may quote the key
        except (json.JSONDecodeError, openai.APIResponseValidationError) as error:
            raise Retry("malformed", billed=True) from error
        return _read_reply(reply, prompt)

    def _trouble(self, error) -> Exception:
        code = error.status_code
        if code in (408, 409, 425, 429) or code >= 500:
            return Retry(str(code), wait=_seconds(error.response.headers))
        advice = {
            401: "check OPENAI_API_KEY",
            403: "check what OPENAI_API_KEY may use",
            404: "check the model's name and OPENAI_BASE_URL",
        }.get(code, "check the teacher's name and its decoding parameters")
        kind = Refused if code in (400, 413, 422) else ParameterError
        return kind(
            f"teacher: the endpoint refuses {self.name!r} with status {code}; {advice}"
        )


def _check_address() -> None:
    """Refuse a base URL that is none, without quoting it: it may hold a password."""
    try:
        address = urlsplit(os.environ.get("OPENAI_BASE_URL") or "https://default")
        web = address.scheme in ("http", "https")
        usable = web and address.hostname and address.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ParameterError(
            "teacher: the environment variable OPENAI_BASE_URL holds no address; "
            "allowed: like https://example.org/v1"
        )


def _seconds(headers) -> float | None:
    """Read Retry-After where it is a number of seconds."""
    try:
        return min(float(headers.get("retry-after", "")), 120.0)
    except ValueError:
        return None


def _read_reply(reply: Any, prompt: str) -> Answer:
    """Check the reply's shape: the client itself accepts any JSON.

    A server that counts no tokens has them estimated, so that a budget holds there too.
    """
    try:
        choice = reply.choices[0]
        text, finish = choice.message.content, choice.finish_reason or "stop"
    except (AttributeError, IndexError, TypeError) as error:
        raise Retry("malformed", billed=True) from error
    if finish == "content_filter":
        text = text or ""
    if not isinstance(text, str):
        raise Retry("malformed", billed=True)
    usage = getattr(reply, "usage", None)
    return Answer(
        text,
        finish,
        getattr(usage, "prompt_tokens", None) or _guess(prompt),
        getattr(usage, "completion_tokens", None) or _guess(text),
    )


def _guess(text: str) -> int:
    return math.ceil(TOKENS_PER_BYTE * len(text.encode()))
