"""What a grid costs, before it runs: seconds, memory and disk from FLOPs and bytes.

The FLOPs of training and the bytes are those of `maple_utils.forecast`. Reading a token
through N weights takes 2 N FLOPs. Quantised weights are unpacked once per pass; each
step of generation reads all weights once.
"""

import ast
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pandas as pd
from papermill import inspect_notebook

from maple_utils.forecast import (
    Shape,
    TrainingLoad,
    nearest_fit,
    preset,
    shape_of,
    stored,
    training_bytes,
)
from maple_utils.grid import Cell
from maple_utils.params import workspace


@dataclass(frozen=True)
class Device:
    """What a device does per second, and what it holds."""

    train: dict[int, float]  # bits -> FLOP/s reached in training
    read: dict[int, float]  # bits -> FLOP/s reached in reading prompts
    bandwidth: float  # bytes/s of its memory
    memory: float  # bytes
    start: float  # seconds of papermill, kernel, imports, small cells
    source: str
    is_gpu: bool = True

    @property
    def gpu_memory(self) -> float:
        """Return the bytes of GPU memory: 0 on a CPU."""
        return self.memory if self.is_gpu else 0


def _gpu(peak: float, share: float, bandwidth: float, memory: float, source: str):
    """Describe a GPU by its peak, and the share of it that this work reaches.

    8-bit: half of it, since LLM.int8 splits every product in two (assumed).
    """
    rate = {4: peak * share, 8: peak * share / 2, 16: peak * share}
    return Device(rate, rate, bandwidth, memory, 60.0, source)


DEVICES = {
    "cpu": Device(
        train={4: 19e9, 8: 19e9, 16: 20e9},
        read={4: 55e9, 8: 38e9, 16: 48e9},
        bandwidth=10e9,
        memory=4e9,
        start=18.0,
        source="one core of a 2-core x86-64 machine, measured: benchmarks/README.md",
        is_gpu=False,
    ),
    "t4": _gpu(
        *(65e12, 0.3, 320e9, 15e9),
        source="NVIDIA's datasheet: 65 TFLOP/s float16, 320 GB/s; share 0.3 assumed",
    ),
    "a100": _gpu(
        *(312e12, 0.4, 2.04e12, 80e9),
        source="NVIDIA's datasheet: 312 TFLOP/s bfloat16, 2.04 TB/s; share 0.4 from "
        "Qwen's README: LoRA of 7B at 2,926 tokens/s and length 1,024",
    ),
    "h100": _gpu(
        *(989e12, 0.3, 3.35e12, 80e9),
        source="NVIDIA's datasheet: 989 TFLOP/s bfloat16, 3.35 TB/s; share 0.3 assumed",
    ),
}
# Weights unpacked from 4 bits: QLoRA's steps on an A100 in Qwen's README take about
# 0.2 s longer than LoRA's, in three passes over 6.5e9 weights, which is 1e11 weights/s,
# or 20 bytes of the device's bandwidth per weight. 8 bits: assumed as 4.
UNPACK = 20  # bytes of bandwidth per weight and pass
# Rows and tokens. Published: rows by instructions.PUBLISHED; 245 tokens a pair in the 9
# languages that Llama's tokenizer knows, 593 in others (arXiv 2305.15011). Miniature:
# rows of 600 per language and tokens by its tokenizers.
DATA = {  # languages, rows per language, tokens per row
    "bactrian-x-22": (22, 67017, 451),
    "multialpaca": (11, 12064, 435),
    "bactrian-x-mini": (8, 600, 63),
    "multialpaca-mini": (3, 600, 62),
}
TASKS = {  # languages, rows, tokens of a question, new tokens, ways of scoring
    "xcopa": (12, 500, 100, 8, 2),
    "belebele": (23, 900, 400, 8, 2),
    "xquad": (12, 1190, 500, 32, 1),
    "mlqa": (7, 6035, 500, 32, 1),
    "indicqa": (11, 1700, 1200, 32, 1),
    "xlsum": (17, 3000, 1500, 96, 1),
}
MINIATURE_TASKS = {
    "xcopa": (4, 120, 85, 12, 2),
    "belebele": (5, 120, 83, 12, 2),
    "xquad": (5, 120, 76, 12, 1),
    "mlqa": (5, 120, 90, 12, 1),
    "indicqa": (2, 120, 101, 12, 1),
    "xlsum": (7, 120, 80, 24, 1),
}
BATCH = 16  # rows that are written at a time


@cache
def defaults(notebook: str) -> dict[str, Any]:
    """Return the defaults of a notebook's parameters cell."""
    file = workspace() / "notebooks" / f"{notebook}.ipynb"
    found = inspect_notebook(str(file))
    return {name: ast.literal_eval(about["default"]) for name, about in found.items()}


def train_tokens(cell: Cell, settings: dict[str, Any]) -> tuple[float, float]:
    """Return the tokens that training reads, and its optimiser steps."""
    of = defaults("02_train") | settings
    languages, rows, tokens = DATA.get(cell["instruction_data"], (10, 10_000, 450))
    languages = len(of["languages"]) or languages
    rows = min(rows - of["heldout"], of["limit"] or rows)
    steps = languages * rows * of["epochs"] / of["batch_size"]
    if of["max_steps"] > 0:
        steps = min(steps, of["max_steps"])
    return steps * of["batch_size"] * tokens, steps


