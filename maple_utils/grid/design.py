"""A plan for a budget: smaller grids, what they cost, and how small effects they find.

Costs are those of `estimate`, effects those of `power`; the grids are in `proposals`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from tqdm import tqdm

from maple_utils import figures, files, grid
from maple_utils.claims import CLAIMS, SOMETIMES
from maple_utils.errors import ParameterError
from maple_utils.figures.plans import effect_by_cost
from maple_utils.grid.estimate import DEVICES
from maple_utils.grid.power import Power, simulate
from maple_utils.grid.proposals import Option, options

BUDGETS = (0.25, 0.5, 1, 2, 4)  # times the one given, for the figure
ABOUT = ["plan", "runs", "hours 02", "hours 03", "train rows", "test rows"]
IDS = [claim.id for claim in CLAIMS]


@dataclass(frozen=True)
class Budget:
    """What a plan may cost, and what it must have."""

    device: str
    hours: float
    rows: int = 2000  # per language to train on, at least
    claim: str = ""  # whose effect decides alone


def budget(
    devices: Sequence[str] | None,
    hours: float | None,
    dollars: float | None,
    price: float,
    rows: int,
    claim: str,
) -> Budget:
    """Return what the command line says; raises ParameterError where it does not."""
    if len(devices or []) != 1:
        raise ParameterError(
            f"device: got {', '.join(devices or []) or 'none'}; allowed: one of "
            f"{', '.join(DEVICES)}"
        )
    if (hours is None) == (dollars is None):
        raise ParameterError("hours: allowed: either --hours, or --dollars and --price")
    if dollars is not None and price <= 0:
        raise ParameterError(f"price: got {price:g}; allowed: above 0 with --dollars")
    if claim not in ("", *IDS):
        raise ParameterError(f"claim: got {claim!r}; allowed: {', '.join(IDS)}")
    if rows < 1:
        raise ParameterError(f"rows: got {rows}; allowed: from 1")
    given = dollars / price if dollars is not None else hours
    if given is None or not 0 < given < np.inf:
        name, value = ("hours", hours) if dollars is None else ("dollars", dollars)
        raise ParameterError(f"{name}: got {value:g}; allowed: above 0")
    return Budget((devices or [])[0], given, rows, claim)


def propose(file: Path, name: str, given: Budget, made_by: str, folder: Path) -> str:
    """Compare smaller grids, write the best one beside `file`, and draw them all.

    Args:
        file: the grid's, in params/.
        name: of the file to write, without ending.
        given: what it may cost.
        made_by: the command, for the head of the file.
        folder: where the figure goes, as `figures.save` writes it.

    Returns:
        What to print.

    Raises:
        ParameterError: for a name that is taken, or a budget that buys nothing.
    """
    grid.read_grid(file)  # refuses what is no grid
    target = file.parent / f"{name}.yaml"
    if target.exists() or not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ParameterError(f"name: got {name!r}; allowed: one not yet in params/")
    loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    every = options(loaded, DEVICES[given.device], given.rows)
    possible = affordable(every, given)
    found = powers(possible)
    table = compare(possible, found, given.hours, given.rows)
    best = choose(table, given.claim)
    option = next(one for one in possible if one.name == best["plan"])
    write(target, option, best, made_by)
    curves = at_budgets(possible, found, given)
    with_figure, beneath = effect_by_cost(curves, given.hours, best["plan"])
    figures.save(with_figure, folder, name, beneath)
    return report(every, table, best, given)


def affordable(every: Sequence[Option], given: Budget) -> list[Option]:
    """Return the options that fit into the hours.

    Raises ParameterError if there are none, with what the cheapest would take.
    """
    if not every:
        raise ParameterError(f"device: {given.device} holds none of these models")
    possible = [one for one in every if one.fit(given.hours, given.rows)]
    if not possible:
        least = min(one.least_hours(given.rows) for one in every)
        raise ParameterError(
            f"hours: got {given.hours:g}; allowed: from {np.ceil(least * 10) / 10:g}, "
            f"with {given.rows} rows per language (--rows)"
        )
    return possible


def powers(wanted: Sequence[Option], jobs: int = 2) -> list[Power]:
    """Simulate each option's runs, in so many processes, with a bar."""
    with Pool(jobs) as pool:
        runs = pool.imap(simulate, [option.plan() for option in wanted])
        return list(tqdm(runs, "simulated", total=len(wanted)))


