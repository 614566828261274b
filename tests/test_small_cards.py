"""What 02 plans on Colab's T4 and on a card of 24 GB, which torch is told are there."""

import pytest
import torch

from maple_utils import forecast, models, training
from tests.test_training import asked

CARDS = {
    "Tesla T4": {"capability": (7, 5), "memory": (15.6e9, 15.8e9)},
    "NVIDIA GeForce RTX 4090": {"capability": (8, 9), "memory": (24.9e9, 25.4e9)},
}
MODELS = ("llama-2-7b", "mistral-7b")


@pytest.fixture(params=CARDS)
def card(request, monkeypatch) -> str:
    """Let torch say that this card is here, and return its name."""
    told = CARDS[request.param]
    for name, answer in {
        "is_available": True,
        "get_device_capability": told["capability"],
        "mem_get_info": told["memory"],
        "device_count": 1,
        "get_device_name": request.param,
        "set_device": None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(training, "is_triton_available", lambda: False)
    monkeypatch.setattr(training, "is_flash_attn_2_available", lambda **_: False)
    return request.param


def test_the_card_is_found(card):
    found = training.machine()
    assert (found.gpus, found.name, found.distributed) == (1, card, False)
    assert (found.free, found.total) == CARDS[card]["memory"]


@pytest.mark.parametrize("base_model", MODELS)
@pytest.mark.parametrize("bits", [4, 8])
def test_seven_billion_parameters_are_planned_within_its_memory(card, base_model, bits):
    run = asked(base_model=base_model, bits=bits, rank=64)
    plan = training.plan(run, training.machine())
    small = card == "Tesla T4"
    assert plan.preset == f"GPU of {16 if small else 24} GB"
    assert plan.dtype == (torch.float16 if small else torch.bfloat16)
    assert plan.dtype == models.compute_dtype()  # as 03 loads the base
    assert plan.max_length == (512 if small else 1024)
    assert (plan.optimizer, plan.gradient_checkpointing) == ("paged_adamw_8bit", True)
    assert plan.attn_implementation == "sdpa"
    assert plan.micro_batch * plan.max_length <= forecast.DENSE
    weights = forecast.stored(forecast.shape_of(base_model), bits)
    assert weights < plan.needs <= plan.free == CARDS[card]["memory"][0]


def test_a_step_sees_all_its_examples_in_passes_that_fit(card):
    run = asked(packing=False)
    plan = training.plan(run, training.machine())
    rows, at_once = training.rows_per_step(run, plan, mean_length=256)
    assert (rows, rows % at_once) == (128, 0)
    assert at_once * 256 <= plan.micro_batch * plan.max_length


def test_sixteen_bits_fit_24_gb_and_are_refused_on_a_t4_with_what_fits(card):
    run = asked(bits=16, rank=16)
    if card == "Tesla T4":
        with pytest.raises(training.ParameterError, match="nearest that fits: bits 8"):
            training.plan(run, training.machine())
    else:
        assert training.plan(run, training.machine()).needs < 24.9e9
