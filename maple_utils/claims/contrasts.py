"""Estimates with honest intervals, for the claims and the figures.

Scores share their runs, their languages and their tasks, so a row is not an
observation. Every interval here says which of these it treats as drawn at random.
Changes, slopes and gaps are in points (of 100).
"""

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from maple_utils.metrics import standard_errors
from maple_utils.params import CELL
from maple_utils.results import MAIN_METRICS, main_metrics

WHERE = ["task", "language"]
MEASURE = ["value", "stderr", "n", "cutter"]
STILL = (
    "nothing varies, so there is no error to judge by; more runs or tests may differ"
)
ONE_EACH = "needs two base models and two instruction datasets; train with more of both"
_TEXT = ["base_model", "instruction_data", *WHERE, "scoring"]


class NotTestable(Exception):  # noqa: N818  (an answer, not a failure)
    """These runs cannot answer the question; the message says why, in a few words."""

    verdict = "not testable with these runs"


class NotIdentified(NotTestable):
    """There is a difference, but these runs cannot tell what makes it."""

    verdict = "not identified with these runs"


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, two-sided p-value and degrees of freedom."""

    value: float
    low: float
    high: float
    p: float
    df: float
    details: dict = field(default_factory=dict, compare=False)


def student(value: float, variance: float, df: float, **details: object) -> Estimate:
    """Return the estimate whose error is Student's t with `df` degrees of freedom."""
    if not (variance > 0 and df > 0):
        raise NotTestable(STILL)
    error = np.sqrt(variance)
    reach = stats.t.ppf(0.975, df) * error
    p = 2 * stats.t.sf(abs(value) / error, df)
    return Estimate(value, value - reach, value + reach, float(p), df, details)


def holm(p: ArrayLike) -> np.ndarray:
    """Return p-values corrected by Holm's method (1979), each at most 1.

    statsmodels has it too, and collects garbage at each call: .3 s beside torch.
    """
    given = np.asarray(p, dtype=float)
    order = given.argsort()
    steps = given[order] * np.arange(len(given), 0, -1)
    return np.maximum.accumulate(steps).clip(max=1)[order.argsort()]


