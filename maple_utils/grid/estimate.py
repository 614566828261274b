"""What a grid costs, before it runs: a table for a person, a request for a scheduler.

How much a cell reads and writes follows from the tables of tasks, of published and of
the miniature's data; in how much memory, from `forecast`; how long that takes, from the
devices in `forecast.yaml`. Reading a token takes 2 FLOPs per weight of the blocks, and
as many per weight of the output layer where its logits are asked for. Quantised weights
are unpacked once per pass; each step of generation reads all weights once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from maple_utils.forecast import (
    TABLES,
    Shape,
    TrainingLoad,
    asked_load,
    nearest_fit,
    preset,
    shape_of,
    stored,
    training_bytes,
)
from maple_utils.instructions.published import PUBLISHED
from maple_utils.languages import LANGUAGES
from maple_utils.miniature.hub import DATASETS, INSTRUCTION_SETS
from maple_utils.params import NOTEBOOKS, Cell, short_name
from maple_utils.tasks import TASKS, select

WRITTEN = 0.4  # of the tokens that an answer may have; about as in the miniature
OWN_ROWS = 10_000  # in each language of data of one's own; assumed
OWN_PAIR = {"tokens": 450, "responses": 0.8}  # of a row of them; assumed
ROWS = 1700  # of a task that does not say; IndicQA has 18,579 in 11 languages
MINIATURE_TOKENS = 72  # of a mean question there, by its tokenizers
# Weights unpacked from 4 bits: steps of Q-LoRA on an A100 in Qwen's README take about
# 0.2 s longer than LoRA's, in three passes over 6.5e9 weights, which is 1e11 weights/s,
# or 20 bytes of the device's bandwidth per weight. Those weights were GPTQ's, and NF4
# may be unpacked faster: LLaMA-Factory's table shows no such cost. 8 bits: as 4.
UNPACK = 20  # bytes of bandwidth per weight and pass
TOGETHER = 16  # answers that are written at a time; assumed
SCORED = 10  # tokens of a question's options, each of which needs its logits; assumed
DISK = 1e9  # bytes/s at which weights are loaded; assumed


@dataclass(frozen=True)
class Device:
    """What a device does per second, and what it holds."""

    name: str
    train: Mapping[int, float]  # bits -> FLOP/s reached in training
    read: Mapping[int, float]  # bits -> FLOP/s reached in reading prompts
    dense: float  # time of a FLOP of attention behind a dense mask, of a plain one's
    bandwidth: float  # bytes/s of its memory
    memory: float  # bytes
    start: float  # seconds of papermill, kernel, imports, small cells
    source: str

    @property
    def gpu_memory(self) -> float:
        """Return the bytes of GPU memory: 0 on a CPU."""
        return 0 if self.name == "cpu" else self.memory

    def reading(self, shape: Shape, cell: Cell, tokens: float, logits: float) -> float:
        """Return the seconds of reading `tokens`, of which so many need `logits`."""
        blocks = shape.linear + shape.adapter(cell.rank)
        return 2 * (blocks * tokens + shape.head * logits) / self.read[cell.bits]

    def starting(self, shape: Shape) -> float:
        """Return the seconds of a notebook before its work."""
        return self.start + stored(shape, 16) / DISK


DEVICES = {name: Device(name, **about) for name, about in TABLES["devices"].items()}


def instruction_rows(run: dict[str, Any]) -> list[int]:
    """Return the rows of each language that 02's parameters find in its data."""
    name, wanted = run["instruction_data"], run["languages"]
    if name in PUBLISHED:
        rows = PUBLISHED[name].rows
    elif name in INSTRUCTION_SETS:
        made = INSTRUCTION_SETS[name]
        rows = dict.fromkeys(made.configs, made.splits["train"])
    else:
        own = [code for code in LANGUAGES if Path(name, code).is_dir()]  # as 01 writes
        return [OWN_ROWS] * (len(wanted) or len(own) or 10)
    return [rows[language] for language in wanted or rows if language in rows]


