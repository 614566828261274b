"""The parameters of a run, each defined once in `parameters.yaml`, and a cell's name.

Every notebook begins with `run = params.check("02_train", globals())`. Its parameters
cell, where papermill and its help look, is written from the same definitions:

    python -m maple_utils.params     # after a change of parameters.yaml
"""

import ast
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from maple_utils import files
from maple_utils.errors import ParameterError
from maple_utils.languages import check_languages

TYPES: dict[str, tuple[type, str]] = {  # and how an error names them
    "str": (str, "text"),
    "int": (int, "an integer"),
    "float": (float, "a number"),
    "bool": (bool, "True or False"),
    "list": (list, "a list of names, or names separated by commas"),
}


@dataclass(frozen=True)
class Parameter:
    """One parameter; `help` and `low` may differ by notebook, and then are mappings."""

    type: str  # a key of TYPES
    default: Mapping[str, Any]  # by notebook: those that take it
    help: str | Mapping[str, str]
    choices: Any = ()  # a list, or lists by notebook
    low: float | Mapping[str, float] | None = None
    high: float | None = None
    pattern: str = ""  # what a text must match as a whole
    example: Any = ""

    def allowed(self, notebook: str = "") -> str:
        """Say in words what is allowed."""
        if choices := _of(self.choices, notebook):
            listed = ", ".join(str(choice) or '""' for choice in choices)
            return f"one of {listed}"
        if self.pattern:
            return f"text like {self.pattern}"
        low = _of(self.low, notebook)
        bounds = "" if low is None else f" from {low:g} to {self.high:g}"
        return TYPES[self.type][1] + bounds

    def admits(self, value: Any, notebook: str = "") -> bool:
        """Say whether a value of the right type is allowed."""
        low, choices = _of(self.low, notebook), _of(self.choices, notebook)
        return not (
            (self.type == "list" and not all(isinstance(item, str) for item in value))
            or (choices and value not in choices)
            or (low is not None and not low <= value <= self.high)
            or (self.pattern and not re.fullmatch(self.pattern, value))
        )


def _of(value: Any, notebook: str) -> Any:
    """Return what holds in a notebook; without one, the first that is there."""
    if not isinstance(value, Mapping):
        return value
    return value[notebook] if notebook else next(iter(value.values()))


PARAMETERS = {
    name: Parameter(**about)
    for name, about in yaml.safe_load(
        Path(__file__).with_name("parameters.yaml").read_text(encoding="utf-8")
    ).items()
}
NOTEBOOKS: dict[str, dict[str, Any]] = {  # notebook -> its parameters' defaults
    notebook: {
        n: p.default[notebook] for n, p in PARAMETERS.items() if notebook in p.default
    }
    for notebook in ("01_synthesize", "02_train", "03_evaluate", "04_figures")
}


