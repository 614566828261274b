"""The miniature's data as a mirror of the hub: the published ids, layouts and splits.

So the tasks load it like the real thing, and know nothing of it. Languages are those
that a task has in the paper's list and the miniature speaks.
"""

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from maple_utils.miniature import items, teacher, world

TEST, SHOTS = 120, 40  # items per language in a test split and in a split for shots
INSTRUCTIONS = 600  # rows per language in an instruction dataset

FLORES = {"en": "eng_Latn", "es": "spa_Latn", "fr": "fra_Latn", "ar": "arb_Arab"}
FLORES["zh"] = "zho_Hans"
XLSUM = {
    "ar": "arabic",
    "en": "english",
    "es": "spanish",
    "fr": "french",
    "hi": "hindi",
    "sw": "swahili",
    "zh": "chinese_simplified",
}


@dataclass(frozen=True)
class Mirrored:
    """A dataset of the mirror: configs by language, splits, how to make a row."""

    configs: dict[str, str]
    splits: dict[str, int]
    row: Callable[[random.Random, str, int], dict]


def _xcopa(rng: random.Random, language: str, number: int) -> dict:
    item, label = items.causal(rng, language, items.HELD_OUT), rng.randrange(2)
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
    item = items.reading(rng, language, items.HELD_OUT, 3)
    options = rng.sample([item.answer, *item.wrong], 4)
    return {
        "link": f"https://example.org/{number}",
        "question_number": 1,
        "flores_passage": item.text,
        "question": item.question,
        **{f"mc_answer{i}": option for i, option in enumerate(options, start=1)},
        "correct_answer_num": str(options.index(item.answer) + 1),
        "dialect": FLORES[language],
        "ds": "2026-01-01",
    }


def _squad(item: items.Reading, number: int) -> dict:
    start = item.text.index(item.answer) if item.answer else -1
    return {
        "id": str(number),
        "context": item.text,
        "question": item.question,
        "answers": {"text": [item.answer], "answer_start": [start]},
    }


def _xquad(rng: random.Random, language: str, number: int) -> dict:
    return _squad(items.reading(rng, language, items.HELD_OUT, 3), number)


def _mlqa(rng: random.Random, language: str, number: int) -> dict:
    return _squad(items.reading(rng, language, items.HELD_OUT, 5), number)


def _indicqa(rng: random.Random, language: str, number: int) -> dict:
    make = items.unanswerable if rng.random() < 1 / 4 else items.reading
    return _squad(make(rng, language, items.HELD_OUT, 3), number)


def _xlsum(rng: random.Random, language: str, number: int) -> dict:
    article, title = items.news(rng, language, items.HELD_OUT)
    return {
        "id": str(number),
        "url": f"https://example.org/{number}",
        "title": title,
        "summary": title,
        "text": article,
    }


DATASETS: dict[str, Mirrored] = {
    "cambridgeltl/xcopa": Mirrored(
        {code: code for code in ("sw", "ta", "zh")},
        {"validation": SHOTS, "test": TEST},
        _xcopa,
    ),
    "pkavumba/balanced-copa": Mirrored(
        {"en": "default"}, {"train": SHOTS, "test": TEST}, _copa
    ),
    "facebook/belebele": Mirrored(FLORES, {"test": TEST + SHOTS}, _belebele),
    "google/xquad": Mirrored(
        {code: f"xquad.{code}" for code in ("en", "ar", "es", "hi", "zh")},
        {"validation": TEST + SHOTS},
        _xquad,
    ),
    "facebook/mlqa": Mirrored(
        {code: f"mlqa.{code}.{code}" for code in ("en", "ar", "es", "hi", "zh")},
        {"validation": SHOTS, "test": TEST},
        _mlqa,
    ),
    "ai4bharat/IndicQA": Mirrored(
        {code: f"indicqa.{code}" for code in ("hi", "ta")},
        {"test": TEST + SHOTS},
        _indicqa,
    ),
    "csebuetnlp/xlsum": Mirrored(XLSUM, {"validation": SHOTS, "test": TEST}, _xlsum),
}

# What 01 makes with the world as its teacher, without the faults that its filters find.
INSTRUCTION_SETS: dict[str, Mirrored] = {
    "bactrian-x-mini": Mirrored(
        {code: code for code in world.LANGUAGES},
        {"train": INSTRUCTIONS},
        lambda rng, language, number: {
            "id": f"mini-{number}",
            **vars(items.task(number, language)),
        },
    ),
    "multialpaca-mini": Mirrored(
        {code: code for code in ("ar", "es", "fr")},  # MultiAlpaca's, of ours
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
    folder = folder or _cache() / f"miniature-{_fingerprint()}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".miniature-", dir=folder.parent))
        for name, dataset in (DATASETS | INSTRUCTION_SETS).items():
            _write(draft / name, dataset)
        _publish(draft, folder)
    return folder


def hub_root(name: str) -> str | Path:
    """Return where a hub is read from: the mirror's folder for "miniature", or `name`.

    `name` is the parameter `hub_root`: a mirror's folder, or empty for the hub itself.
    """
    return hub() if name == "miniature" else name


def _publish(draft: Path, folder: Path) -> None:
    """Move the draft into place; where another process was first, drop the draft."""
    try:
        draft.rename(folder)
    except OSError:
        shutil.rmtree(draft)
        if not folder.is_dir():
            raise


def _write(folder: Path, dataset: Mirrored) -> None:
    """Write one dataset: a JSON-lines file per config and split, and its card."""
    configs = []
    for language, config in dataset.configs.items():
        files = []
        for split, count in dataset.splits.items():
            path = folder / config / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = _rows(dataset, language, f"{folder.name} {split}", count)
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            path.write_text("".join(lines), encoding="utf-8")
            files.append({"split": split, "path": f"{config}/{split}.jsonl"})
        configs.append({"config_name": config, "data_files": files})
    card = yaml.safe_dump({"configs": configs}, sort_keys=False)
    text = f"---\n{card}---\n\nMiniature data in the layout of {folder.name}.\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def _rows(dataset: Mirrored, language: str, stream: str, count: int) -> Iterator[dict]:
    """Make rows; row n is drawn alike in all languages, so they are parallel."""
    for number in range(count):
        yield dataset.row(random.Random(f"{stream} {number}"), language, number)


def _cache() -> Path:
    return (
        Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "maple_utils"
    )


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.[py]*")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
