"""Ask a teacher many prompts: never twice, several at once, within a budget.

Answers go into SQLite as they arrive, under the hash of model, decoding parameters and
prompt. A run that was killed asks only what is missing when it is started again.
"""

import hashlib
import json
import math
import random
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import astuple, dataclass, field
from pathlib import Path

from tqdm.auto import tqdm

from maple_utils.errors import ParameterError
from maple_utils.synthesis.teachers import Answer, Price, Refused, Retry, Teacher


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


class Cache:
    """Answers that have been paid for, on disk, one row each."""

    def __init__(self, path: str | Path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, model TEXT, "
            "decoding TEXT, prompt TEXT, text TEXT, finish TEXT, "
            "prompt_tokens INTEGER, completion_tokens INTEGER, seconds REAL)"
        )

    def get(self, teacher: Teacher, prompts: Iterable[str]) -> dict[str, Answer]:
        """Return the stored answers of those prompts that have one."""
        query = (
            "SELECT text, finish, prompt_tokens, completion_tokens FROM answers "
            "WHERE key = ?"
        )
        found = {}
        for prompt in prompts:
            row = self._database.execute(query, [_key(teacher, prompt)]).fetchone()
            if row:
                found[prompt] = Answer(*row)
        return found

    def put(self, teacher: Teacher, answers: dict[str, Answer], seconds: float) -> None:
        """Store answers that took so long together; on disk when this returns."""
        own, each = (teacher.name, _decoding(teacher)), seconds / len(answers)
        rows = [
            (_key(teacher, prompt), *own, prompt, *astuple(answer), each)
            for prompt, answer in answers.items()
        ]
        marks = ", ".join("?" * 9)
        with self._database:
            self._database.executemany(
                f"INSERT OR REPLACE INTO answers VALUES ({marks})", rows
            )

    def averages(self, teacher: Teacher) -> tuple[float, float] | None:
        """Return mean completion tokens and seconds of stored answers, if any."""
        tokens, seconds = self._database.execute(
            "SELECT avg(completion_tokens), avg(seconds) FROM answers "
            "WHERE model = ? AND decoding = ?",
            [teacher.name, _decoding(teacher)],
        ).fetchone()
        return None if tokens is None else (tokens, seconds)


def _decoding(teacher: Teacher) -> str:
    return json.dumps(teacher.decoding, sort_keys=True)


def _key(teacher: Teacher, prompt: str) -> str:
    parts = json.dumps([teacher.name, _decoding(teacher), prompt], ensure_ascii=False)
    return hashlib.sha256(parts.encode()).hexdigest()


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
    retries: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    stopped: bool = False

    @property
    def complete(self) -> bool:
        """Whether every prompt so far has its answer."""
        return not self.stopped and not self.unanswered

    def affords(self, teacher: Teacher, batches: Iterable[Sequence[str]]) -> bool:
        """Say whether the batches fit into the budget at worst: all tries billed."""
        at_worst = [_worst(teacher, batch) for batch in batches]
        prompt, completion = (
            self.tries * sum(tokens) for tokens in zip(*at_worst, strict=True)
        )
        cost = self.dollars + teacher.price.of(prompt, completion)
        total = self.prompt_tokens + self.completion_tokens + prompt + completion
        return cost <= self.budget.dollars and total <= self.budget.tokens

    def book(self, price: Price, prompt_tokens: int, completion_tokens: int) -> None:
        """Count tokens as spent."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.dollars += price.of(prompt_tokens, completion_tokens)


def _worst(teacher: Teacher, batch: Sequence[str]) -> tuple[int, int]:
    """Bound the tokens of a batch: a token is at least a byte, and 64 for the frame."""
    longest = teacher.decoding.get("max_tokens", 0)
    return sum(len(p.encode()) + 64 for p in batch), len(batch) * longest


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
    answers = session.cache.get(teacher, language)
    missing = [prompt for prompt in language if prompt not in answers]
    totals = Counter(language[prompt] for prompt in missing)
    with ExitStack() as stack:
        bars = {
            code: stack.enter_context(
                tqdm(total=n, desc=f"Asking {code}", disable=not session.progress)
            )
            for code, n in totals.items()
        }
        for prompt, answer in _ask(session, teacher, missing):
            answers[prompt] = answer
            bars[language[prompt]].update()
    return {prompt: answers[prompt] for prompt in language if prompt in answers}


@dataclass
class _Outcome:
    """What became of a batch; `billed` tries cost tokens and gave no answer."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0
    retries: Counter[str] = field(default_factory=Counter)
    billed: int = 0
    refusal: Refused | None = None


