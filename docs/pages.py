"""The four notebooks, executed, as pages: docs/*.html, each of which stands alone.

    python -m docs.pages    # or `make docs`

They run in a workspace of their own, so that what lies in runs/ does not show: 04
first, which draws the miniature's grid that ships with the kit where it finds no runs,
then 01 to 03, each with what the one before it made. A page keeps a fingerprint of its
notebook, by which a test knows that it is of today's.
"""

import hashlib
import json
import re
import tempfile
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
import papermill
from nbconvert import HTMLExporter
from PIL import Image

from maple_utils import files
from maple_utils.params import NOTEBOOKS

ROOT = Path(__file__).resolve().parents[1]
DATA = "bactrian-x-miniature"  # what 01 makes
ADAPTER = f"runs/miniature-llama_{DATA}_r8_4bit/adapter"  # of it, 02
GIVEN: dict[str, dict] = {
    "04_figures": {},
    "01_synthesize": {},
    "02_train": {"instruction_data": DATA},
    "03_evaluate": {"adapters": [ADAPTER]},
}
INDEX = """# The notebooks, executed

In the **miniature**: a closed little world with tiny models, which shows that the kit
works and says nothing about the paper. `make docs` makes these pages.
"""


def fingerprint(notebook: Path) -> str:
    """Return a digest of the text of a notebook's cells."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\0".join(f"{c['cell_type']}\0{''.join(c['source'])}" for c in cells)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def outdated(docs: Path, notebooks: Path) -> list[str]:
    """Return the notebooks whose page is absent or was made of another text."""

    def said(page: Path) -> str:
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        return "".join(re.findall(r'<nav data-notebook="(\w+)"', text))

    wanted = {name: fingerprint(notebooks / f"{name}.ipynb") for name in NOTEBOOKS}
    return [n for n, mark in wanted.items() if said(docs / f"{n}.html") != mark]


def smaller(png: bytes) -> bytes:
    """Return an image with 256 colours, more than which no figure has."""
    image, out = Image.open(BytesIO(png)), BytesIO()
    image.convert("RGB").quantize(256).save(out, "PNG", optimize=True)
    return out.getvalue()


def tidy(executed: nbformat.NotebookNode, workspace: str) -> nbformat.NotebookNode:
    """Return it without bars, warnings and the workspace's path, its images smaller."""
    bar = "application/vnd.jupyter.widget-view+json"
    for cell in (cell for cell in executed.cells if cell.cell_type == "code"):
        kept = (o for o in cell.outputs if o.get("name") != "stderr")
        cell.outputs = [o for o in kept if bar not in o.get("data", {})]
        for data in (output.get("data", {}) for output in cell.outputs):
            if "image/png" in data:
                small = smaller(b64decode(data["image/png"]))
                data["image/png"] = b64encode(small).decode()
            if "text/markdown" in data:  # its images are files of a run
                told = re.sub(r"!\[.*?\]\(.*?\)", "", data["text/markdown"])
                data["text/markdown"] = told
    text = nbformat.writes(executed).replace(workspace, "/maple")
    return nbformat.reads(text, as_version=4)


def page(notebook: nbformat.NotebookNode, name: str, mark: str) -> str:
    """Return a notebook as HTML that loads nothing from elsewhere."""
    templates = [str(ROOT / "docs"), str(ROOT / "maple_utils" / "data")]
    exporter = HTMLExporter(
        template_name="page",
        extra_template_basedirs=templates,
        extra_template_paths=templates,
    )
    about = {"metadata": {"name": name}, "fingerprint": mark}
    return exporter.from_notebook_node(
        notebook, resources=about | {"pages": ["index", *NOTEBOOKS]}
    )[0]


def index(notebooks: Path) -> nbformat.NotebookNode:
    """Return the page that leads to the others, by their titles and first words."""
    lines = []
    for name in NOTEBOOKS:
        first = nbformat.read(notebooks / f"{name}.ipynb", as_version=4).cells[0].source
        title, about, *_ = first.removeprefix("# ").split("\n\n")
        lines.append(f"- [{title}]({name}.html): {about.strip('*')}")
    cell = nbformat.v4.new_markdown_cell(INDEX + "\n" + "\n".join(lines))
    return nbformat.v4.new_notebook(cells=[cell])


def write(name: str, text: str) -> None:
    """Write a page, and say how large it is."""
    with files.atomic(ROOT / "docs" / f"{name}.html") as draft:
        draft.write_text(text, encoding="utf-8")
    print(f"docs/{name}.html: {len(text.encode()) / 1e6:.2f} MB", flush=True)


def main() -> None:
    """Execute all four and write the pages."""
    write("index", page(index(ROOT / "notebooks"), "index", ""))
    with tempfile.TemporaryDirectory() as workspace:
        for folder in ("notebooks", "maple_utils", "params"):
            Path(workspace, folder).symlink_to(ROOT / folder)
        for name, given in GIVEN.items():
            source = ROOT / "notebooks" / f"{name}.ipynb"
            out = str(Path(workspace, f"{name}.ipynb"))
            executed = papermill.execute_notebook(
                str(source), out, given, cwd=workspace
            )
            write(name, page(tidy(executed, workspace), name, fingerprint(source)))


if __name__ == "__main__":
    main()
