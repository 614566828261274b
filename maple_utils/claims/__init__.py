"""The claims C1 to C8 as statistical tests: one row each, and why.

`evaluate_claims` answers all of them from the tidy scores. A new claim is a function
in `findings` and a row in `CLAIMS`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from maple_utils.claims import findings
from maple_utils.claims.contrasts import NotTestable, changes, holm, primary_scores
from maple_utils.claims.findings import LEVEL, Evidence, Finding
from maple_utils.languages import check_languages, resource_level

REFERENCE = Path(__file__).parents[1] / "data" / "reference_results.csv"


@dataclass(frozen=True)
class Question:
    """A claim of the paper, how it is asked here, and the function that asks."""

    id: str
    claim: str
    tag: str
    question: str
    unit: str
    test: str
    find: Callable[[Evidence], Finding]


@dataclass(frozen=True)
class Claim:
    """One row of the claims table; low and high are the 95 % interval."""

    id: str
    claim: str
    tag: str
    question: str
    estimate: float
    low: float
    high: float
    unit: str
    test: str
    p: float
    p_holm: float
    share: float
    n: int
    bootstrap_low: float
    bootstrap_high: float
    verdict: str
    why: str


_MIXED = (
    "mixed-effects model of slopes per (task, language); interval by language and run, "
    "two-sided t-test of the interaction with resource level"
)
_HOLM = "one-sided z-test per {}, Holm within the claim; interval by {}"
CLAIMS = (
    Question(
        "C1",
        "Higher LoRA rank helps low-resource languages more than high-resource ones",
        "stated",
        "Does the score rise more per doubling of rank where resources are low?",
        "points per doubling of rank, low less high",
        _MIXED,
        findings.rank_helps_low,
    ),
    Question(
        "C2",
        "Higher quantisation values help low-resource languages",
        "stated; ambiguous: read as more bits, both directions tested",
        "Does the score rise more per doubling of bits where resources are low?",
        "points per doubling of bits, low less high",
        _MIXED,
        findings.bits_help_low,
    ),
    Question(
        "C3",
        "Finetuning a 7B model sometimes closes the gap to larger models",
        "stated; 'closes' is ours: level with the median larger model",
        "How far does finetuning narrow the gap, and where does it close it?",
        "points by which the gap narrows",
        _HOLM.format("(cell, task, language)", "language and run"),
        findings.closes_gap,
    ),
    Question(
        "C4",
        "English can get worse",
        "stated",
        "What does finetuning change in English?",
        "points of change in English",
        _HOLM.format("(cell, task)", "run and task"),
        findings.english_worse,
    ),
    Question(
        "C5",
        "Finetuning sometimes improves low-resource languages while degrading "
        "high-resource ones",
        "stated",
        "Do both happen at once in the same cell and task?",
        "points of change, low less high",
        _HOLM.format("(cell, task) on the weaker of both changes", "run and task"),
        findings.low_up_high_down,
    ),
    Question(
        "C6",
        "Before finetuning, English is ahead of other languages and large models "
        "ahead of small ones",
        "stated",
        "How far is English ahead of another language in a base model?",
        "points that English is ahead",
        "two-sided t-test by language and task; p is the larger of both comparisons",
        findings.english_and_size,
    ),
    Question(
        "C7",
        "The base model matters more than how the instruction data were made",
        "inferred",
        "How much more of the variance goes with the base model than with the data?",
        "share of the variance between runs",
        "difference of variance components, two-sided t-test by jackknife",
        findings.base_over_data,
    ),
    Question(
        "C8",
        "Mistral-7B is strong across languages, on some benchmarks near GPT-4",
        "inferred; 'near' is ours: at most 5 points below on a task's mean",
        "How far is Mistral ahead of Llama-2 before finetuning?",
        "points that Mistral is ahead",
        "two-sided t-test by language and task; GPT-4 by distance alone",
        findings.mistral_strong,
    ),
)


def reference_results() -> pd.DataFrame:
    """Return the scores of other models, as data/reference_results.md describes them.

    Columns model, larger (than 7B), task, language, metric, value (fraction), failure
    ("" or why the score is taken for a failed run and left out).
    """
    return pd.read_csv(REFERENCE, keep_default_na=False)


def gather(
    scores: pd.DataFrame,
    predictions: pd.DataFrame | None = None,
    reference: pd.DataFrame | None = None,
    level: Callable[[str], str] = resource_level,
) -> Evidence:
    """Return what the claims need from the tidy tables.

    Args:
        scores: the tidy scores of all runs.
        predictions: the tidy predictions, for paired errors and the bootstrap.
        reference: scores of other models; None reads `reference_results`.
        level: "low", "mid" or "high" for a language code.

    Raises:
        ParameterError: for a language that the table of languages does not know.
    """
    table = primary_scores(scores)
    check_languages(table["language"])
    reference = reference_results() if reference is None else reference
    changed = changes(table, predictions)
    return Evidence(table, changed, reference, level, predictions)


def evaluate_claims(
    scores: pd.DataFrame,
    predictions: pd.DataFrame | None = None,
    reference: pd.DataFrame | None = None,
    level: Callable[[str], str] = resource_level,
) -> pd.DataFrame:
    """Return a row per claim (the fields of `Claim`); the arguments are `gather`'s.

    `p_holm` is corrected over the claims that these runs can test. `share` is the
    fraction of (cell, task, language) where the claim holds; C3 to C5 count only what
    stays significant after Holm's correction within the claim, and C5 counts (cell,
    task). A claim is supported when its effect has the claimed direction and `p_holm`
    is below 0.05.
    """
    evidence = gather(scores, predictions, reference, level)
    found: dict[str, Finding] = {}
    reasons: dict[str, str] = {}
    for question in CLAIMS:
        try:
            found[question.id] = question.find(evidence)
        except NotTestable as reason:
            reasons[question.id] = str(reason)
    adjusted = dict(zip(found, holm([f.p for f in found.values()]), strict=True))
    rows = [
        _judged(question, found[question.id], adjusted[question.id])
        if question.id in found
        else _untested(question, reasons[question.id])
        for question in CLAIMS
    ]
    return pd.DataFrame([asdict(row) for row in rows])


def _judged(question: Question, finding: Finding, p_holm: float) -> Claim:
    supported = finding.holds and p_holm < LEVEL
    missed = finding.holds and not supported
    return Claim(
        **{name: getattr(question, name) for name in _ASKED},
        estimate=finding.estimate.value,
        low=finding.estimate.low,
        high=finding.estimate.high,
        p=finding.p,
        p_holm=p_holm,
        share=finding.share,
        n=finding.n,
        bootstrap_low=finding.bootstrap[0],
        bootstrap_high=finding.bootstrap[1],
        verdict="supported" if supported else "not supported",
        why=finding.why + "; not told apart from chance" * missed,
    )


def _untested(question: Question, reason: str) -> Claim:
    numbers = "estimate low high p p_holm share bootstrap_low bootstrap_high".split()
    return Claim(
        **{name: getattr(question, name) for name in _ASKED},
        **dict.fromkeys(numbers, np.nan),
        n=0,
        verdict="not testable with these runs",
        why=reason,
    )


_ASKED = ("id", "claim", "tag", "question", "unit", "test")
