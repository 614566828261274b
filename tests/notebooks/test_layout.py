"""The notebooks as they are committed: clean, readable, and true to the libraries."""

import ast
import dataclasses
import json
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

import papermill
import pytest
from packaging.requirements import Requirement
from peft import LoraConfig
from transformers import BitsAndBytesConfig
from trl import SFTConfig

from maple_utils import params
from maple_utils.provenance import tree_of

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path) -> list[dict]:
    loaded = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in loaded]


def is_parameters(cell: dict) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


def code_lines(cell: dict) -> int:
    return sum(bool(line.strip()) for line in cell["source"].splitlines())


def test_all_four_are_there():
    assert [path.stem for path in NOTEBOOKS] == list(params.NOTEBOOKS)


@each_notebook
def test_committed_without_outputs_and_papermill_metadata(path):
    extra = "metadata.papermill cell.metadata.papermill metadata.language_info.version"
    command = [sys.executable, "-m", "nbstripout", "--verify", "--extra-keys", extra]
    stripped = subprocess.run([*command, path], capture_output=True, text=True)
    assert stripped.returncode == 0, stripped.stdout + stripped.stderr


@each_notebook
def test_rhythm(path):
    """Short cells, each after a paragraph: what the best teaching notebooks do."""
    all_cells = cells(path)
    code = [c for c in all_cells if c["cell_type"] == "code" and not is_parameters(c)]
    lengths = [code_lines(cell) for cell in code]
    assert median(lengths) <= 6
    assert quantiles(lengths, n=10)[-1] <= 15
    assert max(lengths) <= 25
    assert all(len(line) <= 88 for c in code for line in c["source"].splitlines())
    pairs = pairwise(all_cells)
    told = [a["cell_type"] == "markdown" for a, b in pairs if b["cell_type"] == "code"]
    assert sum(told) >= 0.9 * len(told)


@each_notebook
def test_papermill_finds_every_parameter_with_its_help(path):
    found = papermill.inspect_notebook(str(path))
    assert list(found) == list(params.NOTEBOOKS[path.stem])
    for name, about in found.items():
        assert about["help"], f"{name} has no help"
        default = ast.literal_eval(about["default"])
        assert params.convert(name, default, path.stem) == default


@each_notebook
def test_the_parameters_cell_is_written_from_their_definitions(path):
    """After a change of parameters.yaml: python -m maple_utils.params."""
    [cell] = [cell for cell in cells(path) if is_parameters(cell)]
    assert cell["source"] == params.cell_source(path.stem)


@each_notebook
def test_a_newcomer_sees_something_soon_and_often(path):
    """At most six of our modules; a result in at least every third code cell."""
    names = {
        name.split(".")[1]
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("maple_")
        for name in (
            [f"{node.module}.{alias.name}" for alias in node.names]
            if node.module == "maple_utils"
            else [node.module]
        )
    }
    assert len(names) <= 6, names
    most = {"01_synthesize": 38, "02_train": 48, "03_evaluate": 48, "04_figures": 68}
    assert len(cells(path)) <= most[path.stem]


def test_the_colab_cell_is_the_same_and_has_no_address_of_its_own():
    [text] = {cells(path)[1]["source"] for path in NOTEBOOKS}
    assert "MAPLE_KIT" in text
    assert "://github.com" not in text


@each_notebook
def test_every_keyword_exists_in_the_installed_release(path):
    """The calls that users copy must not use names that a release has dropped."""
    known = {
        "SFTConfig": {field.name for field in dataclasses.fields(SFTConfig)},
        "LoraConfig": {field.name for field in dataclasses.fields(LoraConfig)},
        "BitsAndBytesConfig": set(BitsAndBytesConfig().__dict__)
        | {"load_in_4bit", "load_in_8bit"},
    }
    for call in (
        node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)
    ):
        name = call.func.id if isinstance(call.func, ast.Name) else None
        named = [keyword for keyword in call.keywords if keyword.arg]  # not **settings
        for keyword in named if name in known else []:
            assert keyword.arg in known[name], f"{name} has no {keyword.arg}"


def test_installing_on_colab_leaves_the_open_notebook_alone():
    """Colab draws with ipywidgets 7.7 and runs on ipykernel 6.17: no others then."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = {need.name: need for need in map(Requirement, project["dependencies"])}
    assert not {"ipywidgets", "jupyterlab", "notebook", "nbconvert"} & set(needs)
    assert needs["ipykernel"].specifier.contains("6.17.1")


def test_ruff_is_content():
    for command in (["check"], ["format", "--check"]):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
