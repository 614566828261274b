"""The tasks: where their rows are, how a row becomes an example, which are shots.

The table itself is `tasks.yaml`; a new task is a block there and, if its columns are
of a new kind, a reader here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import yaml

from maple_utils.errors import ParameterError
from maple_utils.languages import LANGUAGES, check_languages
from maple_utils.tasks.examples import Example, draw, read_examples
from maple_utils.tasks.sources import Row, Source, has_split, is_held, load_rows

METRICS = {
    "choice": ("accuracy", "accuracy_bytes", "accuracy_mutual_info"),
    "answer": (
        *("f1", "exact_match"),
        *("f1_has_answer", "exact_match_has_answer", "f1_no_answer", "in_language"),
    ),
    "summary": ("rouge_l", "in_language"),
}
MAIN_METRICS = tuple(names[0] for names in METRICS.values())  # one of each kind
PLACEHOLDER = "NS"  # PAWS-X's for a sentence that was not translated (paws issue 15)


@dataclass(frozen=True)
class Task:
    """One task of the table."""

    name: str
    kind: str  # "choice", "answer" or "summary"
    tag: str
    languages: tuple[str, ...]
    source: Source
    other_sources: Mapping[str, Source]  # by language, where it is not `source`
    other_shots: Mapping[str, Source]  # by language, where shots are elsewhere
    read: str  # name of a function in READERS
    words: str  # whose words in prompts.yaml
    shots: int  # default
    labels: str = ""  # one character per option, where options are listed
    max_new_tokens: int = 32
    question_tokens: int = 500  # of a mean question, to forecast time

    @property
    def sources(self) -> tuple[Source, ...]:
        """Return every place that its rows or its shots may be read from."""
        others = (*self.other_sources.values(), *self.other_shots.values())
        return (self.source, *others)

    def source_of(self, language: str) -> Source:
        """Return where this language's rows are."""
        return self.other_sources.get(language, self.source)


def _read_task(name: str, block: dict[str, Any]) -> Task:
    languages = check_languages(block.pop("languages").split())
    others, shots = (block.pop(k, {}) for k in ("other_sources", "other_shots"))
    return Task(
        name=name,
        languages=tuple(languages),
        source=Source(**block.pop("source")),
        other_sources={code: Source(**source) for code, source in others.items()},
        other_shots={code: Source(**source) for code, source in shots.items()},
        words=block.pop("words", name),
        **block,
    )


_TABLE = Path(__file__).with_name("tasks.yaml").read_text(encoding="utf-8")
TASKS = {
    name: _read_task(name, block) for name, block in yaml.safe_load(_TABLE).items()
}
PAPER_TASKS = tuple(TASKS)[:6]  # the others are offered, and off by default


def check_names(names: Iterable[str]) -> list[str]:
    """Return the names as a list; raise ParameterError where one is no task."""
    names = list(dict.fromkeys(names))
    if not set(names) <= set(TASKS):
        raise ParameterError(
            f"tasks: got {','.join(names)!r}; allowed: any of {', '.join(TASKS)}; "
            "e.g. -p tasks xcopa,xquad"
        )
    return names


@dataclass(frozen=True)
class TaskData:
    """The test examples and the shots of one task in one language.

    `answers` are the right answers to all rows of the test split, also those that a
    limit leaves out: they say how much room a written answer needs.
    """

    task: Task
    language: str
    test: tuple[Example, ...]
    shots: tuple[Example, ...]
    notes: tuple[str, ...]  # what differs from the published data, and what was decided
    answers: tuple[tuple[str, ...], ...] = ()
    seed: int = 0  # that drew the shots

    def __hash__(self) -> int:  # a table of tasks has none, and prompts are cached
        return hash((self.task.name, self.language, self.seed))


def select(
    tasks: Sequence[str], languages: Sequence[str], hub_root: str | Path = ""
) -> list[tuple[str, str]]:
    """Return the (task, language) pairs to evaluate, in the table's order.

    No tasks means the paper's six, no languages all that a task has (in a mirror: that
    it holds). "zh" asks for zh-Hans and zh-Hant as well. Raises ParameterError when
    nothing is left.
    """
    pairs = [
        (name, code)
        for name in check_names(tasks) or PAPER_TASKS
        for code in available(TASKS[name], hub_root)
        if not languages or {code, LANGUAGES[code].base} & set(languages)
    ]
    if pairs:
        return pairs
    names = ", ".join(tasks or PAPER_TASKS)
    if languages:
        raise ParameterError(
            f"languages: got {', '.join(languages)}; none is in "
            f"{hub_root or 'the table'} for {names}; e.g. -p languages en"
        )
    raise ParameterError(
        f"hub_root: got {str(hub_root)!r}, which has no test rows for {names}; "
        "allowed: a folder that holds each dataset as OWNER/NAME, with a README.md "
        "that lists its `configs`, as `hf download --repo-type dataset` leaves it"
    )


