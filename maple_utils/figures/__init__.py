"""Figures of tidy tables: each a function that returns a figure and the table beneath.

    figure, table = score_by_rank(main)
    save(figure, folder, "score_by_rank", table)

They take what `claims.contrasts.primary` returns (one score per run, task and
language) unless they say otherwise, and raise `NotDrawable`, with what is missing,
where the runs do not suffice. A new figure is a function in `scores` or `changes`.
"""

from maple_utils.figures.changes import change_by_language
from maple_utils.figures.scores import score_by_bits, score_by_language, score_by_rank
from maple_utils.figures.style import NotDrawable, save

__all__ = [
    "NotDrawable",
    "change_by_language",
    "save",
    "score_by_bits",
    "score_by_language",
    "score_by_rank",
]
