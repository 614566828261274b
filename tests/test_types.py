"""The type checker over the package, as pyproject.toml sets it up."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_mypy_is_content():
    command = [sys.executable, "-m", "mypy"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    # A line may spell out a library's type over thousands of characters.
    lines = [line[:200] for line in (ran.stdout + ran.stderr).splitlines()]
    assert ran.returncode == 0, "\n".join(lines)
