"""Where the runs stand: against larger models, their cost, and the claims."""

from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from maple_utils.claims import SOMETIMES
from maple_utils.claims.effects import pareto, tokens_and_gain
from maple_utils.figures import style
from maple_utils.figures.deltas import changed, paired_intervals
from maple_utils.figures.style import Drawn, NotDrawable, drawing, name_of
from maple_utils.languages import levels_among


@drawing
def gap_to_larger_models(scores: pd.DataFrame, gaps: pd.DataFrame) -> Drawn:
    """Draw how far the median larger model is ahead, before and after finetuning.

    Args:
        scores: what `claims.contrasts.primary_scores` returns.
        gaps: what `claims.larger.gap_to_larger` returns.

    Returns:
        The figure, a panel per base model; and per base model and task the mean gap
        (points) with its 95 % interval by language and run.
    """
    changed(scores)
    if gaps.empty:
        raise NotDrawable("no scores of larger models for these tasks and languages")
    whens = {"gap_before": "before finetuning", "gap_after": "after"}
    found = paired_intervals(gaps, whens, "when")
    tasks = sorted(set(found["task"]))
    ylabel = "median larger model is ahead\n(points)"
    figure, panels = style.panels(found, 2.3, ylabel=ylabel)
    for axes, part in panels:
        for i, (when, rows) in enumerate(part.groupby("when", sort=False)):
            at = rows["task"].map(tasks.index) + 0.36 * i - 0.18
            color, hatch = (("0.75", ""), (style.KINDS[0], "////"))[i]
            look: dict[str, Any] = {"color": color, "hatch": hatch, "label": when}
            axes.bar(at, rows["mean"], 0.34, edgecolor="white", **look)
            style.bars(axes, rows, at, "y", color="0.2", ls="")
        axes.axhline(0, **style.ZERO)
        axes.set_xticks(range(len(tasks)), map(name_of, tasks))
        if len(tasks) > 6:  # their names would run into each other
            axes.tick_params(axis="x", labelrotation=30)
        axes.grid(visible=False, axis="x")
    return figure, found


@drawing
def score_against_cost(scores: pd.DataFrame, training: pd.DataFrame) -> Drawn:
    """Draw each finetuned run's mean score against its training time.

    The line joins the runs that no other beats in both. See `claims.effects.pareto`.

    Args:
        scores: what `claims.contrasts.primary_scores` returns.
        training: what `results.training_records` returns.
    """
    costs = training.rename(columns={"seconds": "cost"}).drop_duplicates("cell")
    if costs.empty:
        raise NotDrawable("no train.json that says what training took")
    table = pareto(scores, costs)
    if table.empty:
        raise NotDrawable("no finetuned run with both scores and a train.json")
    table["minutes"] = table.pop("cost") / 60
    table.insert(0, "label", table.apply(style.cell_label, axis=1))
    figure, axes = style.grid(1, 1, 2.6)
    _runs_by_cost(axes[0, 0], table)
    entries = axes[0, 0].get_legend_handles_labels()
    style.legend_below(figure, *entries, ncols=2)
    return figure, table


def _runs_by_cost(axes: Axes, table: pd.DataFrame) -> None:
    bases, bits = (sorted(set(table[name])) for name in ("base_model", "bits"))
    for (base, width), part in table.groupby(["base_model", "bits"]):
        look = style.look(bases.index(base), bits.index(width))
        label = f"{name_of(base)}, {width} bits"
        axes.plot(part["minutes"], part["score"], label=label, **look)
    best = table[table["frontier"]]
    axes.step(best["minutes"], best["score"], where="post", color="0.3", lw=0.8)
    for i, row in enumerate(best.itertuples()):
        at, away = (row.minutes, row.score), (3, (4, -9)[i % 2])
        axes.annotate(f"r{row.rank}", at, away, textcoords="offset points", size=5.5)
    axes.set(xscale="log", xlabel="training time (minutes)", ylabel="mean score (%)")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


