"""What the claims are judged on, and what is found."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from maple_utils.claims.contrasts import Estimate

SIGNIFICANCE = 0.05
MARGIN = 3.0  # points that make no difference worth speaking of (ours)


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged on; see `claims.gather`."""

    scores: pd.DataFrame  # what `primary_scores` returns
    changes: pd.DataFrame  # what `score_changes` returns
    reference: pd.DataFrame  # what `larger.reference_results` returns
    beside: pd.DataFrame  # what `larger.beside_larger` returns
    gaps: pd.DataFrame  # what `larger.gap_to_larger` returns
    level: Callable[[str], str]
    answers: pd.DataFrame | None = None  # what `examples` returns
    training: pd.DataFrame | None = None  # what `results.training_records` returns
    margin: float = MARGIN


@dataclass(frozen=True)
class Finding:
    """What a claim's function found; `p` is not yet corrected over the claims.

    A claim that something happens sometimes has `comparisons`: a row each, with cell,
    task, language (where it is of one), effect (points, in the direction of the claim),
    error (its standard error) and p (corrected over the comparisons).
    """

    estimate: Estimate
    p: float
    share: float
    n: int
    holds: bool
    why: str
    comparisons: pd.DataFrame | None = None

    @property
    def found(self) -> pd.DataFrame:
        """Return the comparisons in which it happens."""
        if self.comparisons is None:
            return pd.DataFrame(columns=["task", "effect"], dtype=float)
        return self.comparisons[self.comparisons["p"] < SIGNIFICANCE]

    @property
    def size(self) -> float:
        """Return the median effect where it happens, in points."""
        return float(self.found["effect"].median())

    @property
    def where(self) -> str:
        """Return the tasks in which it happens."""
        return ", ".join(sorted(set(self.found["task"])))
