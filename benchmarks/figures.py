"""Time 04 over a whole grid: 66 runs, six tasks, each in all languages of the paper.

    python benchmarks/figures.py --repeats 3

Those are 41, and 43 with the scripts of Chinese. The scores are drawn at random. What
is timed is `papermill notebooks/04_figures.ipynb`: every figure in all its forms, every
claim and every table.
"""

import argparse
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


def write_runs(folder: Path) -> int:
    """Write random scores of every cell of the paper's grid; return how many."""
    rng = np.random.default_rng(0)
    paper = ROOT / "params" / "paper.yaml"
    axes = yaml.safe_load(paper.read_text(encoding="utf-8"))
    tuned = [Cell(*values) for values in product(*(axes[name] for name in CELL))]
    cells = dict.fromkeys(one for cell in tuned for one in (cell, cell.base))
    for cell in cells:
        rows = [
            {
                **cell.asdict(),
                "task": task,
                "language": code,
                "metric": METRICS[TASKS[task].kind][0],
            }
            for task in PAPER_TASKS
            for code in LANGUAGES
        ]
        drawn = {"value": rng.uniform(0.2, 0.8, len(rows)), "stderr": 0.01, "n": 1000}
        table = pd.DataFrame(rows).assign(**drawn, format_failures=0)
        likelihood = table["metric"] == "accuracy"
        table["scoring"] = np.where(likelihood, "likelihood", "generate")
        results.write_scores(table, folder / cell.name / "scores.parquet")
    return len(cells)


def main() -> None:
    """Print the median of the seconds that 04 takes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        runs, seconds = Path(folder) / "runs", []
        count = write_runs(runs)
        command = [sys.executable, "-m", "papermill", "notebooks/04_figures.ipynb"]
        command += [f"{folder}/04.ipynb", "-p", "runs_dir", str(runs)]
        command += ["-p", "output_dir", f"{folder}/figures", "--no-progress-bar"]
        for _ in range(repeats):
            start = time.perf_counter()
            subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
            seconds.append(time.perf_counter() - start)
    size = f"{count} runs x {len(PAPER_TASKS)} tasks x {len(LANGUAGES)} languages"
    print(f"{size}: {median(seconds):.1f} s")


if __name__ == "__main__":
    main()
