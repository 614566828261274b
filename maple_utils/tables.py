"""Tables as an appendix has them: runs by languages, intervals, the best in bold."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from maple_utils import files
from maple_utils.claims.contrasts import WHERE, score_changes
from maple_utils.figures import style
from maple_utils.languages import is_miniature
from maple_utils.params import CELL


def by_task(scores: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each task with its table: runs by languages, values and intervals.

    Args:
        scores: what `claims.contrasts.primary_scores` returns.

    Yields:
        The task's name and a table whose columns are (language, "value") in percent
        and (language, "reach"), half of the 95 % interval over examples; languages go
        from low to high resources, and the last one is the mean over languages.
    """
    runs = scores[CELL].drop_duplicates()
    runs["run"] = [style.cell_label(run) for _, run in runs.iterrows()]
    for task, part in scores.sort_values(CELL).merge(runs).groupby("task"):
        part = part.assign(
            value=100 * part["value"],
            reach=196 * part["stderr"],
        )
        columns = {"columns": "language", "values": ["value", "reach"]}
        wide = part.pivot(index="run", **columns).reindex(part["run"].unique())
        wide = wide.swaplevel(axis=1)
        wide["mean", "value"] = wide.xs("value", axis=1, level=1).mean(
            axis=1, skipna=False
        )
        order = product(style.by_resource(part), ("value", "reach"))
        yield task, wide[[*order, ("mean", "value")]]


def styled(wide: pd.DataFrame, reach: str = " ± {:.1f}") -> Styler:
    """Return a table of `by_task` as text: `52.1 ± 1.3`, the best of a column bold."""
    values = wide.xs("value", axis=1, level=1)
    reaches = wide.xs("reach", axis=1, level=1).reindex(columns=values.columns)
    shown = _text(values, "{:.1f}") + _text(reaches, reach)
    best = values.round(1) == values.round(1).max()
    names = {c: style.language_name(c) for c in shown if c != "mean"}
    shown = shown.rename(columns=names).rename_axis(index=None, columns=None)
    styler = Styler(shown, cell_ids=False)
    bold = np.where(best, "font-weight: bold", "")
    return styler.apply(lambda _: bold, axis=None)


def _text(numbers: pd.DataFrame, form: str) -> pd.DataFrame:
    return numbers.map(lambda number: "" if pd.isna(number) else form.format(number))


def save(scores: pd.DataFrame, folder: Path) -> list[Path]:
    """Write folder/TASK.csv, .tex and .html for each task; return the HTML files.

    The LaTeX needs the packages adjustbox, booktabs and rotating.
    """
    note = " (miniature)" if is_miniature(scores["base_model"]) else ""
    written = []
    for task, wide in by_task(scores):
        metric = style.METRICS[scores.loc[scores["task"] == task, "metric"].iloc[0]]
        caption = f"{style.name_of(task)}: {metric} in percent, 95 % intervals{note}"
        flat = wide.set_axis([" ".join(column) for column in wide.columns], axis=1)
        html = styled(wide).set_caption(caption).set_uuid(task)
        texts = {
            "csv": flat.to_csv(float_format="%.6g"),
            "tex": _latex(wide, caption, task),
            "html": html.to_html(doctype_html=True),
        }
        for ending, text in texts.items():
            with files.atomic(Path(folder) / f"{task}.{ending}") as draft:
                draft.write_text(text, encoding="utf-8")
        written.append(Path(folder) / f"{task}.html")
    return written


def changes(scores: pd.DataFrame, overlaps: pd.DataFrame) -> pd.DataFrame:
    """Return what finetuning changes beside what of the tests was in its data.

    Args:
        scores: what `claims.contrasts.primary_scores` returns.
        overlaps: what `results.overlaps` returns.

    Returns:
        A row per instruction_data, task and language, the largest overlap first: runs,
        change (points, mean over runs), overlap (the part of the test items that can be
        told), items, too_short. The last three are NaN where no run recorded them.
    """
    keys = ["instruction_data", *WHERE]
    found = score_changes(scores).merge(overlaps, "left", [*CELL, *WHERE])
    table = found.groupby(keys, as_index=False).agg(
        runs=("change", "size"),
        change=("change", "mean"),
        overlap=("share", "mean"),
        items=("items", "mean"),
        too_short=("too_short", "mean"),
    )
    return table.sort_values(["overlap", *keys], ascending=[False, True, True, True])


def write(table: pd.DataFrame, file: Path) -> None:
    """Write a table as CSV, atomically."""
    with files.atomic(file) as draft:
        table.to_csv(draft, index=False)


def _latex(wide: pd.DataFrame, caption: str, task: str) -> str:
    text = (
        styled(wide, r"{{\tiny$\pm${:.1f}}}")
        .map_index(lambda _: "rotatebox:{90}--rwrap--latex;", axis="columns")
        .format_index(escape="latex", axis="index")
        .to_latex(
            environment="sidewaystable",
            position_float="centering",
            caption=caption.replace("%", r"\%"),
            label=f"tab:{task}",
            hrules=True,
            convert_css=True,
        )
    )
    boxed = text.replace(r"\begin{tabular}", _FITTED + "\n" + r"\begin{tabular}")
    return boxed.replace(r"\end{tabular}", r"\end{tabular}" + "\n" + r"\end{adjustbox}")


# A whole grid on one page, turned: as small as it needs to be.
_FITTED = r"\begin{adjustbox}{max width=\linewidth, max totalheight=.65\paperwidth}"
