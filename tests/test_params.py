"""Every bad value ends in one line; every params file is what it seems."""

from pathlib import Path

import pytest
import yaml

from maple_utils import params
from maple_utils.errors import ParameterError
from maple_utils.params import Cell

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = {"rank": "02_train", "learning_rate": "02_train"}


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("rank", 0, "rank: got 0; allowed: an integer from 1 to 1024; e.g. -p rank 32"),
        ("rank", "thirty-two", "rank: got 'thirty-two'; allowed: an integer from 1"),
        ("rank", True, "rank: got True; allowed: an integer"),
        ("bits", 5, "bits: got 5; allowed: one of 4, 8, 16"),
        ("learning_rate", "2e-4", "learning_rate: got '2e-4'; allowed: a number"),
        ("languages", ["sw", False], "languages: got ['sw', False]; allowed: a list"),
        ("languages", ["klingon"], "languages: got 'klingon'"),
        ("scoring", "guess", "scoring: got 'guess'; allowed: one of likelihood,"),
    ],
)
def test_a_bad_value_names_itself_and_what_is_allowed(name, value, line):
    with pytest.raises(ParameterError) as error:
        params.convert(name, value, NOTEBOOK.get(name, "03_evaluate"))
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_values_come_back_in_their_own_type():
    assert params.convert("languages", "sw, hi") == ["sw", "hi"]
    assert params.convert("languages", []) == []
    assert params.convert("epochs", 2) == 2.0
    assert isinstance(params.convert("epochs", 2), float)


def test_papermills_cell_is_searched_for_unknown_names():
    executed = ["", "rank = 8", "# Parameters\nrnak = 32\nbits = 4\n"]
    assert params.injected_names(executed) == ["rnak", "bits"]
    namespace = {name: None for name in params.NOTEBOOKS["02_train"]}
    with pytest.raises(
        ParameterError, match="rnak: not a parameter.*did you mean rank"
    ):
        params.check("02_train", {**namespace, "In": executed})


def test_names_defined_by_hand_are_nobodys_business():
    assert params.injected_names(["", "rnak = 32"]) == []


def test_an_output_folder_that_cannot_be_written_is_refused(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for place in (file / "below", Path("/proc/nowhere")):
        with pytest.raises(ParameterError, match="output_dir: got .*cannot be written"):
            params.check_writable(place)
    params.check_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


def test_cell_names_are_safe_file_names():
    name = Cell("mistral-7b", "bactrian-x-22", 32, 4).name
    assert name == "mistral-7b_bactrian-x-22_r32_4bit"
    assert Cell("mistral-7b", "", 0, 4).name == "mistral-7b_4bit"
    strange = Cell("me/Llama X", "../../etc", 8, 16, 3)
    assert strange.name == "llama-x_etc_r8_16bit_s3"
    assert "/" not in Cell("..", "/", 1, 4).name


def test_rank_0_is_the_base_model_and_nothing_else():
    cell = Cell("mistral-7b", "bactrian-x-22", 32, 4, 1)
    assert not cell.is_base
    assert cell.base == Cell("mistral-7b", "", 0, 4, 1)
    assert cell.base.is_base
    for data, rank in (("", 32), ("bactrian-x-22", 0)):
        with pytest.raises(ParameterError, match=f"rank: got {rank} with instruction"):
            Cell("mistral-7b", data, rank, 4)
    assert Cell.of(cell.asdict() | {"shots": 3}) == cell


def test_outputs_lie_in_the_workspace_from_the_root_and_from_notebooks(monkeypatch):
    for folder in (ROOT, ROOT / "notebooks"):
        monkeypatch.chdir(folder)
        assert params.output_folder("", "cell") == ROOT / "runs" / "cell"
    assert params.output_folder("elsewhere", "cell") == Path("elsewhere")


@pytest.mark.parametrize("file", sorted((ROOT / "params" / "cells").glob("*.yaml")))
def test_every_cell_file_holds_values_of_the_right_type(file):
    values = yaml.safe_load(file.read_text())
    assert {n: params.convert(n, v, "03_evaluate") for n, v in values.items()} == values
    assert Cell.of(values).name == file.stem
