"""The tiny models are small but not fake: they know something, and training helps."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.notebooks.running import run_here

# A guess: one of two options, one of four; one of the facts in the text, of 3 and of 5.
CHANCE = {"xcopa": 1 / 2, "belebele": 1 / 4, "xquad": 1 / 3, "mlqa": 1 / 5}
CELL = "miniature-llama_bactrian-x-mini_r8_16bit"


@pytest.mark.parametrize("base_model", ["miniature-llama", "miniature-mistral"])
def test_base_models_answer_above_chance_in_english(base_model, tmp_path):
    parameters = {
        "base_model": base_model,
        "bits": 16,
        "tasks": list(CHANCE),
        "languages": "en",
        "test_limit": 60,
        "output_dir": str(tmp_path / "base"),
    }
    run_here("03_evaluate", parameters)
    scores = pd.read_parquet(tmp_path / "base" / "scores.parquet")
    main = scores[scores["metric"].isin(["accuracy", "f1"])]
    best = main.sort_values("value").drop_duplicates("task", keep="last")
    surely = best["value"] - 1.96 * best["stderr"] > best["task"].map(CHANCE)
    assert surely.sum() >= 3, best[["task", "value", "stderr"]].to_string()


def improvements(before: Path, after: Path) -> pd.DataFrame:
    """Return, per task and scoring, the mean change and its 95 % half-width.

    Examples are paired. One example is the same in all languages, so the standard error
    takes its rows together.
    """
    key = ["task", "language", "scoring", "example"]
    tables = [pd.read_parquet(f / "predictions.parquet") for f in (before, after)]
    score = [t[["accuracy", "f1", "rouge_l"]].bfill(axis=1).iloc[:, 0] for t in tables]
    base, tuned = (t[key].assign(value=s) for t, s in zip(tables, score, strict=True))
    both = base.merge(tuned, on=key)
    both["change"] = both["value_y"] - both["value_x"]
    rows = {}
    for name, part in both.groupby(["task", "scoring"]):
        off = (part["change"] - part["change"].mean()).groupby(part["example"]).sum()
        half = 1.96 * np.sqrt((off**2).sum()) / len(part)
        rows[name] = {"change": part["change"].mean(), "half": half}
    return pd.DataFrame.from_dict(rows, orient="index")


def test_an_adapter_improves_three_tasks_by_more_than_their_intervals(tmp_path):
    folder = tmp_path / CELL
    small = {"bits": 16, "train_limit": 50, "output_dir": str(folder)}
    run_here("02_train", {**small, "rank": 8, "epochs": 2.0, "learning_rate": 0.005})
    asked = {
        "tasks": "belebele,words,xcopa",
        "prompt_template": "instruction",
        "shots": 0,
        "adapters": [str(folder / "adapter")],
    }
    base = {"bits": 16, "test_limit": 24, "output_dir": str(tmp_path / "base")}
    run_here("03_evaluate", {**base, **asked})
    found = improvements(tmp_path / "base", tmp_path / "base" / CELL)
    better = found[found["change"] > found["half"]]
    tasks = better.index.get_level_values(0).unique()
    # Words of things that are not in the data cannot be learned from them; forms can.
    assert len(tasks) == 3, found.round(3).to_string()
