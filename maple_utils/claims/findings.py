"""What the runs say on claims about a mean: functions from `Evidence` to `Finding`.

`claims` asks them all and corrects for it. Claims that something happens sometimes are
in `sometimes`.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from maple_utils.claims.contrasts import (
    ONE_EACH,
    WHERE,
    Estimate,
    NotIdentified,
    NotTestable,
    clustered_mean,
    holm,
    split,
)
from maple_utils.claims.effects import seen_groups
from maple_utils.claims.evidence import SIGNIFICANCE, Evidence, Finding
from maple_utils.claims.factors import factor_difference
from maple_utils.claims.slopes import slope_difference
from maple_utils.params import CELL

MATCHED_GRID = "params/matched.yaml makes them alike"
MATCHED = 0.1  # datasets whose training tokens differ by less are alike (ours)

STRONGEST = "GPT-4"  # of the larger models, where it is among them


def rank_helps_low(evidence: Evidence) -> Finding:
    """C1: more rank, more gain in low-resource languages than in high-resource ones."""
    others = covariates(evidence)
    found = slope_difference(evidence.scores, "rank", evidence.level, covariates=others)
    return _by_level(found, "points per doubling of rank")


def bits_help_low(evidence: Evidence) -> Finding:
    """C2: 16 bits against 4, each less its base model's own score, by resource level.

    Widths are three methods, not a dose; 8 bits against 16 stands beside it. A negative
    estimate says that low-resource languages gain from fewer bits.
    """
    changes = evidence.changes.assign(value=evidence.changes["change"] / 100)
    others = covariates(evidence)
    found: dict[int, Estimate] = {}
    missing: list[NotTestable] = []
    for bits in (4, 8):
        pair = changes[changes["bits"].isin([bits, 16])]
        try:
            found[bits] = slope_difference(
                pair,
                "bits",
                evidence.level,
                steps=lambda width: width == 16,
                covariates=others,
            )
        except NotTestable as reason:
            missing.append(reason)
    if not found:
        raise missing[0]
    bits, estimate = next(iter(found.items()))
    finding = _by_level(with_bases(estimate), f"points from {bits} to 16 bits")
    other = found.get(8) if bits == 4 else None
    if other is None:
        return finding
    beside = f"{other.value:+.2f} ({other.low:.2f} to {other.high:.2f})"
    return replace(finding, why=f"{finding.why}; from 8 to 16 bits {beside}")


def with_bases(estimate: Estimate) -> Estimate:
    """Return an estimate of changes whose weights are of scores, base models included.

    Theirs are minus those of their runs.
    """
    weights = estimate.details["score_weights"]
    bases = -weights.groupby(["base_model", "bits", *WHERE]).sum()
    bases = bases.reset_index().assign(instruction_data="", rank=0, seed=0)
    every = pd.concat([weights, bases.set_index(weights.index.names)["weight"]])
    return replace(estimate, details=estimate.details | {"score_weights": every})


def covariates(evidence: Evidence) -> pd.DataFrame:
    """Return what else may set languages apart, by instruction data, task, language.

    Whether the language was in the finetuning data, the log2 of its tokens per word,
    and the base models' score in standard deviations of the task. NaN where unknown.
    """
    base, tuned = split(evidence.scores)
    table = tuned[["instruction_data", *WHERE]].drop_duplicates()
    means = base.groupby(WHERE)["value"].mean()
    spread = means.groupby("task").transform("std")
    score = (means - means.groupby("task").transform("mean")) / spread
    table = table.join(score.where(spread > 0).rename("base score"), on=WHERE)
    if evidence.training is None or evidence.training.empty:
        return table
    seen = evidence.training.groupby("instruction_data")["language"].unique().map(list)
    groups = seen_groups(seen.to_dict()).set_index(["instruction_data", "language"])
    is_seen = groups["group"].eq("seen").astype(float).rename("in the finetuning data")
    tokens = evidence.training.groupby("language")["tokens_per_word"].mean()
    table = table.join(is_seen, on=["instruction_data", "language"])
    return table.join(np.log2(tokens).rename("tokens per word"), on="language")


def _by_level(estimate: Estimate, words: str) -> Finding:
    """Return the finding of a slope difference."""
    slopes, used = estimate.details["slopes"], estimate.details["used"]
    high, low = slopes.groupby("low")["slope"].mean()
    others = slopes[slopes["low"] == 0].groupby("task")["slope"].mean()
    lows = slopes[slopes["low"] == 1]
    return Finding(
        estimate,
        estimate.p,
        share=float((lows["slope"] > lows["task"].map(others)).mean()),
        n=len(estimate.details["score_weights"]),
        holds=estimate.value > 0 and low > 0,
        why=f"{words}: {low:+.2f} in low-resource languages, "
        f"{high:+.2f} in high-resource ones; adjusted for "
        + (", ".join(used) or "nothing else"),
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
        raise NotTestable(
            "no base model scored in English and in another language; evaluate one (03)"
        )
    ahead = 100 * (pairs["value_english"] - pairs["value"])
    lead = clustered_mean(ahead, pairs["language"], pairs["task"])
    why = f"English ahead of {pairs['language'].nunique()} languages by "
    why += f"{lead.value:.1f} points; larger models "
    sizes = split(evidence.beside)[0]
    p, holds = lead.p, lead.value > 0
    if sizes.empty:
        why += "not compared: no scores of theirs for these tasks"
    else:
        size = clustered_mean(sizes["gap"], sizes["language"], sizes["task"])
        why += f"ahead by {size.value:.1f} points ({size.low:.1f} to {size.high:.1f})"
        p, holds = max(p, size.p), holds and size.value > 0
    share = float((ahead > 0).mean())
    return Finding(lead, p, share, len(pairs), bool(holds), why)


def base_over_data(evidence: Evidence) -> Finding:
    """C7: the share of variance that goes with the base model, less the data's."""
    _check_matched(evidence)
    estimate = factor_difference(evidence.scores, evidence.answers)
    shares = estimate.details
    luck = "" if shares["halved"] else "; luck with the test rows counts as the base's"
    return Finding(
        estimate,
        estimate.p,
        share=shares["wins"],
        n=shares["n"],
        holds=estimate.value > 0,
        why=f"share of the variance between runs: base model {shares['base']:.0%}, "
        f"instruction data {shares['data']:.0%}{luck}",
    )


