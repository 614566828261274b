"""The claims C1 to C8 as statistical tests: one row each, and why.

`evaluate_claims` answers all of them from the tidy scores. A new claim is a block in
`claims.yaml` and a function in `findings`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from statsmodels.stats.multitest import multipletests

from maple_utils.claims import findings
from maple_utils.claims.contrasts import NotTestable, primary_scores, score_changes
from maple_utils.claims.findings import SIGNIFICANCE, Evidence, Finding
from maple_utils.languages import check_languages, resource_level

REFERENCE = Path(__file__).parents[1] / "data" / "reference_results.csv"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, how it is asked here, and who answers: see claims.yaml."""

    id: str
    claim: str
    tag: str
    question: str
    unit: str
    test: str
    find: str  # name of a function in findings

    def finding(self, evidence: Evidence) -> Finding:
        """Return what the evidence says; raises NotTestable if it does not suffice."""
        return getattr(findings, self.find)(evidence)


CLAIMS = [
    Claim(name, **block)
    for name, block in yaml.safe_load(
        Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8")
    ).items()
]
COLUMNS = ["id", "claim", "tag", "question", "estimate", "low", "high", "unit", "test"]
COLUMNS += ["p", "p_holm", "share", "n", "bootstrap_low", "bootstrap_high"]
COLUMNS += ["verdict", "why"]


def reference_results() -> pd.DataFrame:
    """Return the scores of other models, as data/reference_results.md describes them.

    Columns model, larger (than 7B), task, language, metric, value (fraction), failure
    ("" or why the score is taken for a failed run and left out).
    """
    return pd.read_csv(REFERENCE, keep_default_na=False)


def gather(
    all_scores: pd.DataFrame,
    predictions: pd.DataFrame | None = None,
    reference: pd.DataFrame | None = None,
    level: Callable[[str], str] = resource_level,
) -> Evidence:
    """Return what the claims need from the tidy tables.

    Args:
        all_scores: the tidy scores of all runs.
        predictions: the tidy predictions, for paired errors and the bootstrap.
        reference: scores of other models; None reads `reference_results`.
        level: "low", "mid" or "high" for a language code.

    Raises:
        ParameterError: for a language that the table of languages does not know.
    """
    scores = primary_scores(all_scores)
    check_languages(scores["language"])
    reference = reference_results() if reference is None else reference
    changes = score_changes(scores, predictions)
    return Evidence(scores, changes, reference, level, predictions)


def evaluate_claims(
    all_scores: pd.DataFrame,
    predictions: pd.DataFrame | None = None,
    reference: pd.DataFrame | None = None,
    level: Callable[[str], str] = resource_level,
) -> pd.DataFrame:
    """Return a row per claim, with the columns COLUMNS; the arguments are `gather`'s.

    `low` and `high` are the 95 % interval of `estimate`. `p_holm` is corrected over the
    claims that these runs can test. `share` is the fraction of (cell, task, language)
    where the claim holds; C3 to C5 count only what stays significant after Holm's
    correction within the claim, and C5 counts (cell, task). A claim is supported when
    its effect has the claimed direction and `p_holm` is below 0.05.
    """
    evidence = gather(all_scores, predictions, reference, level)
    table = pd.DataFrame([_row(claim, evidence) for claim in CLAIMS])
    table = table.reindex(columns=[*COLUMNS, "holds"])
    tested = table["p"].notna()
    if tested.any():
        adjusted = multipletests(table.loc[tested, "p"], method="holm")[1]
        table.loc[tested, "p_holm"] = adjusted
    supported = table["holds"] & (table["p_holm"] < SIGNIFICANCE)
    table.loc[supported, "verdict"] = "supported"
    table.loc[table["holds"] & ~supported, "why"] += "; not told apart from chance"
    return table[COLUMNS]


def _row(claim: Claim, evidence: Evidence) -> dict[str, Any]:
    """Return a claim's columns, but for what takes all claims to know."""
    try:
        finding = claim.finding(evidence)
    except NotTestable as reason:
        missing = {"verdict": "not testable with these runs", "why": str(reason)}
        return asdict(claim) | missing | {"n": 0, "holds": False}
    estimate = finding.estimate
    return asdict(claim) | {
        "estimate": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "p": finding.p,
        "share": finding.share,
        "n": finding.n,
        "bootstrap_low": finding.bootstrap[0],
        "bootstrap_high": finding.bootstrap[1],
        "holds": finding.holds,
        "verdict": "not supported",
        "why": finding.why,
    }
