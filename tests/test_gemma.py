"""A model built as Gemma 3: tied embeddings, local layers, queries of another width."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

from maple_utils import forecast, models
from tests.notebooks.running import run_here


@pytest.fixture(scope="module")
def gemma(tmp_path_factory) -> Path:
    """Give the folder of an untrained one with the miniature's words."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gemma") / "gemma-tiny"
    tokenizer = AutoTokenizer.from_pretrained(models.source("miniature-llama"))
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    Gemma3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_its_sizes_are_counted(gemma):
    shape = forecast.shape_of(str(gemma))
    model = Gemma3ForCausalLM.from_pretrained(gemma)
    linear = [m for m in model.model.modules() if isinstance(m, torch.nn.Linear)]
    assert shape.linear == sum(module.weight.numel() for module in linear)
    norms = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    whole = sum(p.numel() for p in model.parameters()) - norms
    assert forecast.stored(shape, 16) == 2 * whole  # the embeddings are there once
    named = forecast.shape_of("google/gemma-3-270m")
    assert named.linear + named.head == pytest.approx(268e6, rel=0.01)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_it_is_trained_and_evaluated(gemma, tmp_path, bits):
    cell = {"base_model": str(gemma), "bits": bits, "rank": 4, "languages": "en,sw"}
    cell |= {"output_dir": str(tmp_path)}
    small = {"train_limit": 24, "heldout": 3, "max_steps": 30, "tasks": "xcopa"}
    run_here("02_train", cell | small)
    record = json.loads((tmp_path / "train.json").read_text())
    for change in record["heldout_bits_per_byte"].values():
        assert change["after"] < change["before"]
    asked = {"tasks": "xcopa,xquad", "instruction_data": "bactrian-x-mini"}
    found = run_here("03_evaluate", cell | asked | {"test_limit": 4})
    [scores] = found["scores"].values()
    heldout = scores[scores["task"] == "heldout"].set_index("language")["value"]
    for language, change in record["heldout_bits_per_byte"].items():
        assert heldout[language] == pytest.approx(change["after"], abs=0.002)
    assert set(scores["task"]) == {"xcopa", "xquad", "heldout"}
