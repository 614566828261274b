"""What the runs say on each claim: a function from `Evidence` to `Finding` each.

`claims` asks them all and corrects for it. Significance within a claim that says
"sometimes" is Holm's over its comparisons.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from maple_utils import rouge
from maple_utils.claims.contrasts import (
    WHERE,
    Estimate,
    NotTestable,
    clustered_mean,
    factor_difference,
    split,
    student,
)
from maple_utils.claims.slopes import bootstrap_examples, slope_difference
from maple_utils.params import CELL

SIGNIFICANCE = 0.05
NEAR = 5.0  # points below GPT-4 that still count as near it (ours)


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged on; see `claims.gather`."""

    scores: pd.DataFrame  # what `primary_scores` returns
    changes: pd.DataFrame  # what `score_changes` returns
    reference: pd.DataFrame
    level: Callable[[str], str]
    predictions: pd.DataFrame | None = None


@dataclass(frozen=True)
class Finding:
    """What a claim's function found; `p` is not yet corrected over the claims."""

    estimate: Estimate
    p: float
    share: float
    n: int
    holds: bool
    why: str
    bootstrap: tuple[float, float] = (np.nan, np.nan)


def _slope(evidence: Evidence, axis: str) -> Finding:
    estimate = slope_difference(evidence.scores, axis, evidence.level)
    slopes, weights = estimate.details["slopes"], estimate.details["run_weights"]
    high, low = slopes.groupby("low")["slope"].mean()
    others = slopes[slopes["low"] == 0].groupby("task")["slope"].mean()
    lows = slopes[slopes["low"] == 1]
    bootstrap = (np.nan, np.nan)
    if evidence.predictions is not None and len(evidence.predictions):
        bootstrap = bootstrap_examples(estimate, evidence.scores, evidence.predictions)
    return Finding(
        estimate,
        estimate.p,
        share=float((lows["slope"] > lows["task"].map(others)).mean()),
        n=len(slopes) * len(weights),
        holds=estimate.value > 0 and low > 0,
        why=f"points per doubling of {axis}: {low:+.2f} in low-resource languages, "
        f"{high:+.2f} in high-resource ones",
        bootstrap=bootstrap,
    )


def rank_helps_low(evidence: Evidence) -> Finding:
    """C1: more rank, more gain in low-resource languages than in high-resource ones."""
    return _slope(evidence, "rank")


def bits_help_low(evidence: Evidence) -> Finding:
    """C2: as C1 for bits; two-sided, a negative estimate says fewer bits help more."""
    return _slope(evidence, "bits")


def _compared(changes: pd.DataFrame) -> pd.DataFrame:
    compared = changes.dropna(subset=["change", "change_stderr"])
    if compared.empty:
        raise NotTestable(
            "no finetuned row with its base model at the same bits, task and language"
        )
    return compared


def median_larger(reference: pd.DataFrame) -> pd.DataFrame:
    """Return the median score of the larger models that did not fail.

    Columns task, language, metric, larger (fraction) and models (how many they are).
    """
    usable = reference[reference["larger"].eq(True) & reference["failure"].eq("")]
    return usable.groupby([*WHERE, "metric"], as_index=False).agg(
        larger=("value", "median"), models=("value", "size")
    )