def primary_scores(all_scores: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run, task and language: the score that the claims are about.

    Each task keeps the one scoring and metric that most runs have; of equals, the
    likelihood wins, because it does not count learning the answer format as learning
    the task, then accuracy before F1 before ROUGE-L. Rows without a value, or of no
    example, are dropped.
    """
    table = all_scores.reindex(columns=[*CELL, *WHERE, "metric", "scoring", *MEASURE])
    table = main_metrics(table).dropna(subset="value")
    table = table[~table["n"].eq(0)]
    table = table.astype({"rank": "int64", "value": float} | dict.fromkeys(_TEXT, str))
    choice = ["task", "scoring", "metric"]
    sizes = table.groupby(choice, as_index=False).size()
    sizes["other"] = sizes["scoring"] != "likelihood"
    sizes = sizes.sort_values(
        ["size", "other", "metric"], ascending=[False, True, True], kind="stable"
    )
    table = table.merge(sizes.drop_duplicates("task")[choice], on=choice)
    return table.drop_duplicates(CELL + WHERE).reset_index(drop=True)


def split(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of base models and the rows of finetuned ones."""
    base = scores["rank"] == 0
    return scores[base], scores[~base]


def without_holes(wide: pd.DataFrame) -> pd.DataFrame:
    """Return a table with rows and columns left out until no value is missing.

    The emptiest goes first, be it a row or a column.
    """
    while wide.isna().any(axis=None):
        by_row, by_column = (wide.isna().mean(axis=axis) for axis in (1, 0))
        worst = max(by_row.max(), by_column.max())
        if by_row.max() == worst:
            wide = wide[by_row < worst]
        else:
            wide = wide.loc[:, by_column < worst]
    return wide


def score_changes(
    scores: pd.DataFrame, answers: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return each finetuned row with its base model's score at the same bits.

    Args:
        scores: what `primary_scores` returns.
        answers: what `examples` returns; where given, the standard error is that of
            the paired differences by cluster, else of two independent samples (wider).

    Returns:
        The finetuned rows that have a base row, plus cell (a number for each finetuned
        run), base_value and base_stderr (fractions), change and change_stderr (points),
        and change_df, the degrees of freedom of that error: clusters (without
        predictions: examples) less one. No standard error is below one example in n.
    """
    base, tuned = split(scores.assign(score=np.arange(len(scores))))
    keys = ["base_model", "bits", *WHERE]
    base = base.groupby(keys, as_index=False).agg(
        base_value=("value", "mean"), base_stderr=("stderr", "mean")
    )
    joined = tuned.merge(base, on=keys)
    joined["cell"] = joined.groupby(CELL).ngroup()
    joined["change"] = 100 * (joined["value"] - joined["base_value"])
    error = 100 * np.hypot(joined["stderr"], joined["base_stderr"])
    joined["change_df"] = joined["n"].astype(float) - 1
    score = joined.pop("score")
    if answers is not None:
        pair = scores.groupby(["base_model", "bits", *WHERE]).ngroup().to_numpy()
        paired = paired_errors(answers, pair, scores["rank"].eq(0).to_numpy())
        error = score.map(paired["error"]).fillna(error)
        joined["change_df"] = score.map(paired["df"]).fillna(joined["change_df"])
    joined["change_df"] = joined["change_df"].clip(lower=1)
    joined["change_stderr"] = np.maximum(error, 100 / joined["n"].astype(float))
    return joined


def paired_errors(
    answers: pd.DataFrame, pair: np.ndarray, is_base: np.ndarray
) -> pd.DataFrame:
    """Return the error of the difference from the base, in points, and its df.

    Args:
        answers: what `examples` returns.
        pair: a number per row of the scores: rows of one are compared by example.
        is_base: says of each row of the scores whether it is what others are compared
            with; several have their mean per example taken.

    Returns:
        Columns error and df (clusters less one), by the number of the other rows.
    """
    score = answers["score"].to_numpy()
    rows = answers.assign(
        asked=pair[score] * (answers["example"].max() + 1) + answers["example"]
    )
    of_base = is_base[score]
    base, tuned = rows[of_base], rows[~of_base]
    before = base.groupby("asked")["value"].mean().reindex(tuned["asked"])
    tuned = tuned.assign(gain=100 * (tuned["value"] - before.to_numpy()))
    tuned = tuned.dropna(subset="gain")
    clusters = tuned.groupby("score")["cluster"].nunique()
    errors = standard_errors(tuned, ["score"], "gain")
    return pd.DataFrame({"error": errors, "df": clusters - 1})


def examples(scores: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return one row per example behind `scores`, in numbers.

    Columns score (the place of its row in `scores`), example and cluster (numbers in
    the order of their names) and value.
    """
    keys = [*CELL, *WHERE, "scoring"]
    of_keys = predictions.groupby(keys, sort=False, observed=True, dropna=False)
    group = of_keys.ngroup().to_numpy()
    groups = predictions.loc[~pd.Series(group).duplicated().to_numpy(), keys]
    numbered = scores[[*keys, "metric"]].assign(score=np.arange(len(scores)))
    groups = groups.astype(dict.fromkeys(_TEXT, str)).merge(numbered, "left", keys)
    value = np.full(len(predictions), np.nan)
    for metric in set(MAIN_METRICS) & set(predictions):
        own = groups["metric"].eq(metric).to_numpy()[group]
        value[own] = predictions[metric].to_numpy(float)[own]
    rows = {"score": groups["score"].fillna(-1).astype("int64").to_numpy()[group]}
    rows |= {name: _numbers(predictions[name]) for name in ("example", "cluster")}
    return pd.DataFrame(rows | {"value": value}).dropna(subset="value")


def _numbers(names: pd.Series) -> np.ndarray:
    codes, known = pd.factorize(names)
    order = pd.Index(known).astype(str).argsort().argsort()
    return np.append(order, -1)[codes]  # -1 where there is no name


def clustered_mean(values: pd.Series, *clusters: pd.Series) -> Estimate:
    """Return the mean, with an interval for what is drawn at random together.

    With crossed clusterings (say languages and tasks) the variance is that between the
    one, plus between the other, less within both, which is counted twice, and so on
    (Cameron, Gelbach and Miller, 2011), and never below any; Student's t has one degree
    of freedom less than the smallest number of clusters. A clustering of one cluster
    says nothing and is left out.

    Raises:
        NotTestable: if no clustering has two clusters.
    """
    codes = [pd.factorize(cluster)[0] for cluster in clusters]
    codes = [code for code in codes if len(code) and code.max() > 0]
    if not codes:
        raise NotTestable(
            "a single observation has no interval; evaluate more runs, tasks, languages"
        )
    y = np.asarray(values, dtype=float)
    share = (y - y.mean()) / len(y)

    def between(*together: np.ndarray) -> float:
        sums = pd.Series(share).groupby([*together]).sum().to_numpy()
        return len(sums) / (len(sums) - 1) * float(sums @ sums)

    crossed = sum(
        (-1) ** (size - 1) * between(*some)
        for size in range(1, len(codes) + 1)
        for some in combinations(codes, size)
    )
    variance = max(crossed, *(between(code) for code in codes))
    return student(y.mean(), variance, min(code.max() for code in codes))


def intervals(
    table: pd.DataFrame, keys: list[str], column: str, *clusters: str, errors: str = ""
) -> pd.DataFrame:
    """Return the mean of a column, with its 95 % interval, per group of `keys`.

    Args:
        table: a row per score.
        keys: columns to group by.
        column: what is averaged.
        clusters: columns of what is drawn at random together: see `clustered_mean`.
        errors: a column of standard errors; with it the interval also holds what other
            examples would change, as if all runs shared theirs and tasks did not.

    Returns:
        The keys, mean, low and high (missing without `errors` where all is one
        cluster), languages and tasks (how many) and n (rows).
    """
    rows = []
    for names, part in table.groupby(keys, observed=True):
        mean, reach = part[column].mean(), np.nan
        with suppress(NotTestable):
            found = clustered_mean(part[column], *(part[name] for name in clusters))
            reach = found.high - found.value
        if errors:
            known = part.groupby("task")[errors].agg(["mean", "size"])
            by_task = (known["mean"] * known["size"]).to_numpy() / len(part)
            reach = np.hypot(np.nan_to_num(reach), 1.96 * np.sqrt((by_task**2).sum()))
        counts = part["language"].nunique(), part["task"].nunique(), len(part)
        rows.append((*names, mean, mean - reach, mean + reach, *counts))
    columns = [*keys, "mean", "low", "high", "languages", "tasks", "n"]
    return pd.DataFrame(rows, columns=columns)
