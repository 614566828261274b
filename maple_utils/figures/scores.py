"""Scores: by language and task, and along the axes of the grid."""

import pandas as pd
from matplotlib.axes import Axes

from maple_utils.claims.contrasts import RUN, WHERE, split, without_holes
from maple_utils.figures.style import (
    LEVELS,
    METRICS,
    Drawn,
    NotDrawable,
    bars,
    base_name,
    by_resource,
    drawing,
    dumbbell_legend,
    dumbbells,
    grid,
    interval,
    language_name,
    level_legend,
    task_name,
)
from maple_utils.languages import resource_level


@drawing
def score_by_language(main: pd.DataFrame) -> Drawn:
    """Draw each task's scores by language: base models hollow, finetuned ones filled.

    Args:
        main: what `claims.contrasts.primary_scores` returns.

    Returns:
        The figure, a panel per task with languages from low to high resources; and
        per task, language and base model the base model's mean score (before) and the
        finetuned runs' mean, lowest and highest (percent), over all their settings.
    """
    if main.empty:
        raise NotDrawable("no scores")
    table = before_and_after(main, ["task", "metric", "language", "base_model"])
    counts = table.groupby("task")["language"].nunique()
    tasks = sorted(counts.index, key=lambda task: (-counts[task], task))
    columns = min(3, len(tasks))
    tallest = [counts[task] for task in tasks[::columns]]
    height = 0.6 + 0.12 * sum(tallest) + 0.45 * len(tallest)
    figure, axes = grid(len(tallest), columns, height, height_ratios=tallest)
    bases = sorted(set(table["base_model"]))
    for place, task in zip(axes.flat, tasks, strict=False):
        _languages_of(place, table[table["task"] == task], bases)
    for place in axes.flat[len(tasks) :]:
        place.set_axis_off()
    dumbbell_legend(figure, table, bases)
    return figure, table


def before_and_after(main: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return per group of `keys` the base models' mean score and the finetuned runs'.

    Columns besides the keys: before, after, lowest and highest (percent; the range is
    that of single scores) and runs, the number of finetuned scores.
    """
    base, tuned = split(main.assign(value=100 * main["value"]))
    base = base.groupby(keys)["value"].agg(before="mean")
    tuned = tuned.groupby(keys)["value"].agg(
        after="mean", lowest="min", highest="max", runs="size"
    )
    return base.join(tuned, how="outer").reset_index()


def _languages_of(axes: Axes, table: pd.DataFrame, bases: list[str]) -> None:
    codes = by_resource(table["language"])[::-1]
    dumbbells(axes, table, table["language"].map(codes.index), bases)
    axes.set_yticks(range(len(codes)), map(language_name, codes), size=5.5)
    axes.set_ylim(-0.7, len(codes) - 0.3)
    metric = METRICS[table["metric"].iloc[0]]
    axes.set(title=task_name(table["task"].iloc[0]), xlabel=f"{metric} (%)")


@drawing
def score_by_rank(main: pd.DataFrame) -> Drawn:
    """Draw the mean score against LoRA rank, a line per resource level: see `along`."""
    table = along(main, "rank")
    bases = sorted(set(table["base_model"]))
    figure, axes = grid(1, len(bases), 2.3, sharey=True)
    for place, base in zip(axes.flat, bases, strict=True):
        _lines(place, table[table["base_model"] == base], "rank")
        place.set(title=base_name(base), xlabel="LoRA rank")
    axes[0, 0].set_ylabel("mean score (%)")
    level_legend(figure, axes[0, 0])
    return figure, table


@drawing
def score_by_bits(main: pd.DataFrame) -> Drawn:
    """Draw the mean score against bits, finetuned and not: see `along`."""
    table = along(main, "bits")
    bases = sorted(set(table["base_model"]))
    kinds = [kind for kind in (False, True) if kind in set(table["finetuned"])]
    panels = [(base, kind) for base in bases for kind in kinds]
    figure, axes = grid(1, len(panels), 2.3, sharey=True)
    for place, (base, kind) in zip(axes.flat, panels, strict=True):
        part = table[(table["base_model"] == base) & (table["finetuned"] == kind)]
        _lines(place, part, "bits")
        title = f"{base_name(base)}\n{'finetuned' if kind else 'before finetuning'}"
        place.set(title=title, xlabel="bits per weight")
    axes[0, 0].set_ylabel("mean score (%)")
    level_legend(figure, axes[0, 0])
    return figure, table


def along(main: pd.DataFrame, axis: str) -> pd.DataFrame:
    """Return mean scores (percent) per base model and resource level along an axis.

    Along "rank" a base model stands at rank 0; along "bits" it has rows of its own.
    Like is compared with like: runs are kept whose other settings were run at every
    value of the axis, on the (task, language) that all of them have; the emptiest
    setting goes first. The interval (95 %, by language and run) leaves out how high a
    (task, language) lies as a whole: it is about the line's shape, not its height.

    Returns:
        Columns base_model, resource, finetuned, the axis, mean, low, high, languages
        and n (scores).
    """
    base, tuned = split(main.assign(rank=main["rank"].fillna(0.0)))
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
    others = [name for name in RUN if name != axis]
    kept = []
    for _, part in runs.groupby("base_model"):
        full = without_holes(part.pivot(index=RUN, columns=WHERE, values="value"))
        cells = full.index.to_frame(index=False).assign(there=1.0)
        cells = without_holes(cells.pivot(index=others, columns=axis, values="there"))
        cells = cells.stack().reset_index()[RUN]
        kept.append(part.merge(cells).merge(full.columns.to_frame(index=False)))
    return pd.concat(kept)


def _means(scores: pd.DataFrame, axis: str) -> pd.DataFrame:
    table = scores.assign(
        points=100 * scores["value"],
        resource=scores["language"].map(resource_level),
        finetuned=scores["rank"] > 0,
        run=scores.groupby(RUN).ngroup(),
    )
    height = table.groupby(["base_model", *WHERE])["points"].transform("mean")
    level = table.groupby(["base_model", "resource"])["points"].transform("mean")
    table["points"] += level - height
    keys = ["base_model", "resource", "finetuned", axis]
    rows = [
        dict(zip(keys, names, strict=True))
        | interval(part, "points", "language", "run")
        | {"languages": part["language"].nunique(), "n": len(part)}
        for names, part in table.groupby(keys)
    ]
    means = pd.DataFrame(rows)
    # From two languages alone an interval may reach where no score can be.
    return means.assign(low=means["low"].clip(0), high=means["high"].clip(upper=100))


def _lines(axes: Axes, table: pd.DataFrame, axis: str) -> None:
    values = sorted(set(table[axis]))
    for i, (level, (color, marker, dash)) in enumerate(LEVELS.items()):
        part = table[table["resource"] == level].sort_values(axis)
        at = part[axis].map(values.index) + 0.08 * (i - 1)
        style = {"color": color, "marker": marker, "ls": dash}
        label = f"{level}-resource" if len(part) else None
        bars(axes, part, at, "y", label=label, **style)
    names = [f"{value:.0f}" if value else "base" for value in values]
    axes.set_xticks(range(len(values)), names)
    axes.set_xlim(-0.4, len(values) - 0.6)
    axes.grid(visible=False, axis="x")