def comparable(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores that can stand beside other people's.

    Left out are summaries whose words were cut otherwise than XL-Sum's scorer does.
    """
    pairs = zip(scores["language"], scores["cutter"], strict=True)
    same = [rouge.is_comparable(*pair) for pair in pairs]
    return scores[(scores["metric"] != "rouge_l") | np.array(same, dtype=bool)]


def gap_to_larger(changes: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Return what `score_changes` gives, beside the median larger model.

    Adds gap_before and gap_after (points that the larger model is ahead) to the columns
    of `median_larger`; rows without a larger model are dropped, and what is not
    `comparable`.
    """
    table = comparable(changes).merge(median_larger(reference), on=[*WHERE, "metric"])
    return table.assign(
        gap_before=100 * (table["larger"] - table["base_value"]),
        gap_after=100 * (table["larger"] - table["value"]),
    )


def closes_gap(evidence: Evidence) -> Finding:
    """C3: from behind the median larger model to level with it or ahead."""
    table = gap_to_larger(_compared(evidence.changes), evidence.reference)
    if table.empty:
        raise NotTestable("no scores of larger models for these tasks and languages")
    closed = (table["gap_before"] > 0) & (table["gap_after"] <= 0)
    p = stats.norm.sf(table["change"] / table["change_stderr"])
    return _sometimes(
        _mean(table, "language", "task", "cell"),
        np.where(closed, p, 1.0),
        f"mean gap {table['gap_before'].mean():.1f} points before, "
        f"{table['gap_after'].mean():.1f} after; closed in",
    )


def _mean(table: pd.DataFrame, *clusters: str) -> Estimate:
    """Return the mean change by clusters, or where all is one cluster, by examples."""
    if (table[[*clusters]].nunique() > 1).any():
        return clustered_mean(table["change"], *(table[name] for name in clusters))
    variance = float((table["change_stderr"] ** 2).sum()) / len(table) ** 2
    return student(float(table["change"].mean()), variance, np.inf)


def _sometimes(estimate: Estimate, p: np.ndarray, why: str) -> Finding:
    """Return the finding for a claim that says it happens, not that it always does.

    `p` has a value per comparison, not yet corrected.
    """
    adjusted = multipletests(p, method="holm")[1]
    holds = adjusted < SIGNIFICANCE
    n = len(adjusted)
    return Finding(
        estimate,
        p=float(adjusted.min()),
        share=float(holds.mean()),
        n=n,
        holds=bool(holds.any()),
        why=f"{why} {holds.sum()} of {n} comparisons after Holm's correction",
    )


def english_worse(evidence: Evidence) -> Finding:
    """C4: the change in English, per cell and task."""
    english = _compared(evidence.changes).query("language == 'en'")
    if english.empty:
        raise NotTestable("no English scores before and after finetuning")
    return _sometimes(
        _mean(english, "cell", "task"),
        stats.norm.cdf(english["change"] / english["change_stderr"]),
        f"English falls in {(english['change'] < 0).sum()} of {len(english)}; in",
    )


def low_up_high_down(evidence: Evidence) -> Finding:
    """C5: low-resource languages up and high-resource ones down, per cell and task.

    A mean over languages gets the mean of their standard errors: an upper bound, as
    the languages of a translated test share their examples.
    """
    table = _compared(evidence.changes)
    table = table.assign(level=table["language"].map(evidence.level))
    table = table[table["level"].isin(["low", "high"])]
    means = table.groupby(["cell", "task", "level"])[["change", "change_stderr"]].mean()
    means = means.unstack("level").dropna()
    if ("change", "low") not in means or means.empty:
        raise NotTestable(
            "no task with both low- and high-resource languages before and after"
        )
    z = means["change"] / means["change_stderr"]
    points = means["change"].reset_index()
    mean = means["change"].mean()
    return _sometimes(
        clustered_mean(points["low"] - points["high"], points["cell"], points["task"]),
        np.maximum(stats.norm.sf(z["low"]), stats.norm.cdf(z["high"])),
        f"mean change {mean['low']:+.1f} points in low-resource languages, "
        f"{mean['high']:+.1f} in high-resource ones; both at once in",
    )


def english_and_size(evidence: Evidence) -> Finding:
    """C6: of base models, English against each other language, large against small."""
    base = split(evidence.scores)[0]
    english = base[base["language"] == "en"]
    keys = ["base_model", "bits", "seed", "task"]
    pairs = base[base["language"] != "en"].merge(
        english[[*keys, "value"]], on=keys, suffixes=("", "_english")
    )
    if pairs.empty:
        raise NotTestable("no base model scored in English and in another language")
    ahead = 100 * (pairs["value_english"] - pairs["value"])
    lead = clustered_mean(ahead, pairs["language"], pairs["task"])
    why = f"English ahead of {pairs['language'].nunique()} languages by "
    why += f"{lead.value:.1f} points; larger models "
    sizes = base.merge(median_larger(evidence.reference), on=[*WHERE, "metric"])
    p, holds = lead.p, lead.value > 0
    if sizes.empty:
        why += "not compared: no scores of theirs for these tasks"
    else:
        gap = 100 * (sizes["larger"] - sizes["value"])
        size = clustered_mean(gap, sizes["language"], sizes["task"])
        why += f"ahead by {size.value:.1f} points ({size.low:.1f} to {size.high:.1f})"
        p, holds = max(p, size.p), holds and size.value > 0
    share = float((ahead > 0).mean())
    return Finding(lead, p, share, len(pairs), bool(holds), why)


def base_over_data(evidence: Evidence) -> Finding:
    """C7: the share of variance that goes with the base model, less the data's."""
    estimate = factor_difference(evidence.scores)
    shares = estimate.details
    return Finding(
        estimate,
        estimate.p,
        share=shares["wins"],
        n=shares["n"],
        holds=estimate.value > 0,
        why=f"share of the variance between runs: base model {shares['base']:.0%}, "
        f"instruction data {shares['data']:.0%}",
    )


def mistral_strong(evidence: Evidence) -> Finding:
    """C8: Mistral against Llama-2 before finetuning, and any Mistral against GPT-4."""
    name = evidence.scores["base_model"].str.lower()
    family = name.str.extract("(mistral|llama)", expand=False)
    table = evidence.scores.assign(family=family)
    base = split(table)[0].pivot_table("value", ["bits", *WHERE], "family").dropna()
    if base.empty or base.shape[1] < 2:
        raise NotTestable("no task scored by both a Mistral and a Llama base model")
    ahead = (100 * (base["mistral"] - base["llama"])).reset_index(name="points")
    lead = clustered_mean(ahead["points"], ahead["language"], ahead["task"])
    why = f"ahead of Llama-2 by {lead.value:.1f} points; GPT-4 "
    gpt4 = evidence.reference.query("model == 'GPT-4' and failure == ''")
    both = comparable(table[table["family"] == "mistral"]).merge(
        gpt4, on=[*WHERE, "metric"], suffixes=("", "_gpt4")
    )
    holds = lead.value > 0
    if both.empty:
        why += "not compared: no scores of its for these tasks"
    else:
        gap = 100 * (both["value_gpt4"] - both["value"])
        best = gap.groupby([both[name] for name in [*CELL, "task"]]).mean()
        best = best.groupby("task").min()
        near = best[best <= NEAR].index
        why += f"within {NEAR:.0f} points on {', '.join(near) or 'no task'}"
        why += f" (closest: {best.min():.1f} points)"
        holds = holds and len(near) > 0
    share = float((ahead["points"] > 0).mean())
    return Finding(lead, lead.p, share, len(ahead), bool(holds), why)
