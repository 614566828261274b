"""How often the claims' intervals cover the truth, on simulated tables.

In every world here the truth is that nothing happens, so what an interval misses, or a
test finds, is an error. Scores vary by place, language, task, run and example, as
`tests/simulated_claims.py` says.

    python -m benchmarks.claims --simulations 300
"""

import argparse
from functools import partial
from multiprocessing import Pool
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from maple_utils import claims
from maple_utils.claims.findings import SIGNIFICANCE, Finding
from tests import simulated_claims as simulated

WORLDS: dict[str, dict[str, Any]] = {
    "paper": {"grid": simulated.runs(), "places": simulated.PAPER},
    "small": {
        "grid": simulated.runs(ranks=(4, 8, 16), bits=(4, 16)),
        "places": simulated.FEW,
    },
}
VARIED = {"base_sd": 2.0, "run_level": 0.3}
STILL = dict.fromkeys(("language_slope", "task_slope", "pair_slope"), 0.0)
# English is one language, not one of many that were drawn: its slope would be a truth.
COVERAGE = dict.fromkeys(("C1", "C2", "C3", "C5", "C6", "C8"), VARIED)
COVERAGE |= {"C4": VARIED | {"language_slope": 0.0}, "C7": VARIED | {"data_sd": 2.0}}
# What "sometimes happens" does happen where runs differ: there they must not.
ERRORS = COVERAGE | dict.fromkeys(
    ("C3", "C4", "C5"), STILL | {"run": 0.0, "run_language": 0.0}
)


def larger(places: dict[str, str]) -> pd.DataFrame:
    """Return a larger model that scores 50 points everywhere, as the base models do."""
    rows = [(t, code) for t, codes in places.items() for code in codes.split()]
    table = pd.DataFrame(rows, columns=["task", "language"])
    metric = table["task"].map(simulated.METRIC).fillna("accuracy")
    return table.assign(
        model="GPT-4", larger=True, metric=metric, value=0.5, failure=""
    )


def simulate(seed: int, world: str, ids: list[str]) -> list[tuple[str, bool, bool]]:
    """Return each claim, whether its interval covers zero, whether p is below 5 %."""
    rows = []
    for claim in [claim for claim in claims.CLAIMS if claim.id in ids]:
        truth, still = COVERAGE[claim.id], ERRORS[claim.id]
        covering = _find(claim, seed, world, truth)
        erring = covering if still == truth else _find(claim, seed, world, still)
        interval = covering.estimate
        covered = interval.low <= 0 <= interval.high
        rows.append((claim.id, bool(covered), bool(erring.p < SIGNIFICANCE)))
    return rows


def _find(claim: claims.Claim, seed: int, world: str, truth: dict) -> Finding:
    given = WORLDS[world]
    table = simulated.table(np.random.default_rng(seed), **given, **truth)
    reference, training = larger(given["places"]), simulated.training(table)
    evidence = claims.gather(table, reference=reference, training=training)
    return claim.finding(evidence)


def main() -> None:
    """Print coverage and false positives of each claim in each world."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--claims", nargs="+", default=list(COVERAGE), choices=COVERAGE)
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=WORLDS)
    given = parser.parse_args()
    for world in given.worlds:
        with Pool(given.jobs) as pool:
            one = partial(simulate, world=world, ids=given.claims)
            seeds = range(given.first, given.first + given.simulations)
            runs = pool.imap_unordered(one, seeds)
            found = list(tqdm(runs, total=given.simulations))
        rows = [row for one_grid in found for row in one_grid]
        table = pd.DataFrame(rows, columns=["claim", "covered", "found"])
        print(world, table.groupby("claim").mean().round(3), sep="\n")


if __name__ == "__main__":
    main()
