"""What finetuning changes: by language, cell, cost, and against larger models."""

import pandas as pd

from maple_utils.claims.contrasts import RUN, changes
from maple_utils.figures.style import (
    LEVELS,
    ONE_COLUMN,
    TWO_COLUMNS,
    Drawn,
    NotDrawable,
    bars,
    base_name,
    by_resource,
    drawing,
    grid,
    interval,
    language_name,
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
        main: what `claims.contrasts.primary` returns.

    Returns:
        The figure, a panel per base model; and per base model and language the mean
        change (points) with its 95 % interval by run, or over examples where there is
        one run; the tasks are taken as they are.
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
    width = ONE_COLUMN if len(bases) == 1 else TWO_COLUMNS
    height = 0.9 + 0.12 * len(codes)
    figure, axes = grid(1, len(bases), width, height, sharey=True, sharex=True)
    for place, base in zip(axes.flat, bases, strict=True):
        of_base = found[found["base_model"] == base]
        place.axvline(0, color="0.3", lw=0.8)
        for level, (color, marker, _) in LEVELS.items():
            part = of_base[of_base["resource"] == level]
            at = part["language"].map(codes.index)
            style = {"color": color, "marker": marker, "ls": "", "label": level}
            bars(place, part, at, "x", **style)
        place.set(title=base_name(base), xlabel="change from finetuning (points)")
        place.set_ylim(-0.7, len(codes) - 0.3)
    axes[0, 0].set_yticks(range(len(codes)), map(language_name, codes), size=5.5)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    labels = [f"{label}-resource" for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure, found