def places(run: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Yield each task and language that 03's parameters ask, with its questions."""
    asked = tuple(run["tasks"]), tuple(run["languages"])
    for name, language in _selected(*asked, run["hub_root"]):
        source = TASKS[name].source_of(language)
        rows = source.published(language) or ROWS
        if run["hub_root"] == "miniature":
            mirrored = DATASETS.get(source.dataset)
            config = source.fill("{config}", language)
            if not mirrored or config not in mirrored.configs.values():
                continue
            rows = mirrored.splits[source.test]
        yield name, language, min(rows, run["test_limit"] or rows)


@cache
def _selected(
    tasks: tuple[str, ...], languages: tuple[str, ...], hub_root: str
) -> list[tuple[str, str]]:
    """Return what 03 asks; of a mirror that is here, only what it holds."""
    return select(tasks, languages, hub_root if Path(hub_root).is_dir() else "")


def questions(run: dict[str, Any]) -> Iterator[tuple[int, float, float]]:
    """Yield what 03's parameters ask: questions, tokens of one, tokens of an answer.

    That is once for each task, language and scoring. The examples before a question are
    read once for all questions of a language (see `scoring.prefixes`).
    """
    for name, _, rows in places(run):
        task = TASKS[name]
        offline = run["hub_root"] == "miniature"
        tokens = MINIATURE_TOKENS if offline else task.question_tokens
        shots = task.shots if run["shots"] < 0 else run["shots"]
        read = tokens * (1 + shots / rows)
        if task.kind == "choice" and run["scoring"] != "generate":
            yield rows, read, 0
        if task.kind != "choice" or run["scoring"] != "likelihood":
            yield rows, read, WRITTEN * (run["max_new_tokens"] or task.max_new_tokens)


def pair(instruction_data: str, base_model: str) -> tuple[float, float]:
    """Return the tokens of a row of data, and the share of them that a response has."""
    names = {"data": short_name(instruction_data), "base_model": short_name(base_model)}
    fitting = (
        row
        for row in TABLES["pairs"]
        if all(row.get(key, name) == name for key, name in names.items())
    )
    found = next(fitting, OWN_PAIR)
    return found["tokens"], found["responses"]


def planned_load(run: Mapping[str, Any], device: Device) -> TrainingLoad:
    """Return how 02 would train on a device: with what fits, if anything does."""
    asked = asked_load(run, preset(device.gpu_memory), dense=is_dense(run))
    if run["micro_batch"]:
        return asked
    fits = nearest_fit(shape_of(run["base_model"]), asked, device.memory)
    if fits and (fits.bits, fits.max_length) == (asked.bits, asked.max_length):
        return fits
    return replace(asked, micro_batch=1)


def training_steps(run: dict[str, Any]) -> float:
    """Return the optimiser's steps that 02's parameters make."""
    rows = instruction_rows(run)
    trained = (min(n - run["heldout"], run["train_limit"] or n) for n in rows)
    steps = sum(trained) * run["epochs"] / run["batch_size"]
    return min(steps, run["max_steps"]) if run["max_steps"] > 0 else steps


def train_seconds(cell: Cell, settings: dict[str, Any], device: Device) -> float:
    """Return how long notebook 02 takes for a cell; 0 for a base model."""
    if cell.is_base:
        return 0
    run = NOTEBOOKS["02_train"] | settings | cell.asdict()
    shape, rows = shape_of(cell.base_model), instruction_rows(run)
    length, responses = pair(cell.instruction_data, cell.base_model)
    steps = training_steps(run)
    tokens = steps * run["batch_size"] * length
    load = planned_load(run, device)
    full = run["packing"] or not run["micro_batch"]
    at_once = load.micro_batch * (load.max_length if full else length)
    span = device.dense * at_once if is_dense(run) else length / 2
    every = run["eval_steps"] if run["eval_steps"] < 1 else run["eval_steps"] / steps
    heldout = (1 + 1 / every) * len(rows) * run["heldout"] * length
    return (
        device.starting(shape)
        + tokens * token_seconds(shape, load, device, at_once, span, responses)
        + device.reading(shape, cell, heldout, heldout)
    )


def is_dense(run: Mapping[str, Any]) -> bool:
    """Say whether attention has a dense mask: where flash-attn is not asked for."""
    return run["attn_implementation"] in ("auto", "sdpa", "eager")


def token_seconds(
    shape: Shape,
    load: TrainingLoad,
    device: Device,
    at_once: float,
    span: float,
    responses: float = 1,
) -> float:
    """Return the seconds that training takes per token, in a pass of `at_once`.

    `span` is how many tokens each attends to: half of its row, on average; behind a
    dense mask all that it is laid end to end with, at `Device.dense` times the price.
    `responses` is the share of tokens whose logits are computed.
    """
    flops = shape.flops(load.rank, load.gradient_checkpointing, responses, span)
    unpacked = 3 * shape.linear / at_once if load.bits < 16 else 0  # per token
    seconds = flops / device.train[load.bits]
    return seconds + unpacked * UNPACK / device.bandwidth


def evaluate_seconds(cell: Cell, settings: dict[str, Any], device: Device) -> float:
    """Return how long notebook 03 takes for a cell."""
    shape, bits = shape_of(cell.base_model), cell.bits
    asked = list(questions(NOTEBOOKS["03_evaluate"] | settings | cell.asdict()))
    read = sum(number * (tokens + new) for number, tokens, new in asked)
    logits = sum(number * (new or SCORED) for number, _, new in asked)
    steps = sum(number * new for number, _, new in asked) / TOGETHER
    weights = max(stored(shape, bits), UNPACK * shape.linear if bits < 16 else 0)
    writing = steps * weights / device.bandwidth
    reading = device.reading(shape, cell, read, logits)
    return device.starting(shape) + reading + writing


def memory(cell: Cell, settings: dict[str, Any], device: Device) -> float:
    """Return the bytes of the device's memory that training takes."""
    run = NOTEBOOKS["02_train"] | settings | cell.asdict()
    return training_bytes(shape_of(cell.base_model), planned_load(run, device))


def table(
    cells: dict[str, Cell], settings: dict[str, Any], names: list[str], price: float
) -> pd.DataFrame:
    """Return a row per device: hours, memory, disk, dollars at `price` per hour.

    Cells that do not fit into the device's memory are counted, and left out.
    """
    rows = {}
    for name in names:
        device = DEVICES[name]
        each = pd.DataFrame(
            {
                "train": train_seconds(cell, settings, device) / 3600,
                "evaluate": evaluate_seconds(cell, settings, device) / 3600,
                "memory": memory(cell, settings, device),
                # A float32 adapter, notebooks and tables.
                "disk": 4 * shape_of(cell.base_model).adapter(cell.rank) + 3e6,
            }
            for cell in cells.values()
        )
        fits = each[(each["memory"] <= device.memory) | (device.gpu_memory == 0)]
        hours = fits[["train", "evaluate"]]
        rows[name] = {
            "cells": len(fits),
            "too large": len(each) - len(fits),
            "hours 02": hours["train"].sum(),
            "hours 03": hours["evaluate"].sum(),
            "hours": hours.sum().sum(),
            "longest cell": hours.max().max(),
            "GB memory": fits["memory"].max() / 1e9,
            "GB disk": fits["disk"].sum() / 1e9,
            "dollars": hours.sum().sum() * price,
        }
    return pd.DataFrame(rows).T.rename_axis("device").round(2)


def request(
    stage: str, cell: Cell, settings: dict[str, Any], device: str
) -> dict[str, int]:
    """Return what to ask a scheduler for: `mem_mb` of the host, `runtime` in minutes.

    Twice the estimated time, ten minutes at least; the weights as they are on disk
    beside what Python and its libraries take, which was measured as 1.2 GB.
    """
    seconds = {"train": train_seconds, "evaluate": evaluate_seconds}[stage]
    minutes = 2 * seconds(cell, settings, DEVICES[device]) / 60
    weights = stored(shape_of(cell.base_model), 16)
    return {"mem_mb": int(2000 + weights / 1e6), "runtime": max(10, round(minutes))}
