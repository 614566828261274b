"""Base models by name, adapters that fit, a record that says where a run was."""

import json
import shutil

import pytest
import sentencepiece
import torch
from huggingface_hub import constants
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from maple_utils import evaluation, models, training
from maple_utils.errors import ParameterError


def test_short_names_hub_ids_and_folders_are_known():
    assert models.source("mistral-7b") == "mistralai/Mistral-7B-v0.1"
    assert models.source("owner/name") == "owner/name"
    folder = models.BASE_MODELS["miniature-llama"]
    assert models.source(folder) == folder


def test_a_model_of_the_hub_is_known_by_the_commit_that_was_loaded(
    tmp_path, monkeypatch
):
    """A cache as the hub's library leaves it, read without a network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit, cached = "0123456789" * 4, tmp_path / "models--owner--name"
    shutil.copytree(models.source("miniature-llama"), cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    model, _ = models.load("owner/name", 16, torch.float32)
    assert model.config.vocab_size > 0
    assert models.base_revision("owner/name") == commit


@pytest.mark.parametrize("name", ["llama2", "./nowhere", "a/b/c", "", "~/models/x"])
def test_other_names_end_in_one_line(name):
    with pytest.raises(ParameterError, match="base_model: got .*allowed: miniature"):
        models.source(name)


def test_the_miniatures_are_what_they_say():
    llama = AutoConfig.from_pretrained(models.source("miniature-llama"))
    mistral = AutoConfig.from_pretrained(models.source("miniature-mistral"))
    assert (llama.model_type, mistral.model_type) == ("llama", "mistral")
    assert mistral.num_key_value_heads < mistral.num_attention_heads
    assert mistral.sliding_window == 128


def test_four_and_eight_bits_take_that_many_bits():
    """Bytes of one stored matrix: half a byte and one byte per weight."""
    for config, stored in [
        (BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"), 0.5),
        (BitsAndBytesConfig(load_in_8bit=True), 1.0),
        (None, 4.0),
    ]:
        model = AutoModelForCausalLM.from_pretrained(
            models.source("miniature-llama"),
            dtype=torch.float32,
            quantization_config=config,
        )
        weight = model.model.layers[0].mlp.up_proj.weight
        weights = model.config.hidden_size * model.config.intermediate_size
        assert weight.nelement() * weight.element_size() == stored * weights


def test_an_adapter_must_exist_and_fit_its_base(tmp_path):
    with pytest.raises(ParameterError, match="adapters: got .*no adapter_config.json"):
        models.check_adapter(tmp_path, "mistral-7b")
    config = {"base_model_name_or_path": "mistralai/Mistral-7B-v0.1"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ParameterError, match="adapters: .*no adapter_model.safetensor"):
        models.check_adapter(tmp_path, "mistral-7b")
    (tmp_path / "adapter_model.safetensors").touch()
    assert models.check_adapter(tmp_path, "mistral-7b") == tmp_path
    with pytest.raises(ParameterError, match="trained on mistralai.*llama-2-7b"):
        models.check_adapter(tmp_path, "llama-2-7b")


def test_on_a_cpu_the_compute_dtype_is_float32():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert models.compute_dtype() == torch.float32


@pytest.fixture
def driver(tmp_path, monkeypatch) -> None:
    """Put an NVIDIA driver beside a torch that cannot use it, as an old one is."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 535.104.05\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("look", [training.machine, lambda: evaluation.loading([])])
def test_no_run_goes_to_the_cpu_beside_a_gpu_that_torch_cannot_use(look, monkeypatch):
    with pytest.raises(ParameterError, match=r"driver 535\.104\.05 .* CUDA") as error:
        look()
    assert "\n" not in str(error.value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    look()


def test_evaluating_a_four_bit_model_does_not_change_how_it_trains():
    """On some CPUs bitsandbytes repacks weights in eval mode; the kit prevents it."""
    tokens = torch.tensor([[1, 300, 400, 500]])
    gradients = []
    for evaluated in (False, True):
        model = AutoModelForCausalLM.from_pretrained(
            models.source("miniature-llama"),
            dtype=torch.float32,
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32
            ),
        )
        models.disable_cpu_repacking(model)
        if evaluated:
            with torch.no_grad():
                model.eval()(tokens)
        embedded = model.get_input_embeddings()(tokens).detach().requires_grad_()
        model.train()(inputs_embeds=embedded).logits.square().sum().backward()
        gradients.append(embedded.grad)
    assert torch.equal(*gradients)


def test_8_bit_products_do_not_fill_the_notebook(caplog):
    model = AutoModelForCausalLM.from_pretrained(
        models.source("miniature-llama"),
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(load_in_8bit=True),
    )
    with torch.no_grad():
        model(torch.tensor([[1, 300, 400]]))
    assert "inputs will be cast" not in caplog.text


def test_a_folder_with_nothing_but_a_sentencepiece_model_tokenizes_as_it_does(tmp_path):
    """Transformers' own choice would drop the begin token and the leading blank."""
    sentences = ["a man walks home", "two men walk", "Mtu anatembea nyumbani"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(tmp_path / "tokenizer"),
        model_type="bpe",
        vocab_size=320,
        hard_vocab_limit=False,
        byte_fallback=True,
        normalization_rule_name="identity",  # as Llama's
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    own = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model"))
    tokenizer = models.load_tokenizer(str(tmp_path))
    for text in ("a man walks", "### Response:\nMtu wa home\n"):
        begin, *ids = tokenizer(text)["input_ids"]
        assert begin == own.bos_id()
        assert ids == own.encode(text)
