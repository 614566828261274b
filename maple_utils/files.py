"""Files that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file or folder under a temporary name, then move it to `path`.

    What stands at `path` is replaced; a write that fails leaves it as it was.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        write(draft / path.name)
        if path.is_dir():
            os.replace(path, draft / ".before")
        os.replace(draft / path.name, path)
    finally:
        shutil.rmtree(draft)