def _check_matched(evidence: Evidence) -> None:
    """Raise `NotIdentified` unless datasets have the same languages and tokens.

    Otherwise more steps, or other languages, would pass for how the data were made.
    """
    runs = split(evidence.scores)[1][CELL].drop_duplicates()
    if min(runs[["base_model", "instruction_data"]].nunique()) < 2:
        raise NotTestable(ONE_EACH)
    training = pd.DataFrame() if evidence.training is None else evidence.training
    training = training.reindex(columns=[*CELL, "language", "tokens"]).merge(runs)
    if training["tokens"].isna().any() or len(training) < len(runs):
        raise NotIdentified(
            "no record of what the runs were trained on; keep each run's train.json"
        )
    languages = training.groupby("instruction_data")["language"].agg(frozenset)
    if languages.nunique() > 1:
        raise NotIdentified(f"the datasets hold different languages; {MATCHED_GRID}")
    tokens = training.groupby(["base_model", "instruction_data"])["tokens"].mean()
    most = tokens.groupby("base_model").agg(lambda n: n.max() / n.min()).max()
    if most > 1 + MATCHED:
        raise NotIdentified(
            f"a dataset has {most:.1f} times the tokens of another; {MATCHED_GRID}"
        )


def mistral_strong(evidence: Evidence) -> Finding:
    """C8: Mistral ahead of Llama-2 before finetuning, and level with GPT-4 on a task.

    Level is two one-sided tests of the mean over all Mistral runs against the margin,
    per task, with Holm's correction: the best run would be level by chance sooner.
    """
    name = evidence.scores["base_model"].str.lower()
    family = name.str.extract("(mistral|llama)", expand=False)
    table = evidence.scores.assign(family=family)
    base = split(table)[0].pivot_table("value", ["bits", *WHERE], "family").dropna()
    if base.empty or base.shape[1] < 2:
        raise NotTestable(
            "no task scored by both a Mistral and a Llama base model; run 03 on both"
        )
    ahead = (100 * (base["mistral"] - base["llama"])).reset_index(name="points")
    lead = clustered_mean(ahead["points"], ahead["language"], ahead["task"])
    strongest = _strongest(evidence.reference)
    level = _level_tasks(evidence, strongest)
    why = f"ahead of Llama by {lead.value:.1f} points; {strongest} "
    p = lead.p
    if level.empty:
        why += "not compared: no scores of its for these tasks in two languages"
    else:
        near = level[level < SIGNIFICANCE].index
        why += f"level within {evidence.margin:g} points on "
        why += ", ".join(near) or f"none of {len(level)} tasks"
        p = max(p, level.min())
    share = float((ahead["points"] > 0).mean())
    return Finding(lead, p, share, len(ahead), lead.value > 0, why)


def _strongest(reference: pd.DataFrame) -> str:
    """Return STRONGEST, or where it is not there the larger model of the best mean."""
    larger = reference[reference["larger"].eq(True)]
    if larger.empty or STRONGEST in set(larger["model"]):
        return STRONGEST
    return str(larger.groupby("model")["value"].mean().idxmax())


def _level_tasks(evidence: Evidence, strongest: str) -> pd.Series:
    """Return per task the corrected p-value of being level with the strongest model.

    The error of a mean gap is that between languages and, since they may share their
    questions, the mean of their standard errors.
    """
    reference, keys = evidence.reference, [*WHERE, "metric", "scoring"]
    known = reference["model"].eq(strongest) & reference["failure"].eq("")
    is_mistral = evidence.beside["base_model"].str.lower().str.contains("mistral")
    mistral = evidence.beside[is_mistral]
    means = mistral.groupby(keys)[["value", "stderr"]].mean().reset_index()
    both = means.merge(reference[known], on=keys, suffixes=("", "_4"))
    both["gap"] = 100 * (both["value_4"] - both["value"])
    p = {}
    for task, part in both.groupby("task"):
        if len(part) > 1:
            error = np.hypot(part["gap"].sem(), 100 * part["stderr"].mean())
            room = evidence.margin - abs(part["gap"].mean())
            p[task] = float(stats.t.sf(room / error, len(part) - 1))
    return pd.Series(holm(list(p.values())), index=list(p), dtype=float)
