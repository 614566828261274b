"""What a grid costs, before it runs: seconds, memory and disk from FLOPs and bytes.

Training a token through N frozen linear weights and n adapter weights takes 4 N + 6 n
FLOPs: forward 2 (N + n), backward 2 N for the inputs' gradients and 4 n for the
adapters'; recomputed activations add 2 N. Reading a token takes 2 N. Quantised weights
are unpacked once per pass; each step of generation reads all weights once.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from maple_utils.grid import Cell
from maple_utils.params import ParameterError

MINIATURE = Path(__file__).parents[1] / "miniature"


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama-like model."""

    layers: int
    hidden: int
    inner: int
    kv: int  # width of keys and of values
    vocab: int

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Return (in, out) of the seven linear layers of a block."""
        h, i, kv = self.hidden, self.inner, self.kv
        return (h, h), (h, kv), (h, kv), (h, h), (h, i), (h, i), (i, h)

    @property
    def linear(self) -> int:
        """Return the number of weights that are quantised."""
        return self.layers * sum(a * b for a, b in self.matrices)

    @property
    def head(self) -> int:
        """Return the number of weights of the output layer, and of the embeddings."""
        return self.vocab * self.hidden

    def adapter(self, rank: int) -> int:
        """Return the number of LoRA weights on all linear layers."""
        return rank * self.layers * sum(a + b for a, b in self.matrices)


@dataclass(frozen=True)
class Device:
    """What a device does per second, and what it holds."""

    train: dict[int, float]  # bits -> FLOP/s reached in training
    read: dict[int, float]  # bits -> FLOP/s reached in reading prompts
    bandwidth: float  # bytes/s of its memory
    memory: float  # bytes
    start: float  # seconds of papermill, kernel, imports, small cells
    recompute: bool  # whether activations are recomputed in the backward pass
    source: str


def _gpu(peak: float, share: float, bandwidth: float, memory: float, source: str):
    """Describe a GPU by its peak, and the share of it that this work reaches.

    8-bit: half of it, since LLM.int8 splits every product in two (assumed).
    """
    rate = {4: peak * share, 8: peak * share / 2, 16: peak * share}
    return Device(rate, rate, bandwidth, memory, 60.0, True, source)


DEVICES = {
    "cpu": Device(
        train={4: 15e9, 8: 11e9, 16: 15e9},
        read={4: 31e9, 8: 31e9, 16: 31e9},
        bandwidth=10e9,
        memory=4e9,
        start=13.0,
        recompute=False,
        source="one core of a 2-core x86-64 machine, measured: benchmarks/README.md",
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
SHAPES = {  # the models' own config.json on the hub
    "llama-2-7b": Shape(32, 4096, 11008, 4096, 32000),
    "mistral-7b": Shape(32, 4096, 14336, 1024, 32000),
}
# Weights unpacked from 4 bits: QLoRA's steps on an A100 in Qwen's README take about
# 0.2 s longer than LoRA's, in three passes over 6.5e9 weights, which is 1e11 weights/s,
# or 20 bytes of the device's bandwidth per weight. 8 bits: assumed as 4.
UNPACK = 20  # bytes of bandwidth per weight and pass
BYTES = {4: 0.516, 8: 1.0, 16: 2.0}  # per weight; NF4 with double quantisation: QLoRA

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
DEFAULTS = {  # of the notebooks' parameters cells
    "epochs": 1.0,
    "max_steps": -1,
    "batch_size": 32,
    "micro_batch": 32,
    "heldout": 20,
    "languages": [],
    "tasks": [],
    "max_length": 512,
}


@cache
def shape_of(base_model: str) -> Shape:
    """Return a base model's sizes, from its `config.json` unless it is a 7B model.

    Raises ParameterError for a model on the hub that is not in SHAPES.
    """
    if base_model in SHAPES:
        return SHAPES[base_model]
    folders = (Path(base_model), MINIATURE / base_model.removeprefix("miniature-"))
    file = next((f / "config.json" for f in folders if f.is_dir()), None)
    if file is None:
        raise ParameterError(
            f"base_model: the sizes of {base_model!r} are not known; allowed: a folder "
            f"or {', '.join(SHAPES)}; add a line to SHAPES in {Path(__file__).name}"
        )
    config = json.loads(file.read_text())
    kv = config["num_key_value_heads"] * config["head_dim"]
    sizes = ("num_hidden_layers", "hidden_size", "intermediate_size")
    return Shape(*(config[size] for size in sizes), kv, config["vocab_size"])


def train_tokens(cell: Cell, settings: dict[str, Any]) -> tuple[float, float]:
    """Return the tokens that training reads, and its optimiser steps."""
    of = DEFAULTS | {"limit": 0} | settings
    languages, rows, tokens = DATA.get(cell["instruction_data"], (10, 10_000, 450))
    languages = len(of["languages"]) or languages
    rows = min(rows - of["heldout"], of["limit"] or rows)
    steps = languages * rows * of["epochs"] / of["batch_size"]
    if of["max_steps"] > 0:
        steps = min(steps, of["max_steps"])
    return steps * of["batch_size"] * tokens, steps


def train_seconds(cell: Cell, settings: dict[str, Any], device: Device) -> float:
    """Return how long notebook 02 takes."""
    of, shape, bits = DEFAULTS | settings, shape_of(cell["base_model"]), cell["bits"]
    frozen, adapter = shape.linear + shape.head, shape.adapter(cell["rank"])
    tokens, steps = train_tokens(cell, settings)
    flops = tokens * ((6 if device.recompute else 4) * frozen + 6 * adapter)
    passes = 3 * steps * of["batch_size"] / of["micro_batch"] if bits < 16 else 0
    unpack = passes * shape.linear * UNPACK / device.bandwidth
    held_out = (
        2 * 2 * frozen * of["heldout"] * tokens / max(1, steps * of["batch_size"])
    )
    reading = held_out * (len(of["languages"]) or 10) / device.read[bits]
    return _start(shape, device) + flops / device.train[bits] + unpack + reading


def evaluate_seconds(cell: Cell, settings: dict[str, Any], device: Device) -> float:
    """Return how long notebook 03 takes."""
    of = {**DEFAULTS, "limit": 50, **settings}
    shape, bits = shape_of(cell["base_model"]), cell["bits"]
    offline = of.get("hub_root", "miniature") == "miniature"
    tables = MINIATURE_TASKS if offline else TASKS
    frozen, weights = shape.linear + shape.head, shape.linear * BYTES[bits]
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
    return device.start + 2 * (shape.linear + 2 * shape.head) / 1e9


def memory(cell: Cell, settings: dict[str, Any]) -> float:
    """Return the bytes of GPU memory that training takes; a tenth on top is waste.

    Weights; 10 bytes per adapter weight (float32, its gradient, Adam in 8 bits); one
    hidden state per layer and token kept, and one block's own while it is recomputed.
    """
    of, shape = DEFAULTS | settings, shape_of(cell["base_model"])
    weights = shape.linear * BYTES[cell["bits"]] + 2 * 2 * shape.head
    tokens = of["micro_batch"] * of["max_length"]
    block = 2 * tokens * (8 * shape.hidden + 4 * shape.inner)
    kept = 2 * tokens * shape.hidden * shape.layers + block
    adapter = shape.adapter(cell["rank"]) if cell["instruction_data"] else 0
    return 1.1 * (weights + 10 * adapter + kept) + 1e9  # 1 GB: CUDA itself


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
        need = {cell: memory(of, settings) for cell, of in cells.items()}
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
    shape = shape_of(cell["base_model"])
    stored = 2 * (shape.linear + 2 * shape.head)
    minutes = 2 * seconds(cell, settings, DEVICES[device]) / 60
    return {"mem_mb": int(2000 + stored / 1e6), "runtime": max(10, round(minutes))}
