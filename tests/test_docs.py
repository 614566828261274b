"""The pages of docs/: of today's notebooks, alone, without traces of a machine."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest

from docs import pages
from maple_utils.params import NOTEBOOKS

DOCS, SOURCES = pages.ROOT / "docs", pages.ROOT / "notebooks"
BAR = "application/vnd.jupyter.widget-view+json"
each_page = pytest.mark.parametrize("name", ["index", *NOTEBOOKS])


def test_they_are_of_todays_notebooks():
    assert not pages.outdated(DOCS, SOURCES), "run `make docs`, and commit the pages"


def test_a_notebook_that_changed_is_told(tmp_path):
    for name in NOTEBOOKS:
        source = Path(shutil.copy(SOURCES / f"{name}.ipynb", tmp_path))
        mark = pages.fingerprint(source)
        page = pages.page(nbformat.v4.new_notebook(), name, mark)
        (tmp_path / f"{name}.html").write_text(page)
    assert pages.outdated(tmp_path, tmp_path) == []
    text = (tmp_path / "02_train.ipynb").read_text()
    (tmp_path / "02_train.ipynb").write_text(text.replace("LoRA", "lora", 1))
    (tmp_path / "03_evaluate.html").unlink()
    assert pages.outdated(tmp_path, tmp_path) == ["02_train", "03_evaluate"]


@each_page
def test_a_page_stands_alone_and_is_small(name):
    text = (DOCS / f"{name}.html").read_text(encoding="utf-8")
    assert len(text.encode()) <= 1.5e6
    assert "prefers-color-scheme: dark" in text
    loaded = re.findall(r'<(?:script|link|iframe)\b|src="(?!data:)|url\(|@import', text)
    assert not loaded
    assert not re.findall(r"/(?:tmp|home|root|work|Users)/\w+", text)
    assert "Traceback" not in text
    linked = re.findall(r'<a href="(\w+\.html)"', text)
    assert all((DOCS / page).is_file() for page in linked)
    assert {f"{other}.html" for other in NOTEBOOKS} - set(linked) <= {f"{name}.html"}


def test_bars_warnings_and_paths_are_left_out():
    def output(kind: str, **about) -> nbformat.NotebookNode:
        return nbformat.v4.new_output(kind, **about)

    table = {"text/html": '<table class="dataframe"></table>', "text/plain": "a table"}
    outputs = [
        output("stream", name="stderr", text="a warning"),
        output("stream", name="stdout", text="kept in /tmp/x/runs"),
        output("display_data", data={BAR: {}, "text/plain": "0 of 8"}),
        output("display_data", data=table),
        output("display_data", data={"text/markdown": "A card. ![loss](loss.png)"}),
    ]
    told = nbformat.v4.new_markdown_cell(
        "Read on", metadata={"tags": ["notebook-only"]}
    )
    cell = nbformat.v4.new_code_cell("rank = 8  # of LoRA", outputs=outputs)
    made = pages.tidy(nbformat.v4.new_notebook(cells=[told, cell]), "/tmp/x")
    text = pages.page(made, "02_train", "f00")
    assert "Read on" in text
    assert "kept in /maple/runs" in text
    assert '<table class="dataframe">' in text
    assert '<span class="c1"># of LoRA</span>' in text
    assert "A card." in text
    assert "loss.png" not in text
    assert "a warning" not in text
    assert "0 of 8" not in text
    assert "a table" not in text
