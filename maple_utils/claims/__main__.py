"""Say in two sentences what a folder of runs found.

    python -m maple_utils.claims RUNS

The first says what finetuning changed and where, the second what rank and bits did.
Means are over tasks, languages and runs, with 95 % intervals by language and run.
"""

import argparse
from pathlib import Path

import pandas as pd

from maple_utils import results
from maple_utils.claims.contrasts import WHERE, intervals, primary_scores, score_changes
from maple_utils.claims.effects import language_groups
from maple_utils.params import CELL

ORDER = {"low": "low-resource", "mid": "mid", "high": "high-resource", "en": "English"}


def groups(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each language with its level as group; English is a group of its own."""
    table = language_groups("level", scores["base_model"])
    return table.assign(group=table["group"].mask(table["language"] == "en", "en"))


def step(scores: pd.DataFrame, axis: str) -> tuple[int, int, pd.DataFrame]:
    """Return the least and the greatest value of an axis, and what lies between them.

    That is, per task and language, the change (points) of finetuned runs that differ in
    nothing else; no rows where the axis has one value.
    """
    tuned = scores[scores["rank"] > 0]
    least, most = int(tuned[axis].min()), int(tuned[axis].max())
    keys = [*(name for name in CELL if name != axis), *WHERE]
    ends = [tuned.loc[tuned[axis] == end, [*keys, "value"]] for end in (least, most)]
    both = ends[0].merge(ends[1], on=keys, suffixes=("_least", "_most"))
    change = 100 * (both["value_most"] - both["value_least"])
    both["cell"] = both.groupby(keys[: len(CELL) - 1]).ngroup()
    return least, most, both.assign(change=change)[: len(both) if least < most else 0]


def told(table: pd.DataFrame, names: pd.DataFrame) -> str:
    """Return a table's mean changes by group: "English -4.0 (-6.1 to -1.9)"."""
    by = ("language", "cell")
    found = intervals(table.merge(names), ["group"], "change", *by).set_index("group")
    parts = []
    for group in [name for name in ORDER if name in found.index]:
        mean, low, high = found.loc[group, ["mean", "low", "high"]]
        reach = "" if pd.isna(low) else f" ({low:+.1f} to {high:+.1f})"
        parts.append(f"{ORDER[group]} {mean:+.1f}{reach}")
    return ", ".join(parts)


def sentences(all_scores: pd.DataFrame) -> list[str]:
    """Return the two sentences; the second is missing where no axis has two values."""
    scores = primary_scores(all_scores)
    names, changes = groups(scores), score_changes(scores)
    if changes.empty:
        return ["No finetuned run stands beside its base model at the same bits."]
    runs = changes["cell"].nunique()
    said = [f"Finetuning ({runs} adapters) changed, in points: {told(changes, names)}."]
    steps = {axis: step(scores, axis) for axis in ("rank", "bits")}
    parts = [
        f"{most} instead of {least} ({axis}): {told(table, names)}"
        for axis, (least, most, table) in steps.items()
        if len(table)
    ]
    return [*said, "With " + "; with ".join(parts) + "."] if parts else said


def main() -> None:
    """Print the sentences."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="?", type=Path, default=Path("runs"))
    scores, problems = results.collect(parser.parse_args().runs)
    print(*problems, *sentences(scores), sep="\n")


if __name__ == "__main__":
    main()