def available(task: Task, hub_root: str | Path = "") -> list[str]:
    """Return the task's languages, in a mirror only those that it holds."""
    if not hub_root:
        return list(task.languages)
    return [
        code for code in task.languages if is_held(task.source_of(code), code, hub_root)
    ]


def load_task(
    name: str,
    language: str,
    *,
    hub_root: str | Path = "",
    shots: int = -1,
    shots_language: str = "own",
    limit: int = 0,
    seed: int = 0,
    allow_other_counts: bool = False,
) -> TaskData:
    """Load a task in one language: its test examples and `shots` drawn examples.

    Rows are in the order of their ids. Shots (-1: the task's default) depend on task
    and seed alone, so languages with parallel rows get the same ones; they hold every
    label, or both kinds of question, and share no passage with a test row: where the
    test split is the only one, their passages leave it. With `shots_language` "en" all
    languages get the English ones. `limit` (0: all) keeps a random part, again the same
    one for parallel rows.

    Raises:
        ParameterError: for an unknown task or language, rows that cannot be read, and
            another number of rows than published unless `allow_other_counts`.
    """
    task = TASKS[check_names([name])[0]]
    check_languages([language], task.languages)
    test, notes = _test_rows(task, language, hub_root, allow_other_counts)
    answers = tuple(example.right_answers for example in test)
    wanted = task.shots if shots < 0 else shots
    drawn: list[Example] = []
    if wanted:
        rng = np.random.default_rng([seed, crc32(name.encode())])
        pool, is_test = _shot_pool(task, language, shots_language, test, hub_root)
        drawn = draw(pool, wanted, rng)
        told = {shot.cluster for shot in drawn} if is_test else set()
        left = [example for example in test if example.cluster not in told]
        if not left:
            raise ParameterError(
                f"shots: got {wanted}; allowed with {name} {language}: fewer, since "
                f"they and their passages are taken out of the {len(test)} test rows"
            )
        if len(left) < len(test):
            notes.append(
                f"{wanted} shots drawn from the test split; they and what asks about "
                f"their passages, {len(test) - len(left)} rows, are left out of it"
            )
        test = left
    if 0 < limit < len(test):
        kept = np.random.default_rng(seed).permutation(len(test))[:limit]
        test = [test[place] for place in np.sort(kept)]
    if unanswerable := sum(task.kind == "answer" and not e.references for e in test):
        notes.append(f"{unanswerable} of {len(test)} questions have no answer")
    return TaskData(
        task, language, tuple(test), tuple(drawn), tuple(notes), answers, seed
    )


def _test_rows(
    task: Task, language: str, hub_root: str | Path, allow_other_counts: bool
) -> tuple[list[Example], list[str]]:
    """Return the test examples, and what is to be noted about their number."""
    source = task.source_of(language)
    rows = load_rows(source, language, source.test, hub_root)
    examples = _examples(task, source, language, source.test, rows)
    notes = []
    if (published := source.published(language)) not in (0, len(rows)):
        notes.append(f"{task.name} {language}: {len(rows)} rows, published {published}")
        if not allow_other_counts:
            raise ParameterError(
                f"tasks: got {notes[0]}; allowed: the published rows, or others with "
                "-p allow_other_counts True"
            )
    whole = [e for e in examples if PLACEHOLDER not in (e.context, e.question)]
    if dropped := len(examples) - len(whole):
        notes.append(f"{dropped} placeholder rows left out")
    return whole, notes


def _shot_pool(
    task: Task,
    language: str,
    shots_language: str,
    test: Sequence[Example],
    hub_root: str | Path,
) -> tuple[list[Example], bool]:
    """Return the examples to draw shots from, and whether they are test examples."""
    code = language if shots_language == "own" else shots_language
    if code not in task.languages:
        raise ParameterError(
            f"shots_language: got {code!r}; allowed with {task.name}: own, for it has "
            f"no rows in {code}"
        )
    own = task.source_of(code)
    for source in (task.other_shots.get(code, own), own):
        if has_split(source, code, source.shots, hub_root):
            rows = load_rows(source, code, source.shots, hub_root)
            pool = _examples(task, source, code, source.shots, rows)
            passages = {example.context for example in test}
            is_told = task.kind != "choice"
            return [e for e in pool if not (is_told and e.context in passages)], False
    if code == language:
        return list(test), True
    rows = load_rows(own, code, own.test, hub_root)
    return _examples(task, own, code, own.test, rows), True


def _examples(
    task: Task, source: Source, language: str, split: str, rows: Sequence[Row]
) -> list[Example]:
    where = f"{task.name} {language}, {split} of {source.dataset}"
    if not rows:
        raise ParameterError(f"tasks: {where}: there are no rows")
    return read_examples(rows, task.read, source.first_id.get(split, 0), where)
