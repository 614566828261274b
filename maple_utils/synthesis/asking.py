"""Ask a teacher many prompts: never twice, several at once, within a budget.

Answers go into SQLite as they arrive, under the hash of model, decoding parameters and
prompt. A run that was killed asks only what is missing when it is started again.
"""

import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import pandas as pd
from tqdm.auto import tqdm

from maple_utils.errors import ParameterError
from maple_utils.synthesis.cache import Cache
from maple_utils.synthesis.teachers import (
    TOKENS_PER_BYTE,
    Answer,
    Price,
    Refused,
    Retry,
    Teacher,
)


@dataclass(frozen=True)
class Request:
    """A prompt, and the language that it is counted under."""

    language: str
    prompt: str


@dataclass(frozen=True)
class Budget:
    """What a run may spend, on teacher and translator together."""

    dollars: float = math.inf
    tokens: float = math.inf

    def __post_init__(self):
        for name, value in (("dollars", self.dollars), ("tokens", self.tokens)):
            if not value > 0:
                raise ParameterError(
                    f"budget_{name}: got {value}; allowed: more than 0; e.g. "
                    f"-p budget_{name} {5.0 if name == 'dollars' else 1000000}"
                )


@dataclass
class Session:
    """Where answers are kept, how many are asked for at once, what has been spent.

    `tries` per prompt; the n-th retry waits about `first_wait` * 2**n seconds, or as
    long as the server asks for. `stopped` is set once the budget is reached.
    """

    cache: Cache
    budget: Budget = field(default_factory=Budget)
    concurrency: int = 8
    tries: int = 6
    first_wait: float = 1.0
    progress: bool = True
    asked: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    retries: Counter = field(default_factory=Counter)
    unanswered: int = 0
    stopped: bool = False

    def __post_init__(self):
        if not 1 <= self.concurrency <= 1024:
            raise ParameterError(
                f"concurrency: got {self.concurrency}; allowed: an integer "
                f"from 1 to 1024"
            )

    @property
    def complete(self) -> bool:
        """Whether every prompt so far has its answer."""
        return not self.stopped and not self.unanswered

    def fits(self, price: Price, prompt_tokens: int, completion_tokens: int) -> bool:
        """Say whether so many tokens more stay within the budget."""
        total = self.prompt_tokens + prompt_tokens
        total += self.completion_tokens + completion_tokens
        cost = self.dollars + price.of(prompt_tokens, completion_tokens)
        return cost <= self.budget.dollars and total <= self.budget.tokens

    def book(self, price: Price, prompt_tokens: int, completion_tokens: int) -> None:
        """Count tokens as spent."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.dollars += price.of(prompt_tokens, completion_tokens)


def ask_all(
    session: Session, teacher: Teacher, requests: Iterable[Request]
) -> dict[str, Answer]:
    """Return the answer of every prompt that has one, from the cache or the teacher.

    A prompt stays without an answer when its tries are used up (counted in
    `session.unanswered`) or when the budget is reached (`session.stopped`). One that an
    endpoint refuses, while it takes others, is answered by "content_filter". Raises
    ParameterError where the teacher refuses all, or answers nothing at all any more;
    what had arrived until then is in the cache.
    """
    language = {request.prompt: request.language for request in requests}
    stored = {prompt: session.cache.get(teacher, prompt) for prompt in language}
    answers = {prompt: answer for prompt, answer in stored.items() if answer}
    missing = [prompt for prompt in language if prompt not in answers]
    bars = _bars(session, [language[prompt] for prompt in missing])
    for prompt, answer in _ask(session, teacher, missing):
        answers[prompt] = answer
        bars[language[prompt]].update()
    for bar in bars.values():
        bar.close()
    return {prompt: answers[prompt] for prompt in language if prompt in answers}


def _bars(session: Session, languages: list[str]) -> dict[str, tqdm]:
    return {
        code: tqdm(total=total, desc=f"Asking {code}", disable=not session.progress)
        for code, total in Counter(languages).items()
    }


def _ask(session: Session, teacher: Teacher, prompts: list[str]):
    """Yield (prompt, answer) as answers arrive, each stored before it is yielded."""
    size = teacher.batch_size
    batches = deque(prompts[i : i + size] for i in range(0, len(prompts), size))
    stop = threading.Event()
    waiting: dict[Future, list[str]] = {}
    refused: list[tuple[list[str], Refused]] = []
    silent = 0
    with ThreadPoolExecutor(session.concurrency) as pool:
        try:
            while batches or waiting:
                _submit(session, teacher, batches, waiting, pool, stop)
                if not waiting:
                    session.stopped = True
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    batch = waiting.pop(future)
                    arrived = _collect(session, teacher, batch, future)
                    if refusal := future.result().refusal:
                        refused.append((batch, refusal))
                    silent = 0 if arrived else silent + 1
                    yield from arrived
                if silent >= 2 * session.concurrency:
                    raise _silence(session, teacher, silent)
        finally:
            # Whatever ends the loop, answers under way are paid for: store them too.
            stop.set()
            for future in wait(waiting).done:
                if not future.exception():
                    _collect(session, teacher, waiting[future], future)
    yield from _filtered(session, teacher, refused)


def _filtered(session, teacher, refused: list[tuple[list[str], Refused]]):
    """Store that an endpoint's filter answers these; raise where it answered none."""
    if refused and not session.cache.averages(teacher):
        raise refused[0][1]
    for prompt in (prompt for batch, _ in refused for prompt in batch):
        answer = Answer("", "content_filter")
        session.cache.put(teacher, prompt, answer, 0.0)
        yield prompt, answer


