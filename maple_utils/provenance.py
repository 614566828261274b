"""What a run was made from: code, versions, device; and digests of folders of data.

A digest of code leaves out comments, docstrings and a notebook's paragraphs, so that
none of these, nor a fresh checkout, counts as other code.
"""

import ast
import hashlib
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from maple_utils.params import workspace

PACKAGE = Path(__file__).resolve().parent
LARGE = 2**27  # bytes, above which a file is known by its size and time
# What a notebook only looks on with: an adapter is not made anew where a test changes.
BESIDE = {"02_train": ("tasks", "instructions/contamination", "instructions/ngrams")}


def environment(notebook: str, device: str) -> dict[str, Any]:
    """Return what a run record says of how it came about, beside its parameters.

    Args:
        notebook: the name, without ending, of the notebook that calls this at its end.
        device: as `models.device_name` gives it.

    Returns:
        python, versions, device; `git`, None outside a repository, where `clean` says
        whether the commit is all there is; `code`, see `code_of`.
    """
    packages = "torch transformers peft trl bitsandbytes datasets maple-utils".split()
    return {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "git": _git_state(),
        "device": device,
        "code": code_of([notebook, *_loaded(BESIDE.get(notebook, ()))]),
    }


def _git_state() -> dict[str, Any] | None:
    here = ["git", "-C", str(PACKAGE)]
    try:
        head = subprocess.check_output(
            [*here, "rev-parse", "HEAD"], text=True, stderr=subprocess.DEVNULL
        )
        changed = subprocess.check_output([*here, "status", "--porcelain"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": head.strip(), "clean": not changed.strip()}


def _loaded(beside: Iterable[str] = ()) -> list[str]:
    """Return this package's modules that this process has imported.

    Those `beside` are left out with what is in them, and the miniature: it is data,
    which `content_of` digests.
    """
    names = (name.split(".") for name in sys.modules)
    paths = ["/".join(inner) for package, *inner in names if package == PACKAGE.name]
    out = tuple(f"{name}/" for name in ("miniature", *beside))
    return sorted(path for path in paths if path and not f"{path}/".startswith(out))


def code_of(names: Iterable[str]) -> dict[str, str]:
    """Return a digest of the code of each notebook or module, as it is on disk.

    `02_train` is a notebook of the workspace, `tasks/prompts` a module of this package,
    whose code includes the tables (YAML, CSV) of its name or folder. The digest of what
    is not there is "", as of a notebook on Colab.
    """
    return {name: _digest_of(name) for name in names}


@cache
def _digest_of(name: str) -> str:
    notebook, place = workspace() / "notebooks" / f"{name}.ipynb", PACKAGE / name
    if notebook.is_file():
        return _digest([_bare(tree_of(notebook))])
    module = [place.with_suffix(".py"), place / "__init__.py"]
    tables = [place.with_suffix(end) for end in (".csv", ".yaml")]
    tables += sorted(place.glob("*.yaml"))
    code = [_bare(ast.parse(_text(file))) for file in module if file.is_file()]
    return _digest([*code, *map(_text, filter(Path.is_file, tables))]) if code else ""


def tree_of(notebook: Path) -> ast.Module:
    """Return a notebook's code as a tree, without its magic lines."""
    cells = json.loads(_text(notebook))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    return ast.parse(re.sub(r"(?m)^(\s*)[%!].*", r"\1pass", "\n".join(code)))


def _bare(tree: ast.AST) -> str:
    """Return the tree as text, without comments, docstrings and line numbers."""
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant()), *rest]:
                node.body = rest  # type: ignore[attr-defined]  # it has one
    return ast.dump(tree)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


@cache
def content_of(folder: Path) -> str:
    """Return a digest of all files below a folder: their names and what they hold."""
    lines = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        about = file.stat()
        held = f"{about.st_size} {about.st_mtime_ns}"
        if about.st_size <= LARGE:
            held = hashlib.sha256(file.read_bytes()).hexdigest()
        lines.append(f"{file.relative_to(folder)} {held}")
    return _digest(lines)
