"""The smallest effects that runs would find, from simulations of runs like them.

A claim's error has two parts: one that more questions make smaller, and one that they
do not, since there are few languages and runs. Worlds in which nothing happens are
simulated with a few questions and, with the same abilities, with endlessly many; what
holds for any number of questions follows from the two.
"""

from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from maple_utils import claims, results
from maple_utils.claims import SOMETIMES
from maple_utils.claims.contrasts import WHERE, NotTestable, primary_scores, student
from maple_utils.claims.evidence import Evidence, Finding
from maple_utils.claims.worlds import (
    Plan,
    World,
    abilities,
    answers,
    exact_scores,
    expected,
    larger_model,
    training,
)

QUESTIONS = 60  # per task and language in a simulation
SAMPLED, ENDLESS = 3, 16  # simulations with answers; in all


@dataclass(frozen=True)
class Power:
    """What the simulations say of a plan, for any number of questions.

    The error of a claim on a mean has a variance and degrees of freedom, both of which
    are taken to lie on a line over one per question: here with endlessly many and with
    QUESTIONS.
    """

    tests: int  # claims that can be tested
    findings: Mapping[str, list[Finding]]  # by claim, one of each world with questions
    endless: Mapping[str, np.ndarray]  # variance and df by claim on a mean
    sampled: Mapping[str, np.ndarray]

    @property
    def testable(self) -> list[str]:
        """Return the claims that can be tested."""
        return list(self.findings)

    def smallest(self, claim: str, questions: pd.Series) -> float:
        """Return the smallest effect of a claim that is found with 80 % power.

        Args:
            claim: one of `testable`.
            questions: their number by task and language.

        Returns:
            It, in the claim's unit; of claims that something happens sometimes, in one
            comparison of median error.
        """
        if claim in self.endless:
            part = QUESTIONS * (1 / questions).mean()
            variance, df = self.endless[claim] * (1 - part) + self.sampled[claim] * part
            estimate = student(0.0, variance, max(df, 1.0))
            found = [replace(self.findings[claim][0], estimate=estimate)]
        else:
            factors = np.sqrt(QUESTIONS / questions)
            found = [_scaled(finding, factors) for finding in self.findings[claim]]
        return float(np.mean([claims.detectable(one, self.tests) for one in found]))


def _scaled(finding: Finding, factors: pd.Series) -> Finding:
    """Return the finding with its comparisons' errors scaled, by where they are."""
    compared = finding.comparisons
    assert compared is not None
    if "language" in compared:
        keys = pd.MultiIndex.from_frame(compared[WHERE])
        by_row = factors.reindex(keys).to_numpy()
    else:
        by_row = compared["task"].map(factors.groupby("task").mean()).to_numpy()
    return replace(
        finding, comparisons=compared.assign(error=compared["error"] * by_row)
    )


def simulate(plan: Plan, seeds: Iterable[int] = range(ENDLESS)) -> Power:
    """Return how small effects a plan finds, from worlds in which nothing happens.

    Args:
        plan: what is run; the number of its rows does not matter.
        seeds: one per world; the first SAMPLED of them are asked questions.
    """
    plan = replace(plan, rows=QUESTIONS)
    sampled: list[dict[str, Finding]] = []
    exact: list[dict[str, Finding]] = []
    template = pd.DataFrame()
    for seed in seeds:
        rng = np.random.default_rng(seed)
        ability = abilities(World(), plan, rng)
        if len(sampled) < SAMPLED:
            tables = list(answers(ability, plan, rng))
            evidence = gathered(plan, ability, tables)
            template = evidence.scores
            sampled.append(findings(evidence))
        truth = exact_scores(plan, expected(ability, plan.places()), template)
        exact.append(findings(evidence_of(plan, truth, truth, None), SOMETIMES))
    return _power(sampled, exact)


def gathered(plan: Plan, ability: np.ndarray, tables: list[pd.DataFrame]) -> Evidence:
    """Return the evidence of runs of these abilities that gave these answers."""
    answered = pd.concat(tables, ignore_index=True)
    scores = primary_scores(results.scores_from_predictions(answered))
    exact = exact_scores(plan, expected(ability, plan.places()), scores)
    return evidence_of(plan, scores, exact, answered)


def evidence_of(
    plan: Plan,
    scores: pd.DataFrame,
    exact: pd.DataFrame,
    answered: pd.DataFrame | None,
) -> Evidence:
    """Return the evidence of scores, beside what endlessly many questions would give.

    Without answers, errors are those of independent samples.
    """
    larger = larger_model(exact)
    return claims.gather(scores, answered, larger, training(plan), plan.level)


def findings(evidence: Evidence, but: Container[str] = ()) -> dict[str, Finding]:
    """Return what the evidence says on each claim that it can answer, but for some."""
    found = {}
    for claim in (one for one in claims.CLAIMS if one.id not in but):
        with suppress(NotTestable):
            found[claim.id] = claim.finding(evidence)
    return found


def _power(sampled: list[dict[str, Finding]], exact: list[dict[str, Finding]]) -> Power:
    """Return what the findings of both kinds of worlds say; of the same ones first."""
    names = [
        name
        for name in sampled[0]
        if all(name in one for one in sampled)
        and (name in SOMETIMES or all(name in one for one in exact))
    ]
    by_claim = {name: [one[name] for one in sampled] for name in names}
    at_endless, at_sampled = {}, {}
    for name, found in by_claim.items():
        if name in SOMETIMES:
            continue
        without = np.array([_error(one[name]) for one in exact])
        with_answers = np.array([_error(one) for one in found])
        more = (with_answers - without[: len(found)])[:, 0].mean()
        variance = without[:, 0].mean()
        at_endless[name] = np.array([variance, np.median(without[:, 1])])
        df = np.median(with_answers[:, 1])
        at_sampled[name] = np.array([variance + max(more, 0.0), df])
    return Power(len(names), by_claim, at_endless, at_sampled)


def _error(finding: Finding) -> tuple[float, float]:
    """Return the variance of an estimate and its degrees of freedom."""
    estimate = finding.estimate
    reach = stats.t.ppf(0.975, estimate.df)
    return ((estimate.high - estimate.value) / reach) ** 2, estimate.df
