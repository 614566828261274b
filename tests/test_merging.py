"""A merged model is what PEFT makes of it, and never whole in memory."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from maple_utils import models
from maple_utils.errors import ParameterError
from maple_utils.training import merging

SIZE = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96}
SIZE |= {"num_hidden_layers": 3, "num_attention_heads": 4, "tie_word_embeddings": True}


@pytest.fixture
def cell(tmp_path):
    """Return a folder with a random base model in several files, and adapter/."""
    base = LlamaForCausalLM(LlamaConfig(**SIZE)).to(torch.bfloat16)
    base.save_pretrained(tmp_path / "base", max_shard_size="50KB")
    lora = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False
    )
    model = get_peft_model(base, lora)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path


def merge(cell, dtype=torch.float32) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models.source("miniature-llama"))
    merging.merge(cell, str(cell / "base"), tokenizer, dtype)


def test_merging_gives_what_peft_gives_a_part_at_a_time(cell, monkeypatch):
    monkeypatch.setattr(merging, "SHARD", 100_000)
    whole = AutoModelForCausalLM.from_pretrained(cell / "base", dtype=torch.float32)
    whole = PeftModel.from_pretrained(whole, cell / "adapter").merge_and_unload()
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)  # loads all
    merge(cell)
    monkeypatch.undo()
    written = list((cell / "merged").glob("*.safetensors"))
    assert len(written) > 3
    assert max(file.stat().st_size for file in written) < 110_000
    merged = AutoModelForCausalLM.from_pretrained(cell / "merged")
    assert merged.dtype == torch.float32
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(merged.state_dict()[name], tensor, atol=1e-6), name


def test_what_cannot_be_merged_is_refused_in_one_line(cell):
    for file in (cell / "base").glob("*.safetensors"):
        renamed = {f"other.{key}": value for key, value in load_file(file).items()}
        save_file(renamed, file, metadata={"format": "pt"})
    with pytest.raises(ParameterError, match=r"merge: \S+ is no tensor in the files"):
        merge(cell)
    assert not (cell / "merged").exists()
    next((cell / "base").glob("*.safetensors")).unlink()
    with pytest.raises(ParameterError, match=r"merge: \S+ has no model-\S+; allowed"):
        merge(cell)