def _ask(
    session: Session, teacher: Teacher, prompts: list[str]
) -> Iterator[tuple[str, Answer]]:
    """Yield (prompt, answer) as answers arrive, each stored before it is yielded."""
    size = teacher.batch_size
    batches = deque(prompts[i : i + size] for i in range(0, len(prompts), size))
    stop = threading.Event()
    waiting: dict[Future[_Outcome], list[str]] = {}
    refused: dict[str, Refused] = {}
    unanswered = 0  # batches in a row
    with ThreadPoolExecutor(session.concurrency) as pool:
        try:
            while batches or waiting:
                while (
                    batches
                    and len(waiting) < session.concurrency
                    and session.affords(teacher, [*waiting.values(), batches[0]])
                ):
                    batch = batches.popleft()
                    task = pool.submit(_ask_with_retries, session, teacher, batch, stop)
                    waiting[task] = batch
                if not waiting:
                    session.stopped = True
                    return
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    batch, outcome = waiting.pop(future), future.result()
                    arrived = _collect(session, teacher, batch, outcome)
                    if outcome.refusal:
                        refused |= dict.fromkeys(batch, outcome.refusal)
                    unanswered = 0 if arrived else unanswered + 1
                    yield from arrived.items()
                if unanswered >= 2 * session.concurrency:
                    raise _unresponsive(session, teacher, unanswered)
        finally:
            # Whatever ends the loop, answers under way are paid for: store them too.
            stop.set()
            for future in wait(waiting).done:
                if not future.exception():
                    _collect(session, teacher, waiting[future], future.result())
    if refused and not session.cache.averages(teacher):
        raise next(iter(refused.values()))  # it answered none
    if refused:
        filtered = dict.fromkeys(refused, Answer("", "content_filter"))
        session.cache.put(teacher, filtered, 0.0)
        yield from filtered.items()


def _ask_with_retries(
    session: Session, teacher: Teacher, batch: list[str], stop: threading.Event
) -> _Outcome:
    """Ask until an answer comes, the tries are used up or `stop` is set."""
    outcome = _Outcome()
    for attempt in range(session.tries):
        started = time.perf_counter()
        try:
            outcome.answers = teacher.answer(batch)
            outcome.seconds = time.perf_counter() - started
            break
        except Refused as refusal:
            outcome.retries["refused"] += 1
            outcome.refusal = refusal
            break
        except Retry as trouble:
            outcome.retries[trouble.reason] += 1
            outcome.billed += trouble.billed
            pause = min(session.first_wait * 2**attempt, 60) * random.uniform(0.5, 1.5)
            pause = trouble.wait or pause
        if attempt + 1 < session.tries and stop.wait(pause):
            break
    return outcome


def _collect(
    session: Session, teacher: Teacher, batch: list[str], outcome: _Outcome
) -> dict[str, Answer]:
    """Book an outcome and store its answers; return them by prompt."""
    session.retries += outcome.retries
    session.book(teacher.price, *(outcome.billed * n for n in _worst(teacher, batch)))
    if not outcome.answers:
        session.unanswered += 0 if outcome.refusal else len(batch)
        return {}
    answers = dict(zip(batch, outcome.answers, strict=True))
    session.cache.put(teacher, answers, outcome.seconds)
    session.asked += len(answers)
    for answer in answers.values():
        session.book(teacher.price, answer.prompt_tokens, answer.completion_tokens)
    return answers


def _unresponsive(session: Session, teacher: Teacher, count: int) -> ParameterError:
    seen = ", ".join(f"{n} x {reason}" for reason, n in session.retries.most_common())
    return ParameterError(
        f"teacher: {teacher.name!r} left {count} prompts in a row unanswered "
        f"({seen}); what had arrived is kept; try again later, or lower concurrency"
    )
