"""Models of random weights, at the shapes of the 7B models, go through 02 and 03.

`pytest -m slow tests/test_true_shape.py` takes minutes, 16 GB of disk and 12 GB of
memory. The usual tests have a small shape, so that what this file does keeps working.
"""

import json
import shutil
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from peft import PeftConfig
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, MistralConfig

from maple_utils import forecast, models
from tests.notebooks.running import run, run_here

SHAPES = {
    "llama-2-7b": LlamaConfig(),  # the defaults are its sizes
    "mistral-7b": MistralConfig(max_position_embeddings=32768),  # likewise
    "small": LlamaConfig(
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
}
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in SHAPES if "7b" in name]
BESIDE = 1e9  # bytes of memory for the system, and for this process
SMALL_FILES = 1e9  # bytes of disk besides the weights
TRAINED = {
    "instruction_data": "bactrian-x-mini",
    "languages": "en,sw",
    "tasks": "xcopa",
    "rank": 8,
    "bits": 4,
    "train_limit": 8,
    "heldout": 1,
    "max_steps": 2,  # the first warms up, at a rate of 0
    "batch_size": 2,
    "packing": True,  # so that a row is as long as the forecast takes it to be
    "max_length": 128,
    "gradient_checkpointing": "never",  # what takes the most memory
}
ASKED = {
    "tasks": "xcopa",
    "languages": "sw",
    "shots": 1,
    "test_limit": 2,
    "max_new_tokens": 4,  # a token takes eight seconds
}


def write_random(config: LlamaConfig | MistralConfig, folder: Path) -> None:
    """Write a model of random bfloat16 weights: a file per block, and one of the rest.

    Only one block is in memory at a time. The tokenizer is the miniature's.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    files: dict[str, dict[str, torch.Size]] = {}
    for name, tensor in model.state_dict().items():
        block = name.split(".")[2] if ".layers." in name else "rest"
        files.setdefault(f"model-{block}.safetensors", {})[name] = tensor.shape
    for seed, (file, shapes) in enumerate(files.items()):
        chance = torch.Generator().manual_seed(seed)
        weights = {name: random(shape, chance) for name, shape in shapes.items()}
        save_file(weights, folder / file, {"format": "pt"})
    where = {name: file for file, shapes in files.items() for name in shapes}
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(models.source("miniature-llama")) / name, folder)


def random(shape: torch.Size, chance: torch.Generator) -> torch.Tensor:
    """Return weights as a fresh model has them: norms of 1, the others near 0."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=chance)


def check_there_is_room(config: LlamaConfig | MistralConfig, folder: Path) -> None:
    """Skip the test where the disk or the memory would not suffice."""
    config.save_pretrained(folder)
    shape = forecast.shape_of(str(folder))
    disk = forecast.stored(shape, bits=16) + SMALL_FILES
    load = forecast.TrainingLoad(4, 8, 1, 128, False, width=4, on_cpu=True)
    needed = forecast.training_bytes(shape, load) + BESIDE
    for what, there, least in (
        ("of memory", psutil.virtual_memory().available, needed),
        (f"of disk at {folder}", shutil.disk_usage(folder).free, disk),
    ):
        if there < least:
            pytest.skip(
                f"{there / 1e9:.0f} GB {what} are free, {least / 1e9:.0f} needed"
            )


def execute(name: str, out: Path, given: dict) -> None:
    """Run a notebook; at a true shape in a process whose memory is the run's own."""
    if Path(given["base_model"]).name == "small":
        run_here(name, given)
    else:
        run(name, out, given)


@pytest.fixture(scope="module", params=[*SLOW, "small"])
def trained(request, tmp_path_factory) -> tuple[Path, dict[str, object]]:
    """Return where 02 has put an adapter, and the parameters that 03 needs."""
    folder = tmp_path_factory.mktemp(request.param)
    base = folder / request.param
    base.mkdir()
    check_there_is_room(SHAPES[request.param], base)
    write_random(SHAPES[request.param], base)
    cell = {"base_model": str(base), "output_dir": str(folder / "cell")}
    execute("02_train", folder, TRAINED | cell)
    names = ("instruction_data", "rank", "bits")
    yield folder / "cell", cell | {name: TRAINED[name] for name in names}
    shutil.rmtree(base)  # before the next is written


@pytest.mark.parametrize(
    ("name", "window"), [("llama-2-7b", None), ("mistral-7b", 4096)]
)
def test_the_shape_is_that_of_the_named_model(name, window, tmp_path):
    SHAPES[name].save_pretrained(tmp_path)
    assert forecast.shape_of(str(tmp_path)) == forecast.shape_of(name)
    config = AutoConfig.from_pretrained(tmp_path)
    assert getattr(config, "sliding_window", None) == window


def test_two_steps_write_an_adapter_and_a_record(trained):
    folder, given = trained
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    shape = forecast.shape_of(given["base_model"])
    assert sum(tensor.numel() for tensor in weights.values()) == shape.adapter(8)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    moved = [t.any() for name, t in weights.items() if "lora_B" in name]  # from 0
    assert len(moved) == 7 * shape.layers
    assert all(moved)
    assert PeftConfig.from_pretrained(folder / "adapter").r == 8
    record = json.loads((folder / "train.json").read_text())
    assert record["trainable_parameters"] == shape.adapter(8)
    losses = [e["loss"] for e in record["train"]["curve"] if "loss" in e]
    assert 9 < losses[0] < 13  # that of a guess among 32,000 tokens is 10.4
    assert set(record["heldout_bits_per_byte"]) == {"en", "sw"}


@pytest.mark.parametrize("trained", SLOW, indirect=True)
def test_memory_stays_near_the_forecast(trained):
    record = json.loads((trained[0] / "train.json").read_text())
    took, needs = record["train"]["peak_memory_bytes"], float(record["plan"]["needs"])
    assert 0.6 * needs < took < 1.1 * needs


def test_the_adapter_is_evaluated_over_its_base(trained):
    folder, given = trained
    execute("03_evaluate", folder.parent, given | ASKED)
    scores = pd.read_parquet(folder / "scores.parquet")
    assert set(scores["scoring"]) == {"likelihood", "generate"}
    tested = scores[scores["task"] == "xcopa"]
    assert set(tested["n"]) == {ASKED["test_limit"]}
    assert tested["value"].between(0, 1).all()