def train_seconds(cell: Cell, settings: dict[str, Any], device: Device) -> float:
    """Return how long notebook 02 takes."""
    of, shape = defaults("02_train") | settings, shape_of(cell["base_model"])
    bits, frozen = cell["bits"], shape.linear + shape.head
    tokens, steps = train_tokens(cell, settings)
    setting = setting_of(cell, settings, device)
    flops = tokens * shape.flops(cell["rank"], setting.gradient_checkpointing)
    full = of["packing"] or not of["micro_batch"]
    mean_length = tokens / (steps * of["batch_size"])
    read_at_once = setting.micro_batch * (setting.max_length if full else mean_length)
    passes = 3 * tokens / read_at_once if bits < 16 else 0
    unpack = passes * shape.linear * UNPACK / device.bandwidth
    held_out = (
        2 * 2 * frozen * of["heldout"] * tokens / max(1, steps * of["batch_size"])
    )
    reading = held_out * (len(of["languages"]) or 10) / device.read[bits]
    return _start(shape, device) + flops / device.train[bits] + unpack + reading


def evaluate_seconds(cell: Cell, settings: dict[str, Any], device: Device) -> float:
    """Return how long notebook 03 takes."""
    of = defaults("03_evaluate") | settings
    shape, bits = shape_of(cell["base_model"]), cell["bits"]
    offline = of.get("hub_root", "miniature") == "miniature"
    tables = MINIATURE_TASKS if offline else TASKS
    frozen, weights = shape.linear + shape.head, stored(shape, bits)
    flops = steps = 0.0
    for task in of["tasks"] or tables:
        languages, rows, prompt, new, ways = tables.get(task, (10, 1000, 500, 32, 2))
        languages = min(languages, len(of["languages"]) or languages)
        rows = languages * min(rows, of["limit"] or rows)
        flops += 2 * frozen * rows * (ways * prompt + new)
        steps += rows / BATCH * new
    unpack = UNPACK * shape.linear if bits < 16 else weights
    written = steps * max(weights, unpack) / device.bandwidth
    return _start(shape, device) + flops / device.read[bits] + written


def _start(shape: Shape, device: Device) -> float:
    """Return the seconds of a notebook before its work: loading at 1 GB/s from disk."""
    return device.start + stored(shape, 16) / 1e9


def setting_of(cell: Cell, settings: dict[str, Any], device: Device) -> TrainingLoad:
    """Return how notebook 02 would train on the device: with what fits, if anything."""
    of = defaults("02_train") | settings | cell
    asked = preset(device.gpu_memory).load(of)
    if of["micro_batch"]:
        return asked
    shape, held = shape_of(cell["base_model"]), device.memory
    fits = nearest_fit(shape, asked, held)
    same = fits and (fits.bits, fits.max_length) == (asked.bits, asked.max_length)
    return fits if same else replace(asked, micro_batch=1)


def memory(cell: Cell, settings: dict[str, Any], device: Device) -> float:
    """Return the bytes of the device's memory that training takes."""
    setting = setting_of(cell, settings, device)
    return training_bytes(shape_of(cell["base_model"]), setting)


def disk(cell: Cell) -> float:
    """Return the bytes that a cell leaves: a float32 adapter, notebooks, tables."""
    adapter = shape_of(cell["base_model"]).adapter(cell["rank"])
    return (4 * adapter if cell["instruction_data"] else 0) + 3e6


def table(
    cells: dict[str, Cell], settings: dict[str, Any], names: list[str], price: float
) -> pd.DataFrame:
    """Return a row per device: hours, memory, disk, dollars at `price` per hour.

    Cells that do not fit into the device's memory are counted, and left out.
    """
    rows = []
    for name in names:
        device = DEVICES[name]
        need = {cell: memory(of, settings, device) for cell, of in cells.items()}
        fitting = [c for c in cells if name == "cpu" or need[c] <= device.memory]
        train = [
            train_seconds(cells[c], settings, device)
            for c in fitting
            if cells[c]["instruction_data"]
        ]
        read = [evaluate_seconds(cells[c], settings, device) for c in fitting]
        hours = (sum(train) + sum(read)) / 3600
        rows.append(
            {
                "device": name,
                "cells": len(fitting),
                "too large": len(cells) - len(fitting),
                "hours 02": sum(train) / 3600,
                "hours 03": sum(read) / 3600,
                "hours": hours,
                "longest cell": max(train + read, default=0) / 3600,
                "GB memory": max((need[c] for c in fitting), default=0) / 1e9,
                "GB disk": sum(disk(cells[c]) for c in fitting) / 1e9,
                "dollars": hours * price,
            }
        )
    return pd.DataFrame(rows).set_index("device").round(2)


def request(
    stage: str, cell: Cell, settings: dict[str, Any], device: str
) -> dict[str, int]:
    """Return what to ask a scheduler for: `mem_mb` of the host, `runtime` in minutes.

    Twice the estimated time, ten minutes at least; the weights as they are on disk
    beside what Python and its libraries take, which was measured as 1.2 GB.
    """
    seconds = {"train": train_seconds, "evaluate": evaluate_seconds}[stage]
    weights = stored(shape_of(cell["base_model"]), 16)
    minutes = 2 * seconds(cell, settings, DEVICES[device]) / 60
    return {"mem_mb": int(2000 + weights / 1e6), "runtime": max(10, round(minutes))}
