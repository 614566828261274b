"""What training and evaluation take, before they run: memory in bytes, time in seconds.

Training a token through N frozen linear weights and n adapter weights takes 4 N + 6 n
FLOPs: forward 2 (N + n), backward 2 N for the inputs' gradients and 4 n for the
adapters'. Activations that are recomputed in the backward pass add 2 N. Reading a token
takes 2 (N + n). Quantised weights are unpacked once per pass; each step of generation
reads all weights once. Models, devices and presets are in `forecast.yaml`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import hf_hub_download

from maple_utils.errors import ParameterError

MINIATURE = Path(__file__).parent / "miniature"
TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
CONTEXT = 1e9  # bytes that CUDA itself takes
WASTE = 1.1  # what is lost between tensors; assumed
# Weights unpacked from 4 bits: QLoRA's steps on an A100 in Qwen's README take about
# 0.2 s longer than LoRA's, in three passes over 6.5e9 weights, which is 1e11 weights/s,
# or 20 bytes of the device's bandwidth per weight. 8 bits: assumed as 4.
UNPACK = 20  # bytes of bandwidth per weight and pass
TOGETHER = 16  # answers that are written at a time; assumed
DISK = 1e9  # bytes/s at which weights are loaded; assumed


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

    def flops(self, rank: int, gradient_checkpointing: bool) -> float:
        """Return the FLOPs of training one token (see the head of this file)."""
        frozen = self.linear + self.head
        return (6 if gradient_checkpointing else 4) * frozen + 6 * self.adapter(rank)


@cache
def shape_of(base_model: str) -> Shape:
    """Return a base model's sizes, from its `config.json` unless it is a 7B model.

    Raises ParameterError for a model whose `config.json` cannot be had.
    """
    if base_model in TABLES["shapes"]:
        return Shape(**TABLES["shapes"][base_model])
    folders = (Path(base_model), MINIATURE / base_model.removeprefix("miniature-"))
    folder = next((f for f in folders if (f / "config.json").is_file()), None)
    try:
        name = "config.json"
        file = folder / name if folder else hf_hub_download(base_model, name)
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"base_model: the sizes of {base_model!r} are not known, for its "
            f"config.json cannot be read; allowed: a folder, a model on the hub, or "
            f"{', '.join(TABLES['shapes'])}; check the network, or add a line to "
            f"the shapes in {Path(__file__).stem}.yaml"
        ) from error
    config = json.loads(Path(file).read_text(encoding="utf-8"))
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    return Shape(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        inner=config["intermediate_size"],
        kv=config.get("num_key_value_heads", heads) * width,
        vocab=config["vocab_size"],
    )


@dataclass(frozen=True)
class TrainingLoad:
    """What decides how much memory training takes."""

    bits: int
    rank: int
    micro_batch: int  # rows per forward pass
    max_length: int  # tokens per row
    gradient_checkpointing: bool
    width: int = 2  # bytes of the dtype to compute in

    def __str__(self) -> str:
        return (
            f"bits {self.bits}, rank {self.rank}, micro_batch {self.micro_batch}, "
            f"max_length {self.max_length}"
        )


def stored(shape: Shape, bits: int, width: int = 2) -> float:
    """Return the bytes of a base model's weights.

    NF4 with double quantisation takes .516 bytes a weight (QLoRA, arXiv 2305.14314).
    Embeddings and output layer are not quantised.
    """
    return shape.linear * {4: 0.516, 8: 1.0, 16: width}[bits] + 2 * width * shape.head


def training_bytes(shape: Shape, load: TrainingLoad) -> float:
    """Return the bytes that training takes, at most.

    Weights; 16 bytes per adapter weight (it, its gradient and two moments in float32);
    of each token either one hidden state per layer and one block's activations, or all
    blocks' activations. Logits are not kept: TRL's loss is chunked.
    """
    tokens = load.micro_batch * load.max_length
    per_block = 10 * shape.hidden + 4 * shape.inner + 2 * shape.kv
    blocks = 1 if load.gradient_checkpointing else shape.layers
    kept = shape.hidden * shape.layers if load.gradient_checkpointing else 0
    activations = load.width * tokens * (blocks * per_block + kept)
    adapter = 16 * shape.adapter(load.rank)
    weights = stored(shape, load.bits, load.width)
    return WASTE * (weights + adapter + activations) + CONTEXT


def nearest_fit(
    shape: Shape, asked: TrainingLoad, memory: float
) -> TrainingLoad | None:
    """Return the load itself, or the nearest one that fits into `memory` bytes.

    Fewer rows at a time come first, which changes no result; then recomputing; then
    shorter rows, to a quarter; then fewer bits. None where nothing fits.
    """
    loads = (
        replace(
            asked,
            bits=bits,
            max_length=asked.max_length // part,
            gradient_checkpointing=again,
            micro_batch=asked.micro_batch >> halved,
        )
        for bits in (16, 8, 4)
        if bits <= asked.bits
        for part in (1, 2, 4)
        for again in sorted({asked.gradient_checkpointing, True})
        for halved in range(asked.micro_batch.bit_length())
    )
    return next((o for o in loads if training_bytes(shape, o) <= memory), None)


@dataclass(frozen=True)
class Preset:
    """What a class of devices takes where a parameter leaves it open."""

    name: str
    up_to: float  # bytes of memory
    rows: int  # per pass, were all of max_length
    max_length: int
    optimizer: str
    gradient_checkpointing: bool

    def load(self, run: Mapping[str, Any], width: int = 2) -> TrainingLoad:
        """Return the load of 02's parameters, with what they leave open chosen."""
        chosen = {"always": True, "never": False, "auto": self.gradient_checkpointing}
        return TrainingLoad(
            bits=run["bits"],
            rank=run["rank"],
            micro_batch=min(run["micro_batch"] or self.rows, run["batch_size"]),
            max_length=run["max_length"] or self.max_length,
            gradient_checkpointing=chosen[run["gradient_checkpointing"]],
            width=width,
        )


