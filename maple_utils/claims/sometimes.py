"""What the runs say on claims that something happens sometimes: C3, C4, C5.

Each makes one-sided tests, one per comparison, and corrects them by Holm's method. The
claim holds where any is left; how often, how large and where is in the finding.
"""

import numpy as np
import pandas as pd
from scipy import stats

from maple_utils.claims.contrasts import (
    Estimate,
    NotTestable,
    clustered_mean,
    holm,
    student,
)
from maple_utils.claims.evidence import SIGNIFICANCE, Evidence, Finding
from maple_utils.claims.findings import covariates, with_bases
from maple_utils.claims.slopes import change_difference
from maple_utils.params import CELL

NO_ERROR = "the scores have no standard errors; evaluate two examples or more (03)"
LEAST_ERROR = 1e-6  # of a mean over seeds that came out alike, in points
COMPARED = ["cell", "task", "language", "effect", "error", "df"]


def closes_gap(evidence: Evidence) -> Finding:
    """C3: behind the median larger model before, better for it, then level or ahead.

    All three must hold for a pair (intersection-union: the largest of three p-values).
    Level is at most the margin behind. Only pairs that were behind are counted, but all
    are averaged: the base models of those behind had bad luck, too, and would seem to
    gain from testing anew.
    """
    _compared(evidence.changes)
    table = evidence.gaps
    if table.empty:
        raise NotTestable(
            "no scores of larger models for these tasks and languages; "
            "data/reference_results.md says which there are"
        )
    table = table.dropna(subset=["gap_before_stderr", "gap_after_stderr"])
    if table.empty:
        raise NotTestable(NO_ERROR)
    behind = table[table["gap_before"] > 0]
    if behind.empty:
        raise NotTestable(
            "no base model is behind the median larger model; other tasks may have gaps"
        )
    z = (
        behind["gap_before"] / behind["gap_before_stderr"],
        behind["change"] / behind["change_stderr"],
        (evidence.margin - behind["gap_after"]) / behind["gap_after_stderr"],
    )
    return _sometimes(
        _mean(table, "language", "task", "cell"),
        behind.assign(
            effect=behind["change"],
            error=behind["change_stderr"],
            df=behind["change_df"],
            p=np.max(stats.t.sf(z, behind["change_df"]), axis=0),
        ),
        f"{len(behind)} of {len(table)} pairs were behind, by "
        f"{behind['gap_before'].mean():.1f} points before and "
        f"{behind['gap_after'].mean():.1f} after; level within {evidence.margin:g} in",
    )


def english_worse(evidence: Evidence) -> Finding:
    """C4: the change in English per cell and task; and where a loss can be ruled out.

    Its errors are those of the examples: they speak of these adapters. Where a setting
    has several seeds, their mean is tested too, and speaks of the setting.
    """
    english = _compared(evidence.changes).query("language == 'en'")
    if english.empty:
        raise NotTestable(
            "no English scores before and after finetuning; evaluate en (03)"
        )
    z = english["change"] / english["change_stderr"]
    df = english["change_df"]
    safe = stats.t.sf(z + evidence.margin / english["change_stderr"], df)
    ruled_out = (holm(safe) < SIGNIFICANCE).sum()
    falling = english.assign(
        effect=-english["change"],
        error=english["change_stderr"],
        df=df,
        p=stats.t.cdf(z, df),
    )
    return _sometimes(
        _mean(english, "cell", "task"),
        falling,
        f"a loss of {evidence.margin:g} points is ruled out in {ruled_out} of "
        f"{len(english)}; {_over_seeds(english)}; English falls in",
    )


def _over_seeds(english: pd.DataFrame) -> str:
    """Return in words how many settings fall in the mean over their seeds."""
    setting = [*(name for name in CELL if name != "seed"), "task"]
    groups = [part["change"] for _, part in english.groupby(setting)]
    several = [changes for changes in groups if len(changes) > 1]
    if not several:
        return "one seed each, so of these adapters alone"
    falls = [
        stats.t.cdf(part.mean() / max(part.sem(), LEAST_ERROR), len(part) - 1)
        for part in several
    ]
    p = holm(falls)
    return f"over seeds, {(p < SIGNIFICANCE).sum()} of {len(several)} settings fall"