@drawing
def change_by_tokens(scores: pd.DataFrame, training: pd.DataFrame) -> Drawn:
    """Draw what each language gains against the tokens that its words take.

    Args:
        scores: what `claims.contrasts.primary_scores` returns.
        training: what `results.training_records` returns.

    Returns:
        The figure, a panel per base model with Spearman's rank correlation over the
        languages; and per base model and language tokens_per_word, the mean change
        (points) over tasks and runs, and that correlation with its p-value.
    """
    table = tokens_and_gain(scores, training)
    if table.empty:
        raise NotDrawable("not three languages finetuned, with a train.json")
    table["resource"] = table["language"].map(levels_among(table["base_model"]))
    figure, panels = style.panels(table, 2.5, ylabel=style.GAINED)
    for axes, part in panels:
        axes.margins(x=0.14)
        axes.axhline(0, **style.ZERO)
        for rows, look in style.levels(part):
            axes.plot(rows["tokens_per_word"], rows["change"], **look | {"ls": ""})
        for row in part.itertuples():
            name = style.language_name(row.language)
            at = (row.tokens_per_word, row.change)
            axes.annotate(name, at, (3, 2), textcoords="offset points", size=5)
        rho = "Spearman's ρ = {spearman:.2f}, p = {p:.2f}".format(**part.iloc[0])
        axes.set(title=f"{axes.get_title()}\n{rho}", xlabel="tokens per word")
    return figure, table


@drawing
def verdicts(scores: pd.DataFrame, claims: pd.DataFrame) -> Drawn:
    """Draw a forest plot: each claim's estimate with its interval, and its verdict.

    Every claim has a unit and so a scale of its own; their zeros are aligned. A filled
    dot is a supported mean. Where something happens sometimes the mean, in grey, is
    beside the point: the words say how often, how large and where.

    Args:
        scores: what the claims were tested on.
        claims: what `claims.evaluate_claims` returns.
    """
    rows = len(claims)
    size = 0.62 * rows + 0.3, style.TWO_COLUMNS
    figure, axes = style.grid(rows, 1, *size, layout="none")
    figure.subplots_adjust(left=0.4, right=0.66, hspace=1.3, top=0.94, bottom=0.07)
    for place, claim in zip(axes.flat, claims.itertuples(), strict=True):
        _forest_row(place, claim)
    return figure, claims


def _forest_row(axes: Axes, claim: Any) -> None:
    left: dict[str, Any] = {"transform": axes.transAxes, "va": "center", "size": 6}
    axes.text(-1.53, 0.5, claim.id, weight="bold", **left)
    axes.text(-1.38, 0.5, fill(claim.claim, 40), **left)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["left", "right", "top"]].set_visible(False)
    if np.isnan(claim.estimate):
        axes.set_axis_off()
        state = claim.verdict.removesuffix(" with these runs")
        why = fill(f"{state}: {claim.why}", 46)
        axes.text(1.04, 0.5, why, color="0.4", **left)
        return
    reach = 1.1 * max(abs(claim.low), abs(claim.high))
    axes.axvline(0, **style.ZERO)
    sometimes = claim.id in SOMETIMES
    color = "0.6" if sometimes else style.KINDS[0]
    is_filled = claim.verdict == "supported" and not sometimes
    axes.plot([claim.low, claim.high], [0, 0], color=color, lw=1.2)
    axes.plot(claim.estimate, 0, "o", color=color, mfc=color if is_filled else "white")
    axes.set(xlim=(-reach, reach), ylim=(-1, 1))
    axes.tick_params(axis="x", length=2, pad=1)
    axes.set_xlabel(fill(claim.unit, 44), labelpad=1)
    axes.text(1.04, 0.5, _in_words(claim, sometimes).replace("-", "−"), **left)


def _in_words(claim: Any, sometimes: bool) -> str:
    """Return verdict, size and certainty; of what is not supported, the power."""
    p = "p < 0.001" if claim.p_holm < 0.001 else f"p = {claim.p_holm:.3f}"
    numbers = f"{claim.estimate:.2f} [{claim.low:.2f}, {claim.high:.2f}]"
    if sometimes:
        numbers = f"in {claim.share:.0%} of {claim.n} comparisons"
        if claim.share:
            names = ", ".join(map(name_of, claim.where.split(", ")))
            where = f"by {claim.size:.1f} points (median): {names}"
            numbers += f"\n{fill(where, 46)}"
    words = f"{claim.verdict}, {p}\n{numbers}"
    if claim.verdict == "supported":
        return words
    return f"{words}\n80 % power for {claim.detectable:.2g} or more"
