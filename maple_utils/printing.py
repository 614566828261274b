"""Figures as files that come out the same again: PNG, SVG and PDF.

This imports matplotlib alone, so that a second process is soon at work.
"""

import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from maple_utils import files

# A file's ending -> matplotlib's backend, imported when needed, and where its date is.
FORMS = {
    "png": ("agg", "Software"),
    "svg": ("svg", "Date"),
    "pdf": ("pdf", "CreationDate"),
}


def write(
    figure: Figure, style: dict[Any, Any], folder: Path, name: str, *endings: str
) -> None:
    """Write a figure whose layout is made as folder/name.ENDING, without dates.

    The canvas prints, since `savefig` would draw each file twice.
    """
    with matplotlib.rc_context(style):
        for ending in endings:
            backend, undated = FORMS[ending]
            form = import_module(f"matplotlib.backends.backend_{backend}").FigureCanvas
            figure.set_dpi(style["savefig.dpi"])
            with files.atomic(Path(folder) / f"{name}.{ending}") as draft:
                write_form = getattr(form(figure), f"print_{ending}")
                write_form(draft, metadata={undated: None})


def write_pickled(pickled: bytes, *about: Any) -> None:
    """Do what `write` does, in another process."""
    write(pickle.loads(pickled), *about)
