"""Training: what is learned, what is kept, what is refused."""

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import accelerate
import nbformat
import papermill
import pytest
import torch
import yaml
from datasets import Dataset
from nbclient.exceptions import DeadKernelError
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from maple_utils import grid, models, tasks
from maple_utils.errors import ParameterError
from maple_utils.training import trial
from tests.notebooks.running import ROOT, error_line, run, run_here

SMALL = {
    "train_limit": 12,
    "heldout": 3,
    "max_steps": 6,
    "languages": "en,sw",
    "rank": 4,
    "save_minutes": 0,
}

# What a test cannot see from the outside: every label, and the frozen weights.
FROZEN = """
import hashlib, json
from itertools import islice
def frozen():
    digest = hashlib.sha256()
    for name, parameter in trainer.model.named_parameters():
        if not parameter.requires_grad:
            digest.update(parameter.data.cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
probe = {"frozen": [frozen()], "rows": [], "dtypes": set()}
for row in trainer.train_dataset:
    pairs = iter(zip(row["input_ids"], row["labels"]))
    for length in row.get("seq_lengths", [len(row["input_ids"])]):
        ids, labels = zip(*islice(pairs, length))
        learned = [i for i, l in zip(ids, labels) if l != -100]
        probe["rows"].append((tokenizer.decode(ids), tokenizer.decode(learned)))
probe["rows_asked"] = [(r["prompt"], r["completion"]) for r in examples]
"""
DUMP = """
probe["frozen"].append(frozen())
probe["dtypes"] = sorted({str(p.dtype) for p in model.parameters() if p.requires_grad})
(output / "probe.json").write_text(json.dumps(probe))
"""


@pytest.fixture(scope="module", params=[4, 8, 16])
def trained(request, tmp_path_factory) -> tuple[Path, int]:
    out = tmp_path_factory.mktemp(f"bits{request.param}")
    parameters = {**SMALL, "bits": request.param, "output_dir": str(out / "cell")}
    run("02_train", out, parameters, {"trainer.train(resume": FROZEN, "": DUMP})
    return out / "cell", request.param


def test_the_loss_is_on_the_response_and_its_end_token_only(trained):
    probe = json.loads((trained[0] / "probe.json").read_text())
    assert len(probe["rows"]) == 2 * SMALL["train_limit"]
    asked = {f"<s>{p}{c}</s>": f"{c}</s>" for p, c in probe["rows_asked"]}
    assert {whole: learned for whole, learned in probe["rows"]} == asked


