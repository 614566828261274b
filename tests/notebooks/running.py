"""Run a notebook as a user would, through papermill, or faster, in this process."""

import contextlib
from pathlib import Path

import nbformat
import papermill
from IPython.core.interactiveshell import InteractiveShell
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[2]
NO_HISTORY = Config(HistoryManager={"enabled": False})


def _read(name: str, probes: dict[str, str] | None) -> nbformat.NotebookNode:
    """Read a notebook and put in what a test wants to see.

    `probes` are cells of the test's own: each goes in before the one cell whose source
    contains the key ("" for the end), to write down what a user could look at there.
    """
    notebook = load_notebook_node(str(ROOT / "notebooks" / f"{name}.ipynb"))
    for place, code in (probes or {}).items():
        cell = nbformat.v4.new_code_cell(code, metadata={"tags": []})
        if not place:
            notebook.cells.append(cell)
            continue
        found = [i for i, c in enumerate(notebook.cells) if place in c.source]
        assert len(found) == 1, f"{place!r} is in {len(found)} cells"
        notebook.cells.insert(found[0], cell)
    return notebook


def run(
    name: str,
    out: Path,
    parameters: dict,
    probes: dict[str, str] | None = None,
    cwd: Path = ROOT / "notebooks",
) -> nbformat.NotebookNode:
    """Execute notebooks/`name`.ipynb into `out` and return the executed notebook."""
    out.mkdir(parents=True, exist_ok=True)
    source = out / f"{name}.ipynb"
    nbformat.write(_read(name, probes), source)
    return papermill.execute_notebook(
        str(source),
        str(out / f"{name}.out.ipynb"),
        parameters=parameters,
        cwd=str(cwd),
        progress_bar=False,
    )


def run_here(
    name: str, parameters: dict, probes: dict[str, str] | None = None
) -> dict[str, object]:
    """Execute the cells in this process and return their variables, or raise.

    Seconds faster than `run`, since the libraries are loaded: for what a notebook
    computes, not for what papermill makes of it.
    """
    notebook = parameterize_notebook(_read(name, probes), parameters)
    shell = InteractiveShell(config=NO_HISTORY)
    with contextlib.chdir(ROOT / "notebooks"):
        for cell in notebook.cells:
            if cell.cell_type == "code":
                shell.run_cell(cell.source, store_history=True).raise_error()
    return shell.user_ns


def error_line(error: papermill.PapermillExecutionError) -> str:
    """Return the last line of a failed notebook's error: what a person reads."""
    return str(error).strip().splitlines()[-1]
