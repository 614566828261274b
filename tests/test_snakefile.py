"""The grid as Snakemake runs it: killed, broken, full, changed, and still right."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from maple_utils import grid

pytest.importorskip(
    "snakemake", reason="Snakemake is not installed: pip install snakemake"
)

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "base_model": ["miniature-llama"],
    "instruction_data": ["mine"],
    "rank": [2, 4],
    "bits": [16],
    "seed": [0],
    **{"train_limit": 4, "test_limit": 4, "heldout": 1, "max_steps": 2},
    **{"languages": ["en", "sw"], "tasks": ["xcopa"], "shots": 0},
}
RECIPE = {"recipe": "bactrian-x", "languages": ["en", "sw"], "seed_limit": 12}
BASE = "miniature-llama_16bit"
CELL = "miniature-llama_bactrian-x-mini_r2_16bit"
TWO, FOUR = (f"miniature-llama_mine_r{rank}_16bit" for rank in (2, 4))
DONE = [f"runs/{cell}/evaluate.json" for cell in (BASE, TWO, FOUR)]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a workspace with a grid of one base model and two adapters on own data."""
    folder = tmp_path_factory.mktemp("workspace")
    for name in ("notebooks", "params", "profiles", "maple_utils"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "Snakefile", folder)
    write_grid(folder, {})
    grid.write(folder / "params")
    (folder / "params" / "instructions").mkdir()
    recipe = folder / "params" / "instructions" / "mine.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    return folder


def write_grid(folder: Path, changes: dict) -> None:
    (folder / "params" / "tiny.yaml").write_text(yaml.safe_dump(TINY | changes))


def command(*options: str, config: str = "grid=tiny") -> list[str]:
    call = [sys.executable, "-m", "snakemake", "-c2"]
    return [*call, "--config", *config.split(), *options]


