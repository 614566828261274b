"""Write instruction data with the card that says how it was made."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset

from maple_utils import files
from maple_utils.errors import ParameterError
from maple_utils.instructions import COLUMNS, fingerprint
from maple_utils.params import check_writable

FILE = "train.parquet"  # in a folder per language


def check_folder(folder: str | Path) -> None:
    """Refuse a folder that `write` could not fill, or that holds anything else.

    Raises:
        ParameterError: where its parent cannot be written, or where there are files
            that `write` did not make: they would be replaced with it.
    """
    folder = Path(folder).resolve()
    check_writable(folder.parent)
    files = (path for path in folder.rglob("*") if not path.is_dir())
    ours = {folder / "README.md", *folder.glob(f"*/{FILE}")}
    if other := next((path for path in files if path not in ours), None):
        raise ParameterError(
            f"output_dir: got {str(folder)!r}, which holds {other.name}; allowed: a "
            "new folder, or one that 01 wrote, since it is replaced as a whole"
        )


def write(
    dataset: Dataset, folder: str | Path, made_with: Mapping[str, Any], notes: str = ""
) -> Path:
    """Write one parquet file per language and the card; replace what was there.

    The folder loads with `load_dataset(folder)` and `load_dataset(folder, "sw")`, and
    is ready for `hf upload`. It appears whole or not at all. Rows are sorted by
    language, as `instructions.load` returns them: the card has their fingerprint.
    `made_with` and `notes` stand in the card: what a reader must know of its making.
    Raises ParameterError as `check_folder` does.
    """
    check_folder(folder)
    folder = Path(folder)
    dataset = dataset.select(np.argsort(dataset["language"], kind="stable"))
    languages = np.asarray(dataset["language"])
    with files.atomic(folder) as draft:
        for code in sorted(set(languages)):
            rows = dataset.select(np.flatnonzero(languages == code))
            (draft / code).mkdir(parents=True)
            rows.select_columns(list(COLUMNS)).to_parquet(draft / code / FILE)
        text = card_text(folder.name, dataset, made_with, notes)
        (draft / "README.md").write_text(text, encoding="utf-8")
    return folder


def card_text(
    name: str, dataset: Dataset, made_with: Mapping[str, Any], notes: str = ""
) -> str:
    """Return the README.md of a dataset: YAML for the hub, then prose and counts."""
    counts = dict(sorted(Counter(dataset["language"]).items()))
    paths = {"default": f"*/{FILE}", **{code: f"{code}/{FILE}" for code in counts}}
    head = {
        "language": list(counts),
        "task_categories": ["text-generation"],
        "tags": ["instruction-finetuning", "multilingual", "synthetic"],
        "configs": [
            {"config_name": code, "data_files": [{"split": "train", "path": path}]}
            for code, path in paths.items()
        ],
    }
    made_with = {**made_with, "fingerprint (sha256 over rows)": fingerprint(dataset)}
    languages = f"{len(counts)} language{'s' * (len(counts) != 1)}"
    lines = [
        *front_matter(head),
        f"# {name}",
        "",
        f"{len(dataset):,} instruction-response pairs in {languages}, made "
        "with the MAPLE reproduction kit. Columns: " + ", ".join(COLUMNS) + ".",
        "",
        *markdown_table(["language", "rows"], counts.items()),
        "",
        *markdown_table(["made with", "value"], made_with.items()),
        "",
        "Licence: Governed by the licences of the seeds and the teacher's terms.",
        *(["", notes] if notes else []),
    ]
    return "\n".join(lines) + "\n"


def front_matter(head: Mapping[str, Any]) -> list[str]:
    """Return the lines of a card's YAML, which the hub reads."""
    text = yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True)
    return ["---", text.strip(), "---"]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence]) -> list[str]:
    """Return the lines of a table in Markdown."""
    body = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *body]
