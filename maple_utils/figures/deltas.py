"""What finetuning changes: by language, by run, by group, in English, in form."""

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from maple_utils.claims.contrasts import intervals, score_changes
from maple_utils.claims.effects import (
    adjusted_for_task,
    format_and_task,
    language_groups,
    mean_changes,
    shrunk,
)
from maple_utils.claims.evidence import SIGNIFICANCE
from maple_utils.figures import style
from maple_utils.figures.scores import before_and_after
from maple_utils.figures.style import Drawn, NotDrawable, drawing, name_of
from maple_utils.languages import levels_among


def changed(scores: pd.DataFrame) -> pd.DataFrame:
    """Return `claims.contrasts.score_changes` with a column `resource`.

    Raises:
        NotDrawable: if no finetuned run stands beside its base model.
    """
    table = score_changes(scores)
    if table.empty:
        raise NotDrawable("no finetuned run with its base model at the same bits")
    return table.assign(
        resource=table["language"].map(levels_among(table["base_model"]))
    )


def paired_intervals(
    table: pd.DataFrame, columns: dict[str, str], name: str
) -> pd.DataFrame:
    """Return the means of some columns, with intervals, per base model and task.

    Args:
        table: columns base_model, task, language, cell, and those to be averaged.
        columns: what is averaged, with the words for it, in order.
        name: of the column that these words go into.
    """
    keys = ["base_model", "task"]
    kept = [*keys, "language", "cell"]
    long = table.melt(kept, list(columns), name, "points")
    order = pd.CategoricalDtype(list(columns.values()), ordered=True)
    long[name] = long[name].map(columns).astype(order)
    return intervals(long, [*keys, name], "points", "language", "cell")


@drawing
def change_by_language(scores: pd.DataFrame) -> Drawn:
    """Draw the mean change from finetuning per language, from low to high resources.

    A filled mark is a change that stays significant after Holm's correction for the
    number of languages; the upright stroke is the mean drawn towards that of all.

    Returns:
        The figure, a panel per base model; and per base model and language the mean
        change (points, adjusted for task) with its 95 % interval over runs and
        examples, and what `claims.effects.shrunk` adds.
    """
    keys = ["base_model", "language", "resource"]
    found = changed(scores)
    found["change"] = adjusted_for_task(found, "change")
    found = shrunk(intervals(found, keys, "change", "cell", errors="change_stderr"))
    codes = style.by_resource(found)[::-1]
    figure, panels = style.panels(found, 0.9 + 0.12 * len(codes), sharex=True)
    for axes, part in panels:
        axes.axvline(0, **style.ZERO)
        for rows, look in style.levels(part):
            at = rows["language"].map(codes.index)
            style.bars(axes, rows, at, "x", **look | {"ls": "", "mfc": "white"})
            sure = rows["p_holm"] < SIGNIFICANCE
            above = {"ls": "", "label": None, "zorder": 3}
            axes.plot(rows["mean"][sure], at[sure], **look | above)
            axes.plot(rows["shrunk"], at, "|", color="0.3", markersize=5)
        style.label_rows(axes, map(style.language_name, codes), 5.5)
        axes.set_xlabel(style.GAINED)
    return figure, found


@drawing
def change_by_run(scores: pd.DataFrame) -> Drawn:
    """Draw a language x run heatmap of the mean change, adjusted for task (points).

    Languages go from low to high resources, lines part the levels; a dot marks a loss,
    so that the sign can be read in grey.
    """
    keys = ["base_model", "instruction_data", "bits", "rank", "seed"]
    found = changed(scores)
    found["change"] = adjusted_for_task(found, "change")
    found = found.groupby([*keys, "language"], as_index=False)["change"].mean()
    codes = style.by_resource(found)
    wide = found.pivot(index="language", columns=keys, values="change").reindex(codes)
    runs = wide.columns.to_frame()["base_model"].value_counts()
    width = min(style.TWO_COLUMNS, max(style.ONE_COLUMN, 1.8 + 0.15 * runs.max()))
    height = len(runs) * (0.85 + len(codes) * (0.095 if len(codes) > 20 else 0.14))
    figure, axes = style.grid(len(runs), 1, height, width)
    reach = max(found["change"].abs().max(), 0.1)
    levels = pd.Series(map(levels_among(found["base_model"]), codes))
    for place, base in zip(axes.flat, sorted(runs.index), strict=True):
        _heatmap(place, wide[base], levels, reach)
        place.set_title(name_of(base))
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


