"""What has run: the files of each cell's folder say it, whoever ran the notebooks."""

import json
import math
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from maple_utils.params import Cell
from maple_utils.provenance import code_of

# notebook -> the file that it writes last
STAGES = {"02_train": "train.json", "03_evaluate": "evaluate.json"}
SILENCE = 600  # seconds without a sign of life after which a notebook counts as killed
UNKNOWN = "unknown"


def stage(folder: Path, notebook: str) -> tuple[str, float, str]:
    """Return the state of a cell's stage, its seconds (NaN where unknown), its code.

    done: the stage's last file is there. failed: its executed notebook was kept as
    NAME.failed.ipynb. running: a notebook without outcome that papermill saved in the
    last ten minutes, and killed: one that it did not. missing: none of these.
    The code is what of that which made it differs from today's: names of notebooks and
    modules, "" where none does, UNKNOWN where it is not recorded.
    """
    executed, failed = (folder / f"{notebook}{end}.ipynb" for end in ("", ".failed"))
    if (folder / STAGES[notebook]).is_file():
        made_by = _read(folder / STAGES[notebook]).get("code") or {}
        other = [name for name, now in code_of(made_by).items() if now != made_by[name]]
        return "done", _seconds(executed), ", ".join(other) if made_by else UNKNOWN
    if failed.is_file():
        return "failed", _seconds(failed), ""
    if executed.is_file():
        saved = executed.stat().st_mtime
        state = "running" if time.time() - saved < SILENCE else "killed"
        begun = pd.to_datetime(_papermill(executed).get("start_time"), utc=True)
        spent = pd.Timestamp(saved, unit="s", tz="UTC") - begun
        return state, spent.total_seconds(), ""
    return "missing", float("nan"), ""


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, half written, or by hand
        return {}


def _papermill(executed: Path) -> dict[str, Any]:
    return _read(executed).get("metadata", {}).get("papermill", {})


def _seconds(executed: Path) -> float:
    """Return how long a notebook ran, as papermill noted it."""
    return float(_papermill(executed).get("duration") or "nan")


def table(cells: dict[str, Cell], runs: Path) -> pd.DataFrame:
    """Return a row per cell and stage: cell, stage, state, seconds, code."""
    rows = [
        (name, notebook, *stage(runs / name, notebook))
        for name, cell in cells.items()
        for notebook in STAGES
        if notebook != "02_train" or not cell.is_base
    ]
    return pd.DataFrame(rows, columns=["cell", "stage", "state", "seconds", "code"])


def by_other_code(rows: pd.DataFrame) -> list[str]:
    """Return the last file, below the runs, of each stage that other code made."""
    other = rows[~rows["code"].isin(["", UNKNOWN])]
    return [f"{row.cell}/{STAGES[row.stage]}" for row in other.itertuples()]


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
    told = rows["state"] + rows["seconds"].map(lambda s: f" {_clock(s)}".rstrip())
    told += rows["code"].map(lambda code: f" (other code: {code})" if code else "")
    lines = rows.assign(told=told).pivot(index="cell", columns="stage", values="told")
    lines = lines.loc[list(dict.fromkeys(rows["cell"]))].fillna("")
    lines.columns.name = lines.index.name = None
    end = []
    for notebook, states in rows.groupby("stage")["state"]:
        counts = states.value_counts().sort_index()
        end.append(f"{notebook}: " + ", ".join(f"{n} {s}" for s, n in counts.items()))
    if other := len(by_other_code(rows)):
        end.append(f"made by other code: {other}")
    if not (rows["state"] == "done").all():
        end.append(f"time left: {_clock(eta(rows)) or 'known when a cell is done'}")
    return "\n".join([lines.to_string(justify="left"), "", *end])


def _clock(seconds: float) -> str:
    """Write seconds as h:mm:ss, after the days if there are any; nothing for NaN."""
    return "" if math.isnan(seconds) else str(timedelta(seconds=round(seconds)))
