"""One style for all figures, names in words, and files that come out the same again.

Widths are those of an ACL page. Colours are from palettes that colour-blind readers can
tell apart; markers and dashes say the same in grey.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maple_utils import files
from maple_utils.claims.contrasts import NotTestable, clustered_mean
from maple_utils.languages import LANGUAGES, check_languages, resource_level

ONE_COLUMN, TWO_COLUMNS, PAGE = 3.03, 6.3, 9.0  # inches
SALT = "maple"  # makes the ids within an SVG the same each time
STYLE = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("paper", font_scale=0.75),
    "axes.linewidth": 0.6,
    "axes.titlesize": 7,
    "axes.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "figure.dpi": 115,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 6.5,
    "grid.linewidth": 0.4,
    "lines.linewidth": 1,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.title_fontsize": 6.5,
    "pdf.fonttype": 42,
    "savefig.dpi": 250,
    "svg.fonttype": "none",
    "svg.hashsalt": SALT,
}
LEVELS = {  # colour, marker, dash
    "low": ("#D55E00", "o", "-"),
    "mid": ("#56B4E9", "s", "--"),
    "high": ("#003F5C", "^", ":"),
}
KINDS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # any other few groups
MARKERS = "osD^vPX"
TASKS = {
    "belebele": "Belebele",
    "indicqa": "IndicQA",
    "pawsx": "PAWS-X",
    "tydiqa": "TyDiQA",
    "xlsum": "XLSum",
    "xquad": "XQuAD",
    "xstorycloze": "XStoryCloze",
}
BASES = {"llama-2-7b": "Llama-2-7B", "mistral-7b": "Mistral-7B"}
DATA = {
    "bactrian-x-22": "Bactrian-X-22",
    "bactrian-x-mini": "Bactrian-X-mini",
    "multialpaca": "MultiAlpaca",
    "multialpaca-mini": "MultiAlpaca-mini",
}
METRICS = {"accuracy": "accuracy", "f1": "F1", "rouge_l": "ROUGE-L"}

Drawn = tuple[Figure, pd.DataFrame]


class NotDrawable(Exception):  # noqa: N818  (an answer, not a failure)
    """These runs cannot make the figure; the message says what is missing."""


def task_name(task: str) -> str:
    """Return a task's name as its authors write it."""
    return TASKS.get(task, task.upper())


def language_name(code: str) -> str:
    """Return a language's English name in full."""
    return LANGUAGES[code].name


def base_name(base_model: str) -> str:
    """Return a base model's name as its authors write it."""
    return BASES.get(base_model, base_model)


def cell_label(run: pd.Series) -> str:
    """Return a run in words: `Mistral-7B, MultiAlpaca, rank 32, 4 bits`."""
    words = [base_name(run["base_model"])]
    if run["instruction_data"]:
        data = run["instruction_data"]
        words += [DATA.get(data, data), f"rank {run['rank']:.0f}"]
    words.append(f"{run['bits']} bits")
    return ", ".join(words + ([f"seed {run['seed']}"] if run["seed"] else []))


def by_resource(codes: pd.Series) -> list[str]:
    """Return the codes, each once, from low to high resources, then by name."""
    order = list(LEVELS)
    return sorted(
        set(codes), key=lambda c: (order.index(resource_level(c)), language_name(c))
    )


def drawing(make: Callable[..., Drawn]) -> Callable[..., Drawn]:
    """Let a figure's function draw in the style and sign the result: see `sign`.

    A language that the table of languages lacks ends in one line, a ParameterError.
    """

    @wraps(make)
    def styled(scores: pd.DataFrame, *others: pd.DataFrame) -> Drawn:
        check_languages(scores["language"])
        with plt.rc_context(STYLE):
            figure, table = make(scores, *others)
            sign(figure, scores)
        return figure, table

    return styled


def grid(rows: int, columns: int, height: float, width: float = 0, **kwargs) -> tuple:
    """Return a figure and its axes as an array; sizes in inches.

    Without a width it is as wide as one column of the page, or two if panels stand
    side by side.
    """
    width = width or (ONE_COLUMN if columns == 1 else TWO_COLUMNS)
    settings = {"figsize": (width, height), "layout": "constrained"} | kwargs
    return plt.subplots(rows, columns, squeeze=False, **settings)


