"""Keep the first real grid: its runs without texts, its figures, and what it found.

    python -m docs.real_grid RUNS

RUNS is the folder that `make small` filled. Scores, records of training and the marks
of every answer go to docs/first-real-grid, and 04 draws figures and claims from there.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import pandas as pd
import papermill
from pyarrow import parquet

from docs.pages import ROOT, smaller
from maple_utils import results

HERE = ROOT / "docs" / "first-real-grid"
FIGURES = ("change_by_language", "score_by_rank")


def keep(run: Path, kept: Path) -> None:
    """Copy a run's tables; of its predictions the ids of examples and their marks."""
    kept.mkdir(parents=True)
    for name in ("scores.parquet", "train.json"):
        if (run / name).is_file():
            shutil.copy(run / name, kept)
    marks = results.judgements(run / "predictions.parquet")
    parquet.write_table(marks, kept / "predictions.parquet", compression="zstd")


def draw(runs: Path) -> None:
    """Run 04 on the kept runs: the claims are of all tasks, the figures of `words`.

    Means over tasks that not all runs were asked would compare unlike with unlike.
    """
    notebook = str(ROOT / "notebooks" / "04_figures.ipynb")
    with tempfile.TemporaryDirectory() as folder:
        for tasks in ([], ["words"]):
            output = Path(folder, *tasks)
            given = {"runs_dir": str(runs), "output_dir": str(output), "tasks": tasks}
            out = f"{folder}/{len(tasks)}.ipynb"
            papermill.execute_notebook(notebook, out, given, cwd=ROOT)
        for name in FIGURES:
            image = smaller((output / f"{name}.png").read_bytes())
            (HERE / f"{name}.png").write_bytes(image)
        shutil.copy(Path(folder, "tables", "claims.csv"), HERE)


def verdict_lines(verdicts: pd.DataFrame) -> list[str]:
    """Return a line of a Markdown table per claim: estimate, reach, verdict.

    Reach is the effect that these runs would have found four times in five.
    """
    lines = []
    for row in verdicts.itertuples():
        interval = f"{row.estimate:+.2f} ({row.low:+.2f} to {row.high:+.2f})"
        found = "–" if pd.isna(row.estimate) else f"{interval} {row.unit}"
        reach = "–" if pd.isna(row.detectable) else f"{row.detectable:.2f}"
        about = f"{row.claim} ({row.id})"
        lines.append(f"| {about} | {found} | {reach} | {row.verdict} |")
    return lines


def main() -> None:
    """Replace what docs/first-real-grid holds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path)
    runs = parser.parse_args().runs
    shutil.rmtree(HERE, ignore_errors=True)
    for file in sorted(runs.glob("*/scores.parquet")):
        keep(file.parent, HERE / "runs" / file.parent.name)
    draw(HERE / "runs")
    print(*verdict_lines(pd.read_csv(HERE / "claims.csv")), sep="\n")


if __name__ == "__main__":
    main()
