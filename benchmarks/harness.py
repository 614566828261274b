"""Time lm-eval with the kit's back end against lm-eval with its own, `HFLM`.

    python -m benchmarks.harness --model FOLDER
    python -m benchmarks.harness --model FOLDER --hub_root FOLDER --rows 100

Both answer the same requests of the same model in turn, tokenising included, `HFLM` at
the batch size that is fastest for it among `--batch_sizes`: 8-shot XCOPA in Swahili,
and long texts written to prompts that share nothing (as in `benchmarks.evaluation`).
Times are medians of `--repeats`, by the clock and in processor seconds. Without a
mirror the rows are the miniature's, without `--model` the model too. Needs the `test`
extra. (A file lm_eval.py here would hide the library from the other benchmarks.)
"""

import argparse
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers.utils import logging

from benchmarks.evaluation import fastest, timed, xcopa, xlsum
from maple_utils import miniature, models
from maple_utils.lm_eval.model import MapleLM

Answers = list[tuple[float, bool]] | list[str]


def requests(hub_root: Path, rows: int, new_tokens: int) -> dict[str, list[Instance]]:
    """Return what is asked, by the name of its line in the table."""
    choices = [
        Instance("loglikelihood", {}, (context, option), 0)
        for context, options in xcopa(hub_root, rows)
        for option in options
    ]
    settings = {"until": ["\n"], "max_gen_toks": new_tokens}
    texts = [
        Instance("generate_until", {}, (prompt, settings), 0)
        for prompt in xlsum(hub_root, max(2, rows // 2))
    ]
    long = f"XLSum's shape, nothing shared, {new_tokens} tokens"
    return {"XCOPA sw, 8 shots": choices, long: texts}


def ask(lm: HFLM, asked: list[Instance]) -> Answers:
    """Return a back end's answers to requests of one kind."""
    return getattr(lm, asked[0].request_type)(asked, disable_tqdm=True)


def agreement(kind: str, theirs: Answers, ours: Answers) -> str:
    """Say how far both sides agree."""
    pairs = list(zip(theirs, ours, strict=True))
    if kind == "generate_until":
        return f"{sum(a == b for a, b in pairs)}/{len(pairs)} texts"
    two = list(zip(pairs[::2], pairs[1::2], strict=True))  # XCOPA has two choices
    same = sum((a[0][0] > b[0][0]) == (a[1][0] > b[1][0]) for a, b in two)
    flags = sum(a[1] is b[1] for a, b in pairs)
    off = max(abs(a[0] - b[0]) for a, b in pairs)
    return f"{same}/{len(two)} choices, {flags}/{len(pairs)} flags, within {off:.0e}"


def compare(
    theirs: HFLM, ours: MapleLM, asked: list[Instance], given: argparse.Namespace
) -> str:
    """Time both sides in turn and return the cells of a line."""
    pilot = asked[:: max(1, len(asked) // 16)]

    def run(size: int, some: list[Instance]) -> Answers:
        theirs.batch_size_per_gpu = size
        return ask(theirs, some)

    best, *others = given.batch_sizes
    if others:
        best = fastest(tuple(given.batch_sizes), lambda size: run(size, pilot))
    ask(ours, asked[:1])  # its trial of the model, once for all
    slow, fast = [], []
    for _ in range(given.repeats):
        slow.append(timed(lambda: run(best, asked)))
        fast.append(timed(lambda: ask(ours, asked)))
    wall, cpu = (
        [median(turn[i] for turn in side) for side in (slow, fast)] for i in (0, 1)
    )
    same = agreement(asked[0].request_type, slow[-1][2], fast[-1][2])
    return (
        f"{len(asked)} | {wall[0]:.2f} ({best}) | {wall[1]:.2f}"
        f" | {wall[0] / wall[1]:.1f} | {cpu[0] / cpu[1]:.1f} | {same}"
    )


def main() -> None:
    """Print the machine, the command, and a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="miniature-llama", help="hub id or folder")
    parser.add_argument("--hub_root", type=Path, help="mirror; default: the miniature")
    parser.add_argument("--rows", type=int, default=60, help="questions per task")
    parser.add_argument("--new_tokens", type=int, default=128)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="", help="part of the names of lines to run")
    given = parser.parse_args()
    logging.set_verbosity_error()
    dtype = torch.float32 if given.device == "cpu" else models.compute_dtype()
    asked = requests(given.hub_root or miniature.hub(), given.rows, given.new_tokens)
    ours = MapleLM(given.model, device=given.device, dtype=dtype)
    theirs = HFLM(ours.model, tokenizer=ours.tokenizer)
    rows = "a mirror" if given.hub_root else "the miniature"
    name = Path(given.model).name
    print(
        f"{models.device_name()}, {torch.get_num_threads()} threads; {name}, {dtype},"
        f" rows of {rows}; lm-eval {version('lm_eval')}\n"
        f"python -m benchmarks.harness {shlex.join(sys.argv[1:])}\n\n"
        "| requests | number | HFLM s (batch) | maple s | times faster"
        " | in processor s | same |\n|---|---|---|---|---|---|---|"
    )
    for name, some in asked.items():
        if given.only in name:
            print(f"| {name} | {compare(theirs, ours, some, given)} |", flush=True)


if __name__ == "__main__":
    main()