def compare(
    wanted: Sequence[Option], found: Sequence[Power], budget: float, least: int
) -> pd.DataFrame:
    """Return a row per option that fits into the hours.

    Columns: name, runs, hours 02, hours 03, rows (0: all) and tests (0: all) per
    language, and a column per claim with the smallest effect, NaN where not testable.
    """
    rows = []
    for option, power in zip(wanted, found, strict=True):
        if fit := option.fit(budget, least):
            about = {"plan": option.name, "runs": len(option.cells)}
            about |= {"hours 02": fit.train, "hours 03": fit.evaluate}
            about |= {"train rows": fit.train_limit, "test rows": fit.test_limit}
            rows.append(about | option.effects(power, fit))
    return pd.DataFrame(rows, columns=[*ABOUT, *IDS])


def choose(table: pd.DataFrame, claim: str = "") -> pd.Series:
    """Return the row that tests most claims, of equals with the smallest effects.

    These are compared by their geometric mean over the claims that all of them test.
    A `claim` decides alone.
    """
    effects = table[IDS].astype(float)
    if claim:
        if effects[claim].isna().all():
            raise ParameterError(f"claim: got {claim}, which no proposal can test")
        return table.loc[effects[claim].idxmin()]
    tested = effects.notna().sum(axis=1)
    most = effects[tested == tested.max()].dropna(axis=1)
    return table.loc[np.log(most).mean(axis=1).idxmin()]


def units(table: pd.DataFrame) -> str:
    """Return in words what the effects are measured in, a line per claim tested."""
    told = [claim for claim in CLAIMS if table[claim.id].notna().any()]
    lines = [f"{claim.id}: {claim.unit}" for claim in told]
    once = ", ".join(claim.id for claim in told if claim.id in SOMETIMES)
    return "\n".join([*lines, f"({once}: in one comparison of median error)"])


def at_budgets(
    wanted: Sequence[Option], found: Sequence[Power], given: Budget
) -> pd.DataFrame:
    """Return a row per option, budget and claim: plan, runs, hours, claim, effect."""
    parts = []
    for times in BUDGETS:
        table = compare(wanted, found, times * given.hours, given.rows)
        table["hours"] = table["hours 02"] + table["hours 03"]
        parts.append(table.melt([*ABOUT, "hours"], IDS, "claim", "effect"))
    return pd.concat(parts).dropna(subset="effect").drop_duplicates(ignore_index=True)


def write(file: Path, option: Option, best: pd.Series, made_by: str) -> None:
    """Write an option with the rows of its row in `compare` as a grid's file."""
    rows = {f"{stage}_limit": int(best[f"{stage} rows"]) for stage in ("train", "test")}
    hours = best["hours 02"] + best["hours 03"]
    head = f"# Written by {made_by}\n# It takes about {hours:.0f} hours. "
    head += "Cells of the same name in other\n# grids are trained otherwise: give this "
    head += "one a clone of its own, or delete those.\n\n"
    text = yaml.safe_dump(
        {**option.loaded, **rows}, sort_keys=False, default_flow_style=None
    )
    with files.atomic(file) as draft:
        draft.write_text(head + text, encoding="utf-8")


def _described(option: Option, whole: Option) -> dict[str, str]:
    """Return what an option takes of each axis; of data and tasks how many, if all."""
    words = {"plan": option.name}
    for axis in ("rank", "bits", "seed"):
        words[axis] = " ".join(map(str, option.loaded[axis]))
    data, every = (one.loaded["instruction_data"] for one in (option, whole))
    words["data"] = f"all {len(data)}" if data == every else " ".join(data)
    tasks, every = option.tasks, whole.tasks
    words["tasks"] = f"all {len(tasks)}" if tasks == every else " ".join(tasks)
    return words


def report(
    every: Sequence[Option], table: pd.DataFrame, best: pd.Series, given: Budget
) -> str:
    """Return in text what each option is, what it finds, and which is best."""
    lines = [_described(one, every[0]) for one in every]
    shown = table.copy()
    for name in ("train rows", "test rows"):
        shown[name] = shown[name].replace(0, "all")
    why = "of those that test most claims it has the smallest effects (geometric mean)"
    if given.claim:
        why = f"it has the smallest effect in {given.claim}"
    end = f"Chosen: {best['plan']}, since {why}."
    if left := [claim for claim in IDS if pd.isna(best[claim])]:
        end += f" It cannot test {', '.join(left)}."
    if dear := [one.name for one in every if one.name not in set(table["plan"])]:
        end = f"Too dear with {given.rows} rows to train on: {', '.join(dear)}. {end}"
    parts = [
        pd.DataFrame(lines).to_string(index=False),
        f"The smallest effects found with 80 % power in {given.hours:g} hours on "
        f"{given.device}:",
        shown.round(2).dropna(axis=1, how="all").to_string(index=False, na_rep="-"),
        units(table),
        "More rows to train on change what is learnt, not how well it is measured.",
        end,
    ]
    return "\n\n".join(parts)