def preset(gpu_memory: float) -> Preset:
    """Return the preset of a GPU with so many bytes; of the CPU for 0."""
    presets = (Preset(**values) for values in TABLES["presets"])
    return next(p for p in presets if gpu_memory <= p.up_to)


@dataclass(frozen=True)
class Device:
    """What a device does per second, and what it holds."""

    name: str
    train: Mapping[int, float]  # bits -> FLOP/s reached in training
    read: Mapping[int, float]  # bits -> FLOP/s reached in reading prompts
    bandwidth: float  # bytes/s of its memory
    memory: float  # bytes
    start: float  # seconds of papermill, kernel, imports, small cells
    source: str

    @property
    def gpu_memory(self) -> float:
        """Return the bytes of GPU memory: 0 on a CPU."""
        return 0 if self.name == "cpu" else self.memory

    def reading(self, shape: Shape, rank: int, bits: int, tokens: float) -> float:
        """Return the seconds of reading so many tokens; rank 0: without adapter."""
        weights = shape.linear + shape.head + shape.adapter(rank)
        return 2 * weights * tokens / self.read[bits]

    def starting(self, shape: Shape) -> float:
        """Return the seconds of a notebook before its work."""
        return self.start + stored(shape, 16) / DISK


DEVICES = {name: Device(name, **about) for name, about in TABLES["devices"].items()}


def planned_load(run: Mapping[str, Any], device: Device) -> TrainingLoad:
    """Return how 02 would train on a device: with what fits, if anything does."""
    asked = preset(device.gpu_memory).load(run)
    if run["micro_batch"]:
        return asked
    fits = nearest_fit(shape_of(run["base_model"]), asked, device.memory)
    if fits and (fits.bits, fits.max_length) == (asked.bits, asked.max_length):
        return fits
    return replace(asked, micro_batch=1)


def training_seconds(
    run: Mapping[str, Any], rows: Sequence[int], length: float, device: Device
) -> float:
    """Return how long 02 takes with its parameters `run`.

    `rows` are those of each language in its data, `length` the tokens of a mean row.
    """
    shape, bits = shape_of(run["base_model"]), run["bits"]
    trained = (min(n - run["heldout"], run["train_limit"] or n) for n in rows)
    steps = sum(trained) * run["epochs"] / run["batch_size"]
    if run["max_steps"] > 0:
        steps = min(steps, run["max_steps"])
    tokens = steps * run["batch_size"] * length
    load = planned_load(run, device)
    flops = tokens * shape.flops(run["rank"], load.gradient_checkpointing)
    full = run["packing"] or not run["micro_batch"]
    at_once = load.micro_batch * (load.max_length if full else length)
    passes = 3 * tokens / at_once if bits < 16 else 0
    unpacking = passes * shape.linear * UNPACK / device.bandwidth
    every = run["eval_steps"] if run["eval_steps"] < 1 else run["eval_steps"] / steps
    heldout = (1 + 1 / every) * len(rows) * run["heldout"] * length
    return (
        device.starting(shape)
        + flops / device.train[bits]
        + unpacking
        + device.reading(shape, run["rank"], bits, heldout)
    )


def evaluation_seconds(
    run: Mapping[str, Any],
    asked: Iterable[tuple[int, float, float]],
    device: Device,
) -> float:
    """Return how long 03 takes with its parameters `run`.

    `asked` has a triple for each task, language and scoring: questions, tokens of one,
    tokens of an answer where it is written.
    """
    shape, bits = shape_of(run["base_model"]), run["bits"]
    asked = list(asked)
    read = sum(questions * (tokens + new) for questions, tokens, new in asked)
    steps = sum(questions * new for questions, _, new in asked) / TOGETHER
    weights = max(stored(shape, bits), UNPACK * shape.linear if bits < 16 else 0)
    writing = steps * weights / device.bandwidth
    reading = device.reading(shape, run["rank"], bits, read)
    return device.starting(shape) + reading + writing