@dataclass(frozen=True)
class Cell:
    """A cell of the grid; rank 0, without instruction data, is the base model.

    Bits are 4, 8 or 16, or 0 where a server keeps them to itself.
    """

    base_model: str
    instruction_data: str
    rank: int
    bits: int
    seed: int = 0

    def __post_init__(self) -> None:
        if bool(self.instruction_data) != bool(self.rank):
            raise ParameterError(
                f"rank: got {self.rank} with instruction_data "
                f"{self.instruction_data!r}; allowed: 0 without instruction_data (the "
                "base model), from 1 with it (an adapter)"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Cell":
        """Return the cell that stands among other parameters or columns."""
        return cls(**{name: values[name] for name in CELL})

    @property
    def is_base(self) -> bool:
        """Say whether this is a base model."""
        return not self.rank

    @property
    def base(self) -> "Cell":
        """Return the base model that an adapter is compared with."""
        return Cell(self.base_model, "", 0, self.bits, self.seed)

    @property
    def name(self) -> str:
        """Name the cell's folder and file: `mistral-7b_bactrian-x-22_r32_4bit`.

        `_s1` follows for seed 1. A base model is `mistral-7b_4bit`, whatever the seed.
        Bits 0, of a served model, are not known: `gpt-4o_served`.
        """
        base = short_name(self.base_model)
        width = f"{self.bits}bit" if self.bits else "served"
        if self.is_base:
            return f"{base}_{width}"
        name = f"{base}_{short_name(self.instruction_data)}_r{self.rank}_{width}"
        return name + (f"_s{self.seed}" if self.seed else "")

    def asdict(self) -> dict[str, Any]:
        """Return the five values by name, as they stand in params files and tables."""
        return asdict(self)


CELL = [axis.name for axis in fields(Cell)]


def check(notebook: str, namespace: Mapping[str, Any]) -> SimpleNamespace:
    """Check a notebook's parameters and return them, converted.

    Args:
        notebook: its name without ending, a key of NOTEBOOKS.
        namespace: the notebook's `globals()`.

    Raises:
        ParameterError: one line with the parameter, what was given, what is allowed.
    """
    for name in injected_names(namespace.get("In", [])):
        check_known(name)  # one file may serve several notebooks
    values = {n: convert(n, namespace[n], notebook) for n in NOTEBOOKS[notebook]}
    check_writable(values["output_dir"])
    return SimpleNamespace(**values)


def injected_names(executed: list[str]) -> list[str]:
    """Return the names that papermill's injected cell sets, from IPython's `In`."""
    cells = [cell for cell in executed if cell.startswith("# Parameters\n")]
    lines = ast.parse(cells[-1]).body if cells else []
    targets = (line.targets[0] for line in lines if isinstance(line, ast.Assign))
    return [target.id for target in targets if isinstance(target, ast.Name)]


def check_known(name: str) -> None:
    """Refuse a name that is no parameter: papermill itself would only warn."""
    if name not in PARAMETERS:
        near = get_close_matches(name, PARAMETERS, n=1)
        known = f"known: {', '.join(PARAMETERS)}"
        hint = f"did you mean {near[0]}?" if near else known
        raise ParameterError(f"{name}: not a parameter of any notebook; {hint}")


def convert(name: str, value: Any, notebook: str = "") -> Any:
    """Return a parameter's value in its own type, or say what is wrong with it."""
    known = PARAMETERS[name]
    kind: Any = TYPES[known.type][0]  # else mypy narrows value to object
    if kind is list and isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or not known.admits(value, notebook):
        example = f"; e.g. -p {name} {known.example}" if known.example != "" else ""
        allowed = known.allowed(notebook)
        raise ParameterError(f"{name}: got {value!r}; allowed: {allowed}{example}")
    return check_languages(value) if name == "languages" else value


def check_writable(folder: str | Path) -> None:
    """Refuse an output folder that cannot be written, without creating it."""
    place = Path(folder or workspace()).absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ParameterError(
            f"output_dir: got {str(folder)!r}, which cannot be written "
            f"({error.strerror}); allowed: a folder you may write to"
        ) from error


def short_name(name: str) -> str:
    """Shorten a hub id or a path to a name that is safe in a file name."""
    short = re.sub(r"[^a-z0-9.-]+", "-", Path(name).name.lower())
    return short.strip(".-") or "unnamed"


def workspace() -> Path:
    """Return the repository's root from within it, else the current folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "maple_utils").is_dir():
            return folder
    return here


def output_folder(output_dir: str, *default: str) -> Path:
    """Return `output_dir`, or where it is empty the workspace's `runs/<default>`."""
    return Path(output_dir) if output_dir else workspace().joinpath("runs", *default)


def cell_source(notebook: str) -> str:
    """Return the text of a notebook's parameters cell: name, type, default, help."""
    lines = []
    for name, default in NOTEBOOKS[notebook].items():
        known = PARAMETERS[name]
        shown = json.dumps(default) if known.type in ("str", "list") else default
        told = _of(known.help, notebook)
        lines.append(f"{name}: {known.type} = {shown}  # {told}")
    return "\n".join(lines)


def main() -> None:
    """Write the parameters cell of every notebook."""
    for notebook in NOTEBOOKS:
        path = workspace() / "notebooks" / f"{notebook}.ipynb"
        loaded = json.loads(path.read_text(encoding="utf-8"))
        for cell in loaded["cells"]:
            if "parameters" in cell["metadata"].get("tags", []):
                cell["source"] = cell_source(notebook).splitlines(keepends=True)
        with files.atomic(path) as draft:
            text = json.dumps(loaded, indent=1, ensure_ascii=False) + "\n"
            draft.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