def _submit(session, teacher, batches, waiting, pool, stop) -> None:
    """Keep `concurrency` batches under way, as long as the budget holds at worst.

    At worst, each of their tries is billed in full.
    """
    while batches and len(waiting) < session.concurrency:
        at_worst = [_worst(teacher, batch) for batch in [*waiting.values(), batches[0]]]
        tokens = (session.tries * sum(of) for of in zip(*at_worst, strict=True))
        if not session.fits(teacher.price, *tokens):
            return
        batch = batches.popleft()
        waiting[pool.submit(_patiently, session, teacher, batch, stop)] = batch


def _worst(teacher: Teacher, batch: list[str]) -> tuple[int, int]:
    """Bound the tokens of a batch: a token is at least a byte, and 64 for the frame."""
    longest = teacher.decoding.get("max_tokens", 0)
    return sum(len(p.encode()) + 64 for p in batch), len(batch) * longest


@dataclass(frozen=True)
class _Outcome:
    answers: list[Answer]
    seconds: float
    retries: Counter
    billed: int
    refusal: Refused | None = None


def _patiently(session, teacher, batch, stop: threading.Event) -> _Outcome:
    """Ask until an answer comes, the tries are used up or `stop` is set."""
    retries, billed = Counter(), 0
    for attempt in range(session.tries):
        started = time.perf_counter()
        try:
            answers = teacher.answer(batch)
            return _Outcome(answers, time.perf_counter() - started, retries, billed)
        except Refused as refusal:
            retries["refused"] += 1
            return _Outcome([], 0.0, retries, billed, refusal)
        except Retry as trouble:
            retries[trouble.reason] += 1
            billed += trouble.billed
            pause = min(session.first_wait * 2**attempt, 60) * random.uniform(0.5, 1.5)
            pause = trouble.wait or pause
        if attempt + 1 < session.tries and stop.wait(pause):
            break
    return _Outcome([], 0.0, retries, billed)


def _collect(session, teacher, batch: list[str], future: Future):
    """Book an outcome and store its answers; return the (prompt, answer) pairs."""
    outcome = future.result()
    session.retries += outcome.retries
    session.book(teacher.price, *(outcome.billed * n for n in _worst(teacher, batch)))
    if not outcome.answers:
        session.unanswered += 0 if outcome.refusal else len(batch)
        return []
    pairs = list(zip(batch, outcome.answers, strict=True))
    for prompt, answer in pairs:
        session.cache.put(teacher, prompt, answer, outcome.seconds / len(batch))
        session.asked += 1
        session.book(teacher.price, answer.prompt_tokens, answer.completion_tokens)
    return pairs


def _silence(session: Session, teacher: Teacher, silent: int) -> ParameterError:
    seen = ", ".join(f"{n} x {reason}" for reason, n in session.retries.most_common())
    return ParameterError(
        f"teacher: {teacher.name!r} left {silent} prompts in a row unanswered "
        f"({seen}); what had arrived is kept; try again later, or lower concurrency"
    )


SECONDS = 10.0  # an answer, assumed until the cache holds some of the teacher


def estimate(
    session: Session,
    teacher: Teacher,
    requests: Iterable[Request],
    answer_tokens: float = 200,
) -> pd.DataFrame:
    """Estimate, per language, what asking would take before anything is asked.

    Returns the columns language, calls, cached, prompt_tokens, completion_tokens,
    dollars, minutes. Means of stored answers are used where there are some, else
    `answer_tokens`, SECONDS and TOKENS_PER_BYTE.
    """
    known = session.cache.averages(teacher)
    _, tokens, seconds = known or (0, answer_tokens, SECONDS)
    rows: dict[str, list] = {}
    for request in dict.fromkeys(requests):
        row = rows.setdefault(request.language, [0, 0, 0.0])
        if session.cache.get(teacher, request.prompt):
            row[1] += 1
        else:
            row[0] += 1
            row[2] += len(request.prompt.encode()) * TOKENS_PER_BYTE
    table = pd.DataFrame(
        [(code, *row) for code, row in rows.items()],
        columns=["language", "calls", "cached", "prompt_tokens"],
    )
    table["completion_tokens"] = table["calls"] * tokens
    table["dollars"] = teacher.price.of(
        table["prompt_tokens"], table["completion_tokens"]
    )
    table["minutes"] = table["calls"] * seconds / session.concurrency / 60
    return table.round({"prompt_tokens": 0, "completion_tokens": 0, "dollars": 4})
