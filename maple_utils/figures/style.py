"""One style for all figures, names in words, and files that come out the same again.

Widths are those of an ACL page. Colours are from palettes that colour-blind readers can
tell apart; markers and dashes say the same in grey.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import wraps
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from maple_utils import files, printing
from maple_utils.languages import LANGUAGES, check_languages, is_miniature, levels_among
from maple_utils.params import short_name

ONE_COLUMN, TWO_COLUMNS = 3.03, 6.3  # inches
STYLE = {
    **sns.axes_style("whitegrid"),
    **sns.plotting_context("paper", font_scale=0.75),
    "axes.linewidth": 0.6,
    "axes.titlesize": 7,
    "axes.titley": 1.0,  # else every drawing looks for room, for seconds
    "axes.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "figure.dpi": 160,  # on a screen, 5 points are 11 pixels
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
    "svg.hashsalt": "maple",  # makes the ids within an SVG the same each time
}
LEVELS = {  # colour, marker, dash
    "low": ("#D55E00", "o", "-"),
    "mid": ("#56B4E9", "s", "--"),
    "high": ("#003F5C", "^", ":"),
}
KINDS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")  # any other few groups
MARKERS = "osD^vPX"
ZERO: dict[str, Any] = {"color": "0.3", "lw": 0.8}  # the line of no change
GAINED = "change from finetuning (points)"
NAMES = {  # of tasks, base models and instruction data, as their authors write them
    "belebele": "Belebele",
    "indicqa": "IndicQA",
    "mlqa": "MLQA",
    "pawsx": "PAWS-X",
    "tydiqa": "TyDiQA",
    "xcopa": "XCOPA",
    "xlsum": "XLSum",
    "xnli": "XNLI",
    "xquad": "XQuAD",
    "xstorycloze": "XStoryCloze",
    "llama-2-7b": "Llama-2-7B",
    "mistral-7b": "Mistral-7B",
    "gemma-3-270m": "Gemma 3 270M",
    "smollm2-135m": "SmolLM2-135M",
    "bactrian-x-22": "Bactrian-X-22",
    "bactrian-x-mini": "Bactrian-X-mini",
    "multialpaca": "MultiAlpaca",
    "multialpaca-mini": "MultiAlpaca-mini",
}
METRICS = {"accuracy": "accuracy", "f1": "F1", "rouge_l": "ROUGE-L"}

Drawn = tuple[Figure, pd.DataFrame]


class NotDrawable(Exception):  # noqa: N818  (an answer, not a failure)
    """These runs cannot make the figure; the message says what is missing."""


def name_of(name: str) -> str:
    """Return a task, base model or dataset, or the last of its path, as it is known."""
    return NAMES.get(short_name(name), Path(name).name)


def language_name(code: str) -> str:
    """Return a language's English name in full."""
    return LANGUAGES[code].name


def cell_label(run: pd.Series) -> str:
    """Return a run in words: `Mistral-7B, MultiAlpaca, rank 32, 4 bits`."""
    words = [name_of(run["base_model"])]
    if run["rank"]:
        words += [name_of(run["instruction_data"]), f"rank {run['rank']}"]
    words.append(f"{run['bits']} bits")
    return ", ".join(words + ([f"seed {run['seed']}"] if run["seed"] else []))


