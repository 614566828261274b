"""Instruction data from a folder, a mirror or the hub, in one form."""

import re
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import (
    Dataset,
    Features,
    Value,
    concatenate_datasets,
    get_dataset_config_names,
    load_dataset,
)
from datasets.exceptions import DatasetsError

from maple_utils.errors import ParameterError, first_line
from maple_utils.instructions.published import PUBLISHED
from maple_utils.languages import LANGUAGES, check_languages

COLUMNS = ("id", "language", "instruction", "input", "output")
WHOLE = ("default", "all")  # configs that hold every language
# `<noinput>` as the prompts of MultiAlpaca have it, and what teachers make of it.
NO_INPUT = re.compile(r"\W*no[\s_-]*input\W*", re.IGNORECASE)

# What `datasets` raises where there is nothing to read, or nothing that it can.
UNREADABLE = (ConnectionError, OSError, ValueError, StopIteration, DatasetsError)


def load(
    name: str,
    languages: Sequence[str] = (),
    hub_root: str | Path = "",
    workspace_dir: str | Path = ".",
) -> Dataset:
    """Load instruction data with the columns id, language, instruction, input, output.

    `name` is looked for as: a folder; a name under `workspace_dir`/runs/instructions;
    a name under the mirror `hub_root`; one of `PUBLISHED`; a dataset id on the hub.
    No languages means all that it has. Raises ParameterError for an unknown name or
    language, missing columns or empty responses.
    """
    made = Path(workspace_dir) / "runs" / "instructions" / name
    mirrored = [Path(hub_root) / name] if hub_root else []
    folder = next((f for f in [Path(name), made, *mirrored] if f.is_dir()), None)
    published = folder is None and name in PUBLISHED
    if published:
        parts = _read_published(name, languages, hub_root)
    elif folder or "/" in name:
        parts = _read_configs(name, str(folder or name), languages)
    else:
        raise ParameterError(
            f"instruction_data: got {name!r}; allowed: a folder, a name in "
            f"{made.parent} or hub_root, a dataset id on the hub, or one of "
            f"{', '.join(PUBLISHED)}; run 01 to make one"
        )
    return concatenate_datasets(
        [_complete(name, rows, code, published) for code, rows in parts.items()]
    )


def _read_configs(
    name: str, source: str, languages: Sequence[str]
) -> dict[str, Dataset]:
    """Read a folder or hub dataset by language: by config or by its column."""
    try:
        configs = get_dataset_config_names(source)
        if set(configs) & set(LANGUAGES):
            by_config = [config for config in configs if config not in WHOLE]
            wanted = _present(name, languages, by_config)
            return {code: read_train(source, code) for code in wanted}
        rows = read_train(source, configs[0])
    except ParameterError:
        raise
    except UNREADABLE as error:
        raise ParameterError(
            f"instruction_data: {name!r} cannot be read as a dataset: "
            f"{first_line(error)}; give a folder with parquet or jsonl files, or set "
            f"hub_root to a mirror"
        ) from error
    if "language" not in rows.column_names or None in rows["language"]:
        raise ParameterError(
            f"instruction_data: {name!r} has neither a config per language nor a "
            f"column 'language' that is filled (columns: "
            f"{', '.join(rows.column_names)}); add one"
        )
    column = np.asarray(rows["language"])
    wanted = _present(name, languages, list(set(column)))
    return {code: rows.select(np.flatnonzero(column == code)) for code in wanted}


def _read_published(
    name: str, languages: Sequence[str], hub_root: str | Path
) -> dict[str, Dataset]:
    """Read a published set by its files: its loader is a script or lacks languages."""
    published = PUBLISHED[name]
    root = f"{hub_root or 'hf://datasets'}/{published.repository}"
    root += f"@{published.revision}" if published.revision and not hub_root else ""
    parts = {}
    for code in _present(name, languages, list(published.rows)):
        file = f"{root}/{published.file.format(language=code)}"
        try:
            parts[code] = load_dataset("json", data_files=file, split="train")
        except UNREADABLE as error:
            raise ParameterError(
                f"instruction_data: {name!r} needs {file}, which cannot be read: "
                f"{first_line(error)}; check the network, or set hub_root to a mirror"
            ) from error
    return parts


def read_train(source: str, config: str | None = None) -> Dataset:
    """Return the training split of a folder, past the cache, or of a hub dataset."""
    if not Path(source).is_dir():
        return load_dataset(source, config, split="train")
    with tempfile.TemporaryDirectory() as scratch:
        # The cache of `datasets` knows a folder by its README: it would give old rows.
        uncached = {"streaming": True, "cache_dir": scratch}
        rows = load_dataset(source, config, split="train", **uncached)
        return Dataset.from_list(list(rows))


def _present(
    name: str, languages: Sequence[str], available: Sequence[str]
) -> list[str]:
    """Return the wanted languages, or all, sorted; raise for one that it lacks."""
    if not languages:
        if strange := sorted(set(available) - set(LANGUAGES)):
            raise ParameterError(
                f"languages: got none for instruction_data {name!r}, which has "
                f"{', '.join(strange)}; allowed: codes that maple_utils/languages.csv "
                "knows; add a line there, or name the languages to train on"
            )
        return sorted(available)
    wanted = sorted(check_languages(languages))
    absent = [code for code in wanted if code not in available]
    if absent:
        raise ParameterError(
            f"languages: got {', '.join(absent)}; allowed with instruction_data "
            f"{name!r}: {', '.join(available)}"
        )
    return wanted


def _complete(name: str, rows: Dataset, code: str, drop_empty: bool) -> Dataset:
    """Give the rows of one language exactly the COLUMNS, all strings.

    Rows without an instruction or a response are refused, or dropped with a warning.
    """
    texts = {key for key, kind in rows.features.items() if "string" in str(kind.dtype)}
    absent = {"instruction", "output"} - texts
    if absent:
        raise ParameterError(
            f"instruction_data: {name!r} lacks {', '.join(sorted(absent))} as text; "
            f"needed: instruction, output (and input, id, language if there are any); "
            f"got {', '.join(rows.column_names)}"
        )
    full = [
        bool((instruction or "").strip() and (output or "").strip())
        for instruction, output in zip(rows["instruction"], rows["output"], strict=True)
    ]
    empty = len(full) - sum(full)
    if empty and not drop_empty:
        raise ParameterError(
            f"instruction_data: {name!r} has {empty} of {len(rows)} rows in "
            f"{code} with an empty instruction or output; allowed: none; drop them "
            f"first, e.g. dataset.filter(lambda row: row['output'].strip())"
        )
    if empty:
        warnings.warn(f"{name}, {code}: left out {empty} empty rows", stacklevel=3)
        rows = rows.select(np.flatnonzero(full))
    return rows.map(
        _complete_batch,
        batched=True,
        with_indices=True,
        remove_columns=rows.column_names,
        fn_kwargs={"name": name, "code": code},
        features=Features({column: Value("string") for column in COLUMNS}),
        desc=f"Reading {code}",
    )


def _complete_batch(batch: dict, indices: list[int], name: str, code: str) -> dict:
    stem = Path(name).name
    ids = batch.get("id") or [None] * len(indices)
    own = [f"{stem}-{code}-{index}" for index in indices]
    inputs = batch.get("input") or [""] * len(indices)
    return {
        "id": [new if i is None else str(i) for i, new in zip(ids, own, strict=True)],
        "language": [code] * len(indices),
        "instruction": batch["instruction"],
        "input": ["" if NO_INPUT.fullmatch(v or "") else v or "" for v in inputs],
        "output": batch["output"],
    }
