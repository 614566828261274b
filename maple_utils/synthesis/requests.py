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
from maple_utils.synthesis.teachers import Answer, Refused, Retry, Teacher


class Cache:
    """Answers that have been paid for, on disk, one row each."""

    def __init__(self, path: str | Path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Threads that ask store what they get, one at a time (see Session.lock).
        self._database = sqlite3.connect(path, check_same_thread=False)
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

    The budget is of teacher and translator together; `stopped` is set once it is
    reached. `tries` per prompt; the n-th retry waits about `first_wait` * 2**n seconds,
    or as long as the server asks for. Where `wanted` is a list, nobody is asked: what
    would have been is put there, as (teacher, languages by prompt).
    """

    cache: Cache
    budget_dollars: float = math.inf
    budget_tokens: float = math.inf
    concurrency: int = 8
    tries: int = 6
    first_wait: float = 1.0
    progress: bool = True
    wanted: list[tuple[Teacher, dict[str, str]]] | None = None
    asked: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    retries: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    stopped: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

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
        return cost <= self.budget_dollars and total <= self.budget_tokens

    def book(
        self, teacher: Teacher, prompt_tokens: int, completion_tokens: int
    ) -> None:
        """Count tokens as spent."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.dollars += teacher.price.of(prompt_tokens, completion_tokens)


def _worst(teacher: Teacher, batch: Sequence[str]) -> tuple[int, int]:
    """Bound the tokens of a batch: a token is at least a byte, and 64 for the frame."""
    longest = teacher.decoding.get("max_tokens", 0)
    return sum(len(p.encode()) + 64 for p in batch), len(batch) * longest


def ask_all(
    session: Session, teacher: Teacher, languages: dict[str, str]
) -> dict[str, Answer]:
    """Return the answer of every prompt that has one, from the cache or the teacher.

    `languages` has the prompts and the language that each is counted under. A prompt
    stays without an answer when its tries are used up (counted in `session.unanswered`)
    or when the budget is reached (`session.stopped`). One that an endpoint refuses,
    while it takes others, is answered by "content_filter". Raises ParameterError where
    the teacher refuses all, or answers nothing at all any more; what had arrived until
    then is in the cache.
    """
    answers = session.cache.get(teacher, languages)
    if session.wanted is not None:
        session.wanted += [(teacher, languages)] if languages else []
        return answers
    missing = [prompt for prompt in languages if prompt not in answers]
    totals = Counter(languages[prompt] for prompt in missing)
    with ExitStack() as stack:
        bars = {
            code: stack.enter_context(
                tqdm(total=n, desc=f"Asking {code}", disable=not session.progress)
            )
            for code, n in totals.items()
        }
        for prompt, answer in ask(session, teacher, missing):
            answers[prompt] = answer
            bars[languages[prompt]].update()
    return {prompt: answers[prompt] for prompt in languages if prompt in answers}


def ask(
    session: Session, teacher: Teacher, prompts: list[str]
) -> Iterator[tuple[str, Answer]]:
    """Yield (prompt, answer) as answers arrive, each stored before it is yielded.

    Every prompt is asked, wherever its answer stands; the rest is as in `ask_all`.
    """
    size = teacher.batch_size
    batches = deque(prompts[i : i + size] for i in range(0, len(prompts), size))
    stop = threading.Event()
    waiting: dict[Future[dict[str, Answer]], list[str]] = {}
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
                    batch, arrived = waiting.pop(future), {}
                    try:
                        arrived = future.result()
                    except Refused as refusal:
                        refused |= dict.fromkeys(batch, refusal)
                    unanswered = 0 if arrived else unanswered + 1
                    yield from arrived.items()
                if unanswered >= 2 * session.concurrency:
                    counts = session.retries.most_common()
                    seen = ", ".join(f"{n} x {reason}" for reason, n in counts)
                    raise ParameterError(
                        f"{teacher.parameter}: {teacher.name!r} left {unanswered} "
                        f"prompts in a row unanswered ({seen}); what had arrived is "
                        "kept; try again later, or lower concurrency"
                    )
        finally:
            # Whatever ends the loop, answers under way are paid for: the pool waits
            # until they are stored, and nobody retries.
            stop.set()
    if refused and not session.cache.averages(teacher):
        raise next(iter(refused.values()))  # it answered none
    if refused:
        filtered = dict.fromkeys(refused, Answer("", "content_filter"))
        session.cache.put(teacher, filtered, 0.0)
        yield from filtered.items()


def _ask_with_retries(
    session: Session, teacher: Teacher, batch: list[str], stop: threading.Event
) -> dict[str, Answer]:
    """Ask until an answer comes, the tries are used up or `stop` is set.

    Books what it costs, stores what comes, and returns it by prompt; a mere text counts
    as finished. Raises Refused.
    """
    for attempt in range(session.tries):
        started = time.perf_counter()
        try:
            said = teacher.answer(batch)
        except Refused:
            with session.lock:
                session.retries["refused"] += 1
            raise
        except Retry as trouble:
            with session.lock:
                session.retries[trouble.reason] += 1
                if trouble.billed:
                    session.book(teacher, *_worst(teacher, batch))
            pause = min(session.first_wait * 2**attempt, 60) * random.uniform(0.5, 1.5)
            pause = trouble.wait or pause
        else:
            seconds = time.perf_counter() - started
            whole = [Answer(text) if isinstance(text, str) else text for text in said]
            answers = dict(zip(batch, whole, strict=True))
            with session.lock:
                session.cache.put(teacher, answers, seconds)
                session.asked += len(answers)
                for answer in whole:
                    tokens = answer.prompt_tokens, answer.completion_tokens
                    session.book(teacher, *tokens)
            return answers
        if attempt + 1 < session.tries and stop.wait(pause):
            break
    with session.lock:
        session.unanswered += len(batch)
    return {}
