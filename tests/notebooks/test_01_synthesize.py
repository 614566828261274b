"""Synthesis: what is made, what is asked again, what is refused."""

import json
import re
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from datasets import load_dataset
from nbclient.exceptions import DeadKernelError

from maple_utils import miniature
from maple_utils.errors import ParameterError
from maple_utils.instructions import load
from tests.loopback import USAGE, completion, serve
from tests.notebooks.running import run, run_here

SMALL = {"languages": "en,sw,zh", "seed_limit": 30}


def answers(folder: Path) -> int:
    with sqlite3.connect(folder / "answers.sqlite") as database:
        return database.execute("SELECT count(*) FROM answers").fetchone()[0]


@pytest.mark.parametrize(
    "parameters",
    [
        {"recipe": "bactrian-x"},
        {"recipe": "multialpaca", "rounds": 2, "prompts": 12, "similarity": 0.95},
    ],
    ids=lambda given: given["recipe"],
)
def test_a_recipe_makes_a_dataset_and_asks_nothing_twice(parameters, tmp_path):
    parameters = {**SMALL, **parameters, "output_dir": str(tmp_path / "data" / "mine")}
    run_here("01_synthesize", parameters)
    made = load_dataset(str(tmp_path / "data" / "mine"), split="train")
    asked = answers(tmp_path / "data")
    assert made.column_names == ["id", "language", "instruction", "input", "output"]
    assert set(made["language"]) == {"en", "sw", "zh"}
    assert len(made) >= 60
    assert all(text.strip() for text in made["output"])
    assert asked >= 60 if parameters["recipe"] == "bactrian-x" else asked >= 3 * 22

    run_here("01_synthesize", parameters)
    again = load_dataset(str(tmp_path / "data" / "mine"), split="train")
    assert again.to_list() == made.to_list()
    assert answers(tmp_path / "data") == asked


def test_a_published_set_is_counted_and_languages_are_drawn_alike(tmp_path, capsys):
    mirror = tmp_path / "mirror" / "DAMO-NLP-MT" / "multialpaca"
    mirror.mkdir(parents=True)
    row = {"instruction": "Di algo.", "input": "", "output": "Algo."}
    (mirror / "es.jsonl").write_text("\n".join([json.dumps(row)] * 3))
    folder = tmp_path / "data" / "mine"
    small = {"languages": "es", "seed_limit": 30, "total": 12, "sampling_alpha": 0.5}
    given = {**small, "published": "multialpaca", "hub_root": str(mirror.parents[1])}
    with pd.option_context("display.max_columns", 20):  # as in a kernel
        run_here("01_synthesize", given | {"output_dir": str(folder)})
    assert len(load_dataset(str(folder), split="train")) == 12
    shown = capsys.readouterr().out
    assert re.search(r"es +3 +9958 +-9955", shown)
    assert re.search(r"miniature-llama +miniature-mistral", shown)


def test_ids_are_parallel_and_training_reads_what_was_made(tmp_path):
    folder = tmp_path / "data" / "mine"
    run_here("01_synthesize", {**SMALL, "output_dir": str(folder)})
    rows = load(str(folder), ["en", "sw"]).to_pandas()
    ids = rows.groupby("language")["id"].agg(set)
    assert len(ids["en"] & ids["sw"]) >= 25
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| recipe | bactrian-x |" in card
    assert "| teacher | miniature |" in card


@pytest.fixture
def served(monkeypatch):
    """Serve the miniature's teacher on loopback; yield who was asked how often."""
    asked: Counter[str] = Counter()

    def reply(prompt: str) -> tuple[int, str]:
        asked[prompt] += 1
        time.sleep(0.02)
        return 200, completion(miniature.answer([prompt])[0])

    with serve(reply, monkeypatch):
        yield asked


KILL = """
import os, signal
whole, calls = teacher.answer, []
def answer(prompts):
    calls.append(prompts)
    if len(calls) == 40:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(prompts)
teacher.answer = answer
"""


def test_a_killed_run_asks_what_is_missing_and_ends_with_the_same_dataset(
    served, tmp_path, capsys
):
    given = {**SMALL, "teacher": "endpoint:tiny", "concurrency": 4}
    given |= {"price_in": 1000.0, "price_out": 2000.0, "budget_dollars": 1000.0}
    killed, whole = tmp_path / "killed" / "mine", tmp_path / "whole" / "mine"
    again = given | {"output_dir": str(killed)}
    with pytest.raises(DeadKernelError):
        run("01_synthesize", tmp_path, again, {"made = recipe": KILL})
    assert not killed.exists()
    before = set(served)
    assert 30 <= len(before) <= 40
    run_here("01_synthesize", again)
    twice = {prompt for prompt, times in served.items() if times > 1}
    assert twice <= before
    assert len(twice) <= given["concurrency"]  # those under way when it was killed

    prompts = len(served)
    run_here("01_synthesize", given | {"output_dir": str(whole)})
    dollars = prompts * USAGE["prompt_tokens"] * given["price_in"] / 1e6
    dollars += prompts * USAGE["completion_tokens"] * given["price_out"] / 1e6
    assert f"{dollars:.2f} dollars" in capsys.readouterr().out
    files = sorted(path.relative_to(whole) for path in whole.rglob("*.*"))
    assert files == sorted(path.relative_to(killed) for path in killed.rglob("*.*"))
    assert all((whole / f).read_bytes() == (killed / f).read_bytes() for f in files)
    assert not any(b"sk-secret" in p.read_bytes() for p in tmp_path.rglob("*.*"))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"recipe": "alpaca"}, "recipe: got 'alpaca'; allowed: one of bactrian-x"),
        ({"teacher": "gpt-4"}, "teacher: got 'gpt-4'; allowed: text like miniature"),
        ({"teacher": "endpoint:gpt-4o-mini"}, "OPENAI_API_KEY"),
        ({"languages": "klingon"}, "languages: got 'klingon'"),
        ({"languages": "en,yo"}, "languages: got yo; allowed where the miniature"),
        ({"languages": ""}, "languages: got none; allowed: at least one"),
        ({"recipe": "multialpaca", "tasks_per_prompt": 3}, "tasks_per_prompt: got 3"),
        ({"budget_tokens": 0}, "budget_tokens: got 0; allowed: an integer from 1"),
        ({"output_dir": "/proc/nowhere"}, "output_dir: got '/proc/nowhere'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_ends_in_one_line_before_anyone_is_asked(
    given, line, tmp_path, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ParameterError) as error:
        run_here("01_synthesize", {"output_dir": str(tmp_path / "d"), **given})
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "d").exists()
    assert not (tmp_path / "answers.sqlite").exists()


def test_what_is_not_ours_is_never_replaced(tmp_path):
    mine = tmp_path / "d" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("years of work")
    with pytest.raises(ParameterError, match="which holds thesis.txt; allowed: a new"):
        run_here("01_synthesize", {"output_dir": str(mine.parent)})
    assert mine.read_text() == "years of work"
