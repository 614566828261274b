"""What a grid would find, against what it costs."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from maple_utils.figures import style
from maple_utils.figures.style import Drawn


def effect_by_cost(table: pd.DataFrame, hours: float, chosen: str) -> Drawn:
    """Draw the smallest effect that each plan finds over its hours, a panel per claim.

    Args:
        table: columns plan, hours, claim and effect (in the claim's unit).
        hours: the budget, which is marked.
        chosen: the plan that stands out.

    Returns:
        The figure, and the table beneath.
    """
    claims, plans = sorted(set(table["claim"])), sorted(set(table["plan"]))
    rows = -(-len(claims) // 4)
    with plt.rc_context(style.STYLE):
        figure, axes = style.grid(rows, min(4, len(claims)), 0.6 + 1.4 * rows)
        for place, claim in zip(axes.flat, claims, strict=False):
            place.axvline(hours, **style.ZERO)
            for i, plan in enumerate(plans):
                part = table[(table["plan"] == plan) & (table["claim"] == claim)]
                line = style.look(i, i) | {"ls": "-", "markersize": 2.5, "lw": 0.6}
                if plan == chosen:
                    line |= {"lw": 1.8, "markersize": 4, "zorder": 3}
                place.plot(part["hours"], part["effect"], label=f"plan {plan}", **line)
            share = claim == "C7"
            place.set(title=f"{claim} ({'share' if share else 'points'})")
            place.set(xscale="log", ylim=(0, None))
            place.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            place.xaxis.set_major_formatter(ScalarFormatter())
            place.xaxis.set_minor_formatter(NullFormatter())
        for place in axes.flat[len(claims) :]:
            place.set_axis_off()
        for place in axes[:, 0]:
            place.set_ylabel("smallest effect found")
        for place in axes.flat[max(0, len(claims) - 4) : len(claims)]:
            place.set_xlabel("hours (log scale)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        style.legend_below(figure, handles, labels, ncols=5)
    return figure, table
