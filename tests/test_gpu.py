"""The measurements of `make gpu`, at their small shape, on any machine."""

import json
import subprocess
import sys

import pytest
import torch
import yaml

from benchmarks import gpu
from tests.notebooks.running import ROOT

COMMAND = [sys.executable, "-m", "benchmarks.gpu"]


def test_the_small_shape_is_measured_whole_and_fitted(tmp_path):
    subprocess.run(
        [*COMMAND, "--shape", "small", "--out", tmp_path], cwd=ROOT, check=True
    )
    [file] = tmp_path.glob("*.json")
    found = json.loads(file.read_text())
    assert found["left out"] == []
    widths = {row["bits"] for row in found["training"]}
    assert widths == {4, 8, 16}
    for row in found["exactness"]:
        assert row["nats apart"] < 1e-3
        assert (row["same choices"], row["same texts"]) == (row["of"], row["of texts"])
    assert all(row["faster"] > 0 for row in found["speed"])
    told = file.with_suffix(".md").read_text()
    assert "| bits | rank | attention | recompute |" in told
    fitted = subprocess.run(
        [*COMMAND, "--fit", file], cwd=ROOT, check=True, capture_output=True, text=True
    )
    [block] = yaml.safe_load(fitted.stdout).values()
    assert set(block["train"]) == set(block["read"]) == {4, 8, 16}
    assert min(block["train"].values()) > 1e6
    assert block["bandwidth"] > 1e8


def test_seven_billion_parameters_want_a_gpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == "shape: got 7b without a GPU; allowed: --shape small"
