"""The command line: write, status, other-code, estimate."""

import argparse
import os
from pathlib import Path

from maple_utils import grid
from maple_utils.errors import ParameterError
from maple_utils.grid import estimate, status
from maple_utils.grid.estimate import DEVICES
from maple_utils.params import workspace


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        prog="python -m maple_utils.grid",
        description=grid.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = ("write", "status", "other-code", "estimate")
    parser.add_argument("command", choices=commands)
    parser.add_argument("grid", nargs="?", help="a file of params/, without ending")
    parser.add_argument("--runs", type=Path, default=workspace() / "runs")
    parser.add_argument("--device", choices=DEVICES, action="append")
    parser.add_argument("--price", type=float, default=0.0, help="dollars per hour")
    parser.add_argument("--limit", type=int, help="rows per language, and per task")
    try:
        _run(parser.parse_args(), workspace() / "params")
    except ParameterError as error:
        parser.exit(2, f"{error}\n")


def _run(given: argparse.Namespace, folder: Path) -> None:
    if given.command == "write":
        return grid.write(folder)
    name = given.grid or ("paper" if given.command == "estimate" else "miniature")
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
