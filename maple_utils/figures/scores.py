"""Scores: by language and task, and along the axes of the grid."""

import pandas as pd
from matplotlib.axes import Axes

from maple_utils.claims.contrasts import WHERE, intervals, split, without_holes
from maple_utils.claims.effects import adjusted_for_task
from maple_utils.figures import style
from maple_utils.figures.style import Drawn, NotDrawable, drawing, name_of
from maple_utils.languages import levels_among
from maple_utils.params import CELL


@drawing
def score_by_language(scores: pd.DataFrame) -> Drawn:
    """Draw each task's scores by language: base models hollow, finetuned ones filled.

    Returns:
        The figure, a panel per task with languages from low to high resources; and
        per task, language and base model the base model's mean score (before) and the
        finetuned runs' mean, lowest and highest (percent), over all their settings.
    """
    if scores.empty:
        raise NotDrawable("no scores")
    table = before_and_after(scores, ["task", "metric", "language", "base_model"])
    counts = table.groupby("task")["language"].nunique()
    tasks = sorted(counts.index, key=lambda task: (-counts[task], task))
    columns = min(3, len(tasks))
    tallest = [counts[task] for task in tasks[::columns]]
    height = 0.6 + 0.12 * sum(tallest) + 0.45 * len(tallest)
    figure, axes = style.grid(len(tallest), columns, height, height_ratios=tallest)
    bases = sorted(set(table["base_model"]))
    for place, task in zip(axes.flat, tasks, strict=False):
        _languages_of(place, table[table["task"] == task], bases)
    for place in axes.flat[len(tasks) :]:
        place.set_axis_off()
    style.dumbbell_legend(figure, table, bases)
    return figure, table


def before_and_after(scores: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return per group of `keys` the base models' mean score and the finetuned runs'.

    Columns besides the keys: before, after, lowest and highest (percent; the range is
    that of single scores) and runs, the number of finetuned scores.
    """
    base, tuned = split(scores.assign(value=100 * scores["value"]))
    base = base.groupby(keys)["value"].agg(before="mean")
    tuned = tuned.groupby(keys)["value"].agg(
        after="mean", lowest="min", highest="max", runs="size"
    )
    return base.join(tuned, how="outer").reset_index()


def _languages_of(axes: Axes, table: pd.DataFrame, bases: list[str]) -> None:
    codes = style.by_resource(table)[::-1]
    style.dumbbells(axes, table, table["language"].map(codes.index), bases)
    style.label_rows(axes, map(style.language_name, codes), 5.5)
    metric = style.METRICS[table["metric"].iloc[0]]
    axes.set(title=name_of(table["task"].iloc[0]), xlabel=f"{metric} (%)")


@drawing
def score_by_rank(scores: pd.DataFrame) -> Drawn:
    """Draw the mean score against LoRA rank, a line per resource level: see `along`."""
    table = along(scores, "rank")
    figure, panels = style.panels(table, 2.3, ylabel="mean score (%)")
    for axes, part in panels:
        _lines(axes, part, "rank")
        axes.set_xlabel("LoRA rank")
    return figure, table


@drawing
def score_by_bits(scores: pd.DataFrame) -> Drawn:
    """Draw the mean score against bits, finetuned and not: see `along`."""
    table = along(scores, "bits")
    figure, panels = style.panels(table, 2.3, "finetuned", ylabel="mean score (%)")
    for axes, part in panels:
        _lines(axes, part, "bits")
        kind = "finetuned" if part["finetuned"].iloc[0] else "before finetuning"
        axes.set(title=f"{axes.get_title()}\n{kind}", xlabel="bits per weight")
    return figure, table


def along(scores: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return mean scores (percent) per base model and resource level along an axis.

    Along "rank" a base model stands at rank 0; along "bits" it has rows of its own.
    Like is compared with like: runs are kept whose other settings were run at every
    value of the axis, on the (task, language) that all of them have; the emptiest
    setting goes first. The interval (95 %, by language and run) leaves out how high a
    (task, language) lies as a whole: it is about the line's shape, not its height. The
    height of a level is adjusted for the tasks that its languages happen to have.

    Returns:
        Columns base_model, resource, finetuned, the axis, and those of `intervals`.
    """
    base, tuned = split(scores)
    if axis == "rank":
        if tuned.empty:
            raise NotDrawable("no finetuned run")
        tuned = _like_with_like(tuned, axis)
        places = tuned[["base_model", "bits", *WHERE]].drop_duplicates()
        base = base.merge(places)
        kept = [pd.concat([base, tuned], ignore_index=True)]
    else:
        kept = [_like_with_like(part, axis) for part in (base, tuned) if len(part)]
    if not kept:
        raise NotDrawable("no scores")
    tables = [_means(part, axis) for part in kept]
    return pd.concat(tables, ignore_index=True)


def _like_with_like(runs: pd.DataFrame, axis: str) -> pd.DataFrame:
    others = [name for name in CELL if name != axis]
    kept = []
    for _, part in runs.groupby("base_model"):
        full = without_holes(part.pivot(index=CELL, columns=WHERE, values="value"))
        cells = full.index.to_frame(index=False).assign(there=1.0)
        cells = without_holes(cells.pivot(index=others, columns=axis, values="there"))
        cells = cells.stack().reset_index()[CELL]
        kept.append(part.merge(cells).merge(full.columns.to_frame(index=False)))
    return pd.concat(kept)


def _means(scores: pd.DataFrame, axis: str) -> pd.DataFrame:
    table = scores.assign(
        points=100 * scores["value"],
        resource=scores["language"].map(levels_among(scores["base_model"])),
        finetuned=scores["rank"] > 0,
        cell=scores.groupby(CELL).ngroup(),
    )
    height = table.groupby(["base_model", *WHERE])["points"].transform("mean")
    table["adjusted"] = adjusted_for_task(table, "points")
    level = table.groupby(["base_model", "resource"])["adjusted"].transform("mean")
    table["points"] += level - height
    keys = ["base_model", "resource", "finetuned", axis]
    means = intervals(table, keys, "points", "language", "cell")
    # From two languages alone an interval may reach where no score can be.
    return means.assign(low=means["low"].clip(0), high=means["high"].clip(upper=100))


def _lines(axes: Axes, table: pd.DataFrame, axis: str) -> None:
    values = sorted(set(table[axis]))
    for i, (rows, look) in enumerate(style.levels(table)):
        part = rows.sort_values(axis)
        at = part[axis].map(values.index) + 0.08 * (i - 1)
        style.bars(axes, part, at, "y", **look)
    axes.set_xticks(range(len(values)), [str(value or "base") for value in values])
    axes.set_xlim(-0.4, len(values) - 0.6)
    axes.grid(visible=False, axis="x")
