"""Rows of a published dataset, from the hub or from a mirror folder of it.

A mirror holds `owner/name/` folders as `hf download --repo-type dataset` leaves them,
or with a README.md whose YAML lists `configs`. `datasets`, which takes a second to
import, is imported where it is used: 04 and the command line only need the tables here.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from maple_utils.errors import ParameterError, first_line
from maple_utils.languages import LANGUAGES

Row = Mapping[str, Any]
SHIPPED = Path(__file__).parents[1] / "data"  # datasets that come with the package

KEEP: dict[str, Callable[[Row, str, str], bool]] = {
    "": lambda row, split, language: True,
    # COPA's items 401 to 500 are those that XCOPA translated as its validation split.
    "xcopa_validation": lambda row, split, language: (
        split != "train" or 401 <= row["id"] <= 500
    ),
    # TyDiQA's ids begin with the English name of the language.
    "of_language": lambda row, split, language: row["id"].startswith(
        LANGUAGES[language].name.lower() + "-"
    ),
}


@dataclass(frozen=True)
class Source:
    """Where rows are. Config and files may hold {code}, {flores}, {name} (English).

    A dataset without an owner comes with the package, in `data`; a mirror that holds it
    goes first.
    """

    dataset: str
    config: str
    test: str  # split
    shots: str = ""  # split; "" where the test split is the only one
    rows: int | Mapping[str, int] = 0  # published test rows; 0 where not known
    revision: str = ""
    files: str = ""  # path in the repository, where main holds a script
    keep: str = ""  # name of a function in KEEP: which rows are this language's
    column: str = ""  # which names a row's language, where a file has several
    first_id: Mapping[str, int] = field(default_factory=dict)  # by split, if not 0

    def fill(self, pattern: str, language: str, split: str = "") -> str:
        """Fill a config, or a path with {config} and {split}, for one language."""
        known = LANGUAGES[language]
        name = known.name.lower().replace(" (", "_").rstrip(")")
        codes = {"code": language, "flores": known.flores, "name": name}
        config = self.config.format(**codes)
        return pattern.format(**codes, config=config, split=split)

    def root(self, hub_root: str | Path) -> str | Path:
        """Return the folder that holds the dataset's folder, "" for the hub."""
        if (
            "/" in self.dataset
            or (Path(hub_root) / self.dataset / "README.md").is_file()
        ):
            return hub_root
        return SHIPPED

    def published(self, language: str) -> int:
        """Return the published number of test rows, 0 where it is not known."""
        if isinstance(self.rows, int):
            return self.rows
        return self.rows.get(language, 0)


def load_rows(
    source: Source, language: str, split: str, hub_root: str | Path = ""
) -> list[Row]:
    """Load the rows of one split in one language, by files or by config.

    Raises ParameterError where they cannot be loaded.
    """
    from datasets import load_dataset

    config = source.fill(source.config, language)
    hub_root = source.root(hub_root)
    files = data_files(source, language, split, hub_root)
    where = str(Path(hub_root) / source.dataset) if hub_root else source.dataset
    try:
        with tempfile.TemporaryDirectory() as scratch:
            # The cache of `datasets` knows a folder by what its README lists: it would
            # give one mirror's rows for another's, or old ones for new ones.
            uncached = {"streaming": True, "cache_dir": scratch} if hub_root else {}
            load = partial(load_dataset, **uncached)
            if files and files[0].endswith(".json"):
                data = load("json", data_files=files, split="train", field="data")
            elif files:
                only = [(source.column, "==", language)] if source.column else None
                data = load("parquet", data_files=files, split="train", filters=only)
            else:
                version = {"revision": source.revision or None} if not hub_root else {}
                data = load(where, config, split=split, **version)
            keep = KEEP[source.keep]
            return [row for row in flatten(data) if keep(row, split, language)]
    except Exception as error:  # whatever a reader of files or of the hub raises
        reason = first_line(error)[:200]
        raise ParameterError(
            f"hub_root: got {str(hub_root)!r}, where {source.dataset} {config} {split} "
            f"does not load ({reason}); allowed: a network, or a mirror that holds it"
        ) from error


def data_files(
    source: Source, language: str, split: str, hub_root: str | Path = ""
) -> list[str]:
    """Return the data files to read, none where the rows are loaded by config."""
    if not source.files:
        return []
    path = source.fill(source.files, language, split)
    root = source.root(hub_root)
    if not root:
        return [f"hf://datasets/{source.dataset}@{source.revision}/{path}"]
    folder = Path(root) / source.dataset
    return sorted(str(file.resolve()) for file in folder.glob(path))


def is_held(source: Source, language: str, hub_root: str | Path) -> bool:
    """Say whether a mirror holds a language's test rows."""
    from datasets import get_dataset_config_names

    folder = Path(source.root(hub_root)) / source.dataset
    if not folder.is_dir():
        return False
    if source.keep == "of_language":
        return bool(load_rows(source, language, source.test, hub_root))
    if data_files(source, language, source.test, hub_root):
        return True
    if (folder / f"{folder.name}.py").is_file():
        return False  # a script, which `datasets` refuses
    try:
        return source.fill(source.config, language) in get_dataset_config_names(
            str(folder)
        )
    except Exception as error:  # likewise
        reason = first_line(error)[:200]
        raise ParameterError(
            f"hub_root: got {str(hub_root)!r}, where {source.dataset} cannot be read "
            f"({reason}); allowed: a folder as the hub has it, or none of it"
        ) from error


def has_split(
    source: Source, language: str, split: str, hub_root: str | Path = ""
) -> bool:
    """Say whether there is such a split; a mirror may hold the test split alone."""
    from datasets import load_dataset_builder

    hub_root = source.root(hub_root)
    if not split or not hub_root:
        return bool(split)
    if data_files(source, language, source.test, hub_root):
        return bool(data_files(source, language, split, hub_root))
    folder = Path(hub_root) / source.dataset
    config = source.fill(source.config, language)
    if not folder.is_dir():
        return False
    return split in load_dataset_builder(str(folder), config).config.data_files


def flatten(rows: Iterable[Row]) -> Iterator[Row]:
    """Give the questions of SQuAD's nested articles as rows; other rows as they are."""
    for row in rows:
        for paragraph in row.get("paragraphs", ()):
            for question in paragraph["qas"]:
                texts = [answer["text"] for answer in question["answers"]]
                yield {
                    "id": question["id"],
                    "context": paragraph["context"],
                    "question": question["question"],
                    "answers": {"text": texts},
                }
        if "paragraphs" not in row:
            yield row
