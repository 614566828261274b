"""Figures of tidy tables: each a function that returns a figure and the table beneath.

    figure, table = score_by_rank(scores)
    save(figure, folder, "score_by_rank", table)

They take what `claims.contrasts.primary_scores` returns (one score per run, task and
language) unless they say otherwise, and raise `NotDrawable`, with what is missing,
where the runs do not suffice. A new figure is a function in one of the files here.
"""

from maple_utils.figures.answers import (
    change_by_tokens,
    gap_to_larger_models,
    score_against_cost,
    verdicts,
)
from maple_utils.figures.deltas import (
    before_to_after,
    change_by_group,
    change_by_language,
    change_by_run,
    english,
    form_or_task,
)
from maple_utils.figures.scores import score_by_bits, score_by_language, score_by_rank
from maple_utils.figures.style import NotDrawable, save
from maple_utils.figures.yardstick import language_consistency, shots_by_language
from maple_utils.languages import is_miniature

__all__ = [
    "NotDrawable",
    "before_to_after",
    "change_by_group",
    "change_by_language",
    "change_by_run",
    "change_by_tokens",
    "english",
    "form_or_task",
    "gap_to_larger_models",
    "is_miniature",
    "language_consistency",
    "save",
    "score_against_cost",
    "score_by_bits",
    "score_by_language",
    "score_by_rank",
    "shots_by_language",
    "verdicts",
]
