"""The tasks: where their rows are, how a row becomes an example, which are shots.

The table itself is `tasks.yaml`; a new task is a block there and, if its columns are
of a new kind, a reader here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import yaml

from maple_utils.errors import ParameterError
from maple_utils.languages import LANGUAGES, check_languages
from maple_utils.tasks.sources import Row, Source, has_split, is_held, load_rows

METRICS = {
    "choice": ("accuracy", "accuracy_bytes"),
    "answer": ("f1", "exact_match"),
    "summary": ("rouge_l",),
}


@dataclass(frozen=True)
class Example:
    """One item; `label` is the right option's place, no `references` = no answer."""

    id: str
    context: str
    question: str = ""
    options: tuple[str, ...] = ()
    label: int = -1
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """One task of the table."""

    name: str
    kind: str  # "choice", "answer" or "summary"
    tag: str
    languages: tuple[str, ...]
    source: Source
    other_sources: Mapping[str, Source]  # by language, where it is not `source`
    read: str  # name of a function in READERS
    words: str  # whose words in prompts.yaml
    shots: int  # default
    labels: str = ""  # one character per option, where options are listed
    max_new_tokens: int = 32

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of this task's metrics."""
        return METRICS[self.kind]

    def source_of(self, language: str) -> Source:
        """Return where this language's rows are."""
        return self.other_sources.get(language, self.source)


def _copa(row: Row) -> Example:
    options = (row["choice1"], row["choice2"])
    return Example("", row["premise"], row["question"], options, int(row["label"]))


def _belebele(row: Row) -> Example:
    options = tuple(row[f"mc_answer{number}"] for number in range(1, 5))
    label = int(row["correct_answer_num"]) - 1
    return Example("", row["flores_passage"], row["question"], options, label)


def _squad(row: Row) -> Example:
    """An empty answer text, as in IndicQA's unanswerable rows, is no reference."""
    texts = dict.fromkeys(text for text in row["answers"]["text"] if text.strip())
    return Example("", row["context"], row["question"], references=tuple(texts))


def _xlsum(row: Row) -> Example:
    return Example("", row["text"], references=(row["summary"],))


def _xnli(row: Row) -> Example:
    """Labels: 0 entailment, 1 neutral, 2 contradiction."""
    options = ("True", "Neither", "False")
    return Example("", row["premise"], row["hypothesis"], options, int(row["label"]))


def _pawsx(row: Row) -> Example:
    options = ("No", "Yes")
    return Example("", row["sentence1"], row["sentence2"], options, int(row["label"]))


def _story(row: Row) -> Example:
    story = " ".join(row[f"input_sentence_{number}"] for number in range(1, 5))
    options = (row["sentence_quiz1"], row["sentence_quiz2"])
    return Example("", story, "", options, int(row["answer_right_ending"]) - 1)


READERS: dict[str, Callable[[Row], Example]] = {
    "copa": _copa,
    "belebele": _belebele,
    "squad": _squad,
    "xlsum": _xlsum,
    "xnli": _xnli,
    "pawsx": _pawsx,
    "story": _story,
}


def read_table(path: Path) -> dict[str, Task]:
    """Read a table of tasks; `tasks.yaml` says what its fields mean."""
    table = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: _read_task(name, dict(block)) for name, block in table.items()}


def _read_task(name: str, block: dict[str, Any]) -> Task:
    languages = check_languages(block.pop("languages").split())
    others = block.pop("other_sources", {})
    return Task(
        name=name,
        languages=tuple(languages),
        source=Source(**block.pop("source")),
        other_sources={code: Source(**source) for code, source in others.items()},
        words=block.pop("words", name),
        **block,
    )


TASKS = read_table(Path(__file__).with_name("tasks.yaml"))
PAPER_TASKS = tuple(TASKS)[:6]  # the other four are offered, and off by default


def check_names(names: Sequence[str]) -> None:
    """Refuse a name that the table has not."""
    for name in names:
        if name not in TASKS:
            raise ParameterError(
                f"tasks: got {name!r}; allowed: any of {', '.join(TASKS)}"
            )


