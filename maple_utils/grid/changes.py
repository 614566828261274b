"""What makes a cell stale: a digest of the code and of the data that go into it.

Snakemake compares digests, not times of files, so a comment, a docstring, a paragraph
of a notebook or a fresh checkout reruns nothing.
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from maple_utils.grid import Cell

PACKAGE = Path(__file__).resolve().parents[1]
LARGE = 2**27  # bytes, above which a file is known by its size and time


def tree_of(notebook: Path) -> ast.Module:
    """Return a notebook's code as a tree, without its magic lines."""
    loaded = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in loaded if c["cell_type"] == "code"]
    return ast.parse(re.sub(r"(?m)^(\s*)[%!].*", r"\1pass", "\n".join(code)))


@cache
def code_of(notebook: Path, ignored: frozenset[str] = frozenset()) -> str:
    """Return a digest of a notebook's code and of the rooms that it imports.

    The YAML tables of a room count as its code. `ignored` are rooms that do not matter.
    """
    tree = tree_of(notebook)
    digest = hashlib.sha256(_bare(tree).encode())
    for file in sorted(_imported(tree, ignored)):
        digest.update(_file(file))
    return digest.hexdigest()[:16]


def _bare(tree: ast.AST) -> str:
    """Return the tree as text, without comments, docstrings and places."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            constant = isinstance(body[0].value, ast.Constant)
            node.body = body[1:] if constant else body
    return ast.dump(tree)


def _file(file: Path) -> bytes:
    text = file.read_text(encoding="utf-8")
    return _bare(ast.parse(text)).encode() if file.suffix == ".py" else text.encode()


def _imported(tree: ast.AST, ignored: frozenset[str]) -> set[Path]:
    """Return the files of maple_utils that are imported, directly or through others."""
    found: set[Path] = set()
    todo = list(_files(tree, ignored))
    while todo:
        file = todo.pop()
        if file not in found:
            found.add(file)
            if file.suffix == ".py":
                todo += _files(ast.parse(file.read_text(encoding="utf-8")), ignored)
    return found


def _files(tree: ast.AST, ignored: frozenset[str]) -> Iterable[Path]:
    """Yield the files of the rooms that a tree's own import lines name."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node.level:
            continue
        package, *rooms = str(node.module).split(".")
        if package != PACKAGE.name:
            continue
        for name in ("", *(alias.name for alias in node.names)):
            parts = [*rooms, name] if name else rooms
            if parts and parts[0] not in ignored:
                yield from _room(PACKAGE.joinpath(*parts))


def _room(place: Path) -> Iterable[Path]:
    """Yield a module's file, or a package's `__init__` and tables."""
    if place.is_dir():
        yield from (place / "__init__.py", *place.glob("*.yaml"))
    elif place.with_suffix(".py").is_file():
        yield place.with_suffix(".py")


@cache
def content_of(folder: Path) -> str:
    """Return a digest of all files below a folder: their names and what they hold."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(folder)).encode())
        about = file.stat()
        if about.st_size > LARGE:
            digest.update(f"{about.st_size} {about.st_mtime_ns}".encode())
        else:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def data_of(cell: Cell, settings: dict[str, Any]) -> dict[str, str]:
    """Return digests of the folders that a cell reads: base model and instructions.

    What comes from the hub is known by its name, the miniature's data by their code,
    and what the grid itself makes by 01 is an input of its own.
    """
    model, data = cell["base_model"], cell["instruction_data"]
    folders = [Path(model), PACKAGE / "miniature" / model.removeprefix("miniature-")]
    if data:
        mirror = Path(settings.get("hub_root") or "miniature")
        folders += [Path(data), mirror / data]
    return {folder.name: content_of(folder) for folder in folders if folder.is_dir()}


def ignored_rooms(cell: Cell, settings: dict[str, Any]) -> frozenset[str]:
    """Return the rooms that a cell's notebooks import and do not need."""
    offline = settings.get("hub_root", "miniature") == "miniature"
    needed = offline or "miniature" in cell["base_model"]
    return frozenset() if needed else frozenset({"miniature"})
