"""The runs beside larger models: whose scores those are, and how far they are ahead.

Where larger models were evaluated by 03, as served ones are, their own rows count, and
the differences are paired by example. Else there is a sheet of published scores, which
knows no errors. Only scores of one task, language, metric and scoring are compared.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from maple_utils import rouge
from maple_utils.claims.contrasts import (
    MEASURE,
    WHERE,
    examples,
    paired_errors,
    primary_scores,
    score_changes,
    split,
)
from maple_utils.params import CELL
from maple_utils.results import shipped

LARGER = "miniature-larger"  # pretrained with the others, but too large to ship
_SHEET = Path(__file__).parents[1] / "data" / "reference_results.csv"
_SAME = [*WHERE, "metric", "scoring"]


def apart(
    all_scores: pd.DataFrame, names: Collection[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part the scores of larger models from those of all other runs.

    Larger models are the base models of these names, and served ones whose bits nobody
    knows (0). Returns the other runs' scores and theirs.
    """
    is_larger = all_scores["base_model"].isin(names) | all_scores["bits"].eq(0)
    return all_scores[~is_larger], all_scores[is_larger]


def reference_results(larger: pd.DataFrame, miniature: bool = False) -> pd.DataFrame:
    """Return what to compare with: the larger models' own scores, else other people's.

    Args:
        larger: the scores of larger models that `apart` found, if any.
        miniature: without any it is the miniature's own larger model that counts, from
            the grid that ships: the sheet, which data/reference_results.md describes,
            is of real tests.

    Returns:
        Columns model, larger (than the models finetuned), task, language, metric,
        scoring, value and stderr (fractions; the sheet's error is not known and taken
        for 0), and failure ("" or why the score is left out); of own runs, also those
        of their scores.
    """
    if larger.empty and not miniature:
        sheet = pd.read_csv(_SHEET, keep_default_na=False)
        return sheet.assign(scoring="generate", stderr=0.0)
    own = primary_scores(apart(shipped(), [LARGER])[1] if larger.empty else larger)
    return own.assign(model=own["base_model"], larger=True, failure="")


def median_larger(reference: pd.DataFrame) -> pd.DataFrame:
    """Return the median score of the larger models that did not fail.

    Columns task, language, metric, scoring, larger and larger_stderr (fractions) and
    models (how many they are).
    """
    return (
        _usable(reference)
        .groupby(_SAME, as_index=False)
        .agg(
            larger=("value", "median"),
            larger_stderr=("stderr", "median"),
            models=("value", "size"),
        )
    )


def _usable(reference: pd.DataFrame) -> pd.DataFrame:
    return reference[reference["larger"].eq(True) & reference["failure"].eq("")]


def comparable(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores that can stand beside other people's.

    Left out are summaries whose words were cut otherwise than XL-Sum's scorer does.
    """
    pairs = zip(scores["language"], scores["cutter"], strict=True)
    same = [rouge.is_comparable(*pair) for pair in pairs]
    return scores[(scores["metric"] != "rouge_l") | np.array(same, dtype=bool)]


def beside_larger(
    all_scores: pd.DataFrame,
    reference: pd.DataFrame,
    predictions: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return the scores that a larger model has, too, with how far it is ahead.

    One row per run, task and language as `primary_scores` has, of the scorings that the
    reference knows, with the columns of `median_larger`, gap (points that the median
    larger model is ahead) and gap_stderr: paired by example with the mean of the larger
    models whose predictions are at hand, else of two independent samples.
    """
    known = median_larger(reference)
    asked = all_scores.reindex(columns=[*CELL, *_SAME, *MEASURE])
    rows, wanted = (pd.MultiIndex.from_frame(each[_SAME]) for each in (asked, known))
    table = primary_scores(comparable(asked[rows.isin(wanted)])).merge(known, on=_SAME)
    table["gap"] = 100 * (table["larger"] - table["value"])
    error = 100 * np.hypot(table["stderr"], table["larger_stderr"])
    if predictions is not None and "base_model" in reference and len(table):
        paired = _paired(table, _usable(reference), predictions)
        error = paired.reindex(table.index).fillna(error)
    table["gap_stderr"] = np.maximum(error, 100 / table["n"].astype(float))
    return table


def _paired(
    table: pd.DataFrame, theirs: pd.DataFrame, predictions: pd.DataFrame
) -> pd.Series:
    """Return the error of the gap in points, by the place of its row in `table`."""
    both = pd.concat([table, theirs], ignore_index=True)
    is_larger = np.arange(len(both)) >= len(table)
    pair = both.groupby(_SAME).ngroup().to_numpy()
    return paired_errors(examples(both, predictions), pair, is_larger)["error"]


def gap_to_larger(
    beside: pd.DataFrame, answers: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return what `score_changes` gives, beside the median larger model.

    Args:
        beside: what `beside_larger` returns.
        answers: what `examples` returns for it, where predictions are at hand.

    Returns:
        The changes, with gap_before and gap_after (points that the larger model is
        ahead) and their errors gap_before_stderr and gap_after_stderr.
    """
    changes = score_changes(beside, answers)
    keys = ["base_model", "bits", *WHERE]
    before = (
        split(beside)[0].groupby(keys, as_index=False)[["gap", "gap_stderr"]].mean()
    )
    before.columns = [*keys, "gap_before", "gap_before_stderr"]
    after = {"gap": "gap_after", "gap_stderr": "gap_after_stderr"}
    return changes.rename(columns=after).merge(before, on=keys)
