"""Where the runs stand: against larger models, their cost, and the claims."""

from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from maple_utils.claims.effects import pareto, tokens_and_gain
from maple_utils.claims.findings import gap_to_larger
from maple_utils.figures.changes import changed
from maple_utils.figures.style import (
    KINDS,
    LEVELS,
    MARKERS,
    TWO_COLUMNS,
    Drawn,
    NotDrawable,
    bars,
    base_name,
    cell_label,
    drawing,
    grid,
    interval,
    is_miniature,
    language_name,
    level_legend,
    task_name,
)
from maple_utils.languages import resource_level


@drawing
def gap_to_larger_models(main: pd.DataFrame, reference: pd.DataFrame) -> Drawn:
    """Draw how far the median larger model is ahead, before and after finetuning.

    Args:
        main: what `claims.contrasts.primary_scores` returns.
        reference: what `claims.reference_results` returns.

    Returns:
        The figure, a panel per base model; and per base model and task the mean gap
        (points) with its 95 % interval by language and run.
    """
    if is_miniature(main):
        raise NotDrawable("larger models never sat the miniature's tests")
    table = gap_to_larger(changed(main), reference)
    if table.empty:
        raise NotDrawable("no scores of larger models for these tasks and languages")
    whens = {"gap_before": "before finetuning", "gap_after": "after"}
    rows = [
        {"base_model": base, "task": task, "when": when}
        | interval(part, column, "language", "run")
        | {"languages": part["language"].nunique(), "n": len(part)}
        for (base, task), part in table.groupby(["base_model", "task"])
        for column, when in whens.items()
    ]
    found = pd.DataFrame(rows)
    bases = sorted(set(found["base_model"]))
    tasks = sorted(set(found["task"]))
    figure, axes = grid(1, len(bases), 2.3, sharey=True)
    for place, base in zip(axes.flat, bases, strict=True):
        for i, when in enumerate(whens.values()):
            part = found[(found["base_model"] == base) & (found["when"] == when)]
            at = part["task"].map(tasks.index) + 0.36 * i - 0.18
            style = {"color": ("0.75", KINDS[0])[i], "hatch": ("", "////")[i]}
            place.bar(at, part["mean"], 0.34, label=when, edgecolor="white", **style)
            bars(place, part, at, "y", color="0.2", ls="")
        place.axhline(0, color="0.3", lw=0.8)
        place.set_xticks(range(len(tasks)), map(task_name, tasks))
        place.set(title=base_name(base))
        place.grid(visible=False, axis="x")
    axes[0, 0].set_ylabel("median larger model is ahead\n(points)")
    level_legend(figure, axes[0, 0])
    return figure, found


@drawing
def score_against_cost(main: pd.DataFrame, training: pd.DataFrame) -> Drawn:
    """Draw each finetuned run's mean score against its training time.

    The line joins the runs that no other beats in both. See `claims.effects.pareto`.

    Args:
        main: what `claims.contrasts.primary_scores` returns.
        training: what `results.training_records` returns.
    """
    costs = training.rename(columns={"seconds": "cost"}).drop_duplicates("cell")
    if costs.empty:
        raise NotDrawable("no train.json that says what training took")
    table = pareto(main, costs)
    if table.empty:
        raise NotDrawable("no finetuned run with both scores and a train.json")
    table["minutes"] = table.pop("cost") / 60
    figure, axes = grid(1, 1, 2.6)
    place = axes[0, 0]
    kinds = table.groupby(["base_model", "bits"])
    colors = {
        base: KINDS[i % 4] for i, base in enumerate(sorted(set(table["base_model"])))
    }
    markers = {bits: MARKERS[i] for i, bits in enumerate(sorted(set(table["bits"])))}
    for (base, bits), part in kinds:
        style = {"color": colors[base], "marker": markers[bits], "ls": ""}
        label = f"{base_name(base)}, {bits} bits"
        place.plot(part["minutes"], part["score"], label=label, **style)
    best = table[table["frontier"]]
    place.step(best["minutes"], best["score"], where="post", color="0.3", lw=0.8)
    for i, row in enumerate(best.itertuples()):
        offset = {"xytext": (3, (4, -9)[i % 2]), "textcoords": "offset points"}
        at = (row.minutes, row.score)
        place.annotate(f"r{row.rank:.0f}", at, size=5.5, **offset)
    place.set(xscale="log", xlabel="training time (minutes)", ylabel="mean score (%)")
    place.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    place.xaxis.set_major_formatter("{x:g}")
    place.xaxis.set_minor_formatter(NullFormatter())
    handles, labels = place.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    table.insert(0, "label", table.apply(cell_label, axis=1))
    return figure, table


