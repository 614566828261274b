"""What `pip install` of the kit replaces on Colab: none of what a notebook has loaded.

pip leaves a package alone that is there and within what is asked of it. What is not
comes in the versions that are installed here, with requirements of its own.
"""

import re
import tomllib
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

COLAB = ROOT / "tests" / "colab_constraints.txt"
PYTHON = {"python_version": "3.13", "python_full_version": "3.13.15"}
# Torch's CUDA is that of the runtime, and the others are in use before the first cell,
# or pinned by the package google-colab.
KEPT = {"torch", "numpy", "pandas", "scipy", "matplotlib", "ipywidgets", "ipykernel"}
KEPT |= {"ipython", "tornado", "requests", "psutil", "protobuf"}


def versions() -> dict[str, str]:
    """Return what is on Colab: names and versions."""
    pins = re.findall(r"^([\w.-]+)==(\S+)$", COLAB.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"]


def replaced(asked: list[str]) -> dict[str, str]:
    """Return what pip would install or replace on Colab, and who asks for it."""
    there, found = versions(), {}
    todo = [(Requirement(line), "the kit") for line in asked]
    while todo:
        requirement, asker = todo.pop()
        name = canonicalize_name(requirement.name)
        absent = name not in there
        if not absent and requirement.specifier.contains(there[name]):
            continue
        if name in found:
            continue
        found[name] = f"{asker} asks for {requirement}"
        for line in distribution(name).requires or []:
            own = Requirement(line)
            extras = {"", *requirement.extras}
            wanted = [
                not own.marker or own.marker.evaluate({**PYTHON, "extra": extra})
                for extra in extras
            ]
            if any(wanted):
                todo.append((own, name))
    return found


def test_what_a_notebook_on_colab_has_loaded_stays():
    assert versions().keys() >= KEPT
    gone = {name: why for name, why in replaced(requirements()).items() if name in KEPT}
    assert not gone


def test_what_asks_for_more_than_colab_has_is_found_with_who_asks():
    """So the test above can fail: for the kit's own sake, and for another's."""
    found = replaced(["pandas>=3.1", "matplotlib>=3.10"])
    assert found["pandas"] == "the kit asks for pandas>=3.1"
    assert "matplotlib" not in found
    assert replaced(["ipywidgets>=8.1"])["ipywidgets"]
    assert replaced(["trl"])["datasets"].startswith("trl asks for datasets")


def test_what_colab_lacks_is_installed():
    assert replaced(requirements()).keys() >= {"trl", "bitsandbytes", "papermill"}
