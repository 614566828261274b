"""Adapters compute in one dtype at every width, while they train and when asked."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from maple_utils import models, scoring
from tests.notebooks.running import run_here


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


WATCH = """
from tests.test_precision import watched
seen = watched(model)
model.train()
"""


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_adapters_train_in_the_dtype_of_their_base(bits, tmp_path):
    """Also in the trial pass, whose memory would else be that of another run."""
    small = {
        "train_limit": 4,
        "heldout": 1,
        "max_steps": 1,
        "rank": 4,
        "tasks": "xcopa",
    }
    small |= {"languages": "en,sw", "batch_size": 4, "dtype": "bfloat16", "bits": bits}
    small |= {"output_dir": str(tmp_path)}
    probes = {"trial.largest_micro_batch(trainer)": WATCH}
    probes |= {"trainer.train(resume": "in_trial = set(seen)\nseen.clear()"}
    probes |= {"after = heldout.bits_per_byte()": "in_training = set(seen)"}
    found = run_here("02_train", small, probes)
    assert found["in_trial"] == {(torch.bfloat16, torch.bfloat16)}
    assert found["in_training"] == {(torch.bfloat16, torch.bfloat16)}
