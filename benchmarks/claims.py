"""How often the claims' intervals cover the truth, and how often they find what is not.

Each row is a kind of world (see `maple_utils.claims.worlds`) in which no claim is true:
in most nothing happens at all, and in each one assumption of the tests is broken. Runs
are written as 02 and 03 leave them, and judged by what 04 calls.

    python -m benchmarks.claims --simulations 300
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from multiprocessing import Pool
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from tqdm import tqdm

from maple_utils import claims, results
from maple_utils.claims.contrasts import WHERE, primary_scores
from maple_utils.claims.evidence import MARGIN, SIGNIFICANCE, Evidence, Finding
from maple_utils.claims.larger import beside_larger, gap_to_larger
from maple_utils.claims.worlds import (
    Plan,
    World,
    exact_scores,
    larger_model,
)
from maple_utils.instructions.published import PUBLISHED
from maple_utils.languages import resource_level
from maple_utils.params import Cell
from tests.simulated_claims import FEW, PAPER, write_runs

QUESTIONS = 80  # per task and language
BASES, DATA = ["llama-2-7b", "mistral-7b"], ["bactrian-x-22", "multialpaca"]
SEEN = {data: list(PUBLISHED[data].rows) for data in DATA}
ALIKE = dict.fromkeys(DATA, SEEN["multialpaca"])


@dataclass(frozen=True)
class Row:
    """A row of the table: a world, what is run in it, and what is asked."""

    world: World = field(default_factory=World)
    ranks: Sequence[int] = (8, 32, 128)
    bits: Sequence[int] = (4, 16)
    seeds: Sequence[int] = (0,)
    places: dict[str, str] = field(default_factory=lambda: PAPER)
    trained: dict[str, list[str]] = field(default_factory=lambda: ALIKE)
    almost: bool = False  # larger models exactly the margin ahead after finetuning
    true: tuple[str, ...] = ()  # claims that hold here, or are not identified
    not_zero: tuple[str, ...] = ()  # claims whose estimate is not zero here

    def plan(self) -> Plan:
        """Return what is run and asked, with base models first."""
        axes = product(BASES, DATA, self.ranks, self.bits, self.seeds)
        tuned = [Cell(*values) for values in axes]
        bases = [Cell(b, "", 0, bits, 0) for b, bits in product(BASES, self.bits)]
        places = {task: codes.split() for task, codes in self.places.items()}
        return Plan([*bases, *tuned], places, QUESTIONS, self.trained)


ROWS = {
    "as assumed": Row(),
    "the paper's grid": Row(ranks=(8, 16, 32, 64, 128), bits=(4, 8, 16)),
    "three tasks, ten languages": Row(places=FEW),
    "task x level slopes": Row(World(sd={"task_level_slope": 0.6})),
    "base x level slopes": Row(World(sd={"base_level_slope": 0.3}), true=("C7",)),
    "a shock per rank and level": Row(World(sd={"rank_level": 1.0})),
    "seeds shared by all runs": Row(
        World(sd={"seed_language": 1.0}), ranks=(8, 64), seeds=(0, 1)
    ),
    "low-resource languages near chance": Row(World(low_behind=40), true=("C6",)),
    "slopes vary more there": Row(World(low_spread=3)),
    "rank helps languages seen": Row(World(rank_seen=0.5), trained=SEEN, true=("C7",)),
    "runs differ more": Row(World(sd={"run": 2.0, "run_language": 1.0})),
    "all gain, none enough": Row(
        World(gain=8, mistral=5), almost=True, true=("C7",), not_zero=("C3", "C4", "C8")
    ),
}


def simulate(seed: int, name: str) -> list[tuple[str, float, bool]]:
    """Return per claim whether its interval covers zero (or NaN), and if it errs."""
    row, found = ROWS[name], []
    evidence, exact = evidence_of(row, row.plan(), seed)
    for claim in claims.CLAIMS:
        if claim.id not in row.true:
            finding = claim.finding(evidence)
            interval = finding.estimate
            covers = np.nan
            if claim.id not in row.not_zero:
                covers = float(interval.low <= 0 <= interval.high)
            found.append((claim.id, covers, errs(claim.id, finding, exact)))
    return found


def evidence_of(row: Row, plan: Plan, seed: int) -> tuple[Evidence, pd.DataFrame]:
    """Write runs, read them as 04 does, and return the evidence.

    Beside it stands what `gap_to_larger` would return for endlessly many questions.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        truth = write_runs(row.world, plan, seed, folder)
        scores, _ = results.collect(folder)
        training, _ = results.training_records(folder)
        predictions, _ = results.predictions(folder)
    exact = exact_scores(plan, truth, primary_scores(scores))
    larger = larger_model(exact, row.almost)
    evidence = claims.gather(scores, predictions, larger, training)
    return evidence, gap_to_larger(beside_larger(exact, larger))


def errs(claim: str, finding: Finding, exact: pd.DataFrame) -> bool:
    """Say whether a finding supports what is not so.

    That something happens sometimes is not so if none of the comparisons in which it
    was found is one in which it does: luck of a run is no error, that of a test is.
    """
    if finding.comparisons is None:
        return bool(finding.holds and finding.p < SIGNIFICANCE)
    if claim == "C5":
        levels = exact.assign(level=exact["language"].map(resource_level))
        means = levels.groupby(["cell", "task", "level"])["change"].mean().unstack()
        really = (means["low"] > 0) & (means["high"] < 0)
    else:
        places = exact.set_index(["cell", *WHERE])
        really = places["change"] < 0
        if claim == "C3":
            behind, level = places["gap_before"] > 0, places["gap_after"] < MARGIN
            really = behind & level & (places["change"] > 0)
    found = finding.found.assign(language="en") if claim == "C4" else finding.found
    keys = pd.MultiIndex.from_frame(found[really.index.names])
    return bool((~really.reindex(keys)).any())


def main() -> None:
    """Print coverage and errors of each claim in each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.simulations)
    for name in given.rows:
        with Pool(given.jobs) as pool:
            runs = pool.imap_unordered(partial(simulate, name=name), seeds)
            found = list(tqdm(runs, name, total=len(seeds)))
        rows = [row for one in found for row in one]
        table = pd.DataFrame(rows, columns=["claim", "covered", "errors"])
        print(name, table.groupby("claim").mean().round(3).T, sep="\n", flush=True)


if __name__ == "__main__":
    main()
