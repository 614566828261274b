"""Whether a plan finds the effects that it says it finds, with the power it says.

For each claim whose effect a world can have alone, worlds in which it is exactly the
smallest effect that `grid design` states for a plan are simulated anew, and judged as
04 would. Of a claim that something happens sometimes, the share of its comparisons.

    python -m benchmarks.design --simulations 200
"""

import argparse
from functools import partial
from itertools import product
from multiprocessing import Pool

import numpy as np
import pandas as pd
from tqdm import tqdm

from maple_utils.claims import CLAIMS, SOMETIMES
from maple_utils.claims.contrasts import WHERE
from maple_utils.claims.evidence import SIGNIFICANCE, Evidence, Finding
from maple_utils.claims.worlds import (
    Plan,
    World,
    abilities,
    answers,
    exact_scores,
    expected,
)
from maple_utils.grid.power import (
    evidence_of,
    findings,
    gathered,
    simulate,
)
from maple_utils.params import Cell
from maple_utils.tasks import select

WORLDS = {  # claim -> the world in which its effect has a size, in points of ability
    "C1": lambda size: World(rank_low=size),
    "C2": lambda size: World(bits_low=size),
    "C4": lambda size: World(gain_english=-size),
    "C5": lambda size: World(gain=-size, gain_low=2 * size),
    "C8": lambda size: World(mistral=size),
}
BASES, DATA = ["llama-2-7b", "mistral-7b"], ["bactrian-x-22", "multialpaca"]
TRAINED = {data: ["en", "fr", "sw", "vi"] for data in DATA}
FRESH = 1000  # the first seed that the plan's own simulations have not seen
CALIBRATION = 20  # worlds that say how many points of score a size makes


def small_plan(tasks: list[str], rows: int, bits: list[int]) -> Plan:
    """Return two base models, with two datasets at three ranks, on tasks alike."""
    cells = [Cell(base, "", 0, width) for base, width in product(BASES, bits)]
    cells += [Cell(*axes) for axes in product(BASES, DATA, (8, 32, 128), bits)]
    languages: dict[str, list[str]] = {}
    for task, code in select(tasks, []):
        languages.setdefault(task, []).append(code)
    return Plan(cells, languages, rows, TRAINED)


def one(claim: str, evidence: Evidence) -> Finding:
    """Return the finding on one claim."""
    others = {other.id for other in CLAIMS} - {claim}
    return findings(evidence, others)[claim]


def size_of(claim: str, effect: float, plan: Plan) -> float:
    """Return the size in a world that makes an effect of so many points of score."""
    few = Plan(plan.cells, plan.languages, 20, plan.trained)
    rng = np.random.default_rng(0)
    ability = abilities(World(), few, rng)
    template = gathered(few, ability, list(answers(ability, few, rng))).scores

    def value(world: World, seed: int) -> float:
        ability = abilities(world, plan, np.random.default_rng(seed))
        exact = exact_scores(plan, expected(ability, plan.places()), template)
        finding = one(claim, evidence_of(plan, exact, exact, None))
        if claim in SOMETIMES:
            return float(finding.comparisons["effect"].mean())
        return finding.estimate.value

    size = effect / 0.75
    seeds = range(FRESH, FRESH + CALIBRATION)
    made = np.mean([value(WORLDS[claim](size), seed) for seed in seeds])
    if claim not in SOMETIMES:
        made -= np.mean([value(World(), seed) for seed in seeds])
    return size * effect / made


def found(seed: int, claim: str, size: float, plan: Plan, tests: int) -> float:
    """Return whether a simulation finds it, or in what share of its comparisons."""
    rng = np.random.default_rng(seed)
    ability = abilities(WORLDS[claim](size), plan, rng)
    finding = one(claim, gathered(plan, ability, list(answers(ability, plan, rng))))
    if claim in SOMETIMES:
        return float((finding.comparisons["p"] < SIGNIFICANCE / tests).mean())
    return float(
        finding.estimate.value > 0 and finding.estimate.p < SIGNIFICANCE / tests
    )


def check(plan: Plan, claim: str, simulations: int, jobs: int = 2) -> tuple:
    """Return the smallest effect that a plan states, and how often it is found."""
    questions = pd.Series(plan.rows, pd.MultiIndex.from_frame(plan.places()[WHERE]))
    power = simulate(plan)
    effect = power.smallest(claim, questions)
    size = size_of(claim, effect, plan)
    judge = partial(found, claim=claim, size=size, plan=plan, tests=power.tests)
    seeds = range(FRESH, FRESH + simulations)
    with Pool(jobs) as pool:
        shares = list(tqdm(pool.imap_unordered(judge, seeds), claim, total=len(seeds)))
    return effect, float(np.mean(shares))


def main() -> None:
    """Print how often the stated effects are found; they are to be found in 80 %."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=200)
    parser.add_argument("--claims", nargs="+", default=list(WORLDS), choices=WORLDS)
    given = parser.parse_args()
    plan = small_plan(["xcopa", "belebele"], 250, [4, 16])
    print(f"{len(plan.cells)} runs, {plan.rows} rows of each task and language")
    for claim in given.claims:
        effect, share = check(plan, claim, given.simulations)
        print(f"{claim}: {effect:.2f} points, found in {share:.0%}", flush=True)


if __name__ == "__main__":
    main()
