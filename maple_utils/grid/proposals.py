"""Parts of a grid that may be run in its place, and what their rows cost.

Each of PROPOSALS is a part of a grid. Of what it may cost at most a third goes into
evaluation, the rest into training: test rows are what makes an effect easier to find;
more training rows change what is learnt, not how well it is measured.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

import pandas as pd

from maple_utils import grid
from maple_utils.claims.contrasts import WHERE
from maple_utils.claims.findings import MATCHED
from maple_utils.claims.worlds import Plan
from maple_utils.grid import estimate
from maple_utils.grid.power import Power
from maple_utils.instructions.published import PUBLISHED
from maple_utils.languages import levels_among
from maple_utils.miniature.hub import INSTRUCTION_SETS
from maple_utils.params import NOTEBOOKS, Cell
from maple_utils.tasks import PAPER_TASKS

# Per task and language. With 100, what C4 states was found too seldom: see
# benchmarks/README.md.
TEST_ROWS = (1000, 500, 250)
TRAIN_ROWS = (50_000, 20_000, 10_000, 5000, 2000, 1000, 500)  # per language
EVALUATION = 1 / 3  # of the hours, at most


@dataclass(frozen=True)
class Proposal:
    """A part of a grid: how much of each axis."""

    ranks: str  # "all", "three" (the ends and the middle) or "ends"
    bits: str  # "all", "ends" or "fewest"
    seeds: int = 1  # 0: the grid's own
    datasets: str = "all"  # or "first"
    tasks: str = "all"  # or "contrast": with low- and high-resource languages


PROPOSALS = (
    Proposal("all", "all", seeds=0),
    Proposal("three", "ends"),
    Proposal("three", "ends", tasks="contrast"),
    Proposal("three", "ends", datasets="first"),
    Proposal("three", "fewest", seeds=2),
    Proposal("ends", "ends", seeds=2),
    Proposal("ends", "ends"),
    Proposal("ends", "ends", datasets="first", tasks="contrast"),
    Proposal("ends", "fewest", seeds=3),
    Proposal("ends", "fewest", seeds=3, datasets="first"),
)


@dataclass(frozen=True)
class Fit:
    """What a budget buys of a proposal: rows, and the hours that they take."""

    train_limit: int  # per language; 0: all
    test_limit: int  # per task and language; 0: all
    train: float
    evaluate: float

    @property
    def hours(self) -> float:
        """Return the hours in all."""
        return self.train + self.evaluate


@dataclass(frozen=True)
class Option:
    """A proposal for a certain grid: what its file says, and what its rows cost."""

    name: str
    loaded: Mapping[str, Any]  # what its file holds, but for the rows
    cells: Mapping[str, Cell]
    settings: Mapping[str, Any]
    train: Mapping[int, float]  # hours by rows per language; most rows first
    evaluate: Mapping[int, float]  # hours by test rows

    def fit(self, budget: float, least: int = 1) -> Fit | None:
        """Return the most rows that fit into the hours; None where `least` do not.

        `least` are rows per language to train on.
        """
        enough = self._enough(least)
        cheapest, fewest = min(enough.values()), min(self.evaluate.values())
        for test, asking in self.evaluate.items():
            if asking > max(EVALUATION * budget, fewest) or asking + cheapest > budget:
                continue
            for rows, training in enough.items():
                if asking + training <= budget:
                    return Fit(rows, test, training, asking)
        return None

    def least_hours(self, least: int) -> float:
        """Return the hours from which `fit` finds something."""
        return min(self._enough(least).values()) + min(self.evaluate.values())

    def _enough(self, least: int) -> dict[int, float]:
        """Return what training costs on `least` rows or more, or on all there are."""
        enough = {n: cost for n, cost in self.train.items() if not n or n >= least}
        return enough or dict([next(iter(self.train.items()))])

    @property
    def tasks(self) -> list[str]:
        """Return the tasks that are asked."""
        return list(self.settings.get("tasks") or PAPER_TASKS)

    def questions(self, test_limit: int) -> pd.Series:
        """Return how many questions each task and language has."""
        own = {**self.settings, "test_limit": test_limit}
        run = NOTEBOOKS["03_evaluate"] | own
        table = pd.DataFrame(estimate.places(run), columns=[*WHERE, "questions"])
        return table.set_index(WHERE)["questions"]

    def plan(self) -> Plan:
        """Return what is to be simulated."""
        languages: dict[str, list[str]] = {}
        for task, language in self.questions(1).index:
            languages.setdefault(task, []).append(language)
        wanted = self.settings.get("languages", [])
        data = self.loaded["instruction_data"]
        seen = {name: _seen(name, wanted) for name in data}
        return Plan(list(self.cells.values()), languages, 1, seen)

    def matched(self, train_limit: int) -> bool:
        """Say whether all datasets give about as many tokens to train on."""
        tokens = []
        for data in self.loaded["instruction_data"]:
            own = {"instruction_data": data, "train_limit": train_limit}
            run = {**NOTEBOOKS["02_train"], **self.settings, **own}
            length, _ = estimate.pair(data, "")
            tokens.append(estimate.training_steps(run) * length)
        return max(tokens) <= (1 + MATCHED) * min(tokens)

    def effects(self, power: Power, fit: Fit) -> dict[str, float]:
        """Return the smallest effect of each claim that can be tested."""
        questions = self.questions(fit.test_limit)
        found = {name: power.smallest(name, questions) for name in power.testable}
        if found.get("C7", 0) > 1 or not self.matched(fit.train_limit):
            found.pop("C7", None)  # a share is at most 1
        return found


def _seen(data: str, wanted: Sequence[str]) -> list[str]:
    """Return the languages of published data that are trained on."""
    rows: Any = PUBLISHED[data].rows if data in PUBLISHED else {}
    if data in INSTRUCTION_SETS:
        rows = INSTRUCTION_SETS[data].configs
    return [code for code in wanted or rows if code in rows]


def options(
    loaded: Mapping[str, Any], device: estimate.Device, least: int
) -> list[Option]:
    """Return the proposals that are different for a grid and fit into the memory.

    Args:
        loaded: what the grid's file holds.
        device: what it is to run on.
        least: rows per language that are asked for; a possible number of them.
    """
    found: dict[tuple, Option] = {}
    for proposal in PROPOSALS:
        own = {**loaded, **_part(loaded, proposal)}
        cells, settings = grid.parse(own, "a proposal")
        need = max(estimate.memory(cell, settings, device) for cell in cells.values())
        if device.gpu_memory and need > device.memory:
            continue
        limits = settings.get("train_limit", 0), settings.get("test_limit", 0)
        option = Option(
            ascii_uppercase[len(found)],
            own,
            cells,
            settings,
            _costs(cells, settings, device, "train", [limits[0], least, *TRAIN_ROWS]),
            _costs(cells, settings, device, "test", [limits[1], *TEST_ROWS]),
        )
        found.setdefault((*cells, *own.get("tasks", ())), option)
    return list(found.values())


def _part(loaded: Mapping[str, Any], proposal: Proposal) -> dict[str, Any]:
    """Return what a proposal changes in a grid's file."""
    ranks, bits = sorted(loaded["rank"]), sorted(loaded["bits"])
    ends = {"ends": [0, -1], "three": [0, len(ranks) // 2, -1], "fewest": [0]}
    seeds = [*loaded["seed"], *(n for n in range(100) if n not in loaded["seed"])]
    changes: dict[str, Any] = {
        "rank": sorted({ranks[i] for i in ends.get(proposal.ranks, range(len(ranks)))}),
        "bits": sorted({bits[i] for i in ends.get(proposal.bits, range(len(bits)))}),
        "seed": seeds[: proposal.seeds or len(loaded["seed"])],
    }
    if proposal.datasets == "first":
        changes["instruction_data"] = loaded["instruction_data"][:1]
    if proposal.tasks == "contrast":
        run = NOTEBOOKS["03_evaluate"] | grid.parse(dict(loaded), "the grid")[1]
        levels: dict[str, set] = {name: set() for name in run["tasks"] or PAPER_TASKS}
        level = levels_among(loaded["base_model"])
        for task, language, _ in estimate.places(run):
            levels[task].add(level(language))
        changes["tasks"] = [t for t, of in levels.items() if {"low", "high"} <= of]
    return {name: value for name, value in changes.items() if value}


def _costs(
    cells: Mapping[str, Cell],
    settings: Mapping[str, Any],
    device: estimate.Device,
    stage: str,
    rows: Sequence[int],
) -> dict[int, float]:
    """Return the hours of "train" or "test" for so many rows, the most first.

    The first of `rows` is the grid's own limit. Seeds cost alike.
    """
    limit = rows[0]
    fewer = sorted({n for n in rows[1:] if not limit or n < limit}, reverse=True)
    seconds = {"train": estimate.train_seconds, "test": estimate.evaluate_seconds}
    alike = Counter(replace(cell, seed=0) for cell in cells.values())
    return {
        n: sum(
            times * seconds[stage](cell, {**settings, f"{stage}_limit": n}, device)
            for cell, times in alike.items()
        )
        / 3600
        for n in (limit, *fewer)
    }