def _heatmap(axes: Axes, wide: pd.DataFrame, levels: pd.Series, reach: float) -> None:
    axes.pcolormesh(wide, cmap="PuOr", vmin=-reach, vmax=reach)
    axes.invert_yaxis()
    sns.despine(ax=axes, left=True, bottom=True)
    row, column = np.nonzero(wide.to_numpy() < 0)
    where = (column + 0.5, row + 0.5)  # and "k" is seaborn's to redefine
    axes.plot(*where, ".", color="black", markersize=1, mew=0)
    for place in levels.index[levels != levels.shift()][1:]:
        axes.axhline(place, color="white", lw=2.5)
    names = map(style.language_name, wide.index)
    axes.set_yticks(np.arange(len(wide)) + 0.5, names, size=5, rotation=0)
    runs = wide.columns.to_frame(index=False)
    ranks = runs["rank"].astype(str)
    axes.set_xticks(np.arange(len(ranks)) + 0.5, ranks, size=5, rotation=0)
    axes.set(xlabel="", ylabel="")
    _below(axes, 0, 7.5, "rank  ", size=5, ha="right")
    for data, of_data in runs.groupby("instruction_data", sort=False):
        _below(axes, of_data.index.to_numpy().mean() + 0.5, 24, name_of(data))
        for bits, part in of_data.groupby("bits"):
            _below(axes, part.index.to_numpy().mean() + 0.5, 15, f"{bits} bits")
            if part.index[0]:
                axes.axvline(part.index[0], color="white", lw=1.5)


def _below(axes: Axes, x: float, down: float, text: str, **kwargs: Any) -> None:
    """Write below the axes at x (data), so many points down."""
    look: dict[str, Any] = {"ha": "center", "va": "top", "size": 5.5} | kwargs
    look["xycoords"] = "data", "axes fraction"
    axes.annotate(text, (x, 0), (0, -down), textcoords="offset points", **look)


@drawing
def before_to_after(scores: pd.DataFrame) -> Drawn:
    """Draw a line per language from its base score to its finetuned one; English bold.

    Scores are means over the runs that have both, adjusted for task: a language is not
    higher for having the easier ones.
    """
    found = changed(scores)
    for when, column in (("before", "base_value"), ("after", "value")):
        found[when] = 100 * adjusted_for_task(found, column)
    keys = ["base_model", "resource", "language"]
    found = found.groupby(keys, as_index=False)[["before", "after"]].mean()
    figure, panels = style.panels(found, 2.8, ylabel="mean score (%)")
    for axes, part in panels:
        for rows, look in style.levels(part):
            look["markersize"] = 2.5
            axes.plot([], [], label=look.pop("label"), **look)
            for row in rows.itertuples():
                english = row.language == "en"
                bold = {"lw": 2, "ls": "-", "zorder": 3} if english else {"lw": 0.7}
                axes.plot([0, 1], [row.before, row.after], **look | bold)
                if english:
                    axes.text(1.06, row.after, "English", va="center", weight="bold")
        axes.set_xticks([0, 1], ["base model", "finetuned"])
        axes.set_xlim(-0.15, 1.4)
        axes.grid(visible=False, axis="x")
    return figure, found


