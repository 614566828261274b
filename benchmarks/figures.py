"""Time 04 over a whole grid: 66 runs, six tasks, each in all languages of the paper.

    python benchmarks/figures.py --repeats 3

Those are 41, and 43 with the scripts of Chinese. Every task and language has 300
examples, three to a passage where questions are asked about passages; all runs and
languages share them, and choices are made both ways: 7 million rows in all. Whether an
answer is right is drawn at random, by how hard the example is.

What is timed is `papermill notebooks/04_figures.ipynb`, every figure in all its forms,
every claim and every table: first without the answers, then with errors and intervals
from them (paired, the default).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import yaml

from maple_utils import results
from maple_utils.params import CELL, Cell
from maple_utils.tasks import METRICS, PAPER_TASKS, TASKS

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = sorted({code for task in PAPER_TASKS for code in TASKS[task].languages})
ONE_PASSAGE = ("xcopa", "xlsum")  # per question


def cells() -> list[Cell]:
    """Return every cell of the paper's grid, and their base models."""
    paper = ROOT / "params" / "paper.yaml"
    axes = yaml.safe_load(paper.read_text(encoding="utf-8"))
    tuned = [Cell(*values) for values in product(*(axes[name] for name in CELL))]
    return list(dict.fromkeys(one for cell in tuned for one in (cell, cell.base)))


def questions(items: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return what all runs are asked: a row per task, language, scoring and example."""
    tables = []
    for task in PAPER_TASKS:
        number = np.arange(items)
        passage = number if task in ONE_PASSAGE else number // 3
        example = pd.DataFrame({"example": number, "cluster": passage}).astype(str)
        ease = rng.normal(0, 0.15, items) + rng.normal(0, 0.1, items)[passage]
        is_choice = TASKS[task].kind == "choice"
        scorings = ["likelihood", "generate"] if is_choice else ["generate"]
        places = pd.MultiIndex.from_product([[task], LANGUAGES, scorings])
        places = places.set_names(["task", "language", "scoring"]).to_frame(index=False)
        tables.append(places.merge(example.assign(ease=ease), how="cross"))
    return pd.concat(tables, ignore_index=True)


def answered(cell: Cell, asked: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Return the tidy predictions of a run that is right or wrong at random."""
    likely = rng.uniform(0.4, 0.6) + asked.pop("ease")
    right = (rng.random(len(asked)) < likely).astype(float)
    kind = asked["task"].map(lambda task: TASKS[task].kind)
    metrics = {
        name: right.where(kind.isin([k for k in METRICS if name in METRICS[k]]))
        for name in results.METRICS
    }
    table = asked.assign(**cell.asdict(), **metrics, prediction="an answer", shots=4)
    table["references"] = [["an answer"]] * len(table)
    flags = dict.fromkeys(("context_cut", "format_failure", "cut_off"), False)
    return table.assign(**flags)


def record(cell: Cell) -> str:
    """Return a train.json, as far as 04 reads it."""
    bits = {code: {"before": 1.5, "after": 1.4} for code in LANGUAGES}
    tokens = {code: 1 + i / 10 for i, code in enumerate(LANGUAGES)}
    return json.dumps(
        {
            "cell": cell.name,
            "parameters": cell.asdict(),
            "plan": {},
            "train": {"seconds": 60 * cell.rank, "tokens": 10**6},
            "data": {"tokens_per_word": tokens},
            "heldout_bits_per_byte": bits,
        }
    )


def write_runs(folder: Path, items: int) -> int:
    """Write what 02 and 03 do of every cell of the paper's grid; return how many."""
    rng = np.random.default_rng(0)
    asked = questions(items, rng)
    for cell in cells():
        table = answered(cell, asked.copy(), rng)
        run = folder / cell.name
        results.write_predictions(table, run / "predictions.parquet")
        results.write_scores(
            results.scores_from_predictions(table), run / "scores.parquet"
        )
        if not cell.is_base:
            (run / "train.json").write_text(record(cell), encoding="utf-8")
    return len(cells())


def timed(command: list[str]) -> tuple[float, float]:
    """Run a command; return the seconds it took, and those of processors."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall - start, used


def main() -> None:
    """Print the median of the seconds that 04 takes, without answers and with."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--predictions", type=int, default=300, metavar="ITEMS")
    parser.add_argument("--runs", type=Path, help="made if absent, and kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = options.runs or Path(folder) / "runs"
        if not runs.is_dir():
            write_runs(runs, options.predictions)
        size = f"{len(cells())} runs x {len(PAPER_TASKS)} tasks x {len(LANGUAGES)} "
        print(f"{size}languages x {options.predictions} examples, load", end=" ")
        print(*map("{:.2f}".format, os.getloadavg()))
        command = [sys.executable, "-m", "papermill", "notebooks/04_figures.ipynb"]
        command += [f"{folder}/04.ipynb", "-p", "runs_dir", str(runs.resolve())]
        command += ["-p", "output_dir", f"{folder}/figures", "--no-progress-bar"]
        for paired in (False, True):
            given = [*command, "-p", "paired", str(paired)]
            each = [timed(given) for _ in range(options.repeats)]
            wall, used = (median(part) for part in zip(*each, strict=True))
            word = "with" if paired else "without"
            print(f"{word} answers: {wall:.1f} s, {used:.1f} s of processors")


if __name__ == "__main__":
    main()
