"""Atomic writes: a file or folder appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a draft path to fill with a file or folder, then move it to `path`.

    What stands at `path` is replaced; where the block fails, it stays as it was.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    draft = scratch / path.name
    try:
        yield draft
        if path.is_dir():
            os.replace(path, scratch / ".before")
        os.replace(draft, path)
    finally:
        shutil.rmtree(scratch)
