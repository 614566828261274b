"""The claims C1 to C8 as statistical tests: one row each, and why.

`evaluate_claims` answers all of them from what `gather` makes of the tidy tables. A new
claim is a block in `claims.yaml` and a function in `findings` or `sometimes`.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats
from scipy.optimize import brentq

from maple_utils.claims import findings, slopes, sometimes
from maple_utils.claims.bootstrap import bootstrap_examples
from maple_utils.claims.contrasts import (
    NotTestable,
    examples,
    holm,
    primary_scores,
    score_changes,
)
from maple_utils.claims.evidence import MARGIN, SIGNIFICANCE, Evidence, Finding
from maple_utils.claims.larger import (
    beside_larger,
    gap_to_larger,
    reference_results,
)
from maple_utils.languages import check_languages, levels_among


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, how it is asked here, and who answers: see claims.yaml."""

    id: str
    claim: str
    tag: str
    question: str
    unit: str
    test: str
    find: str  # module and function
    assumes: str = ""

    def finding(self, evidence: Evidence) -> Finding:
        """Return what the evidence says; raises NotTestable if it does not suffice."""
        module, function = self.find.split(".")
        return getattr(FINDERS[module], function)(evidence)


FINDERS = {"findings": findings, "sometimes": sometimes}
CLAIMS = [
    Claim(name, **block)
    for name, block in yaml.safe_load(
        Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8")
    ).items()
]
SOMETIMES = {claim.id for claim in CLAIMS if claim.find.startswith("sometimes.")}
COLUMNS = ["id", "claim", "tag", "question", "estimate", "low", "high", "unit", "test"]
COLUMNS += ["p", "p_holm", "share", "n", "size", "where", "detectable"]
COLUMNS += ["bootstrap_low", "bootstrap_high", "verdict", "why"]
POWER = 0.8


def gather(
    all_scores: pd.DataFrame,
    predictions: pd.DataFrame | None = None,
    reference: pd.DataFrame | None = None,
    training: pd.DataFrame | None = None,
    level: Callable[[str], str] | None = None,
    margin: float = MARGIN,
) -> Evidence:
    """Return what the claims need from the tidy tables.

    Args:
        all_scores: the tidy scores of all runs but the larger models'.
        predictions: the tidy predictions, for paired errors and the bootstrap.
        reference: what `reference_results` returns; None: its sheet.
        training: what `results.training_records` returns, for what was trained on.
        level: "low", "mid" or "high" for a language code; None: by the base models, as
            `languages.levels_among`.
        margin: points that make no difference: see `evidence.MARGIN`.

    Raises:
        ParameterError: for a language that the table of languages does not know.
    """
    scores = primary_scores(all_scores)
    check_languages(scores["language"])
    if reference is None:
        reference = reference_results(all_scores.iloc[:0])
    if predictions is not None and predictions.empty:
        predictions = None
    beside = beside_larger(all_scores, reference, predictions)
    answers, shared = (
        None if predictions is None else examples(table, predictions)
        for table in (scores, beside)
    )
    changes, gaps = score_changes(scores, answers), gap_to_larger(beside, shared)
    level = level or levels_among(scores["base_model"])
    about = (reference, beside, gaps, level, answers, training, margin)
    return Evidence(scores, changes, *about)


def find(evidence: Evidence) -> dict[str, Finding | NotTestable]:
    """Return what the evidence, as `gather` returns it, says on each claim, by id."""
    return {claim.id: _ask(claim, evidence) for claim in CLAIMS}


