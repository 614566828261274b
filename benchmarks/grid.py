"""Time what papermill, the kernel's start and the imports add to a cell of the grid.

    python benchmarks/grid.py --repeats 3

Three notebooks each for 02 and 03: empty, with the notebook's import lines only, and
the smallest cell that does everything. Seconds on the clock, and of processor time,
which is what they would be on a machine that does nothing else.
"""

import argparse
import ast
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import nbformat

from maple_utils.provenance import tree_of

ROOT = Path(__file__).resolve().parents[1]
SMALLEST = {
    "02_train": "train_limit=2 heldout=1 max_steps=1 languages=en,sw",
    "03_evaluate": "test_limit=2 languages=en,sw tasks=xcopa shots=0",
}


def imports_of(notebook: Path) -> str:
    """Return the import lines of a notebook, in their order."""
    lines = [
        n for n in tree_of(notebook).body if isinstance(n, ast.Import | ast.ImportFrom)
    ]
    return "\n".join(map(ast.unparse, lines))


def run(notebook: Path, *options: str) -> tuple[float, float]:
    """Run a notebook by papermill; return seconds on the clock and of the processor."""
    command = [sys.executable, "-m", "papermill", str(notebook), os.devnull]
    command += ["--no-progress-bar", *options]
    clock, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = [u.ru_utime + u.ru_stime for u in (after, before)]
    return time.perf_counter() - clock, spent[0] - spent[1]


def main() -> None:
    """Print a line per notebook: medians over the repeats."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        bare = {"empty notebook": ""}
        for name in SMALLEST:
            bare[f"imports of {name}"] = imports_of(ROOT / f"notebooks/{name}.ipynb")
        runs = {}
        for name, source in bare.items():
            notebook = nbformat.v4.new_notebook()
            notebook.cells = [nbformat.v4.new_code_cell(source)]
            notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "-"}
            runs[name] = (Path(folder) / f"{name}.ipynb",)
            nbformat.write(notebook, runs[name][0])
        for name, smallest in SMALLEST.items():
            given = [*smallest.split(), f"output_dir={folder}/cell"]
            given = [part for value in given for part in ("-p", *value.split("="))]
            runs[f"smallest {name}"] = (ROOT / f"notebooks/{name}.ipynb", *given)
        for name, call in runs.items():
            times = [run(*call) for _ in range(repeats)]
            clock, spent = (median(column) for column in zip(*times, strict=True))
            print(f"{name:24} {clock:6.1f} s on the clock, {spent:6.1f} s of processor")


if __name__ == "__main__":
    main()
