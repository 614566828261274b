"""What every forward pass of the engine needs: a mask, a quiet model, enough memory."""

from maple_utils import libraries  # noqa: F401  (first: see there)

# isort: split
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from peft.helpers import disable_input_dtype_casting
from transformers import PreTrainedModel

SMALLEST_BUDGET = 16  # tokens per pass; out of memory below it is an error
# Model -> tokens per pass, once memory was found not to hold more; for later calls.
FITTING: WeakKeyDictionary[PreTrainedModel, int] = WeakKeyDictionary()


def as_masks(
    model: PreTrainedModel, sees: torch.Tensor, distance: torch.Tensor
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Return the 4-D mask, or one per kind of layer where a model has two kinds.

    `sees` (bool, `[rows, 1, new, all]`) says which tokens a new one may see, `distance`
    how far before it they stand. Eager attention takes numbers to add, sdpa booleans.
    """
    config = model.config.get_text_config()

    def mask(allowed: torch.Tensor) -> torch.Tensor:
        if config._attn_implementation == "sdpa":
            return allowed
        return (~allowed).to(model.dtype) * torch.finfo(model.dtype).min

    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if not window or kinds == {"full_attention"}:
        return mask(sees)
    sliding = mask(sees & (distance < window))
    if len(kinds) < 2:
        return sliding
    return {"full_attention": mask(sees), "sliding_attention": sliding}


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off, and to an attention that takes masks; afterwards back.

    Adapters are float32. Where the base model is not, their products are made in its
    dtype, as in training: under autocast, and without PEFT's casts to float32 before,
    which it makes at 16 bits only.
    """
    training, attention = model.training, model.config._attn_implementation
    mixed = model.dtype != torch.float32
    autocast = torch.autocast(model.device.type, model.dtype, enabled=mixed)
    model.eval()
    try:
        if attention not in ("sdpa", "eager"):
            model.set_attn_implementation("sdpa")
        with autocast, disable_input_dtype_casting(model, active=mixed):
            yield
    finally:
        model.train(training)
        model.set_attn_implementation(attention)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def free_memory() -> None:
    """Give unused memory back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
