"""What the engine can run with exact numbers, and how much at a time."""

from functools import singledispatch

from transformers import PreTrainedModel

from maple_utils.errors import ParameterError
from maple_utils.scoring.forward import FITTING
from maple_utils.scoring.prefixes import TokenPath

UNLIMITED = 2**31


@singledispatch
def positions(model: PreTrainedModel) -> int:
    """Return how many tokens a text may have; UNLIMITED without such a limit."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or UNLIMITED


def check(
    model: PreTrainedModel,
    paths: list[TokenPath],
    token_budget: int | None,
    new_tokens: int = 0,
) -> None:
    """Raise `ParameterError` where the numbers could not be exact."""
    config = model.config.get_text_config()
    if token_budget is not None and token_budget < 1:
        raise ParameterError(
            f"token_budget: got {token_budget}; allowed: an integer from 1; e.g. 512"
        )
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if strange := kinds - {"full_attention", "sliding_attention"}:
        raise ParameterError(
            f"base_model: got one with {', '.join(sorted(strange))}; allowed: full and"
            " sliding attention; e.g. a Llama, Mistral or Gemma model"
        )
    limit = positions(model)
    longest = max((len(path.tokens) for path in paths), default=0) + new_tokens
    if longest > limit:
        raise ParameterError(
            f"context: got {longest} tokens; allowed: up to {limit}, the model's"
            " max_position_embeddings; give fewer shots"
        )


def default_budget(model: PreTrainedModel, on_cpu: int, on_gpu: int) -> int:
    """Return new tokens per pass that keep the device busy, the mask small, and fit."""
    usual = on_cpu if model.device.type == "cpu" else on_gpu
    return min(usual, FITTING.get(model, usual))
