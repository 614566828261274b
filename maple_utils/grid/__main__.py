"""The command line: write, status, other-code, estimate, design."""

import argparse
import os
import sys
from pathlib import Path

from maple_utils import grid
from maple_utils.errors import ParameterError
from maple_utils.grid import estimate, status
from maple_utils.grid.estimate import DEVICES
from maple_utils.params import workspace

PLANNED = ("estimate", "design")  # the paper's grid, if not told otherwise


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        prog="python -m maple_utils.grid",
        description=grid.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = ("write", "status", "other-code", "estimate", "design")
    parser.add_argument("command", choices=commands)
    parser.add_argument("grid", nargs="?", help="a file of params/, without ending")
    parser.add_argument("--runs", type=Path, default=workspace() / "runs")
    parser.add_argument("--device", choices=DEVICES, action="append")
    parser.add_argument("--price", type=float, default=0.0, help="dollars per hour")
    parser.add_argument("--limit", type=int, help="rows per language, and per task")
    budget = parser.add_argument_group("design")
    budget.add_argument("--hours", type=float, help="of the device, to spend at most")
    budget.add_argument("--dollars", type=float, help="in their place, with --price")
    budget.add_argument("--rows", type=int, default=2000, help="trained on, at least")
    budget.add_argument("--claim", default="", help="one that decides alone, as C1")
    budget.add_argument("--name", default="plan", help="of the file in params/")
    try:
        _run(parser.parse_args(), workspace() / "params")
    except ParameterError as error:
        parser.exit(2, f"{error}\n")


def _run(given: argparse.Namespace, folder: Path) -> None:
    if given.command == "write":
        return grid.write(folder)
    name = given.grid or ("paper" if given.command in PLANNED else "miniature")
    if given.command == "design":
        return _design(given, folder / f"{name}.yaml")
    cells, settings = grid.read_grid(folder / f"{name}.yaml")
    if given.command == "estimate":
        return _print_estimate(given, cells, settings)
    rows = status.table(cells, given.runs)
    other = status.by_other_code(rows)
    if given.command == "other-code":
        return print("\n".join(os.path.relpath(given.runs / file) for file in other))
    print(status.report(rows))
    if other:
        again = f"$(python -m maple_utils.grid other-code {name})"
        print(f"to run them again: snakemake -c2 --config grid={name} -R {again}")


def _design(given: argparse.Namespace, file: Path) -> None:
    from maple_utils.grid import design  # takes seconds: statistics and figures

    budget = design.budget(
        *(given.device, given.hours, given.dollars, given.price, given.rows),
        given.claim,
    )
    command = f"python -m maple_utils.grid {' '.join(sys.argv[1:])}"
    folder = given.runs / "plans"
    print(design.propose(file, given.name, budget, command, folder), end="\n\n")
    drawn = os.path.relpath(folder / f"{given.name}.png")
    print(f"written: params/{given.name}.yaml; drawn: {drawn}; then")
    print("    python -m maple_utils.grid write")
    print(f"    snakemake --config grid={given.name} device={budget.device}")


def _print_estimate(given: argparse.Namespace, cells: dict, settings: dict) -> None:
    if given.price < 0:
        raise ParameterError(f"price: got {given.price}; allowed: from 0")
    if given.limit is not None:
        settings = settings | grid.limits(given.limit)
    offline = settings.get("hub_root", "miniature") == "miniature"
    names = given.device or (["cpu"] if offline else ["t4", "a100", "h100"])
    print(estimate.table(cells, settings, names, given.price).to_string(), end="\n\n")
    for name in names:
        print(f"{name}: {DEVICES[name].source}")


if __name__ == "__main__":
    main()
