"""Adapters compute in one dtype at every width, while they train and when asked."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from maple_utils import models, scoring


def watched(model: torch.nn.Module) -> set[tuple[torch.dtype, torch.dtype]]:
    """Return a set that will hold the dtypes that go into and out of `lora_A`."""
    seen = set()
    for name, layer in model.named_modules():
        if name.endswith("lora_A.default"):
            layer.register_forward_hook(
                lambda _, inputs, output: seen.add((inputs[0].dtype, output.dtype))
            )
    return seen


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_adapters_are_asked_in_the_dtype_of_their_base(bits):
    """Adapters stay float32; a GPU's base model is not."""
    base, tokenizer = models.load("miniature-llama", bits, torch.bfloat16)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    seen = watched(model)
    scoring.loglikelihoods(model, tokenizer, [("Count to", [" two", " three"])])
    scoring.generate(model, tokenizer, ["Count to"], max_new_tokens=2)
    assert seen == {(torch.bfloat16, torch.bfloat16)}