def test_no_warning_is_shown(trained):
    """Progress bars go to stderr as well, where no widgets show them."""
    executed = nbformat.read(trained[0].parent / "02_train.out.ipynb", as_version=4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    red = [o["text"] for o in outputs if o.get("name") == "stderr"]
    assert not [t for t in red if "Warning" in t or "Failed to load" in t]


def test_an_answer_is_shown_before_and_after(trained):
    executed = nbformat.read(trained[0].parent / "02_train.out.ipynb", as_version=4)
    shown = [
        (place, output["data"]["text/plain"])
        for place, cell in enumerate(executed.cells)
        for output in cell.get("outputs", [])
        if "reference" in output.get("data", {}).get("text/plain", "")
    ]
    first, second = shown
    assert first[0] < len(executed.cells) / 3
    assert "before training" in first[1]
    assert "after training" not in first[1]
    assert "after training" in second[1]


def test_training_leaves_the_base_weights_alone(trained):
    before, after = json.loads((trained[0] / "probe.json").read_text())["frozen"]
    assert before == after


def test_adapters_are_float32_at_every_width(trained):
    assert json.loads((trained[0] / "probe.json").read_text())["dtypes"] == [
        "torch.float32"
    ]


def test_lora_adds_the_expected_number_of_parameters(trained):
    folder, _ = trained
    base = AutoModelForCausalLM.from_pretrained(models.source("miniature-llama"))
    linear = [
        m
        for name, m in base.named_modules()
        if isinstance(m, torch.nn.Linear) and "lm_head" not in name
    ]
    expected = SMALL["rank"] * sum(m.in_features + m.out_features for m in linear)
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    record = json.loads((folder / "train.json").read_text())
    assert sum(tensor.numel() for tensor in weights.values()) == expected
    assert record["trainable_parameters"] == expected


def test_the_adapter_loads_into_its_base_and_changes_it(trained):
    base = AutoModelForCausalLM.from_pretrained(models.source("miniature-llama"))
    tokens = torch.tensor([[1, 300, 400, 500]])
    with torch.no_grad():
        plain = base(tokens).logits
        adapted = PeftModel.from_pretrained(base, trained[0] / "adapter")(tokens).logits
    assert not torch.equal(plain, adapted)


def test_the_record_says_how_it_was_made(trained):
    folder, bits = trained
    record = json.loads((folder / "train.json").read_text())
    assert record["parameters"]["bits"] == bits
    assert record["parameters"]["languages"] == ["en", "sw"]
    assert record["cell"] == f"miniature-llama_bactrian-x-mini_r4_{bits}bit"
    assert record["versions"]["trl"]
    assert len(record["data"]["fingerprint"]) == 64
    assert record["data"]["rows"] == {
        "en": SMALL["train_limit"],
        "sw": SMALL["train_limit"],
    }
    assert record["adapter_dtype"] == "torch.float32"
    assert record["plan"]["preset"] == "CPU"
    assert record["plan"]["dtype"] == "float32"
    assert record["plan"]["attn_implementation"] == "sdpa"
    assert record["train"]["tokens_per_second"] > 0
    assert record["train"]["padding"] == 0
    assert 0 < record["train"]["flop_utilisation"] < 1
    assert record["train"]["peak_memory_bytes"] > 2**26
    assert set(record["heldout_bits_per_byte"]) == {"en", "sw"}
    for change in record["heldout_bits_per_byte"].values():
        assert change["after"] < change["before"]


def test_the_record_says_how_much_of_the_tests_is_in_the_rows(trained):
    record = json.loads((trained[0] / "train.json").read_text())
    found = {(row["task"], row["language"]): row for row in record["overlap"]}
    assert {task for task, _ in found} == set(tasks.PAPER_TASKS)
    told = {"items": 160, "overlapping": 0, "share": 0.0, "too_short": 0, "note": ""}
    assert found["xquad", "hi"] == {"task": "xquad", "language": "hi", **told}


# As a node that is taken away: no handler runs, nothing is tidied up.
KILL = """
import os, signal
class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
trainer.add_callback(Kill())
"""


@pytest.mark.parametrize("trained", [4, 16], indirect=True)
def test_a_killed_run_resumes_and_ends_with_the_same_adapter(trained, tmp_path):
    folder, bits = trained
    parameters = {**SMALL, "bits": bits, "output_dir": str(tmp_path / "cell")}
    with pytest.raises(DeadKernelError):
        run("02_train", tmp_path, parameters, {"trainer.train(resume": KILL})
    assert not (tmp_path / "cell" / "train.json").exists()
    run_here("02_train", parameters)
    record = json.loads((tmp_path / "cell" / "train.json").read_text())
    assert record["resumed_from"] == 3
    name = Path("adapter") / "adapter_model.safetensors"
    whole, resumed = load_file(folder / name), load_file(tmp_path / "cell" / name)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    reference = json.loads((folder / "train.json").read_text())
    assert record["heldout_bits_per_byte"] == reference["heldout_bits_per_byte"]
    looks = [
        [entry for entry in ended["train"]["curve"] if "heldout_sw" in entry]
        for ended in (record, reference)
    ]
    assert looks[0] == looks[1] != []
    assert not (tmp_path / "cell" / "checkpoints").exists()


def test_others_can_load_the_adapter(trained):
    """What PEFT and vLLM look for; nothing in the folder has to be unpickled."""
    files = {path.name for path in (trained[0] / "adapter").iterdir()}
    assert files == {
        *("adapter_config.json", "adapter_model.safetensors"),
        *("tokenizer.json", "tokenizer_config.json", "README.md", "curves.png"),
    }
    config = json.loads((trained[0] / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "miniature-llama"
    assert (config["r"], config["lora_alpha"], config["bias"]) == (4, 8, "none")
    assert (config["modules_to_save"], config["use_dora"]) == (None, False)
    names = load_file(trained[0] / "adapter" / "adapter_model.safetensors")
    pattern = r"base_model\.model\.model\.layers\.\d\.\w+\.\w+_proj\.lora_[AB]\.weight"
    assert all(re.fullmatch(pattern, name) for name in names)
    card = (trained[0] / "adapter" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert (head["base_model"], head["library_name"]) == ("miniature-llama", "peft")
    assert head["language"] == ["en", "sw"]
    assert f"trained at {trained[1]} bits on 24 rows of bactrian-x-mini" in card
    assert "not evaluated yet" in card


def test_the_papers_settings_train_and_merge(tmp_path):
    """All of params/paper.yaml that does not name models, data or the hub."""
    settings = grid.read_grid(ROOT / "params" / "paper.yaml")[1]
    small = {
        "heldout": 3,
        "train_limit": 12,
        "languages": "en,sw",
        "hub_root": "miniature",
    }
    out = tmp_path / "cell"
    parameters = {**settings, **small, "bits": 16, "merge": True}
    run_here("02_train", parameters | {"output_dir": str(out)})
    record = json.loads((out / "train.json").read_text())
    assert record["parameters"]["batch_size"] == 128
    assert record["plan"]["max_length"] == "1024"
    assert record["plan"]["optimizer"] == "paged_adamw_8bit"
    load = partial(AutoModelForCausalLM.from_pretrained, dtype=torch.float32)
    tokens = torch.tensor([[1, 300, 400, 500]])
    with torch.no_grad():
        base = load(models.source("miniature-llama"))
        adapted = PeftModel.from_pretrained(base, out / "adapter")(tokens).logits
        merged = load(out / "merged")(tokens).logits
    assert torch.allclose(merged, adapted, atol=1e-3)


@pytest.mark.parametrize("trained", [4], indirect=True)  # the least predictable
def test_the_same_seed_makes_the_same_adapter(trained, tmp_path):
    folder, bits = trained
    parameters = {**SMALL, "bits": bits, "output_dir": str(tmp_path / "again")}
    run_here("02_train", parameters)
    name = Path("adapter") / "adapter_model.safetensors"
    first, second = load_file(folder / name), load_file(tmp_path / "again" / name)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Path:
    """Return a folder with instruction data that lack a column, or a response."""
    folder = tmp_path_factory.mktemp("faulty")
    row = {"id": "1", "language": "en", "instruction": "Say a.", "input": ""}
    for name, rows in {
        "no-output": [row],
        "empty": [row | {"output": "a"}, row | {"id": "2", "output": " "}],
    }.items():
        (folder / name).mkdir()
        Dataset.from_list(rows).to_parquet(folder / name / "train.parquet")
    return folder


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"rank": 0}, "rank: got 0; allowed: an integer from 1 to 1024"),
        ({"rank": "thirty-two"}, "rank: got 'thirty-two'; allowed: an integer"),
        ({"bits": 5}, "bits: got 5; allowed: one of 4, 8, 16"),
        ({"languages": "klingon"}, "languages: got 'klingon'"),
        ({"tasks": "xkopa"}, "tasks: got 'xkopa'; allowed: any of xcopa, belebele"),
        ({"rnak": 32}, "rnak: not a parameter of any notebook; did you mean rank?"),
        ({"base_model": "lama"}, "base_model: got 'lama'; allowed: miniature-llama"),
        ({"instruction_data": "FAULTY/no-output"}, "lacks output"),
        ({"instruction_data": "FAULTY/empty"}, "1 of 2 rows"),
        ({"instruction_data": "nowhere"}, "instruction_data: got 'nowhere'"),
        ({"output_dir": "/proc/nowhere"}, "output_dir: got '/proc/nowhere'"),
        (
            {"base_model": "llama-2-7b", "micro_batch": 64},
            "the nearest that fits: bits",
        ),
        ({"report_to": "trackio"}, "report_to: got 'trackio', which is not installed"),
        ({"push_to": "https://hub/x"}, "push_to: got 'https://hub/x'; allowed: text"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_ends_in_one_line_before_a_model_is_loaded(
    given, line, faulty, tmp_path, capsys
):
    given = {
        key: value.replace("FAULTY", str(faulty)) if isinstance(value, str) else value
        for key, value in given.items()
    }
    with pytest.raises(ParameterError) as error:
        run_here("02_train", {"output_dir": str(tmp_path / "cell"), **given})
    assert line in str(error.value)
    assert "\n" not in str(error.value)
    assert "MiB at" not in capsys.readouterr().out
    assert not (tmp_path / "cell").exists()


def test_papermill_ends_with_the_line(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as error:
        run("02_train", tmp_path, {"rank": 0})
    line = error_line(error.value)
    assert line.startswith("ParameterError: rank: got 0; allowed: an integer from 1")


def test_real_rows_train(shared_hub, tmp_path):
    """Rows that people wrote have other lengths and scripts than the miniature's."""
    parameters = {
        "instruction_data": "alpaca-sample",
        "hub_root": str(shared_hub),
        "train_limit": 20,
        "heldout": 4,
        "batch_size": 4,
        "epochs": 3.0,
        "tasks": "xquad,belebele",
        "output_dir": str(tmp_path / "cell"),
    }
    run_here("02_train", parameters)
    record = json.loads((tmp_path / "cell" / "train.json").read_text())
    found = {(row["task"], row["language"]): row for row in record["overlap"]}
    assert found["xquad", "zh"]["items"] == 1190
    assert found["belebele", ""]["note"] == "hub_root does not hold it"
    assert (tmp_path / "cell" / "adapter" / "adapter_model.safetensors").is_file()
    losses = [e["loss"] for e in record["train"]["curve"] if "loss" in e]
    assert losses[-1] < losses[0] - 0.5
    data = record["data"]
    there = {code: n + data["too_long"][code] for code, n in data["rows"].items()}
    assert there == {"en": 20, "zh": 20}
    assert set(record["heldout_bits_per_byte"]) == set(record["data"]["rows"])


# Which inputs of the quantised layers are still there once a pass has gone forwards.
KEPT = """
from torch.multiprocessing.reductions import StorageWeakRef
from bitsandbytes.nn import Linear8bitLt
inputs = []
def watch(layer, given):
    inputs.append(StorageWeakRef(given[0].untyped_storage()))
hooks = [layer.register_forward_pre_hook(watch)
    for layer in model.modules() if isinstance(layer, Linear8bitLt)]
trainer.model.train()
batch = trainer.data_collator([trainer.train_dataset[0]])
loss = trainer.compute_loss(model, batch)
kept = [not storage.expired() for storage in inputs]
[hook.remove() for hook in hooks]
loss.backward()
model.zero_grad()
del loss
"""


def test_recomputing_at_8_bits_frees_what_goes_into_the_layers(tmp_path):
    """LLM.int8 keeps it where non-reentrant recomputing cannot see it."""
    given = {**SMALL, "max_steps": 1, "bits": 8, "gradient_checkpointing": "always"}
    given |= {"tasks": "xcopa", "output_dir": str(tmp_path)}
    found = run_here("02_train", given, {"trainer.train(resume": KEPT})
    assert len(found["kept"]) > 10
    assert sum(found["kept"]) <= 1  # what goes into the first block
    assert found["sft_config"].ddp_find_unused_parameters is False


def test_others_wait_longer_than_the_first_process_tokenizes(tmp_path, monkeypatch):
    real, given = accelerate.PartialState, {}

    def state(**kwargs):
        given.update(kwargs)
        return real(**kwargs)

    monkeypatch.setattr(accelerate, "PartialState", state)
    with pytest.raises(ZeroDivisionError):
        run_here("02_train", {**SMALL, "tasks": "xcopa"}, {"set_seed(run.seed)": "1/0"})
    assert given["timeout"] > timedelta(hours=1)


def test_two_processes_train_what_one_trains(tmp_path, monkeypatch):
    """As the README has it: as a script, here under torchrun on two CPU processes.

    The one process is told that memory suffices for two rows at a time.
    """
    small = {"train_limit": 8, "heldout": 3, "max_steps": 3, "languages": "en,sw"}
    small |= {"bits": 16, "lora_dropout": 0.0}
    one, two = tmp_path / "one", tmp_path / "two"
    monkeypatch.setattr(trial, "largest_micro_batch", lambda trainer: 2)
    run_here("02_train", small | {"output_dir": str(one)})
    source = str(ROOT / "notebooks" / "02_train.ipynb")
    ready = str(tmp_path / "ready.ipynb")
    given = small | {"output_dir": str(two), "micro_batch": 4}
    papermill.execute_notebook(source, ready, given, prepare_only=True)
    programs = Path(sys.executable).parent
    script = [programs / "jupyter", "nbconvert", "--to", "python", ready]
    launch = [programs / "torchrun", "--nproc_per_node", "2", tmp_path / "ready.py"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    for command in (script, launch):
        subprocess.run(command, check=True, capture_output=True, env=environment)
    records = [json.loads((cell / "train.json").read_text()) for cell in (one, two)]
    assert [record["processes"] for record in records] == [1, 2]
    assert [record["train"]["micro_batch"] for record in records] == [2, 4]
    losses = [
        [e["loss"] for e in record["train"]["curve"] if "loss" in e]
        for record in records
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    name = Path("adapter") / "adapter_model.safetensors"
    first, second = load_file(one / name), load_file(two / name)
    assert all(torch.allclose(first[k], second[k], atol=1e-3) for k in first)
