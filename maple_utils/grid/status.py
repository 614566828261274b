"""What has run: the files of each cell's folder say it, whoever ran the notebooks."""

import json
import time
from pathlib import Path

import pandas as pd

from maple_utils.grid import Cell

# notebook -> the file that it writes last
STAGES = {"02_train": "train.json", "03_evaluate": "evaluate.json"}
SILENCE = 600  # seconds without a word after which a notebook counts as killed


def stage(folder: Path, notebook: str) -> tuple[str, float]:
    """Return the state of a cell's stage, and its seconds (NaN where unknown).

    done: the stage's last file is there. failed: its executed notebook was kept as
    NAME.failed.ipynb. running: a notebook without outcome that papermill saved in the
    last ten minutes, and killed: one that it did not. missing: none of these.
    """
    executed = folder / f"{notebook}.ipynb"
    if (folder / STAGES[notebook]).is_file():
        return "done", _seconds(executed)
    if (folder / f"{notebook}.failed.ipynb").is_file():
        return "failed", _seconds(folder / f"{notebook}.failed.ipynb")
    if executed.is_file():
        about = executed.stat()
        state = "running" if time.time() - about.st_mtime < SILENCE else "killed"
        return state, about.st_mtime - _started(executed)
    return "missing", float("nan")


def _papermill(executed: Path) -> dict:
    try:
        loaded = json.loads(executed.read_text(encoding="utf-8"))
        return loaded["metadata"]["papermill"]
    except (OSError, ValueError, KeyError):  # absent, half written, or by hand
        return {}


def _seconds(executed: Path) -> float:
    """Return how long a notebook ran, as papermill noted it."""
    return float(_papermill(executed).get("duration") or "nan")


def _started(executed: Path) -> float:
    """Return when a notebook began, in seconds since 1970; NaN where unknown."""
    begun = _papermill(executed).get("start_time")
    return pd.Timestamp(begun).timestamp() if begun else float("nan")


def table(cells: dict[str, Cell], runs: Path) -> pd.DataFrame:
    """Return a row per cell and stage: cell, stage, state, seconds."""
    rows = [
        (name, notebook, *stage(runs / name, notebook))
        for name, cell in cells.items()
        for notebook in STAGES
        if cell["instruction_data"] or notebook != "02_train"
    ]
    return pd.DataFrame(rows, columns=["cell", "stage", "state", "seconds"])


def eta(rows: pd.DataFrame) -> float:
    """Return the seconds until all is done; NaN before a run of each stage is done.

    What is left of a stage takes the mean of those done; as many at once as run now.
    """
    mean = rows[rows["state"] == "done"].groupby("stage")["seconds"].mean()
    left = rows[rows["state"] != "done"]
    spent = left["seconds"].where(left["state"] == "running", 0).fillna(0)
    need = (left["stage"].map(mean) - spent).clip(lower=0).sum(skipna=False)
    return float(need) / max(1, (rows["state"] == "running").sum())


def report(rows: pd.DataFrame) -> str:
    """Return the table as text: a line per cell, then counts and the time left."""
    said = rows["state"] + rows["seconds"].map(lambda s: f" {_clock(s)}".rstrip())
    lines = rows.assign(said=said).pivot(index="cell", columns="stage", values="said")
    lines = lines.loc[list(dict.fromkeys(rows["cell"]))].fillna("")
    counts = rows.groupby(["stage", "state"]).size()
    told = [
        f"{name}: {', '.join(f'{n} {state}' for state, n in of.droplevel(0).items())}"
        for name, of in counts.groupby("stage")
    ]
    if not (rows["state"] == "done").all():
        told += [f"time left: {_clock(eta(rows)) or 'known when a cell is done'}"]
    lines.columns.name = lines.index.name = None
    return "\n".join([lines.to_string(justify="left"), "", *told])


def _clock(seconds: float) -> str:
    """Write seconds as h:mm:ss; nothing for NaN."""
    if seconds != seconds:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
