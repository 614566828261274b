"""The grid: axes -> cells -> a small params file for each.

python -m maple_utils.grid write              # params/cells/*.yaml from params/*.yaml
python -m maple_utils.grid status             # what is done, running, failed, missing
python -m maple_utils.grid other-code         # results that other code made, to rerun
python -m maple_utils.grid estimate paper     # hours, memory, disk, dollars beforehand
python -m maple_utils.grid design paper --device a100 --hours 200    # a smaller grid
"""

from itertools import product
from pathlib import Path
from typing import Any

import yaml

from maple_utils import files
from maple_utils.errors import ParameterError
from maple_utils.params import CELL, NOTEBOOKS, Cell, check_known, convert


def read_grid(file: Path) -> tuple[dict[str, Cell], dict[str, Any]]:
    """Read a grid's file: its cells by name, and the settings that they share.

    Base models come first, with the grid's first seed, which draws their shots.

    Raises:
        ParameterError: for an unknown grid or name, a missing axis, a refused value.
    """
    if not file.is_file():
        known = sorted(path.stem for path in file.parent.glob("*.yaml"))
        raise ParameterError(
            f"grid: got {file.stem!r}; allowed: a file of params/: {', '.join(known)}"
        )
    return parse(yaml.safe_load(file.read_text(encoding="utf-8")), file.name)


def parse(loaded: dict[str, Any], file: str) -> tuple[dict[str, Cell], dict[str, Any]]:
    """Return what `read_grid` does of the content of a grid's file with this name."""
    for name in loaded:
        check_known(name)
    for axis in CELL:
        if not isinstance(loaded.get(axis), list):
            raise ParameterError(
                f"{axis}: got {loaded.get(axis)!r} in {file}; allowed: a list"
            )
    axes = {axis: [convert(axis, v, "02_train") for v in loaded[axis]] for axis in CELL}
    settings = {k: convert(k, v) for k, v in loaded.items() if k not in CELL}
    adapters = [Cell(*values) for values in product(*axes.values())]
    bases = [
        Cell(base_model, "", 0, bits, axes["seed"][0])
        for base_model, bits in product(axes["base_model"], axes["bits"])
    ]
    return {cell.name: cell for cell in (*bases, *adapters)}, settings


def pick(cells: dict[str, Cell], wanted: str) -> dict[str, Cell]:
    """Return the cells whose names are in `wanted`, separated by commas; "": all.

    Raises ParameterError for a name that the grid has not.
    """
    names = [name.strip() for name in str(wanted).split(",") if name.strip()]
    for name in names:
        if name not in cells:
            raise ParameterError(
                f"cells: got {name!r}; allowed: names of cells, such as "
                f"{next(reversed(cells))}; see python -m maple_utils.grid status"
            )
    return {name: cells[name] for name in names} if names else cells


def parameters(notebook: str, cell: Cell, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a notebook takes of a cell and its grid's settings."""
    given = settings | cell.asdict()
    return {name: given[name] for name in NOTEBOOKS[notebook] if name in given}


def limits(rows: int) -> dict[str, int]:
    """Return the settings for so many rows per language, to train on and to test."""
    return {name: convert(name, rows) for name in ("train_limit", "test_limit")}


def cell_files(folder: Path) -> dict[str, str]:
    """Return what `folder`/cells must hold: file name -> text."""
    return {
        f"{name}.yaml": yaml.safe_dump(cell.asdict(), sort_keys=False)
        for grid in sorted(folder.glob("*.yaml"))
        for name, cell in read_grid(grid)[0].items()
    }


def write(folder: Path) -> None:
    """Write a file per cell, and remove files of cells that are no more."""
    wanted = cell_files(folder)
    (folder / "cells").mkdir(exist_ok=True)
    for file in (folder / "cells").glob("*.yaml"):
        if file.name not in wanted:
            file.unlink()
    for name, text in wanted.items():
        with files.atomic(folder / "cells" / name) as draft:
            draft.write_text(text)
    print(f"{len(wanted)} cells in {folder / 'cells'}")
