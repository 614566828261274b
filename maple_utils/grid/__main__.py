"""The command line: write, status, estimate."""

import argparse
from pathlib import Path

from maple_utils import grid
from maple_utils.errors import ParameterError
from maple_utils.grid import estimate, status
from maple_utils.params import workspace


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        prog="python -m maple_utils.grid", description="The grid and its cells."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write", help="write params/cells/*.yaml")
    show = commands.add_parser("status", help="what is done, running, failed, missing")
    show.add_argument("grid", nargs="?", default="miniature")
    show.add_argument("--runs", type=Path, default=workspace() / "runs")
    cost = commands.add_parser("estimate", help="hours, memory, disk and dollars")
    cost.add_argument("grid", nargs="?", default="paper")
    cost.add_argument("--device", choices=estimate.DEVICES, action="append")
    cost.add_argument("--price", type=float, default=0.0, help="dollars per hour")
    cost.add_argument("--limit", type=int, help="rows per language, and per task")
    given = parser.parse_args()
    folder = workspace() / "params"
    try:
        if given.command == "write":
            return grid.write(folder)
        axes, settings = grid.read_grid(folder / f"{given.grid}.yaml")
        cells = grid.named(axes)
        if given.command == "status":
            print(status.report(status.table(cells, given.runs)))
        else:
            print(_estimate(given, cells, settings))
    except ParameterError as error:
        parser.exit(2, f"{error}\n")


def _estimate(given: argparse.Namespace, cells: dict, settings: dict) -> str:
    for name in ("price", "limit"):
        if (getattr(given, name) or 0) < 0:
            raise ParameterError(f"{name}: got {getattr(given, name)}; allowed: from 0")
    if given.limit is not None:
        settings = settings | {"limit": given.limit}
    offline = settings.get("hub_root", "miniature") == "miniature"
    names = given.device or (["cpu"] if offline else ["t4", "a100", "h100"])
    table = estimate.table(cells, settings, names, given.price)
    sources = [f"{name}: {estimate.DEVICES[name].source}" for name in names]
    return "\n".join([table.to_string(), "", *sources])


if __name__ == "__main__":
    main()