def evaluate_claims(
    evidence: Evidence, found: Mapping[str, Finding | NotTestable] | None = None
) -> pd.DataFrame:
    """Return a row per claim, with the columns COLUMNS.

    `low` and `high` are the 95 % interval of `estimate`, `detectable` the smallest
    effect that would have been found with 80 % power. `p_holm` is corrected over the
    claims that these runs can test. A claim is supported when its effect has the
    claimed direction and `p_holm` is below 0.05.

    `share` is the fraction of (cell, task, language) where the claim holds. C3 to C5,
    which say that something happens sometimes, count only what stays significant after
    Holm's correction within the claim (C3 of those that were behind, C5 per cell and
    task); they have a `size`, the median effect there in points, and tasks, `where`.

    Args:
        evidence: what `gather` returns.
        found: what `find` returns for it, where that is at hand.
    """
    found = find(evidence) if found is None else found
    tests = sum(isinstance(finding, Finding) for finding in found.values())
    rows = [_row(claim, found[claim.id], tests, evidence) for claim in CLAIMS]
    table = pd.DataFrame(rows)
    table = table.reindex(columns=[*COLUMNS, "holds"])
    tested = table["p"].notna()
    if tested.any():
        table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"])
    supported = table["holds"] & (table["p_holm"] < SIGNIFICANCE)
    table.loc[supported, "verdict"] = "supported"
    table.loc[table["holds"] & ~supported, "why"] += "; not told apart from chance"
    return table[COLUMNS]


def influence(found: Mapping[str, Finding | NotTestable]) -> pd.DataFrame:
    """Return what each language weighs in C1, C2 and C5, as `slopes.influence` does.

    Column claim comes first; no rows of a claim whose estimate has no such weights.
    """
    parts = [pd.DataFrame(columns=["claim", "language", "low", "weight", "without"])]
    for name, finding in found.items():
        if isinstance(finding, Finding) and "slopes" in finding.estimate.details:
            table = slopes.influence(finding.estimate)
            parts.append(table.assign(claim=name)[parts[0].columns])
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _ask(claim: Claim, evidence: Evidence) -> Finding | NotTestable:
    try:
        return claim.finding(evidence)
    except NotTestable as reason:
        return reason


def _row(
    claim: Claim, found: Finding | NotTestable, tests: int, evidence: Evidence
) -> dict[str, Any]:
    """Return a claim's columns, but for what takes all claims to know."""
    if isinstance(found, NotTestable):
        missing = {"verdict": found.verdict, "why": str(found)}
        return asdict(claim) | missing | {"n": 0, "holds": False}
    estimate, bootstrap = found.estimate, (np.nan, np.nan)
    if evidence.answers is not None and "score_weights" in estimate.details:
        bootstrap = bootstrap_examples(estimate, evidence.scores, evidence.answers)
    return asdict(claim) | {
        "estimate": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "p": found.p,
        "share": found.share,
        "n": found.n,
        "size": found.size,
        "where": found.where,
        "detectable": detectable(found, tests),
        "bootstrap_low": bootstrap[0],
        "bootstrap_high": bootstrap[1],
        "holds": found.holds,
        "verdict": "not supported",
        "why": found.why + (f"; assumes {claim.assumes}" if claim.assumes else ""),
    }


def detectable(found: Finding, tests: int) -> float:
    """Return the smallest effect that is found with 80 % power, in the claim's unit.

    That of a t-test (noncentral t), at the level corrected for the number of claims and
    of comparisons (Bonferroni, at most a little too large). For a claim that something
    happens sometimes: in one comparison of median error.
    """
    compared, estimate = found.comparisons, found.estimate
    if compared is not None:
        error, df = compared["error"].median(), compared["df"].median()
        return float(error * _reach(SIGNIFICANCE / tests / len(compared), df))
    error = (estimate.high - estimate.value) / stats.t.ppf(0.975, estimate.df)
    return float(error * _reach(SIGNIFICANCE / 2 / tests, estimate.df))


def _reach(level: float, df: float) -> float:
    """Return how many standard errors an effect is away that is found often enough."""
    df = min(max(df, 1), 1e4)  # the numerics of t's tails; from there t is normal
    least = stats.t.isf(level, df)
    return brentq(lambda far: stats.nct.sf(least, df, far) - POWER, 0, 10 * least)
