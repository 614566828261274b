"""The grid: axes -> cells -> a small params file for each.

python -m maple_utils.grid write              # params/cells/*.yaml from params/*.yaml
python -m maple_utils.grid status             # what is done, running, failed, missing
python -m maple_utils.grid estimate paper     # hours, memory, disk, dollars beforehand
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from maple_utils import files
from maple_utils.errors import ParameterError
from maple_utils.params import (
    CELL,
    NOTEBOOKS,
    Cell,
    check_known,
    convert,
)


def read_grid(file: Path) -> tuple[dict[str, list], dict[str, Any]]:
    """Read a grid's file: its axes, each a list of values, and its shared settings.

    Raises:
        ParameterError: for an unknown grid or name, a missing axis, a refused value.
    """
    if not file.is_file():
        known = sorted(path.stem for path in file.parent.glob("*.yaml"))
        raise ParameterError(
            f"grid: got {file.stem!r}; allowed: a file of params/: {', '.join(known)}"
        )
    loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name in loaded:
        check_known(name, tuple(PARAMETERS))
    for axis in AXES:
        if not isinstance(loaded.get(axis), list):
            raise ParameterError(
                f"{axis}: got {loaded.get(axis)!r} in {file.name}; allowed: a list"
            )
    axes = {axis: [convert(axis, value) for value in loaded[axis]] for axis in AXES}
    settings = {k: convert(k, v) for k, v in loaded.items() if k not in AXES}
    return axes, settings


def cells(axes: dict[str, list]) -> Iterator[Cell]:
    """Yield the parameters of every cell: base models first, then the adapters.

    A base model has empty instruction data and the grid's first seed, which draws its
    shots; its rank is without meaning, but a list in its place would be refused.
    """
    for base_model, bits in product(axes["base_model"], axes["bits"]):
        seed = axes["seed"][0]
        values = (base_model, "", axes["rank"][0], bits, seed)
        yield dict(zip(AXES, values, strict=True))
    for values in product(*(axes[axis] for axis in AXES)):
        yield dict(zip(AXES, values, strict=True))


def name_of(cell: Cell) -> str:
    """Name a cell as its folder, file and label."""
    return cell_name(**{axis: cell[axis] for axis in AXES})


def named(axes: dict[str, list]) -> dict[str, Cell]:
    """Return all cells by name."""
    return {name_of(cell): cell for cell in cells(axes)}


def pick(grid: dict[str, Cell], wanted: str) -> dict[str, Cell]:
    """Return the cells whose names stand in `wanted`, separated by commas; "": all.

    Raises ParameterError for a name that the grid has not.
    """
    names = [name.strip() for name in str(wanted).split(",") if name.strip()]
    for name in names:
        if name not in grid:
            raise ParameterError(
                f"cells: got {name!r}; allowed: names of cells, such as "
                f"{next(reversed(grid))}; see python -m maple_utils.grid status"
            )
    return {name: grid[name] for name in names} if names else grid


def parameters(notebook: str, cell: Cell, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what of a cell and its grid's settings a notebook takes: what it is."""
    given = settings | cell
    return {name: given[name] for name in NOTEBOOKS[notebook] if name in given}


def cell_files(folder: Path) -> dict[str, str]:
    """Return what `folder`/cells must hold: file name -> text."""
    return {
        f"{name}.yaml": yaml.safe_dump(cell, sort_keys=False)
        for grid in sorted(folder.glob("*.yaml"))
        for name, cell in named(read_grid(grid)[0]).items()
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