@drawing
def change_by_group(scores: pd.DataFrame, seen: pd.DataFrame) -> Drawn:
    """Draw the mean change by resource level, script, family, and seen or unseen.

    Args:
        scores: what `claims.contrasts.primary_scores` returns.
        seen: what `claims.effects.seen_groups` returns; empty where it is not known.
    """
    changed(scores)
    by = ("level", "script", "family")
    groupings = {name: language_groups(name, scores["base_model"]) for name in by}
    groupings |= {"data": seen} if len(seen) else {}
    tables = [
        mean_changes(scores, groups).assign(grouping=name)
        for name, groups in groupings.items()
    ]
    found = pd.concat(tables, ignore_index=True)
    ratios = [len(table) + 0.4 for table in tables]
    height = 0.8 + 0.13 * len(found) + 0.12 * len(tables)
    figure, axes = style.grid(len(tables), 1, height, sharex=True, height_ratios=ratios)
    for place, table in zip(axes.flat, tables, strict=True):
        part = table.sort_values("mean")
        place.axvline(0, **style.ZERO)
        style.bars(place, part, np.arange(len(part)), "x", **style.look(0, 0))
        labels = part["group"] + " (" + part["languages"].astype(str) + ")"
        style.label_rows(place, labels, 5.5)
        place.set_ylabel(part["grouping"].iloc[0])
    axes[-1, 0].set_xlabel(style.GAINED)
    figure.align_ylabels()
    return figure, found


@drawing
def english(scores: pd.DataFrame, training: pd.DataFrame) -> Drawn:
    """Draw what English loses: its scores, and its held-out bits per byte.

    Args:
        scores: what `claims.contrasts.primary_scores` returns.
        training: what `results.training_records` returns; may be empty.
    """
    own = scores[scores["language"] == "en"]
    own = own.assign(place=own["task"].map(name_of), unit="score (%)")
    keys = ["base_model", "place", "unit"]
    bits = training[training["language"] == "en"]
    bits = bits.assign(
        place=bits["instruction_data"].map(name_of), unit="held-out bits per byte"
    )
    bits = bits.groupby(keys, as_index=False).agg(
        before=("before", "mean"), lowest=("after", "min"),
        highest=("after", "max"), runs=("after", "size"), after=("after", "mean"),
    )  # fmt: skip
    parts = [before_and_after(own, keys), bits]
    parts = [part for part in parts if part["after"].notna().any()]
    if not parts:
        raise NotDrawable("no English before and after finetuning")
    table = pd.concat(parts, ignore_index=True)
    height = 1.1 + 0.22 * max(part["place"].nunique() for part in parts)
    figure, axes = style.grid(1, len(parts), height)
    bases = sorted(set(table["base_model"]))
    for place, part in zip(axes.flat, parts, strict=True):
        names = sorted(set(part["place"]), reverse=True)
        style.dumbbells(place, part, part["place"].map(names.index), bases)
        style.label_rows(place, names)
        place.set_xlabel(f"English: {part['unit'].iloc[0]}")
    style.dumbbell_legend(figure, table, bases)
    return figure, table


@drawing
def form_or_task(all_scores: pd.DataFrame) -> Drawn:
    """Draw how much of the change is the answer's form and how much is the task.

    Args:
        all_scores: the tidy scores, choices scored by likelihood and by generation.

    Returns:
        The figure; and per base model and task the mean change by likelihood (the
        task) and the rest of the change by generation (the form), with 95 % intervals
        by language and run.
    """
    table = format_and_task(all_scores)
    if table.empty:
        raise NotDrawable("no choices scored both ways before and after finetuning")
    kinds = {"task_change": "the task", "format_change": "the form of the answer"}
    found = paired_intervals(table, kinds, "kind")
    tasks = sorted(set(found["task"]), reverse=True)
    figure, panels = style.panels(found, 1.1 + 0.3 * len(tasks))
    for axes, part in panels:
        axes.axvline(0, **style.ZERO)
        for i, (kind, rows) in enumerate(part.groupby("kind", sort=False)):
            at = rows["task"].map(tasks.index) + 0.15 - 0.3 * i
            style.bars(axes, rows, at, "x", label=kind, **style.look(i, i))
        style.label_rows(axes, map(name_of, tasks))
        axes.set_xlabel(style.GAINED)
    return figure, found