@dataclass(frozen=True)
class TaskData:
    """The test examples and the shots of one task in one language."""

    task: Task
    language: str
    test: tuple[Example, ...]
    shots: tuple[Example, ...]
    notes: tuple[str, ...]  # what differs from the published data, and what was decided


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
        for name in tasks or PAPER_TASKS
        for code in available(TASKS[name], hub_root)
        if not languages or {code, LANGUAGES[code].base} & set(languages)
    ]
    if not pairs:
        raise ParameterError(
            f"languages: got {', '.join(languages) or 'all'}; none is in "
            f"{hub_root or 'the table'} for {', '.join(tasks or PAPER_TASKS)}; "
            "e.g. -p languages en"
        )
    return pairs


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
    limit: int = 0,
    seed: int = 0,
) -> TaskData:
    """Load a task in one language: its test examples and `shots` drawn examples.

    Shots (-1: the task's default) depend on task and seed alone, so languages with
    parallel rows get the same ones; they are balanced over labels in choice tasks.
    They never come from the test split where another exists; where none does, they are
    taken out of it. `limit` (0: all) keeps a random part, again the same one for
    parallel rows. Raises ParameterError for an unknown task or language, for rows that
    cannot be read, and for another number of rows than published (in a mirror: noted).
    """
    if name not in TASKS:
        raise ParameterError(f"tasks: got {name!r}; allowed: {', '.join(TASKS)}")
    task = TASKS[name]
    check_languages([language], task.languages)
    source = task.source_of(language)
    test = _examples(task, language, source.test, hub_root)
    notes = _compare(task, language, len(test), bool(hub_root))
    wanted = task.shots if shots < 0 else shots
    if wanted and has_split(source, language, source.shots, hub_root):
        pool = _examples(task, language, source.shots, hub_root)
        drawn = draw(pool, wanted, np.random.default_rng([seed, crc32(name.encode())]))
    elif wanted:
        drawn = draw(test, wanted, np.random.default_rng([seed, crc32(name.encode())]))
        test = [example for example in test if example not in drawn]
        notes.append(f"{wanted} shots drawn from the test split and left out of it")
    else:
        drawn = []
    if 0 < limit < len(test):
        kept = np.random.default_rng(seed).permutation(len(test))[:limit]
        test = [test[place] for place in np.sort(kept)]
    if unanswerable := sum(task.kind == "answer" and not e.references for e in test):
        notes.append(f"{unanswerable} of {len(test)} questions have no answer")
    return TaskData(task, language, tuple(test), tuple(drawn), tuple(notes))


def draw(
    pool: Sequence[Example], wanted: int, rng: np.random.Generator
) -> list[Example]:
    """Draw `wanted` examples, in turn from each label, in random order."""
    if wanted >= len(pool):
        raise ParameterError(
            f"shots: got {wanted}; allowed: fewer than the {len(pool)} rows at hand"
        )
    queues: dict[int, list[Example]] = {}
    for place in rng.permutation(len(pool)):
        queues.setdefault(pool[place].label, []).append(pool[place])
    turns = [example for turn in zip_longest(*queues.values()) for example in turn]
    chosen = [example for example in turns if example is not None][:wanted]
    return [chosen[place] for place in rng.permutation(wanted)]


def _compare(task: Task, language: str, found: int, is_mirror: bool) -> list[str]:
    """Compare the number of rows with the published one: note it, or refuse."""
    published = task.source_of(language).published(language)
    if published in (0, found):
        return []
    note = f"{task.name} {language}: {found} rows, published {published}"
    if not is_mirror:
        raise ParameterError(
            f"tasks: got {note}; the dataset has changed; allowed: the published rows, "
            "or -p hub_root FOLDER with rows of your own"
        )
    return [note]


def _examples(
    task: Task, language: str, split: str, hub_root: str | Path
) -> list[Example]:
    """Return a split's rows as examples; refuse rows that do not have the columns."""
    source, read = task.source_of(language), READERS[task.read]
    examples = []
    for place, row in enumerate(load_rows(source, language, split, hub_root)):
        try:
            example = read(row)
        except (KeyError, TypeError, ValueError) as error:
            raise ParameterError(
                f"tasks: {task.name} {language}, {split}, row {place} of "
                f"{source.dataset}: {error!r}; there are {', '.join(row)}"
            ) from error
        if task.kind == "choice" and not 0 <= example.label < len(example.options):
            raise ParameterError(
                f"tasks: {task.name} {language}, {split}, row {place} has the label "
                f"{example.label}; allowed: 0 to {len(example.options) - 1}"
            )
        examples.append(replace(example, id=str(row.get("id", place))))
    if not examples:
        raise ParameterError(
            f"tasks: {task.name} has no {language} rows in {source.dataset}, {split}"
        )
    return examples
