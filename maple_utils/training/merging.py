"""A base model with an adapter merged into it, tensor by tensor, in little memory."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from maple_utils import files
from maple_utils.errors import ParameterError

SHARD = 10**9  # bytes of a file of weights, which is what is in memory at a time
INDEX = "model.safetensors.index.json"


def merge(
    output: Path, source: str, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype
) -> None:
    """Write merged/, a whole model with its tokenizer, atomically.

    Args:
        output: the cell's folder, which holds adapter/.
        source: the base model, a folder or a hub id whose weights are in the cache.
        tokenizer: the base model's.
        dtype: of the merged weights.

    Raises:
        ParameterError: where the base model's files are no safetensors, or name their
            tensors otherwise than the model its layers.
    """
    adapted = _changes(output / "adapter")
    config = AutoConfig.from_pretrained(source, dtype=dtype)
    with files.atomic(output / "merged") as draft:
        config.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        if settings := _file(source, "generation_config.json"):
            shutil.copy(settings, draft)
        where: dict[str, str] = {}
        for number, part in enumerate(_parts(source, adapted, dtype)):
            name = f"model-{number:05}.safetensors"
            save_file(part, draft / name, metadata={"format": "pt"})
            where |= dict.fromkeys(part, name)
        if adapted:
            raise ParameterError(
                f"merge: {next(iter(adapted))} is no tensor in the files of {source}; "
                "allowed: base models whose files name tensors as their layers; load "
                "the adapter with PEFT instead"
            )
        text = json.dumps({"metadata": {}, "weight_map": where}, indent=2)
        (draft / INDEX).write_text(text, encoding="utf-8")


def _changes(adapter: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the two factors of what an adapter adds to a tensor, by its name."""
    lora = LoraConfig.from_pretrained(adapter)
    tensors = load_file(adapter / "adapter_model.safetensors")
    changes = {}
    for name, thin in tensors.items():
        layer, part, _ = name.rsplit(".", 2)
        if part == "lora_A":
            wide = tensors[f"{layer}.lora_B.weight"] * (lora.lora_alpha / lora.r)
            changes[f"{layer.removeprefix('base_model.model.')}.weight"] = wide, thin
    return changes


def _parts(
    source: str,
    adapted: dict[str, tuple[torch.Tensor, torch.Tensor]],
    dtype: torch.dtype,
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the merged tensors in groups of SHARD bytes; `adapted` is used up."""
    part: dict[str, torch.Tensor] = {}
    for name, tensor in _tensors(source):
        if name in adapted:
            wide, thin = adapted.pop(name)
            tensor = tensor.float() + wide.float() @ thin.float()
        tensor = tensor.to(dtype)
        if part and sum(t.nbytes for t in part.values()) + tensor.nbytes > SHARD:
            yield part
            part = {}
        part[name] = tensor
    yield part


def _tensors(source: str) -> Iterator[tuple[str, torch.Tensor]]:
    index = _file(source, INDEX)
    where = json.loads(Path(index).read_text())["weight_map"] if index else {}
    for name in sorted(set(where.values())) or ["model.safetensors"]:
        if not (file := _file(source, name)):
            raise ParameterError(
                f"merge: {source} has no {name}; allowed: base models in safetensors; "
                "load the adapter with PEFT instead"
            )
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118  (it is no mapping)
                yield key, opened.get_tensor(key)


def _file(source: str, name: str) -> str | None:
    return cached_file(source, name, _raise_exceptions_for_missing_entries=False)
