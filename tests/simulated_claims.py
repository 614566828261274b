"""Score tables and runs whose truth is known, to check the claims against."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maple_utils import results
from maple_utils.claims import worlds
from maple_utils.params import CELL, Cell

# The lists of paper.md, without the languages of the middle level, so that every
# column counts; xlsum and xcopa have few low-resource languages, indicqa no other.
PAPER = {
    "xcopa": "en ht it qu sw tr vi zh",
    "belebele": "en es de ja fr pt it zh-Hans zh-Hant nl sv tr fi ru no ko pl ar cs hu",
    "xquad": "en ar de es hi ru tr vi zh",
    "mlqa": "en ar de es hi vi zh",
    "indicqa": "as gu hi kn ml mr or pa te",
    "xlsum": "ar en es fr hi ja ko pt ru sw tr vi zh-Hans zh-Hant",
}
FEW = dict.fromkeys(("xcopa", "belebele", "xquad"), "en es fr zh ar hi sw te gu qu")
LOW = set("ht qu sw no as gu kn ml mr or pa te".split())
SEEN = {"bactrian-x-22": "en es fr zh ar hi te", "multialpaca": "es fr zh ar"}
METRIC = {"xquad": "f1", "mlqa": "f1", "indicqa": "f1", "xlsum": "rouge_l"}


def runs(ranks=(8, 16, 32, 64, 128), bits=(4, 8, 16), seeds=(0,)) -> pd.DataFrame:
    """Return the runs of a grid: two base models, two datasets, and the axes given."""
    names = ["base_model", "instruction_data", "rank", "bits", "seed"]
    axes = [["llama-2-7b", "mistral-7b"], ["bactrian-x-22", "multialpaca"]]
    grid = pd.MultiIndex.from_product([*axes, ranks, bits, seeds], names=names)
    return grid.to_frame(index=False)


def table(
    rng: np.random.Generator,
    grid: pd.DataFrame,
    places: dict[str, str] = PAPER,
    *,
    rank_low: float = 0.0,
    rank_seen: float = 0.0,
    bits_low: float = 0.0,
    gain: float = 0.0,
    english: float = 0.0,
    base_sd: float = 0.0,
    data_sd: float = 0.0,
    language_slope: float = 0.4,
    low_spread: float = 1.0,
    task_slope: float = 0.3,
    pair_slope: float = 0.2,
    run: float = 0.5,
    run_level: float = 0.0,
    run_language: float = 0.3,
    noise: float = 1.5,
    n: int = 1000,
) -> pd.DataFrame:
    """Return scores (with base rows) in which every source of variation is known.

    `rank_low` and `bits_low` are the true extra points per doubling of low-resource
    languages, `rank_seen` those of languages that are in the finetuning data (SEEN);
    `gain` and `english` the points that finetuning adds everywhere and in English; the
    rest are standard deviations in points: of slopes by language (times `low_spread`
    for low-resource ones), task and pair; of a run as a whole, per resource level and
    per language; of the sampling of examples (`noise`).
    """
    where = pd.DataFrame(
        [(task, code) for task, codes in places.items() for code in codes.split()],
        columns=["task", "language"],
    )
    low = where["language"].isin(LOW).to_numpy(int)
    language, languages = pd.factorize(where["language"])
    task, tasks = pd.factorize(where["task"])
    spread = np.where(pd.Index(languages).isin(LOW), low_spread, 1.0) * language_slope
    bases = grid[["base_model", "bits"]].drop_duplicates()
    every = pd.concat([bases, grid], ignore_index=True)
    tuned = every["instruction_data"].notna().to_numpy()
    size = (len(every), len(where))
    y = 50 + rng.normal(0, 5, len(where)) + rng.normal(0, noise, size)
    for axis, effect in (("rank", rank_low), ("bits", bits_low)):
        steps = np.log2(every[axis].fillna(8).to_numpy(float))
        steps = np.where(tuned, steps - steps.min(), 0.0)
        slope = effect * low + rng.normal(0, spread)[language]
        slope = slope + rng.normal(0, task_slope, len(tasks))[task]
        y += np.outer(steps, slope + rng.normal(0, pair_slope, len(where)))
        if axis == "rank" and rank_seen:
            for data, codes in SEEN.items():
                own = steps * (every["instruction_data"] == data)
                y += np.outer(own, rank_seen * where["language"].isin(codes.split()))
    y += tuned[:, None] * (
        gain
        + english * (where["language"] == "en").to_numpy()
        + rng.normal(0, run, (len(every), 1))
        + rng.normal(0, run_level, (len(every), 2))[:, low]
        + rng.normal(0, run_language, (len(every), len(languages)))[:, language]
    )
    for name, deviation in (("base_model", base_sd), ("instruction_data", data_sd)):
        code = pd.factorize(every[name])[0]
        y += rng.normal(0, deviation, (3, len(where)))[code]
    where = where.assign(
        metric=where["task"].map(METRIC).fillna("accuracy"),
        scoring=np.where(where["task"].isin(METRIC), "generate", "likelihood"),
    )
    rows = every.loc[every.index.repeat(len(where))].reset_index(drop=True)
    columns = pd.concat([where] * len(every), ignore_index=True)
    return rows.assign(
        **columns,
        instruction_data=rows["instruction_data"].fillna(""),
        rank=rows["rank"].fillna(0).astype(int),
        seed=rows["seed"].fillna(0).astype(int),
        value=y.ravel() / 100,
        stderr=noise / 100,
        n=n,
        format_failures=0,
        cut_off=0,
        shots=0.0,
        cutter="",
    )


def training(scores: pd.DataFrame) -> pd.DataFrame:
    """Return what the runs of a score table were trained on: all of them alike."""
    runs = scores.reindex(columns=CELL).drop_duplicates()
    languages = pd.DataFrame({"language": ["en", "sw"]})
    table = runs[runs["rank"] > 0].merge(languages, how="cross")
    return table.assign(tokens=1000, tokens_per_word=2.0)


def training_on_seen(scores: pd.DataFrame) -> pd.DataFrame:
    """Return what the runs were trained on where each dataset has its own languages."""
    runs = training(scores).drop(columns="language").drop_duplicates()
    pairs = [(data, code) for data, codes in SEEN.items() for code in codes.split()]
    return runs.merge(pd.DataFrame(pairs, columns=["instruction_data", "language"]))


def write_runs(
    world: worlds.World, plan: worlds.Plan, seed: int, folder: Path
) -> np.ndarray:
    """Write the folders that 02 and 03 would leave, as far as 04 reads them.

    Returns:
        The expected scores by run and place, in the order of `plan`.
    """
    rng = np.random.default_rng(seed)
    ability = worlds.abilities(world, plan, rng)
    tables = list(worlds.answers(ability, plan, rng))
    scores = results.scores_from_predictions(pd.concat(tables, ignore_index=True))
    own = dict(iter(scores.groupby(CELL)))
    for cell, table in zip(plan.cells, tables, strict=True):
        run = folder / cell.name
        results.write_predictions(table, run / "predictions.parquet")
        results.write_scores(own[tuple(cell.asdict().values())], run / "scores.parquet")
        if not cell.is_base:
            record = json.dumps(_record(cell, plan.trained[cell.instruction_data]))
            (run / "train.json").write_text(record, encoding="utf-8")
    return worlds.expected(ability, plan.places())


def _record(cell: Cell, languages: Sequence[str]) -> dict[str, Any]:
    """Return what 04 reads of train.json; every dataset has as many tokens."""
    bits = {"before": 2.0, "after": 1.5}
    return {
        "cell": cell.name,
        "parameters": cell.asdict(),
        "plan": {},
        "train": {"seconds": 1.0, "tokens": worlds.TOKENS},
        "data": {"tokens_per_word": {c: worlds.tokens_per_word(c) for c in languages}},
        "heldout_bits_per_byte": dict.fromkeys(languages, bits),
    }
