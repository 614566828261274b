"""Fixtures shared by all tests: the offline world and, where present, real rows."""

import gc
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared_hub() -> Path:
    """Return a mirror folder with real rows, or skip the test where there is none."""
    folder = Path(os.environ.get("MAPLE_SHARED_HUB", ROOT.parent / "shared" / "hub"))
    if not folder.is_dir():
        pytest.skip(f"no real rows: {folder} is absent (set MAPLE_SHARED_HUB)")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the grid's tests first: they are long, and one worker has their workspace."""
    items.sort(key=lambda item: item.path.name != "test_snakefile.py")


def pytest_collection_finish() -> None:
    """Keep what is imported by now out of garbage collection, which often runs here."""
    gc.freeze()
