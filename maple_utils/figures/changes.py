"""What finetuning changes: by language, by run, by group, in English, in form."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from maple_utils.claims.contrasts import RUN, changes
from maple_utils.claims.effects import format_and_task, language_groups, mean_changes
from maple_utils.figures.scores import before_and_after
from maple_utils.figures.style import (
    DATA,
    KINDS,
    LEVELS,
    MARKERS,
    ONE_COLUMN,
    TWO_COLUMNS,
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


def changed(main: pd.DataFrame) -> pd.DataFrame:
    """Return `claims.contrasts.changes` with columns `resource` and `run` (a number).

    Raises:
        NotDrawable: if no finetuned run stands beside its base model.
    """
    table = changes(main)
    if table.empty:
        raise NotDrawable("no finetuned run with its base model at the same bits")
    table["resource"] = table["language"].map(resource_level)
    return table.assign(run=table.groupby(RUN).ngroup())


@drawing
def change_by_language(main: pd.DataFrame) -> Drawn:
    """Draw the mean change from finetuning per language, from low to high resources.

    Args:
        main: what `claims.contrasts.primary_scores` returns.

    Returns:
        The figure, a panel per base model; and per base model and language the mean
        change (points) with its 95 % interval over runs and examples. The tasks are
        taken as they are.
    """
    table = changed(main)
    rows = [
        {"base_model": base, "language": code, "resource": resource_level(code)}
        | interval(part, "change", "run", errors="change_stderr")
        | {"tasks": part["task"].nunique(), "n": len(part)}
        for (base, code), part in table.groupby(["base_model", "language"])
    ]
    found = pd.DataFrame(rows)
    codes = by_resource(found["language"])[::-1]
    bases = sorted(set(found["base_model"]))
    height = 0.9 + 0.12 * len(codes)
    figure, axes = grid(1, len(bases), height, sharey=True, sharex=True)
    for place, base in zip(axes.flat, bases, strict=True):
        _dots(place, found[found["base_model"] == base], codes)
        place.set(title=base_name(base), xlabel="change from finetuning (points)")
    axes[0, 0].set_yticks(range(len(codes)), map(language_name, codes), size=5.5)
    level_legend(figure, axes[0, 0])
    return figure, found


def _dots(axes: Axes, table: pd.DataFrame, codes: list[str]) -> None:
    axes.axvline(0, color="0.3", lw=0.8)
    for level, (color, marker, _) in LEVELS.items():
        part = table[table["resource"] == level]
        style = {"color": color, "marker": marker, "ls": ""}
        bars(axes, part, part["language"].map(codes.index), "x", **style)
        axes.plot([], [], label=f"{level}-resource", **style)
    axes.set_ylim(-0.7, len(codes) - 0.3)


@drawing
def change_by_run(main: pd.DataFrame) -> Drawn:
    """Draw a language x run heatmap of the mean change over tasks (points).

    Languages go from low to high resources, lines part the levels; a dot marks a loss,
    so that the sign can be read in grey.
    """
    table = changed(main)
    keys = ["base_model", "instruction_data", "bits", "rank", "seed"]
    found = table.groupby([*keys, "language"], as_index=False)["change"].mean()
    codes = by_resource(found["language"])
    bases = sorted(set(found["base_model"]))
    runs = found[keys].drop_duplicates()["base_model"].value_counts().max()
    width = min(TWO_COLUMNS, max(ONE_COLUMN, 1.8 + 0.15 * runs))
    height = len(bases) * (0.85 + len(codes) * (0.095 if len(codes) > 20 else 0.14))
    figure, axes = grid(len(bases), 1, height, width)
    reach = max(found["change"].abs().max(), 0.1)
    for place, base in zip(axes.flat, bases, strict=True):
        wide = found[found["base_model"] == base]
        wide = wide.pivot(index="language", columns=keys[1:], values="change")
        _heatmap(place, wide.reindex(codes), reach)
        place.set_title(base_name(base))
    bar = figure.colorbar(
        axes[0, 0].collections[0],
        ax=axes,
        shrink=1 if height < 3 else 0.5,
        aspect=20 if height < 3 else 40,
        pad=0.01,
    )
    bar.set_label("change (points)")
    bar.outline.set_visible(False)
    return figure, found


def _heatmap(axes: Axes, wide: pd.DataFrame, reach: float) -> None:
    sns.heatmap(wide, ax=axes, cmap="PuOr", vmin=-reach, vmax=reach, cbar=False)
    row, column = np.nonzero(wide.to_numpy() < 0)
    axes.plot(column + 0.5, row + 0.5, "k.", markersize=1, mew=0)
    levels = pd.Series(map(resource_level, wide.index))
    for place in levels.index[levels != levels.shift()][1:]:
        axes.axhline(place, color="white", lw=2.5)
    names = map(language_name, wide.index)
    axes.set_yticks(np.arange(len(wide)) + 0.5, names, size=5, rotation=0)
    runs = wide.columns.to_frame(index=False)
    ranks = [f"{rank:.0f}" for rank in runs["rank"]]
    axes.set_xticks(np.arange(len(ranks)) + 0.5, ranks, size=5, rotation=0)
    axes.set(xlabel="", ylabel="")
    _below(axes, 0, 7.5, "rank  ", size=5, ha="right")
    for data, of_data in runs.groupby("instruction_data", sort=False):
        _below(axes, of_data.index.to_numpy().mean() + 0.5, 24, DATA.get(data, data))
        for bits, part in of_data.groupby("bits"):
            _below(axes, part.index.to_numpy().mean() + 0.5, 15, f"{bits} bits")
            if part.index[0]:
                axes.axvline(part.index[0], color="white", lw=1.5)


def _below(axes: Axes, x: float, down: float, text: str, **style) -> None:
    """Write below the axes at x (data), so many points down."""
    where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    style = {"ha": "center", "va": "top", "size": 5.5} | style
    axes.annotate(text, (x, 0), (0, -down), **where, **style)


@drawing
def before_to_after(main: pd.DataFrame) -> Drawn:
    """Draw a line per language from its base score to its finetuned one; English bold.

    Scores are means over the tasks and runs that have both.
    """
    table = changed(main)
    table["after"] = 100 * table["value"]
    table["before"] = 100 * table["base_value"]
    keys = ["base_model", "resource", "language"]
    found = table.groupby(keys, as_index=False)[["before", "after"]].mean()
    bases = sorted(set(found["base_model"]))
    figure, axes = grid(1, len(bases), 2.8, sharey=True)
    for place, base in zip(axes.flat, bases, strict=True):
        _slopes(place, found[found["base_model"] == base])
        place.set(title=base_name(base))
    axes[0, 0].set_ylabel("mean score (%)")
    level_legend(figure, axes[0, 0])
    return figure, found


def _slopes(axes: Axes, table: pd.DataFrame) -> None:
    for level, (color, marker, dash) in LEVELS.items():
        style = {"color": color, "marker": marker, "ls": dash, "markersize": 2.5}
        axes.plot([], [], label=f"{level}-resource", **style)
        for row in table[table["resource"] == level].itertuples():
            english = row.language == "en"
            bold = {"lw": 2, "ls": "-", "zorder": 3} if english else {"lw": 0.7}
            axes.plot([0, 1], [row.before, row.after], **style | bold)
            if english:
                axes.text(1.06, row.after, "English", va="center", weight="bold")
    axes.set_xticks([0, 1], ["base model", "finetuned"])
    axes.set_xlim(-0.15, 1.4)
    axes.grid(visible=False, axis="x")


@drawing
def change_by_group(main: pd.DataFrame, seen: pd.DataFrame) -> Drawn:
    """Draw the mean change by resource level, script, family, and seen or unseen.

    Args:
        main: what `claims.contrasts.primary_scores` returns.
        seen: what `claims.effects.seen_groups` returns; empty where it is not known.
    """
    changed(main)
    groupings = {name: language_groups(name) for name in ("level", "script", "family")}
    groupings |= {"data": seen} if len(seen) else {}
    tables = [
        mean_changes(main, labels).assign(grouping=name)
        for name, labels in groupings.items()
    ]
    found = pd.concat(tables, ignore_index=True).rename(columns={"change": "mean"})
    sizes = [len(table) for table in tables]
    figure, axes = grid(
        len(tables), 1, 0.8 + 0.13 * sum(sizes) + 0.12 * len(sizes),
        sharex=True, height_ratios=[size + 0.4 for size in sizes],
    )  # fmt: skip
    for place, (name, part) in zip(
        axes.flat, found.groupby("grouping", sort=False), strict=True
    ):
        part = part.sort_values("mean")
        place.axvline(0, color="0.3", lw=0.8)
        bars(place, part, np.arange(len(part)), "x", color=KINDS[0], marker="o", ls="")
        labels = [f"{g} ({n})" for g, n in zip(part["group"], part["languages"])]  # noqa: B905
        place.set_yticks(range(len(part)), labels, size=5.5)
        place.set(ylim=(-0.7, len(part) - 0.3), ylabel=name)
    axes[-1, 0].set_xlabel("change from finetuning (points)")
    figure.align_ylabels()
    return figure, found


@drawing
def english(main: pd.DataFrame, training: pd.DataFrame) -> Drawn:
    """Draw what English loses: its scores, and its held-out bits per byte.

    Args:
        main: what `claims.contrasts.primary_scores` returns.
        training: what `results.training_records` returns; may be empty.
    """
    scores = main[main["language"] == "en"].copy()
    scores["place"] = scores["task"].map(task_name)
    found = before_and_after(scores, ["base_model", "place"]).assign(unit="score (%)")
    bits = training[training["language"] == "en"]
    bits = bits.assign(place=bits["instruction_data"].map(lambda d: DATA.get(d, d)))
    bits = bits.groupby(["base_model", "place"], as_index=False).agg(
        before=("before", "mean"), lowest=("after", "min"),
        highest=("after", "max"), runs=("after", "size"), after=("after", "mean"),
    )  # fmt: skip
    parts = [found, bits.assign(unit="held-out bits per byte")]
    parts = [part for part in parts if part["after"].notna().any()]
    if not parts:
        raise NotDrawable("no English before and after finetuning")
    table = pd.concat(parts, ignore_index=True)
    height = 1.1 + 0.22 * max(part["place"].nunique() for part in parts)
    figure, axes = grid(1, len(parts), height)
    bases = sorted(set(table["base_model"]))
    for place, (unit, part) in zip(
        axes.flat, table.groupby("unit", sort=False), strict=True
    ):
        names = sorted(set(part["place"]), reverse=True)
        dumbbells(place, part, part["place"].map(names.index), bases)
        place.set_yticks(range(len(names)), names)
        place.set(ylim=(-0.6, len(names) - 0.4), xlabel=f"English: {unit}")
    dumbbell_legend(figure, table, bases)
    return figure, table


@drawing
def form_or_task(scores: pd.DataFrame) -> Drawn:
    """Draw how much of the change is the answer's form and how much is the task.

    Args:
        scores: the tidy scores, choices scored both by likelihood and by generation.

    Returns:
        The figure; and per base model and task the mean change by likelihood (the
        task) and the rest of the change by generation (the form), with 95 % intervals
        by language and run.
    """
    table = format_and_task(scores)
    if table.empty:
        raise NotDrawable("no choices scored both ways before and after finetuning")
    table["run"] = table.groupby(RUN).ngroup()
    kinds = {"task_change": "the task", "format_change": "the form of the answer"}
    rows = [
        {"base_model": base, "task": task, "kind": kind}
        | interval(part, column, "language", "run")
        | {"n": len(part)}
        for (base, task), part in table.groupby(["base_model", "task"])
        for column, kind in kinds.items()
    ]
    found = pd.DataFrame(rows)
    bases = sorted(set(found["base_model"]))
    tasks = sorted(set(found["task"]), reverse=True)
    figure, axes = grid(1, len(bases), 1.1 + 0.3 * len(tasks), sharey=True)
    for place, base in zip(axes.flat, bases, strict=True):
        place.axvline(0, color="0.3", lw=0.8)
        for i, kind in enumerate(kinds.values()):
            part = found[(found["base_model"] == base) & (found["kind"] == kind)]
            at = part["task"].map(tasks.index) + 0.15 - 0.3 * i
            style = {"color": KINDS[i], "marker": MARKERS[i], "ls": "", "label": kind}
            bars(place, part, at, "x", **style)
        place.set(title=base_name(base), xlabel="change from finetuning (points)")
    axes[0, 0].set_yticks(range(len(tasks)), map(task_name, tasks))
    axes[0, 0].set_ylim(-0.6, len(tasks) - 0.4)
    level_legend(figure, axes[0, 0])
    return figure, found