def low_up_high_down(evidence: Evidence) -> Finding:
    """C5: low-resource languages up and high-resource ones down, per cell and task.

    A mean over languages gets the mean of their standard errors: an upper bound, as
    the languages of a translated test share their examples.
    """
    table = _compared(evidence.changes)
    table = table.assign(level=table["language"].map(evidence.level))
    table = table[table["level"].isin(["low", "high"])]
    means = table.groupby(["cell", "task", "level"]).agg(
        change=("change", "mean"),
        change_stderr=("change_stderr", "mean"),
        change_df=("change_df", "min"),
    )
    means = means.unstack("level").dropna()
    if means.shape[1] < 4 or means.empty:
        raise NotTestable(
            "no task with both low- and high-resource languages before and after; "
            "evaluate both levels (03)"
        )
    z, df = means["change"] / means["change_stderr"], means["change_df"].min(axis=1)
    points = means["change"].reset_index()
    mean = means["change"].mean()
    both = points.assign(
        effect=np.minimum(points["low"], -points["high"]),
        error=means["change_stderr"].max(axis=1).to_numpy(),
        df=df.to_numpy(),
        p=np.maximum(stats.t.sf(z["low"], df), stats.t.cdf(z["high"], df)),
    )
    others = covariates(evidence).drop(columns="base score")
    estimate, adjusted = _low_less_high(table, points, evidence, others)
    return _sometimes(
        estimate,
        both,
        f"mean change {mean['low']:+.1f} points in low-resource languages, "
        f"{mean['high']:+.1f} in high-resource ones{_by_seen(table, others)}; "
        f"their difference is {adjusted}; both at once in",
    )


def _low_less_high(
    table: pd.DataFrame, points: pd.DataFrame, evidence: Evidence, others: pd.DataFrame
) -> tuple[Estimate, str]:
    """Return the difference between levels, and in words what it is adjusted for.

    Not for the base score, of which a change is a part: a language with bad luck before
    would seem to gain, and the level that has more of them, too. Runs that leave no way
    to adjust it have their plain difference, by run and task.
    """
    try:
        found = with_bases(change_difference(table, evidence.level, others))
    except NotTestable as reason:
        plain = points["low"] - points["high"]
        found = clustered_mean(plain, points["cell"], points["task"])
        return found, f"not adjusted ({reason})"
    used = ", ".join(found.details["used"])
    return found, f"adjusted for {used or 'nothing else'}"


def _by_seen(table: pd.DataFrame, seen: pd.DataFrame) -> str:
    """Return in words what low-resource languages gain, in the training data or not."""
    if "in the finetuning data" not in seen:
        return ""
    low = table[table["level"] == "low"].merge(seen)
    means = low.groupby("in the finetuning data")["change"].mean()
    words = {1.0: "in the finetuning data", 0.0: "not in it"}
    told = [f"{means[k]:+.1f} {word}" for k, word in words.items() if k in means]
    return f" (low-resource ones {', '.join(told)})"


def _compared(changes: pd.DataFrame) -> pd.DataFrame:
    if changes.empty:
        raise NotTestable(
            "no finetuned row with its base model at the same bits, task and language; "
            "evaluate the base model too (03)"
        )
    compared = changes.dropna(subset="change_stderr")
    if compared.empty:
        raise NotTestable(NO_ERROR)
    return compared


def _mean(table: pd.DataFrame, *clusters: str) -> Estimate:
    """Return the mean change by clusters, or where all is one cluster, by examples."""
    if (table[[*clusters]].nunique() > 1).any():
        return clustered_mean(table["change"], *(table[name] for name in clusters))
    variance = float((table["change_stderr"] ** 2).sum()) / len(table) ** 2
    return student(float(table["change"].mean()), variance, np.inf)


def _sometimes(estimate: Estimate, compared: pd.DataFrame, why: str) -> Finding:
    """Return the finding of a row per comparison: effect, error, p, task."""
    adjusted = holm(compared["p"])
    holds = adjusted < SIGNIFICANCE
    return Finding(
        estimate,
        p=float(adjusted.min()),
        share=float(holds.mean()),
        n=len(holds),
        holds=bool(holds.any()),
        why=f"{why} {holds.sum()} of {len(holds)} comparisons after Holm's correction",
        comparisons=compared.filter(COMPARED).assign(p=adjusted),
    )