def environment(folder: Path) -> dict:
    """Return an environment with this Python's programs and the workspace's package."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}


def snakemake(
    folder: Path, *options: str, config: str = "grid=tiny"
) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*options, config=config),
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )


def planned(
    folder: Path, config: str = "grid=tiny", forced: list[str] | None = None
) -> set[str]:
    """Return what would run: the executed notebook that each job would write."""
    force = [] if forced is None else ["-R", *forced]
    ran = snakemake(folder, "--dry-run", *force, "--", *DONE, config=config)
    assert ran.returncode == 0, ran.stderr
    said = re.findall(r"papermill notebooks/\S+ runs/(\S+)", ran.stdout + ran.stderr)
    return set(said)


def wait_for(condition, seconds: int = 300) -> None:
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "waited in vain"
        time.sleep(0.1)


def has_begun(notebook: Path) -> bool:
    return notebook.exists() and notebook.read_text().count('"completed"') > 9


def kill_all(process: subprocess.Popen) -> None:
    """End a process and all that it started at once, as a power cut would."""
    everyone = [process, *psutil.Process(process.pid).children(recursive=True)]
    for one in everyone:
        one.kill()
    process.wait()


def test_a_plan_makes_data_once_trains_each_adapter_and_evaluates_everyone(place):
    assert planned(place) == {
        "instructions/mine.ipynb",
        f"{BASE}/03_evaluate.ipynb",
        *(
            f"{cell}/0{step}.ipynb"
            for cell in (TWO, FOUR)
            for step in ("2_train", "3_evaluate")
        ),
    }


def test_one_base_for_all_cells_is_one_run(place):
    runs = planned(place, "grid=tiny together=true")
    assert {run for run in runs if "evaluate" in run} == {f"{BASE}/03_evaluate.ipynb"}


def test_killed_then_broken_then_whole(place):
    """A power cut, then a cell that fails: only what is missing is done again."""
    log = (place / "killed.log").open("w")
    train = [f"runs/{cell}/train.json" for cell in (TWO, FOUR)]
    process = subprocess.Popen(
        command("--", *train), cwd=place, env=environment(place), stdout=log, stderr=log
    )
    notebooks = [place / "runs" / cell / "02_train.ipynb" for cell in (TWO, FOUR)]
    wait_for(lambda: all(map(has_begun, notebooks)))
    made = place / "runs" / "instructions" / "mine" / "README.md"
    assert "recipe | bactrian-x" in made.read_text()
    kill_all(process)
    assert not [file for file in train if (place / file).exists()]

    cell_file = place / "params" / "cells" / f"{FOUR}.yaml"
    good = cell_file.read_text()
    cell_file.write_text(good.replace("rank: 4", "rank: 0"))
    broken = snakemake(place, "--", *DONE)
    assert broken.returncode == 1
    failed = place / "runs" / FOUR / "02_train.failed.ipynb"
    assert "rank: got 0; allowed: an integer from 1 to 1024" in failed.read_text()
    assert [(place / file).exists() for file in DONE] == [True, True, False]

    cell_file.write_text(good)
    times = {file: (place / file).stat().st_mtime_ns for file in DONE[:2]}
    whole = snakemake(place, "--", *DONE)
    assert whole.returncode == 0, whole.stderr
    assert times == {file: (place / file).stat().st_mtime_ns for file in times}
    assert json.loads((place / DONE[2]).read_text())["subject"]["rank"] == 4
    assert not failed.exists()
    assert planned(place) == set()


@pytest.fixture(scope="module")
def whole(place) -> Path:
    """Return the workspace once all of its grid has run."""
    ran = snakemake(place, "--", *DONE)
    assert ran.returncode == 0, ran.stderr
    return place


EVERY_TRAIN = {f"{cell}/02_train.ipynb" for cell in (TWO, FOUR)}
EVERY_EVALUATE = {f"{cell}/03_evaluate.ipynb" for cell in (BASE, TWO, FOUR)}


@pytest.mark.parametrize(
    ("change", "reruns"),
    [
        ({}, set()),
        (
            {"lora_alpha_ratio": 3.0},
            EVERY_TRAIN | (EVERY_EVALUATE - {f"{BASE}/03_evaluate.ipynb"}),
        ),
        ({"token_budget": 100}, EVERY_EVALUATE),
        ({"tasks": ["xcopa", "xlsum"]}, EVERY_EVALUATE),
        ({"rank": [2]}, None),
    ],
    ids=["nothing", "training", "evaluation", "tests", "fewer cells"],
)
def test_a_changed_setting_reruns_the_cells_it_touches(whole, change, reruns):
    write_grid(whole, change)
    try:
        if reruns is None:
            ran = snakemake(whole, "-n", "--", *DONE[:2])
            assert "Nothing to be done" in ran.stdout + ran.stderr
        else:
            assert planned(whole) == reruns
    finally:
        write_grid(whole, {})


def test_a_fresh_checkout_reruns_nothing(whole):
    for file in (whole / "params" / "cells").iterdir():
        file.touch()
    assert planned(whole) == set()


def python(folder: Path, *module: str) -> list[str]:
    """Run a module of the workspace's package and return the lines that it prints."""
    run = [sys.executable, "-m", *module]
    ran = subprocess.run(
        run,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.splitlines()


def by_other_code(folder: Path) -> list[str]:
    return " ".join(python(folder, "maple_utils.grid", "other-code", "tiny")).split()


def test_other_code_reruns_nothing_until_it_is_asked_to(whole):
    """One cell is made by a notebook that is then changed back."""
    notebook = whole / "notebooks" / "03_evaluate.ipynb"
    before = notebook.read_text()
    changed = json.loads(before)
    paragraph = next(c for c in changed["cells"] if c["cell_type"] == "markdown")
    paragraph["source"] = ["Anew.\n"]
    notebook.write_text(json.dumps(changed))
    assert by_other_code(whole) == []
    changed["cells"][-1] |= {"cell_type": "code", "source": ["X = 1"], "outputs": []}
    changed["cells"][-1] |= {"execution_count": None}
    notebook.write_text(json.dumps(changed))
    assert planned(whole) == set()
    assert by_other_code(whole) == DONE
    again = snakemake(whole, "-R", DONE[1], "--", *DONE)
    assert again.returncode == 0, again.stderr

    notebook.write_text(before)
    assert planned(whole) == set()
    assert by_other_code(whole) == [DONE[1]]
    told = python(whole, "maple_utils.grid", "status", "tiny")
    (line,) = (line for line in told if "other code: 03_evaluate" in line)
    assert line.startswith(TWO)
    assert told[-1].endswith("-R $(python -m maple_utils.grid other-code tiny)")
    assert planned(whole, forced=[DONE[1]]) == {f"{TWO}/03_evaluate.ipynb"}
    assert planned(whole, forced=[]) == set()  # the option without any name


@pytest.fixture
def small_disk(whole):
    """Mount a disk of 200 KiB over a cell's folder."""
    folder = whole / "runs" / FOUR
    kept = whole / "kept"
    folder.rename(kept)
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        folder.rmdir()
        kept.rename(folder)
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()
    kept.rename(folder)


def test_a_full_disk_leaves_nothing_half_written(whole, small_disk):
    full = snakemake(whole, "--", f"runs/{FOUR}/train.json")
    assert full.returncode == 1
    assert not (small_disk / "train.json").exists()
    assert not (small_disk / "adapter").exists()


def test_one_loaded_base_gives_the_same_scores(whole):
    files = [whole / "runs" / cell / "scores.parquet" for cell in (BASE, TWO, FOUR)]
    apart = [pd.read_parquet(file) for file in files]
    together = snakemake(whole, "--", *DONE, config="grid=tiny together=true")
    assert together.returncode == 0, together.stderr
    for before, file in zip(apart, files, strict=True):
        pd.testing.assert_frame_equal(before, pd.read_parquet(file))


TAKE = ". profiles/take_gpu.sh && echo took $CUDA_VISIBLE_DEVICES"


def test_two_runs_never_take_one_gpu(place, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "901,902")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    nested = f"bash -c '{TAKE}; bash -c \"{TAKE}\"'"
    bash = ["bash", "-c", f"{TAKE}; export CUDA_VISIBLE_DEVICES=901,902; {nested}"]
    ran = subprocess.run(bash, cwd=place, capture_output=True, text=True)
    assert ran.stdout.split("\n")[:2] == ["took 901", "took 902"]
    assert "no free GPU among: 902" in ran.stderr


def test_the_lock_of_another_user_is_not_in_the_way(place, monkeypatch):
    """Nobody else may open it; here it is a folder, which not even root may."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "903")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    theirs = Path("/tmp/maple-gpu-903"), Path("/tmp/maple-7-gpu-903")
    for lock in theirs:
        lock.mkdir(exist_ok=True)
    try:
        bash = ["bash", "-c", TAKE]
        ran = subprocess.run(bash, cwd=place, capture_output=True, text=True)
    finally:
        for lock in theirs:
            lock.rmdir()
    assert ran.stdout == "took 903\n", ran.stderr


def test_no_job_asks_for_more_time_than_a_partition_gives(place):
    """The estimate is days for some cells of the paper's: they are tried again."""
    cell = "llama-2-7b_bactrian-x-22_r128_4bit"
    ran = snakemake(
        place,
        *("--dry-run", "--verbose", "--", f"runs/{cell}/train.json"),
        config=f"grid=paper device=t4 cells={cell}",
    )
    said = ran.stdout + ran.stderr
    assert re.findall(r"resources:.*runtime=1440\b", said), said
    assert re.findall(r"resources:.*cpus_per_task=8\b", said)


@pytest.mark.parametrize(("ends", "tries"), [("exit 1", 1), ("kill -9 $PPID", 3)])
def test_what_a_limit_ended_is_tried_again_and_an_error_is_not(
    ends, tries, place, tmp_path, monkeypatch
):
    """A time limit takes the shell along, as `kill` does; papermill is a stand-in."""
    for name in ("maple_utils", "profiles", "Snakefile"):
        (tmp_path / name).symlink_to(place / name)
    shutil.copytree(place / "params", tmp_path / "params")
    shutil.rmtree(tmp_path / "params" / "instructions")
    write_grid(tmp_path, {"instruction_data": ["bactrian-x-mini"]})
    grid.write(tmp_path / "params")
    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "papermill"
    stand_in.write_text(f"#!/bin/sh\necho tried >> tries\ntouch $2\n{ends}\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    calls = command("--retries", "2", "--", f"runs/{CELL}/train.json")
    with_stand_in = environment(place) | {"PATH": os.environ["PATH"]}
    subprocess.run(calls, cwd=tmp_path, env=with_stand_in, capture_output=True)
    assert (tmp_path / "tries").read_text().split() == ["tried"] * tries
