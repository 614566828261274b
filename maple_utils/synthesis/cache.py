"""Answers that have been paid for, in SQLite, under model, decoding and prompt."""

import hashlib
import json
import sqlite3
from pathlib import Path

from maple_utils.synthesis.teachers import Answer, Teacher


class Cache:
    """Answers on disk, one row each, committed as they arrive."""

    def __init__(self, path: str | Path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, model TEXT, "
            "decoding TEXT, prompt TEXT, text TEXT, finish TEXT, "
            "prompt_tokens INTEGER, completion_tokens INTEGER, seconds REAL)"
        )

    def get(self, teacher: Teacher, prompt: str) -> Answer | None:
        """Return the stored answer, if there is one."""
        row = self._database.execute(
            "SELECT text, finish, prompt_tokens, completion_tokens FROM answers "
            "WHERE key = ?",
            [_key(teacher, prompt)],
        ).fetchone()
        return Answer(*row) if row else None

    def put(self, teacher: Teacher, prompt: str, answer: Answer, seconds: float):
        """Store an answer; it is on disk when this returns."""
        a = answer
        values = (_key(teacher, prompt), teacher.name, _decoding(teacher), prompt)
        values += (a.text, a.finish, a.prompt_tokens, a.completion_tokens, seconds)
        marks = ", ".join("?" * len(values))
        with self._database:
            self._database.execute(
                f"INSERT OR REPLACE INTO answers VALUES ({marks})", values
            )

    def averages(self, teacher: Teacher) -> tuple[int, float, float] | None:
        """Return count, mean completion tokens and mean seconds of stored answers."""
        count, tokens, seconds = self._database.execute(
            "SELECT count(*), avg(completion_tokens), avg(seconds) FROM answers "
            "WHERE model = ? AND decoding = ?",
            [teacher.name, _decoding(teacher)],
        ).fetchone()
        return (count, tokens, seconds) if count else None


def _decoding(teacher: Teacher) -> str:
    return json.dumps(teacher.decoding, sort_keys=True)


def _key(teacher: Teacher, prompt: str) -> str:
    parts = json.dumps([teacher.name, _decoding(teacher), prompt], ensure_ascii=False)
    return hashlib.sha256(parts.encode()).hexdigest()