def by_resource(table: pd.DataFrame) -> list[str]:
    """Return a table's languages, each once, from low to high level, then by name."""
    order, level = list(LEVELS), levels_among(table["base_model"])
    return sorted(
        set(table["language"]), key=lambda c: (order.index(level(c)), language_name(c))
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


def grid(
    rows: int, columns: int, height: float, width: float = 0, **kwargs: Any
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes as an array; sizes in inches.

    Without a width it is as wide as one column of the page, or two if panels stand
    side by side.
    """
    width = width or (ONE_COLUMN if columns == 1 else TWO_COLUMNS)
    settings = {"figsize": (width, height), "layout": "constrained"} | kwargs
    return plt.subplots(rows, columns, squeeze=False, **settings)


def panels(
    table: pd.DataFrame, height: float, *more_keys: str, ylabel: str = "", **kwargs: Any
) -> tuple[Figure, Iterator[tuple[Axes, pd.DataFrame]]]:
    """Return a figure, and its axes with the rows that belong there, to draw in turn.

    A panel stands for a base model (and a value of each of `more_keys`) and has its
    name. After the last one the legend of all is put below them.
    """
    parts = [part for _, part in table.groupby(["base_model", *more_keys])]
    figure, axes = grid(1, len(parts), height, sharey=True, **kwargs)
    axes[0, 0].set_ylabel(ylabel)

    def each() -> Iterator[tuple[Axes, pd.DataFrame]]:
        for place, part in zip(axes.flat, parts, strict=True):
            place.set_title(name_of(part["base_model"].iloc[0]))
            yield place, part
        named = [place.get_legend_handles_labels() for place in axes.flat]
        entries = {
            label: one for pair in named for one, label in zip(*pair, strict=True)
        }
        handles, labels = list(entries.values()), list(entries)
        legend_below(figure, handles, labels, ncols=3, columnspacing=1)

    return figure, each()


def legend_below(figure: Figure, *entries: list, **kwargs: Any) -> None:
    """Add a legend below all axes."""
    figure.legend(*entries, loc="outside lower center", **kwargs)


def levels(table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, dict[str, Any]]]:
    """Yield the rows of each resource level, and how that level is drawn."""
    for level, (color, marker, dash) in LEVELS.items():
        rows = table[table["resource"] == level]
        label = f"{level}-resource" if len(rows) else None
        yield rows, {"color": color, "marker": marker, "ls": dash, "label": label}


def label_rows(axes: Axes, labels: Iterable[str], size: float = 6) -> None:
    """Name the rows of the axes, which lie at 0, 1 and so on from the bottom."""
    names = list(labels)
    axes.set_yticks(range(len(names)), names, size=size)
    axes.set_ylim(-0.7, len(names) - 0.3)


def dumbbells(axes: Axes, table: pd.DataFrame, rows: pd.Series, bases: list) -> None:
    """Draw per row of the axes what was before (hollow) and after (filled, a range).

    Args:
        axes: where.
        table: columns base_model, before, after, lowest, highest.
        rows: the place of each row of the table on the y axis.
        bases: all base models of the figure, for colours, markers and order.
    """
    for i, base in enumerate(bases):
        part, points = table[table["base_model"] == base], look(i, i)
        y = rows[part.index] + 0.3 * ((len(bases) - 1) / 2 - i)
        axes.hlines(y, part["lowest"], part["highest"], color=points["color"], lw=0.8)
        axes.plot(part["after"], y, markersize=3, **points)
        axes.plot(part["before"], y, mfc="none", mew=0.7, **points)


def dumbbell_legend(figure: Figure, table: pd.DataFrame, bases: list) -> None:
    """Add the legend of `dumbbells` below all axes."""
    handles = []
    for i, base in enumerate(bases):
        points = look(i, i) | {"markersize": 3.5}
        handles.append(Line2D([], [], mfc="none", label=name_of(base), **points))
        if table.loc[table["base_model"] == base, "after"].notna().any():
            label = f"{name_of(base)}, finetuned (mean, range)"
            handles.append(Line2D([], [], lw=0.8, label=label, **points | {"ls": "-"}))
    wide = figure.get_figwidth() > ONE_COLUMN
    legend_below(figure, handles=handles, ncols=2 if wide else 1)


def look(color: int, marker: int) -> dict[str, Any]:
    """Return how points are drawn: the colour and the marker of these numbers."""
    marks = {
        "color": KINDS[color % len(KINDS)],
        "marker": MARKERS[marker % len(MARKERS)],
    }
    return marks | {"ls": ""}


def bars(
    axes: Axes, table: pd.DataFrame, at: pd.Series, along: str, **kwargs: Any
) -> None:
    """Draw means with their intervals, `along` the "x" or the "y" axis."""
    reach = np.array([table["mean"] - table["low"], table["high"] - table["mean"]])
    reach = np.nan_to_num(np.maximum(reach, 0))
    settings = {"capsize": 1.5, "elinewidth": 0.7, "capthick": 0.7} | kwargs
    if along == "x":
        axes.errorbar(table["mean"], at, xerr=reach, **settings)
    else:
        axes.errorbar(at, table["mean"], yerr=reach, **settings)


def sign(figure: Figure, scores: pd.DataFrame) -> None:
    """Write "miniature" into the corner of a figure where its scores are."""
    if is_miniature(scores["base_model"]):
        text: dict[str, Any] = {"size": 6, "style": "italic", "color": "0.35"}
        figure.suptitle("miniature", x=0.995, ha="right", **text)


def save(
    figure: Figure,
    folder: Path,
    name: str,
    table: pd.DataFrame,
    beside: Executor | None = None,
) -> Future | None:
    """Write folder/name.png, .svg and .pdf, and beneath them the table as .csv.

    Made again from the same table, the files are the same byte for byte. Where there
    is a process `beside`, it writes the SVG and the PDF meanwhile; the `result` of what
    is returned then waits for them, and raises what went wrong there.
    """
    canvas, dpi, about = figure.canvas, figure.dpi, (STYLE, folder, name)
    with plt.rc_context(STYLE):
        if layout := figure.get_layout_engine():  # made once for all three
            layout.execute(figure)
            figure.set_layout_engine("none")
            for axes in figure.axes:  # their last digits hang on memory addresses
                place = np.round(axes.get_position(original=True).bounds, 6)
                axes.set_position(place, which="original")
    printing.write(figure, *about, "png")
    later = None
    if beside:  # pickled here, since the figure may change meanwhile
        pickled = pickle.dumps(figure)
        later = beside.submit(printing.write_pickled, pickled, *about, "svg", "pdf")
    else:
        printing.write(figure, *about, "svg", "pdf")
    figure.set_canvas(canvas)
    figure.set_dpi(dpi)
    with files.atomic(Path(folder) / f"{name}.csv") as draft:
        table.to_csv(draft, index=False, float_format="%.6g")
    return later
