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
from maple_utils.claims.findings import LEVEL, Finding
from tests import simulated_claims as simulated

FEW = dict.fromkeys(("xcopa", "belebele", "xquad"), "en es fr zh ar hi sw te gu qu")
WORLDS: dict[str, dict[str, Any]] = {
    "paper": {"grid": simulated.runs(), "places": simulated.PAPER},
    "small": {
        "grid": simulated.runs(ranks=(4, 8, 16), bits=(4, 16)),
        "places": FEW,
    },
}
VARIED = {"base_sd": 2.0, "run_level": 0.3}
STILL = dict.fromkeys(("language_slope", "task_slope", "pair_slope"), 0.0)
# English is one language, not one of many that were drawn: its slope would be a truth.
COVERAGE = dict.fromkeys(("C1", "C2", "C3", "C5", "C6", "C8"), VARIED)
COVERAGE |= {"C4": VARIED | {"language_slope": 0.0}, "C7": VARIED | {"data_sd": 2.0}}
# What "sometimes happens" does happen where a run has luck: there it must have none.
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


def simulate(seed: int, world: str) -> dict[tuple[str, str], bool]:
    """Return per claim whether its interval covers zero, and whether p is below 5 %."""
    found = {}
    for question in claims.CLAIMS:
        covering = _find(question, seed, world, COVERAGE[question.id]).estimate
        found[question.id, "covered"] = covering.low <= 0 <= covering.high
        erring = _find(question, seed, world, ERRORS[question.id])
        found[question.id, "found"] = erring.p < LEVEL
    return found


def _find(question: claims.Question, seed: int, world: str, truth: dict) -> Finding:
    given = WORLDS[world]
    table = simulated.table(np.random.default_rng(seed), **given, **truth)
    return question.find(claims.gather(table, reference=larger(given["places"])))


def main() -> None:
    """Print coverage and false positives of each claim in each world."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=WORLDS)
    given = parser.parse_args()
    for world in given.worlds:
        with Pool() as pool:
            runs = pool.imap_unordered(
                partial(simulate, world=world), range(given.simulations)
            )
            found = list(tqdm(runs, total=given.simulations, desc=world))
        print(pd.DataFrame(found).mean().unstack().round(3))


if __name__ == "__main__":
    main()