def interval(
    part: pd.DataFrame, column: str, *clusters: str, errors: str = ""
) -> dict[str, float]:
    """Return mean, low and high (95 %) of a column, by one or two clusterings.

    With a column of standard `errors` the interval also holds what other examples
    would change, as if all runs shared theirs and tasks did not. Without it, and with
    one cluster of everything, low and high are missing.
    """
    mean, reach = part[column].mean(), np.nan
    with suppress(NotTestable):
        found = clustered_mean(part[column], *(part[name] for name in clusters))
        reach = found.high - found.value
    if errors:
        by_task = part.groupby("task")[errors].sum() / len(part)
        reach = np.hypot(np.nan_to_num(reach), 1.96 * np.sqrt((by_task**2).sum()))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def dumbbells(axes: Axes, table: pd.DataFrame, rows: pd.Series, bases: list) -> None:
    """Draw per row of the axes what was before (hollow) and after (filled, a range).

    Args:
        axes: where.
        table: columns base_model, before, after, lowest, highest.
        rows: the place of each row of the table on the y axis.
        bases: all base models of the figure, for colours, markers and order.
    """
    for i, base in enumerate(bases):
        part = table[table["base_model"] == base]
        y = rows[part.index] + 0.3 * ((len(bases) - 1) / 2 - i)
        color = KINDS[i % len(KINDS)]
        style = {"color": color, "marker": MARKERS[i % len(MARKERS)], "ls": ""}
        axes.hlines(y, part["lowest"], part["highest"], color=color, lw=0.8)
        axes.plot(part["after"], y, markersize=3, **style)
        axes.plot(part["before"], y, mfc="none", mew=0.7, **style)


def dumbbell_legend(figure: Figure, table: pd.DataFrame, bases: list) -> None:
    """Add the legend of `dumbbells` below all axes."""
    handles = []
    for i, base in enumerate(bases):
        color = KINDS[i % len(KINDS)]
        style = {"color": color, "marker": MARKERS[i % len(MARKERS)], "markersize": 3.5}
        name = base_name(base)
        handles.append(Line2D([], [], mfc="none", ls="", label=name, **style))
        if table.loc[table["base_model"] == base, "after"].notna().any():
            label = f"{name}, finetuned (mean, range)"
            handles.append(Line2D([], [], lw=0.8, label=label, **style))
    wide = figure.get_figwidth() > ONE_COLUMN
    place = "outside lower center"
    figure.legend(handles=handles, loc=place, ncols=2 if wide else 1)


def level_legend(figure: Figure, axes: Axes) -> None:
    """Add the legend of the resource levels below all axes."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, columnspacing=1)


def bars(axes: Axes, table: pd.DataFrame, at: pd.Series, along: str, **kwargs) -> None:
    """Draw means with their intervals, `along` the "x" or the "y" axis."""
    reach = np.array([table["mean"] - table["low"], table["high"] - table["mean"]])
    reach = np.nan_to_num(np.maximum(reach, 0))
    settings = {"capsize": 1.5, "elinewidth": 0.7, "capthick": 0.7} | kwargs
    if along == "x":
        axes.errorbar(table["mean"], at, xerr=reach, **settings)
    else:
        axes.errorbar(at, table["mean"], yerr=reach, **settings)


def is_miniature(scores: pd.DataFrame) -> bool:
    """Say whether any score is of a base model of the offline world."""
    return bool(scores["base_model"].str.startswith("miniature").any())


def sign(figure: Figure, scores: pd.DataFrame) -> None:
    """Write "miniature" into the corner of a figure where its scores are."""
    if is_miniature(scores):
        style = {"size": 6, "style": "italic", "color": "0.35"}
        figure.suptitle("miniature", x=0.995, ha="right", **style)


def save(figure: Figure, folder: Path, name: str, table: pd.DataFrame) -> None:
    """Write folder/name.png, .svg and .pdf, and beneath them the table as .csv.

    Made again from the same table, the files are the same byte for byte.
    """
    undated: dict[str, dict] = {
        "png": {"Software": None},
        "svg": {"Date": None},
        "pdf": {"CreationDate": None},
    }
    with plt.rc_context(STYLE):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is made once for all three
        for ending, metadata in undated.items():
            with files.atomic(Path(folder) / f"{name}.{ending}") as draft:
                figure.savefig(draft, metadata=metadata)
    with files.atomic(Path(folder) / f"{name}.csv") as draft:
        table.to_csv(draft, index=False, float_format="%.6g")
