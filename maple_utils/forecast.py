"""What a model weighs and what training it takes: parameters, bytes, FLOPs.

Training a token through N frozen linear weights and n adapter weights takes 4 N + 6 n
FLOPs: forward 2 (N + n), backward 2 N for the inputs' gradients and 4 n for the
adapters'. Activations that are recomputed in the backward pass add 2 N.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from maple_utils.errors import ParameterError

MINIATURE = Path(__file__).parent / "miniature"
CONTEXT = 1e9  # bytes that CUDA itself takes
WASTE = 1.1  # what is lost between tensors; assumed


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


SHAPES = {  # the models' own config.json on the hub
    "llama-2-7b": Shape(32, 4096, 11008, 4096, 32000),
    "mistral-7b": Shape(32, 4096, 14336, 1024, 32000),
}


@cache
def shape_of(base_model: str) -> Shape:
    """Return a base model's sizes, from its `config.json` unless it is a 7B model.

    Raises ParameterError for a model whose `config.json` cannot be had.
    """
    if base_model in SHAPES:
        return SHAPES[base_model]
    folders = (Path(base_model), MINIATURE / base_model.removeprefix("miniature-"))
    folder = next((f for f in folders if (f / "config.json").is_file()), None)
    try:
        name = "config.json"
        file = folder / name if folder else hf_hub_download(base_model, name)
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"base_model: the sizes of {base_model!r} are not known, for its "
            f"config.json cannot be read; allowed: a folder, a model on the hub, or "
            f"{', '.join(SHAPES)}; check the network, or add a line to SHAPES in "
            f"{Path(__file__).name}"
        ) from error
    return _shape(json.loads(Path(file).read_text(encoding="utf-8")))


def _shape(config: dict) -> Shape:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    kv = config.get("num_key_value_heads", heads) * width
    sizes = ("num_hidden_layers", "hidden_size", "intermediate_size")
    return Shape(*(config[size] for size in sizes), kv, config["vocab_size"])


@dataclass(frozen=True)
class TrainingLoad:
    """What decides how much memory training takes."""

    bits: int
    rank: int
    micro_batch: int  # rows per forward pass
    max_length: int  # tokens per row
    gradient_checkpointing: (
        bool  # activations in the backward pass, instead of keeping them
    )
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


def training_bytes(shape: Shape, of: TrainingLoad) -> float:
    """Return the bytes that training takes, at most.

    Weights; 16 bytes per adapter weight (it, its gradient and two moments in float32);
    of each token either one hidden state per layer and one block's activations, or all
    blocks' activations. Logits are not kept: TRL's loss is chunked.
    """
    tokens = of.micro_batch * of.max_length
    per_block = 10 * shape.hidden + 4 * shape.inner + 2 * shape.kv
    blocks = 1 if of.gradient_checkpointing else shape.layers
    kept = shape.hidden * shape.layers if of.gradient_checkpointing else 0
    activations = of.width * tokens * (blocks * per_block + kept)
    adapter = 16 * shape.adapter(of.rank)
    weights = stored(shape, of.bits, of.width)
    return WASTE * (weights + adapter + activations) + CONTEXT


def nearest_fit(shape: Shape, of: TrainingLoad, memory: float) -> TrainingLoad | None:
    """Return the setting itself, or the nearest one that fits into `memory` bytes.

    Fewer rows at a time come first, which changes no result; then recomputing; then
    shorter rows, to a quarter; then fewer bits. None where nothing fits.
    """
    fitting = (s for s in _downwards(of) if training_bytes(shape, s) <= memory)
    return next(fitting, None)


def _downwards(of: TrainingLoad) -> Iterator[TrainingLoad]:
    for bits in (b for b in (16, 8, 4) if b <= of.bits):
        for length in (of.max_length // part for part in (1, 2, 4)):
            for gradient_checkpointing in sorted({of.gradient_checkpointing, True}):
                rows = of.micro_batch
                while rows:
                    changed = {"max_length": length, "micro_batch": rows}
                    yield replace(
                        of,
                        bits=bits,
                        gradient_checkpointing=gradient_checkpointing,
                        **changed,
                    )
                    rows //= 2


@dataclass(frozen=True)
class Preset:
    """What a class of devices takes where a parameter leaves it open."""

    name: str
    up_to: float  # bytes of memory
    rows: int  # per pass, were all of max_length; few: attention is over all at once
    max_length: int
    optimizer: str
    gradient_checkpointing: bool

    def load(self, run: Mapping[str, Any], width: int = 2) -> TrainingLoad:
        """Return the setting of 02's parameters, with what they leave open chosen."""
        gradient_checkpointing = {"always": True, "never": False}
        return TrainingLoad(
            bits=run["bits"],
            rank=run["rank"],
            micro_batch=min(run["micro_batch"] or self.rows, run["batch_size"]),
            max_length=run["max_length"] or self.max_length,
            gradient_checkpointing=gradient_checkpointing.get(
                run["gradient_checkpointing"], self.gradient_checkpointing
            ),
            width=width,
        )


# Ours; so many rows are the most to begin with: `nearest_fit` makes them fewer.
CPU = Preset("CPU", 0, 1, 512, "adamw_torch", gradient_checkpointing=False)
GPUS = (
    Preset(
        "GPU of 16 GB", 20e9, 2, 512, "paged_adamw_8bit", gradient_checkpointing=True
    ),
    Preset(
        "GPU of 24 GB", 30e9, 4, 1024, "paged_adamw_8bit", gradient_checkpointing=True
    ),
    Preset(
        "GPU of 40 GB", 50e9, 4, 1024, "paged_adamw_8bit", gradient_checkpointing=True
    ),
    Preset("GPU of 80 GB or more", math.inf, 8, 1024, "paged_adamw_8bit", True),
)


def preset(gpu_memory: float) -> Preset:
    """Return the preset of a GPU with so many bytes; of the CPU for 0."""
    if not gpu_memory:
        return CPU
    return next(gpu for gpu in GPUS if gpu_memory <= gpu.up_to)
