"""A plan for a budget: its costs, its file, and whether what it says of power is so."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import benchmarks.design
from benchmarks.design import check, small_plan
from maple_utils import grid
from maple_utils.errors import ParameterError
from maple_utils.grid import __main__ as command_line
from maple_utils.grid import design, estimate, power, proposals, status

ROOT = Path(__file__).resolve().parents[1]
PAPER = yaml.safe_load((ROOT / "params" / "paper.yaml").read_text())
SMALL = PAPER | {"rank": [8, 32, 128], "bits": [4, 16], "tasks": ["xcopa", "mlqa"]}
A100 = estimate.DEVICES["a100"]
HOURS = 40


def command(place: Path, *options: str) -> None:
    """Run the command in a workspace, with two proposals and few worlds."""
    few = proposals.PROPOSALS[1:4:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", ["grid", *options])
        patch.setattr(design, "simulate", partial(power.simulate, seeds=range(3)))
        patch.setattr(proposals, "PROPOSALS", few)
        command_line.main()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a workspace with a small grid, and the plan made of it."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("notebooks", "profiles", "maple_utils"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "params").mkdir()
    (folder / "params" / "small.yaml").write_text(yaml.safe_dump(SMALL))
    command(folder, "design", "small", "--device", "a100", "--hours", str(HOURS))
    return folder


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--hours", "9"], "device: got none; allowed: one of cpu, t4"),
        (["--device", "t4", "--device", "a100", "--hours", "9"], "device: got t4, a"),
        (["--device", "a100"], "hours: allowed: either --hours, or --dollars"),
        (["--device", "a100", "--hours", "9", "--dollars", "9"], "hours: allowed: ei"),
        (["--device", "a100", "--dollars", "9"], "price: got 0; allowed: above 0 wi"),
        (["--device", "a100", "--hours", "0"], "hours: got 0; allowed: above 0"),
        (["--device", "a100", "--hours", "nan"], "hours: got nan; allowed: above 0"),
        (["--device", "a100", "--hours", "9", "--claim", "C9"], "claim: got 'C9'; a"),
        (["--device", "a100", "--hours", "9", "--rows", "0"], "rows: got 0; allowed"),
        (["--device", "a100", "--hours", "9", "--name", "paper"], "name: got 'paper'"),
        (["--device", "a100", "--hours", "9", "--name", "../up"], "name: got '../up'"),
        (["--device", "a100", "--hours", "1"], r"hours: got 1; allowed: from \d\d"),
        (["nowhere", "--device", "a100", "--hours", "9"], "grid: got 'nowhere'; allo"),
    ],
)
def test_what_cannot_be_planned_is_one_line(options, line, tmp_path, capsys):
    shutil.copytree(ROOT / "params", tmp_path / "params")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as end:
        command(tmp_path, "design", *options)
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert re.match(line, said)
    assert said.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_dollars_are_hours_at_a_price():
    given = design.budget(["t4"], None, 90.0, 0.5, 2000, "C1")
    assert given == design.Budget("t4", 180, 2000, "C1")


def test_the_plan_is_a_grid_within_the_budget(place, capsys):
    cells, settings = grid.read_grid(place / "params" / "plan.yaml")
    hours = estimate.table(cells, settings, ["a100"], 0).loc["a100"]
    assert hours["too large"] == 0
    assert 0 < hours["hours"] <= HOURS
    assert settings["train_limit"] >= 2000
    assert settings["test_limit"] in (0, *proposals.TEST_ROWS)
    kept = {"learning_rate": 2e-4, "tasks": ["xcopa", "mlqa"], "max_length": 1024}
    assert kept.items() <= settings.items()
    rows = status.table(cells, place / "runs")
    assert set(rows["cell"]) == set(cells)
    for stem in ("status", "estimate"):
        command(place, stem, "plan")
        assert capsys.readouterr().out
    head = (place / "params" / "plan.yaml").read_text()
    assert "maple_utils.grid design small --device a100 --hours 40" in head
    drawn = {file.suffix for file in (place / "runs" / "plans").glob("plan.*")}
    assert drawn == {".png", ".svg", ".pdf", ".csv"}


def test_snakemake_takes_the_plan(place):
    command(place, "write")
    call = [sys.executable, "-m", "snakemake", "-n", "--config"]
    ran = subprocess.run(
        [*call, "grid=plan", "device=a100"], cwd=place, capture_output=True, text=True
    )
    cells, _ = grid.read_grid(place / "params" / "plan.yaml")
    assert ran.returncode == 0, ran.stderr
    tuned = [name for name, cell in cells.items() if not cell.is_base]
    said = ran.stdout + ran.stderr
    assert all(f"runs/{name}/02_train.ipynb" in said for name in tuned)


def test_a_plan_is_not_written_over(place, capsys):
    before = (place / "params" / "plan.yaml").read_text()
    with pytest.raises(SystemExit):
        command(place, "design", "small", "--device", "a100", "--hours", "90")
    assert capsys.readouterr().err.startswith("name: got 'plan'")
    assert (place / "params" / "plan.yaml").read_text() == before


@pytest.fixture(scope="module")
def compared() -> tuple[list[proposals.Option], list[power.Power]]:
    every = proposals.options(SMALL, A100, 500)
    wanted = [one for one in every if one.name in "AC"]
    return wanted, [power.simulate(one.plan(), range(3)) for one in wanted]


def test_more_hours_never_make_a_plan_worse(compared):
    worth = []
    for hours in np.geomspace(10, 3000, 12):
        table = design.compare(*compared, hours, 500)
        if len(table):
            best = design.choose(table)
            effects = best[design.IDS].astype(float).dropna()
            assert best["hours 02"] + best["hours 03"] <= hours
            assert best["hours 03"] <= hours / 3
            worth.append((-len(effects), np.log(effects).mean()))
    assert len(worth) > 5
    assert worth == sorted(worth, reverse=True)
    assert worth[-1] < worth[0]


def test_a_claim_may_decide_alone():
    table = pd.DataFrame({"plan": ["A", "B", "C"]}).reindex(
        columns=["plan", *design.IDS]
    )
    table.loc[:, ["C1", "C3", "C4"]] = [[1, 9, 9], [2, 1, 1], [0.5, np.nan, 1]]
    assert design.choose(table)["plan"] == "B"
    assert design.choose(table, "C1")["plan"] == "C"
    with pytest.raises(ParameterError, match="claim: got C8, which no proposal"):
        design.choose(table, "C8")


def test_proposals_are_parts_of_the_grid_that_differ():
    every = proposals.options(PAPER, A100, 2000)
    whole = grid.parse(PAPER, "paper")[0]
    assert list(every[0].cells) == list(whole)
    parts = [(frozenset(one.cells), tuple(one.tasks)) for one in every]
    assert len(set(parts)) == len(parts) == len(proposals.PROPOSALS)
    contrast = next(one for one in every if len(one.tasks) < 6)
    assert contrast.tasks == ["xcopa", "belebele", "indicqa", "xlsum"]
    seeds = PAPER | {"seed": [0, 5]}
    whole = grid.parse(seeds, "seeds")[0]
    assert list(proposals.options(seeds, A100, 2000)[0].cells) == list(whole)
    narrow = PAPER | {"bits": [4], "rank": [8]}
    assert len(proposals.options(narrow, A100, 2000)) < len(every)
    assert proposals.options(PAPER, estimate.DEVICES["t4"], 2000) == [
        one
        for one in proposals.options(PAPER, estimate.DEVICES["t4"], 2000)
        if set(one.loaded["bits"]) == {4}
    ]  # 16 bits do not fit


def test_a_grids_own_limits_are_never_exceeded():
    own = SMALL | {"train_limit": 1500, "test_limit": 300}
    for option in proposals.options(own, A100, 2000):
        assert option.fit(1e6, 2000).train_limit == 1500
        assert max(option.evaluate) == option.fit(1e6, 2000).test_limit == 300
        assert option.questions(300).max() == 300


def test_datasets_are_matched_by_what_they_give_to_train_on():
    option = proposals.options(SMALL | {"languages": ["id", "vi"]}, A100, 500)[0]
    assert option.matched(500)
    assert not option.matched(20_000)  # MultiAlpaca has half of it


@pytest.mark.parametrize("claim", ["C1", "C4"])
def test_the_smallest_effect_is_found_in_four_worlds_of_five(claim, monkeypatch):
    """The effect is told by worlds without it, at another number of questions."""
    monkeypatch.setattr(benchmarks.design, "CALIBRATION", 8)
    plan = small_plan(["xcopa", "belebele"], 100, [4])
    wanted = "en es fr it no ht qu sw tr vi zh".split()
    some = {t: [c for c in codes if c in wanted] for t, codes in plan.languages.items()}
    _, share = check(replace(plan, languages=some), claim, simulations=24, jobs=1)
    assert 0.65 < share < 0.93
