"""What training takes of a device, before it runs: bytes of memory, FLOPs per token.

Training a token through N frozen linear weights and n adapter weights takes 4 N + 6 n
FLOPs: forward 2 (N + n), backward 2 N for the inputs' gradients and 4 n for the
adapters'. Activations that are recomputed in the backward pass add 2 N. The output
layer is asked for the tokens of responses alone, always twice in TRL's chunked loss.
Models and presets are in `forecast.yaml`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from maple_utils.errors import ParameterError
from maple_utils.params import short_name

MINIATURE = Path(__file__).parent / "miniature"
TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
CONTEXT = 1e9  # bytes that CUDA itself takes; on a CPU Python and its libraries
WASTE = 1.1  # what is lost between tensors; assumed
# On a CPU malloc puts what is kept between what is freed again: 4-bit models of hidden
# size 1,024 and 2,048 grew by 1.6 and 1.8 times the activations of 363 tokens.
HEAP = 1.6
# Tokens of a pass whose attention has a dense mask: rows laid end to end pay for the
# square of them, which costs more from here on than a pass saves.
DENSE = 2048


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama-like model."""

    layers: int
    hidden: int
    inner: int
    queries: int  # width of all of them; the hidden size in most models
    kv: int  # width of keys and of values
    vocab: int
    tied: bool = False  # the output layer is the embeddings

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Return (in, out) of the seven linear layers of a block."""
        h, i, kv, q = self.hidden, self.inner, self.kv, self.queries
        return (h, q), (h, kv), (h, kv), (q, h), (h, i), (h, i), (i, h)

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

    def flops(
        self,
        rank: int,
        gradient_checkpointing: bool,
        responses: float,
        span: float = 0,
    ) -> float:
        """Return the FLOPs of training one token (see the head of this file).

        `responses` is the share of tokens that a response has. `span` is how many
        tokens each attends to: two products of the hidden width with each, forward,
        twice backward, and again where activations are recomputed.
        """
        again = int(gradient_checkpointing)
        attention = (3 + again) * 4 * span * self.hidden * self.layers
        blocks = (4 + 2 * again) * self.linear + 6 * self.adapter(rank)
        return blocks + 6 * self.head * responses + attention


@cache
def shape_of(base_model: str) -> Shape:
    """Return a base model's sizes, from its `config.json` or the table of shapes.

    Raises ParameterError for a model whose `config.json` cannot be had.
    """
    miniature = MINIATURE / base_model.removeprefix("miniature-")
    configs = [folder / "config.json" for folder in (Path(base_model), miniature)]
    if found := next(filter(Path.is_file, configs), None):
        whole = json.loads(found.read_text(encoding="utf-8"))
        about = whole.get("text_config", whole)
    elif known := TABLES["shapes"].get(short_name(base_model)):
        return Shape(**known)
    else:
        about = _config_of(base_model)
    heads = about["num_attention_heads"]
    width = about.get("head_dim") or about["hidden_size"] // heads
    return Shape(
        layers=about["num_hidden_layers"],
        hidden=about["hidden_size"],
        inner=about["intermediate_size"],
        kv=width * (about.get("num_key_value_heads") or heads),
        vocab=about["vocab_size"],
        queries=width * heads,
        tied=about.get("tie_word_embeddings", False),
    )


def _config_of(base_model: str) -> dict[str, Any]:
    # Imported here, for it brings torch: Snakemake would load that for every job.
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base_model).get_text_config().to_dict()
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"base_model: the sizes of {base_model!r} are not known, for its "
            f"config.json cannot be read; allowed: a folder, a model on the hub, or "
            f"{', '.join(TABLES['shapes'])}; check the network, or add a line to "
            f"the shapes in {Path(__file__).stem}.yaml"
        ) from error


@dataclass(frozen=True)
class TrainingLoad:
    """What decides how much memory training takes."""

    bits: int
    rank: int
    micro_batch: int  # rows per forward pass
    max_length: int  # tokens per row
    gradient_checkpointing: bool
    width: int = 2  # bytes of the dtype to compute in
    on_cpu: bool = False

    def __str__(self) -> str:
        return (
            f"bits {self.bits}, rank {self.rank}, micro_batch {self.micro_batch}, "
            f"max_length {self.max_length}"
        )


def stored(shape: Shape, bits: int, width: int = 2) -> float:
    """Return the bytes of a base model's weights.

    NF4 with double quantisation takes .516 bytes a weight (QLoRA, arXiv 2305.14314).
    Embeddings and output layer, which may be one, are not quantised.
    """
    ends = (1 if shape.tied else 2) * width * shape.head
    return shape.linear * {4: 0.516, 8: 1.0, 16: width}[bits] + ends


def activation_bytes(shape: Shape, load: TrainingLoad) -> float:
    """Return the bytes that tensors of a pass take until its backward pass.

    Of each token and block: what goes into both halves; queries, keys, values and what
    attention makes of them; three of the inner width. LoRA's dropout adds what it
    leaves of each layer's input, and a mask, which on a CPU is of numbers. Where
    activations are recomputed, one block's, and what went into each. Logits are not
    kept: TRL's loss is chunked.
    """
    hidden, inner = shape.hidden, shape.inner
    dropped = 6 * hidden + inner
    mask = load.width if load.on_cpu else 1
    own = 4 * hidden + 2 * shape.kv + 3 * inner
    block = load.width * (own + dropped) + mask * dropped
    blocks = 1 if load.gradient_checkpointing else shape.layers
    into_each = load.width * hidden * shape.layers if load.gradient_checkpointing else 0
    return load.micro_batch * load.max_length * (blocks * block + into_each)


def training_bytes(shape: Shape, load: TrainingLoad) -> float:
    """Return the bytes that the steps of training take, at most.

    Weights, activations, and 16 bytes per adapter weight (it, its gradient and two
    moments in float32). While weights load on a CPU, the process counts the pages of
    their files as its own, all of them; the system takes those back when it needs them.
    """
    adapter = 16 * shape.adapter(load.rank)
    weights = stored(shape, load.bits, load.width)
    kept = (HEAP if load.on_cpu else WASTE) * activation_bytes(shape, load)
    return WASTE * (weights + adapter) + kept + CONTEXT


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


def preset(gpu_memory: float) -> dict[str, Any]:
    """Return the preset of a GPU with so many bytes; of the CPU for 0.

    It is what a class of devices takes where a parameter leaves it open; what its
    values mean stands in `forecast.yaml`.
    """
    return next(p for p in TABLES["presets"] if gpu_memory <= p["up_to"])


def asked_load(
    run: Mapping[str, Any],
    usual: Mapping[str, Any],
    width: int = 2,
    dense: bool = False,
) -> TrainingLoad:
    """Return the load of 02's parameters; what they leave open is the preset's.

    `dense` tells that attention has a dense mask, so that a pass is kept short.
    """
    always = {"always": True, "never": False, "auto": usual["gradient_checkpointing"]}
    length = run["max_length"] or usual["max_length"]
    rows = min(usual["rows"], max(1, DENSE // length)) if dense else usual["rows"]
    return TrainingLoad(
        bits=run["bits"],
        rank=run["rank"],
        micro_batch=min(run["micro_batch"] or rows, run["batch_size"]),
        max_length=length,
        gradient_checkpointing=always[run["gradient_checkpointing"]],
        width=width,
        on_cpu=usual["name"] == "CPU",
    )
