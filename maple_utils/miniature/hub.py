"""The miniature's data as a mirror of the hub: the published ids, layouts and splits.

So the tasks load it like the real thing, and know nothing of it. Languages are those
that a task has and the miniature speaks.
"""

import hashlib
import json
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from maple_utils.languages import LANGUAGES
from maple_utils.miniature import items, teacher, world
from maple_utils.tasks import TASKS
from maple_utils.tasks.sources import SHIPPED

TEST, SHOTS = 120, 40  # items per language in a test split and in a split for shots
INSTRUCTIONS = 600  # rows per language in an instruction dataset
# The languages of both instruction sets: some of each level, and some of each left out.
INSTRUCTED = "en es ru ar tr zh el fi sw th vi".split()


@dataclass(frozen=True)
class Mirrored:
    """A dataset of the mirror: configs by language, splits, how to make a row."""

    configs: dict[str, str]
    splits: dict[str, int]
    row: Callable[[random.Random, str, int], dict]


def _xcopa(rng: random.Random, language: str, number: int) -> dict:
    item, label = items.causal(rng, language, items.held_out), rng.randrange(2)
    choices = (item.wrong, item.right) if label else (item.right, item.wrong)
    return {
        "premise": item.premise,
        "choice1": choices[0],
        "choice2": choices[1],
        "question": item.asked,
        "label": label,
        "idx": number,
        "changed": False,
    }


def _copa(rng: random.Random, language: str, number: int) -> dict:
    row = _xcopa(rng, language, number)
    del row["idx"], row["changed"]
    return {"id": 401 + number, **row, "mirrored": False}


def _belebele(rng: random.Random, language: str, number: int) -> dict:
    item = items.reading(rng, language, items.held_out, 3)
    options = rng.sample([item.answer, *item.wrong], 4)
    return {
        "link": f"https://example.org/{number}",
        "question_number": 1,
        "flores_passage": item.text,
        "question": item.question,
        **{f"mc_answer{i}": option for i, option in enumerate(options, start=1)},
        "correct_answer_num": str(options.index(item.answer) + 1),
        "dialect": LANGUAGES[language].flores,
        "ds": "2026-01-01",
    }


def _squad(
    rng: random.Random,
    language: str,
    number: int,
    facts: int = 3,
    unanswerable: float = 0,
) -> dict:
    without = unanswerable and rng.random() < unanswerable
    make = items.unanswerable if without else items.reading
    item = make(rng, language, items.held_out, facts)
    start = item.text.index(item.answer) if item.answer else -1
    return {
        "id": str(number),
        "context": item.text,
        "question": item.question,
        "answers": {"text": [item.answer], "answer_start": [start]},
    }


def _xlsum(rng: random.Random, language: str, number: int) -> dict:
    article, title = items.news(rng, language, items.held_out)
    return {
        "id": str(number),
        "url": f"https://example.org/{number}",
        "title": title,
        "summary": title,
        "text": article,
    }


def _words(rng: random.Random, language: str, number: int) -> dict:
    item = items.word(rng, language, items.held_out)
    options = rng.sample([item.right, *item.wrong], 4)
    label = options.index(item.right)
    told = {"name": item.name, "options": options, "label": label}
    return {"language": language, "id": str(number), **told}


def _configs(task: str) -> dict[str, str]:
    """Return the configs of a task's dataset in the languages of the world."""
    source = TASKS[task].source
    return {
        code: source.fill(source.config, code)
        for code in TASKS[task].languages
        if LANGUAGES[code].base in world.LANGUAGES and code != "zh-Hant"
    }


SPLIT = {"validation": SHOTS, "test": TEST}
DATASETS: dict[str, Mirrored] = {
    "cambridgeltl/xcopa": Mirrored(
        {code: name for code, name in _configs("xcopa").items() if code != "en"},
        SPLIT,
        _xcopa,
    ),
    "pkavumba/balanced-copa": Mirrored(
        {"en": "default"}, {"train": SHOTS, "test": TEST}, _copa
    ),
    "facebook/belebele": Mirrored(
        _configs("belebele"), {"test": TEST + SHOTS}, _belebele
    ),
    "google/xquad": Mirrored(_configs("xquad"), {"validation": TEST + SHOTS}, _squad),
    "facebook/mlqa": Mirrored(_configs("mlqa"), SPLIT, partial(_squad, facts=5)),
    "ai4bharat/IndicQA": Mirrored(
        _configs("indicqa"), {"test": TEST + SHOTS}, partial(_squad, unanswerable=1 / 4)
    ),
    "csebuetnlp/xlsum": Mirrored(_configs("xlsum"), SPLIT, _xlsum),
    "words": Mirrored(_configs("words"), {"shots": SHOTS, "test": TEST}, _words),
}

# What 01 makes with the world as its teacher, without the faults that its filters find.
INSTRUCTION_SETS: dict[str, Mirrored] = {
    "bactrian-x-mini": Mirrored(
        {code: code for code in INSTRUCTED},
        {"train": INSTRUCTIONS},
        lambda rng, language, number: {
            "id": f"mini-{number}",
            **vars(items.task(number, language)),
        },
    ),
    "multialpaca-mini": Mirrored(
        {code: code for code in INSTRUCTED},
        {"train": INSTRUCTIONS},
        lambda rng, language, number: {
            "id": f"mini-{language}-{number}",
            **vars(teacher.new_task(rng, language)),
        },
    ),
}


def hub(folder: Path | None = None) -> Path:
    """Write the mirror, unless it is there already, and return its folder.

    The default folder is in the user's cache; its name follows from this package's
    files, so that a changed world is another mirror. It appears whole or not at all.
    """
    if folder is None:
        cache = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
        folder = Path(cache) / "maple_utils" / f"miniature-{_fingerprint()}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as scratch:
        draft = Path(scratch) / folder.name
        for name, dataset in (DATASETS | INSTRUCTION_SETS).items():
            _write(draft / name, dataset)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    return folder


def hub_root(name: str) -> str | Path:
    """Return where a hub is read from: the mirror's folder for "miniature", or `name`.

    `name` is the parameter `hub_root`: a mirror's folder, or empty for the hub itself.
    """
    return hub() if name == "miniature" else name


def _write(folder: Path, dataset: Mirrored) -> None:
    """Write one dataset: a JSON-lines file per config and split, and its card.

    Row n is drawn alike in all languages, so they are parallel.
    """
    configs = []
    for language, config in dataset.configs.items():
        files = []
        (folder / config).mkdir(parents=True)
        for split, count in dataset.splits.items():
            path, lines = f"{config}/{split}.jsonl", []
            for number in range(count):
                rng = random.Random(f"{folder.name} {split} {number}")
                row = dataset.row(rng, LANGUAGES[language].base, number)
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
            (folder / path).write_text("".join(lines), encoding="utf-8")
            files.append({"split": split, "path": path})
        configs.append({"config_name": config, "data_files": files})
    card = yaml.safe_dump({"configs": configs}, sort_keys=False)
    text = f"---\n{card}---\n\nMiniature data in the layout of {folder.name}.\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def _fingerprint() -> str:
    here, digest = Path(__file__).parent, hashlib.sha256()
    tables = [here.parent / "languages.csv", here.parent / "tasks" / "tasks.yaml"]
    words = SHIPPED.glob("words/*.parquet")
    for file in sorted([*here.glob("*.[py]*"), *tables, *words]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