@drawing
def change_by_tokens(main: pd.DataFrame, training: pd.DataFrame) -> Drawn:
    """Draw what each language gains against the tokens that its words take.

    Args:
        main: what `claims.contrasts.primary_scores` returns.
        training: what `results.training_records` returns.

    Returns:
        The figure, a panel per base model with Spearman's rank correlation over the
        languages; and per base model and language tokens_per_word, the mean change
        (points) over tasks and runs, and that correlation with its p-value.
    """
    table = tokens_and_gain(main, training)
    if table.empty:
        raise NotDrawable("not three languages finetuned, with a train.json")
    table["resource"] = table["language"].map(resource_level)
    bases = sorted(set(table["base_model"]))
    figure, axes = grid(1, len(bases), 2.5, sharey=True)
    for place, base in zip(axes.flat, bases, strict=True):
        part = table[table["base_model"] == base]
        _gains(place, part)
        rho = "Spearman's ρ = {spearman:.2f}, p = {p:.2f}".format(**part.iloc[0])
        place.set(title=f"{base_name(base)}\n{rho}", xlabel="tokens per word")
    axes[0, 0].set_ylabel("change from finetuning (points)")
    level_legend(figure, axes[0, 0])
    return figure, table


def _gains(axes: Axes, table: pd.DataFrame) -> None:
    axes.margins(x=0.14)
    axes.axhline(0, color="0.3", lw=0.8)
    for level, (color, marker, _) in LEVELS.items():
        part = table[table["resource"] == level]
        style = {"color": color, "marker": marker, "ls": ""}
        axes.plot(part["tokens_per_word"], part["change"], **style)
        axes.plot([], [], label=f"{level}-resource", **style)
    for row in table.itertuples():
        offset = {"xytext": (3, 2), "textcoords": "offset points", "size": 5}
        at = (row.tokens_per_word, row.change)
        axes.annotate(language_name(row.language), at, **offset)


@drawing
def verdicts(main: pd.DataFrame, claims: pd.DataFrame) -> Drawn:
    """Draw a forest plot: each claim's estimate with its interval, and its verdict.

    Every claim has a unit and so a scale of its own; their zeros stand in one line.

    Args:
        main: what the claims were tested on.
        claims: what `claims.evaluate_claims` returns.
    """
    rows = len(claims)
    figure, axes = grid(rows, 1, 0.62 * rows + 0.3, TWO_COLUMNS, layout="none")
    figure.subplots_adjust(left=0.4, right=0.66, hspace=1.3, top=0.94, bottom=0.07)
    for place, claim in zip(axes.flat, claims.itertuples(), strict=True):
        _forest_row(place, claim)
    return figure, claims


def _forest_row(axes: Axes, claim: tuple) -> None:
    left = {"transform": axes.transAxes, "va": "center", "size": 6}
    axes.text(-1.53, 0.5, claim.id, weight="bold", **left)
    axes.text(-1.38, 0.5, fill(claim.claim, 40), **left)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["left", "right", "top"]].set_visible(False)
    if np.isnan(claim.estimate):
        axes.set_axis_off()
        axes.text(
            1.04, 0.5, fill(f"not testable: {claim.why}", 42), color="0.4", **left
        )
        return
    reach = 1.1 * max(abs(claim.low), abs(claim.high))
    axes.axvline(0, color="0.3", lw=0.8)
    axes.plot([claim.low, claim.high], [0, 0], color=KINDS[0], lw=1.2)
    filled = KINDS[0] if claim.verdict == "supported" else "white"
    axes.plot(claim.estimate, 0, "o", color=KINDS[0], mfc=filled)
    axes.set(xlim=(-reach, reach), ylim=(-1, 1))
    axes.tick_params(axis="x", labelsize=5, length=2, pad=1)
    axes.set_xlabel(claim.unit, size=5.5, labelpad=1)
    numbers = f"{claim.estimate:.2f} [{claim.low:.2f}, {claim.high:.2f}]"
    p = "p < 0.001" if claim.p_holm < 0.001 else f"p = {claim.p_holm:.3f}"
    words = f"{claim.verdict}\n{numbers}, {p}, n = {claim.n}"
    axes.text(1.04, 0.5, words.replace("-", "−"), **left)
