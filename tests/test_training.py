"""Plans that fit the device, checkpoints to be trusted, what the libraries do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import sentencepiece
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    TrainerCallback,
)
from trl import SFTConfig, SFTTrainer

from maple_utils import forecast, instructions, models, training
from maple_utils.errors import ParameterError
from maple_utils.training import Machine, checkpoints, meters, trial

T4 = Machine(1, 15e9, 16e9, name="Tesla T4")
A100 = Machine(1, 79e9, 85e9, bfloat16=True, name="A100")
LAPTOP = Machine(0, 8e9, 16e9)


def asked(**changes) -> SimpleNamespace:
    usual = {
        "base_model": "llama-2-7b",
        "bits": 4,
        "rank": 16,
        "batch_size": 128,
        "micro_batch": 0,
        "max_length": 0,
        "packing": True,
        "report_to": "none",
        **dict.fromkeys(
            ("dtype", "attn_implementation", "optimizer", "gradient_checkpointing"),
            "auto",
        ),
    }
    return SimpleNamespace(**usual | changes)


def test_each_device_gets_what_it_can_do():
    t4, a100 = (training.plan(asked(), found) for found in (T4, A100))
    assert (t4.dtype, t4.attn_implementation) == (torch.float16, "sdpa")
    assert t4.max_length == 512
    assert (a100.dtype, a100.max_length) == (torch.bfloat16, 1024)
    assert a100.micro_batch * a100.max_length > t4.micro_batch * t4.max_length
    assert t4.gradient_checkpointing and t4.optimizer == "paged_adamw_8bit"  # noqa: PT018
    flash = Machine(1, 79e9, 85e9, bfloat16=True, flash=True)
    assert training.plan(asked(), flash).attn_implementation == "flash_attention_2"
    laptop = training.plan(asked(base_model="miniature-llama"), LAPTOP)
    assert (laptop.dtype, laptop.optimizer) == (torch.float32, "adamw_torch")
    assert not laptop.gradient_checkpointing


def test_passes_are_short_where_attention_has_a_dense_mask():
    """8,192 tokens end to end would be a mask of 67 million places in each layer."""
    flash = Machine(1, 79e9, 85e9, bfloat16=True, flash=True)
    plans = [training.plan(asked(), device) for device in (A100, flash)]
    assert [plan.micro_batch * plan.max_length for plan in plans] == [2048, 8192]
    assert training.plan(asked(micro_batch=8), A100).micro_batch == 8
    flex = training.plan(asked(attn_implementation="flex_attention"), A100)
    assert flex.micro_batch == 8


def test_every_choice_can_be_overridden():
    own = {"dtype": "float32", "attn_implementation": "eager"}
    own |= {"optimizer": "adamw_torch", "max_length": 256, "micro_batch": 3}
    plan = training.plan(asked(gradient_checkpointing="never", **own), A100)
    found = {name: getattr(plan, name) for name in own}
    assert found == own | {"dtype": torch.float32}
    assert not plan.gradient_checkpointing


def test_fewer_rows_go_through_where_memory_is_short():
    roomy = training.plan(asked(bits=16, max_length=1024), A100)
    tight = training.plan(asked(bits=16, max_length=1024), Machine(1, 17.3e9, 85e9))
    assert 0 < tight.micro_batch < roomy.micro_batch
    assert tight.needs <= 17.3e9


def test_another_process_does_not_change_the_data():
    """It holds a third of the card: fewer rows at a time, all of the same length."""
    alone, beside = (Machine(1, free, 25e9, bfloat16=True) for free in (24e9, 16e9))
    plans = [training.plan(asked(), device) for device in (alone, beside)]
    assert [plan.max_length for plan in plans] == [1024, 1024]
    assert len({plan.preset for plan in plans}) == 1


@pytest.mark.parametrize(
    ("changes", "found", "line"),
    [
        ({"bits": 16}, T4, "the nearest that fits: bits 8, rank 16"),
        ({"micro_batch": 64}, T4, r"micro_batch 64.* GB; allowed: the 15.0 GB .* T4; "),
        ({}, Machine(1, 2e9, 16e9), "no setting of it fits"),
        ({}, Machine(2, 79e9, 85e9), "CUDA_VISIBLE_DEVICES: this kernel sees 2 GPUs"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(changes, found, line):
    with pytest.raises(ParameterError, match=line) as error:
        training.plan(asked(**changes), found)
    assert "\n" not in str(error.value)


def test_what_triton_compiles_with_is_looked_for_before_anything(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "is_triton_available", lambda: True)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ParameterError, match="CC: no C compiler is here; allowed: gcc"):
        training.plan(asked(), A100)
    (tmp_path / "gcc").touch(0o755)
    monkeypatch.setattr(training.sysconfig, "get_path", lambda kind: str(tmp_path))
    with pytest.raises(ParameterError, match=r"CC: no \S+/Python\.h is here; allowed"):
        training.plan(asked(), A100)
    (tmp_path / "Python.h").touch()
    assert training.plan(asked(), A100).dtype == torch.bfloat16


def test_the_estimate_holds_the_published_orders_of_size():
    """QLoRA's paper and Qwen's table: 7B at 4 bits and length 1,024 takes 12.3 GB.

    That is Qwen's, with a vocabulary of 152,000: 2.2 GB more of embeddings.
    """
    shape = forecast.shape_of("llama-2-7b")
    one = forecast.TrainingLoad(
        4, 64, micro_batch=1, max_length=1024, gradient_checkpointing=True
    )
    assert 6e9 < forecast.training_bytes(shape, one) < 12.3e9


def test_activations_are_forecast_with_what_dropout_keeps():
    """Every tensor that a pass of a random model saves, on this CPU."""
    size = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=50, **size, **heads)).model
    lora = LoraConfig(r=2, target_modules="all-linear", lora_dropout=0.05)
    model = get_peft_model(base, lora).train()
    held = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(torch.ones(1, 200, dtype=torch.long)).last_hidden_state
    assert output.requires_grad
    shape = forecast.Shape(3, hidden=256, inner=704, queries=256, kv=128, vocab=50)
    load = forecast.TrainingLoad(16, 2, 1, 200, False, width=4, on_cpu=True)
    assert forecast.activation_bytes(shape, load) == pytest.approx(
        sum(saved.values()), rel=0.1
    )


def test_the_peak_on_a_cpu_is_forgotten():
    torch.ones(2**26).sum()  # 256 MiB, given back at once
    high = models.peak_memory()
    models.forget_peak_memory()
    assert models.peak_memory() < high - 2**27


def test_a_step_sees_the_same_number_of_examples_packed_or_not():
    plan = training.plan(asked(), A100)
    mean = 256.0
    packed, at_once = training.rows_per_step(asked(), plan, mean)
    assert packed * plan.max_length / mean == 128
    assert packed % at_once == 0
    open_rows = asked(packing=False)
    rows, at_once = training.rows_per_step(open_rows, plan, mean)
    assert (rows, at_once) == (128, plan.micro_batch * plan.max_length / mean)
    own = asked(packing=False, micro_batch=5)
    rows, at_once = training.rows_per_step(own, training.plan(own, A100), mean)
    assert (rows, at_once) == (128, 4)  # what divides the step
    few = training.rows_per_step(asked(batch_size=4), plan, mean)
    assert few == (1, 1)


def test_rows_that_fit_are_counted_by_language():
    lengths = pd.DataFrame({"language": ["sw", "sw", "en"], "tokens": [60, 20, 10]})
    counts = training.count_fitting(lengths, 20)
    assert counts.to_dict() == {
        "rows": {"en": 1, "sw": 1},
        "too_long": {"en": 0, "sw": 1},
    }
    with pytest.raises(ParameterError, match="got 15, which no row of sw fits; .* 20,"):
        training.count_fitting(lengths, 15)


def test_processes_share_a_step_evenly():
    run = asked(packing=False, batch_size=24, micro_batch=8)
    plan = training.plan(run, A100)
    shares = {n: training.rows_per_step(run, plan, 256.0, n) for n in (1, 2, 6)}
    assert shares == {1: (24, 8), 2: (12, 6), 6: (4, 4)}
    with pytest.raises(ParameterError, match="a multiple of the 5 processes"):
        training.rows_per_step(run, plan, 256.0, 5)


def test_many_rows_are_tokenized_on_all_cores(monkeypatch):
    cores = set(range(16))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores, raising=False)
    found = [training.tokenizing_processes(n) for n in (900, 100_000, 1_470_000)]
    assert found == [None, 5, 16]


def test_a_checkpoint_cut_short_is_passed_over(tmp_path):
    def state(step: int, text: str = "") -> Path:
        state = {"global_step": step, "max_steps": 11, "epoch": step / 12}
        (tmp_path / f"checkpoint-{step}").mkdir()
        path = tmp_path / f"checkpoint-{step}" / "trainer_state.json"
        path.write_text(text or json.dumps(state))
        return path.parent

    state(2)
    state(10, '{"global_st')
    (tmp_path / "checkpoint-9").mkdir()
    torn = state(8)
    torch.save([1.0] * 1000, torn / "optimizer.pt")
    assert checkpoints.last(tmp_path) == str(torn)
    (torn / "optimizer.pt").write_bytes((torn / "optimizer.pt").read_bytes()[:-100])
    assert checkpoints.last(tmp_path) == str(tmp_path / "checkpoint-2")
    assert checkpoints.last(tmp_path / "nowhere") is None


def test_checkpoints_are_minutes_apart_and_the_last_step_has_one(tmp_path, monkeypatch):
    """Each step takes 25 minutes here: what a kill costs is time, not a share."""
    now = iter(range(0, 10**6, 25 * 60))
    trainer = trainer_of(tmp_path, max_steps=7)
    trainer.add_callback(checkpoints.Clock(30))
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(checkpoints, "time", clock)
    real = trainer.compute_loss

    def step(*args, **kwargs):
        clock.now = next(now)
        return real(*args, **kwargs)

    trainer.compute_loss = step
    trainer.train()
    written = sorted(map(checkpoints.step_of, tmp_path.glob("checkpoint-*")))
    assert written == [3, 5, 7]


@pytest.mark.parametrize("steps", [2, 3])
def test_a_run_killed_after_its_last_step_trains_no_step_more(steps, tmp_path):
    """Three steps are an epoch; two end within one, where a step would be added."""
    often = {"save_strategy": "steps", "save_steps": 1, "max_steps": steps}
    ended = trainer_of(tmp_path, **often)
    ended.train()
    again = trainer_of(tmp_path, **often)
    again.train(resume_from_checkpoint=checkpoints.last(tmp_path))
    assert again.state.global_step == steps
    pairs = zip(ended.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_other_parameters_or_data_find_no_checkpoint(tmp_path):
    def folder(data="a", found=A100, processes=1, **changes):
        run = asked(**changes)
        plan = training.plan(run, found)
        return checkpoints.folder_of(tmp_path, vars(run), vars(plan), data, processes)

    assert folder() == folder(micro_batch=4) == folder(tasks=["xcopa"])
    others = [folder(rank=8), folder(data="b"), folder(bits=8)]
    others += [folder(found=T4), folder(processes=2)]  # shorter rows; other shares
    assert len({folder(), *others}) == 6


# What the libraries really do, on the tiny models.

ROWS = [
    ("Say one.\n", "One, and then some more of it."),
    ("Sema mbili.\n", "Mbili."),
    ("Name the capital of a country far away.\n", "It is a long name, they say."),
    ("Count to nine.\n", "1 2 3 4 5 6 7 8 9, and that is all."),
] * 6


def trainer_of(
    tmp_path, name="miniature-llama", bits=16, dropout=0.0, **settings
) -> SFTTrainer:
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    config = {16: None, 8: BitsAndBytesConfig(load_in_8bit=True), 4: config}[bits]
    torch.manual_seed(0)
    source = models.source(name)
    base = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, quantization_config=config
    )
    models.disable_cpu_repacking(base)
    lora = LoraConfig(
        r=4, target_modules="all-linear", lora_dropout=dropout, init_lora_weights=False
    )
    usual = {"bf16": False, "activation_checkpointing": False, "report_to": "none"}
    usual |= {"max_length": 512, "disable_tqdm": True, "save_strategy": "no", "seed": 0}
    return SFTTrainer(
        model=get_peft_model(base, lora),
        args=SFTConfig(str(tmp_path), **usual | settings),
        train_dataset=Dataset.from_list(
            [{"prompt": prompt, "completion": said} for prompt, said in ROWS]
        ),
        processing_class=AutoTokenizer.from_pretrained(source),
    )


def log_probs(trainer: SFTTrainer, rows: list[dict]) -> torch.Tensor:
    with torch.no_grad():
        batch = trainer.data_collator(rows)
        labels = batch.pop("labels")[:, 1:]
        logits = trainer.model(**batch, use_cache=False).logits[:, :-1]
        found = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])
    return found[labels != -100].flatten()


@pytest.mark.parametrize("name", ["miniature-llama", "miniature-mistral"])
def test_packed_examples_do_not_see_each_other(name, tmp_path):
    """Also over Mistral's sliding window: the packed row is longer than its 128."""
    alone = trainer_of(tmp_path, name)
    packed = trainer_of(tmp_path, name, packing=True, per_device_train_batch_size=1)
    row = packed.train_dataset[0]
    assert len(row["seq_lengths"]) > 5
    assert sum(row["seq_lengths"]) > 128
    together = log_probs(packed, [row])
    by_ids = {tuple(r["input_ids"]): r for r in alone.train_dataset}
    parts, start = [], 0
    for length in row["seq_lengths"]:
        ids = tuple(row["input_ids"][start : start + length])
        parts.append(log_probs(alone, [by_ids[ids]]))
        start += length
    assert torch.allclose(together, torch.cat(parts), atol=1e-4)


@pytest.mark.parametrize("name", ["miniature-llama", "miniature-mistral"])
def test_rows_end_to_end_do_not_see_each_other(name, tmp_path):
    alone = trainer_of(tmp_path, name)
    free = trainer_of(tmp_path, name, padding_free=True, max_length=None)
    rows = list(free.train_dataset)
    batch = free.data_collator(rows)
    assert len(batch["input_ids"]) == 1
    assert batch["input_ids"].numel() == sum(len(row["input_ids"]) for row in rows)
    parts = [log_probs(alone, [row]) for row in rows]
    assert torch.allclose(log_probs(free, rows), torch.cat(parts), atol=1e-4)


def test_the_logits_of_the_responses_suffice(tmp_path, monkeypatch):
    from trl.trainer import utils

    trainer = trainer_of(tmp_path, padding_free=True, max_length=None)
    scored = []
    rows = [trainer.train_dataset[place] for place in range(3)]
    apply = utils._ChunkedLogProbFunction.apply

    def counted(hidden, *args):
        scored.append(len(hidden))
        return apply(hidden, *args)

    def gradients() -> list[torch.Tensor]:
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, trainer.data_collator(rows)).backward()
        return [p.grad for p in trainer.model.parameters() if p.requires_grad]

    monkeypatch.setattr(utils._ChunkedLogProbFunction, "apply", counted)
    # Another test of this process may have called it.
    monkeypatch.setattr(utils, "_use_triton", lambda device: False)
    of_all = gradients()
    training.score_responses_alone()
    torch.testing.assert_close(gradients(), of_all)
    labels = trainer.data_collator(rows)["labels"]
    assert scored == [labels.numel() - 1, (labels != -100).sum()]


def test_the_end_is_learned_and_padding_is_not(tmp_path):
    trainer = trainer_of(tmp_path)
    tokenizer = trainer.processing_class
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    batch = trainer.data_collator(list(trainer.train_dataset))
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        learned = labels[labels != -100]
        assert learned[-1] == tokenizer.eos_token_id
        assert (labels[ids == tokenizer.pad_token_id] == -100).all()


def test_a_tokenizer_that_pads_with_its_end_token_is_mended_or_refused():
    tokenizer = AutoTokenizer.from_pretrained(models.source("miniature-llama"))
    tokenizer.pad_token = tokenizer.eos_token
    assert training.pad_token(tokenizer) == tokenizer.unk_token
    tokenizer.unk_token = tokenizer.bos_token = None
    with pytest.raises(ParameterError, match="has only its end token '</s>' to pad"):
        training.pad_token(tokenizer)


@pytest.fixture(scope="session", params=["tiny", "llama-2", "mistral-v0.1"])
def sentencepiece_model(request, tmp_path_factory) -> Path:
    """Return a tokenizer.model: a tiny one made here, then real ones where present."""
    if request.param != "tiny":
        usual = Path(__file__).resolve().parents[2] / "shared" / "tokenizers"
        folder = Path(os.environ.get("MAPLE_SHARED_TOKENIZERS", usual))
        file = folder / f"{request.param}.model"
        if not file.is_file():
            pytest.skip(f"no {file} (set MAPLE_SHARED_TOKENIZERS)")
        return file
    file = tmp_path_factory.mktemp("sentencepiece") / "tiny.model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for row in ROWS for text in row]),
        model_prefix=str(file.with_suffix("")),
        model_type="bpe",
        vocab_size=320,
        byte_fallback=True,
        minloglevel=2,
    )
    return file


def test_a_tokenizer_that_has_only_a_tokenizer_model_loads(
    sentencepiece_model, tmp_path
):
    """As in Llama's first repositories: no tokenizer.json to read it from."""
    shutil.copy(sentencepiece_model, tmp_path / "tokenizer.model")
    about = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(about))
    LlamaConfig().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    plain = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))
    for text in ("Count to nine, they say.", "Habari za dunia: 世界"):
        ids = tokenizer(text)["input_ids"]
        assert ids == [plain.bos_id(), *plain.encode(text)]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert training.pad_token(tokenizer) == "<unk>"


# A CPU with bf16 units, as bitsandbytes sees it.
BF16_UNITS = """
import ctypes
load = ctypes.cdll.LoadLibrary
def load_with_bf16(name):
    library = load(name)
    library.has_avx512bf16_cpu = lambda: True
    return library
ctypes.cdll.LoadLibrary = load_with_bf16
"""


@pytest.mark.parametrize(
    ("command", "red"),
    [("import bitsandbytes", True), ("import maple_utils.training", False)],
)
def test_no_kernel_is_asked_of_the_hub(command, red):
    code = f"{BF16_UNITS}\n{command}\nimport bitsandbytes.nn as nn\nimport peft\n"
    code += "print(nn.Linear4bit(8, 8).support_avx512bf16_for_cpu)"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "True"  # bitsandbytes did take this for such a CPU
    assert ("Failed to load CPU gemm_4bit_forward" in ran.stderr) is red


def test_all_widths_start_with_almost_the_same_loss(tmp_path):
    losses = {}
    for bits in (4, 8, 16):
        trainer = trainer_of(tmp_path, bits=bits)
        found = log_probs(trainer, list(trainer.train_dataset))
        losses[bits] = -found.mean().item()
    assert losses[4] == pytest.approx(losses[16], rel=0.05)
    assert losses[8] == pytest.approx(losses[16], rel=0.05)


@pytest.mark.parametrize(("bits", "bound"), [(8, 0.15), (4, 0.6)])
def test_quantised_logits_stay_near_those_at_16_bits(bits, bound, tmp_path):
    """Root mean square over all logits, relative to their spread at 16 bits."""
    ids = torch.tensor([[1, 300, 400, 500, 600, 700]])
    with torch.no_grad():
        whole = trainer_of(tmp_path).model(ids).logits
        near = trainer_of(tmp_path, bits=bits).model(ids).logits
    assert (near - whole).square().mean().sqrt() < bound * whole.std()


def test_half_the_rows_at_a_time_train_the_same_adapter(tmp_path):
    states = []
    for micro_batch, accumulated in ((8, 1), (4, 2), (2, 4)):
        trainer = trainer_of(
            tmp_path,
            per_device_train_batch_size=micro_batch,
            gradient_accumulation_steps=accumulated,
            max_steps=3,
            learning_rate=1e-3,
        )
        trainer.train()
        weights = trainer.model.parameters()
        states.append(torch.cat([p.flatten() for p in weights if p.requires_grad]))
    assert torch.allclose(states[1], states[0], atol=1e-4)
    assert torch.allclose(states[2], states[0], atol=1e-4)


@pytest.mark.parametrize(("whole", "tries"), [(8, [8, 4, 2]), (15, [15, 5, 1])])
def test_out_of_memory_halves_the_rows_and_changes_nothing_else(whole, tries, tmp_path):
    trainer = trainer_of(tmp_path, per_device_train_batch_size=whole, dropout=0.1)
    real, tried = trainer.compute_loss, []

    def scarce(model, inputs):
        tried.append(len(inputs["input_ids"]))
        if tried[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(model, inputs)

    trainer.compute_loss = scarce
    before = torch.get_rng_state()
    weights = [p.clone() for p in trainer.model.parameters()]
    assert trial.largest_micro_batch(trainer) == tries[-1]
    assert tried == tries  # each divides the first, so that a step stays what it is
    assert torch.equal(before, torch.get_rng_state())
    after = list(trainer.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(weights, after, strict=True))
    assert not any(p.grad is not None for p in after)


def test_the_trial_recomputes_as_training_does_and_leaves_no_trace(tmp_path):
    """Trainer turns recomputing on in train() alone, which is after the trial."""
    settings = {"per_device_train_batch_size": 4, "max_steps": 1, "logging_steps": 1}
    trainer = trainer_of(tmp_path, activation_checkpointing=True, **settings)
    base = trainer.model.get_base_model()
    real, during = trainer.compute_loss, []

    def watched(*args, **kwargs):
        during.append(base.is_activation_checkpointing)
        return real(*args, **kwargs)

    trainer.compute_loss = watched
    trial.largest_micro_batch(trainer)
    trainer.train()
    assert during == [True, True]
    alone = trainer_of(tmp_path, activation_checkpointing=True, **settings)
    alone.train()
    logs = [t.state.log_history[0] for t in (trainer, alone)]
    keys = ("loss", "num_tokens", "entropy", "mean_token_accuracy")
    assert [logs[0][k] for k in keys] == [logs[1][k] for k in keys]


def test_processes_try_alone_and_take_the_least(tmp_path, monkeypatch):
    """One that ran out of memory would try again, and the others wait for it."""
    trainer = trainer_of(tmp_path, per_device_train_batch_size=8)
    monkeypatch.setattr(trial, "gather_object", lambda mine: [*mine, 2])
    during = []
    trainer.accelerator.gather = during.append
    assert trial.largest_micro_batch(trainer) == 2
    assert not during
    assert trainer.accelerator.gather_for_metrics.__name__ == "gather_for_metrics"


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path):
    trainer = trainer_of(tmp_path, per_device_train_batch_size=8)

    def broken(model, inputs):
        raise RuntimeError("shapes do not match")

    trainer.compute_loss = broken
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trial.largest_micro_batch(trainer)


def test_the_meter_counts_what_was_read(tmp_path):
    trainer = trainer_of(tmp_path, per_device_train_batch_size=4, num_train_epochs=1)
    meter = meters.Meter(trainer)
    trainer.train()
    cost = meter.cost("miniature-llama", rank=8, dtype=torch.float32)
    read = sum(len(row["input_ids"]) for row in trainer.train_dataset)
    assert cost["tokens"] == read
    assert cost["tokens_per_second"] == pytest.approx(read / meter.seconds, abs=0.1)
    assert 0.1 < cost["padding"] < 0.9
    assert 0 < cost["seconds"] < 60


def test_the_peak_is_that_of_the_steps(tmp_path, monkeypatch):
    """On a GPU: neither of what came before, nor of what is scored in between."""
    peak = {"now": 900}
    monkeypatch.setattr(models, "peak_memory", lambda: peak["now"])
    monkeypatch.setattr(models, "forget_peak_memory", lambda: peak.update(now=100))
    trainer = trainer_of(tmp_path, max_steps=2)
    real = trainer.compute_loss

    def step(*args, **kwargs):
        peak["now"] = max(peak["now"], 500)
        return real(*args, **kwargs)

    class Scores(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            peak["now"] = 700

    trainer.compute_loss = step
    meter = meters.Meter(trainer)
    trainer.add_callback(Scores())
    trainer.train()
    cost = meter.cost("miniature-llama", rank=8, dtype=torch.float32)
    assert cost["peak_memory_bytes"] == 500


def test_a_gpus_peak_is_what_tensors_held(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 9)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    assert models.peak_memory() == 7


def test_a_resumed_run_has_the_counts_of_the_whole(tmp_path):
    """Also one that was killed after its last step: there is none left to count."""
    costs = []
    last = tmp_path / "checkpoint-3"
    for resumed in (None, str(last)):
        often = {"max_steps": 3, "save_strategy": "steps", "save_steps": 1}
        trainer = trainer_of(tmp_path, **often)
        meter = meters.Meter(trainer)
        trainer.train(resume_from_checkpoint=resumed)
        costs.append(meter.cost("miniature-llama", rank=8, dtype=torch.float32))
    assert costs[1]["tokens"] == costs[0]["tokens"]
    assert costs[1]["seconds"] == costs[0]["seconds"]


def test_held_out_rows_are_scored_between_steps_and_change_nothing(tmp_path):
    """Their numbers are in the log, and the loss is logged where it was due as well."""
    rows = [("en", *ROWS[0]), ("sw", *ROWS[1]), ("sw", *ROWS[2])]
    columns = ("language", "instruction", "output")
    heldout = [dict(zip(columns, row, strict=True), input="") for row in rows]
    steps = {"max_steps": 4, "logging_steps": 2, "eval_steps": 2}
    alone, watched = (trainer_of(tmp_path, **steps) for _ in range(2))
    looks = meters.HeldOut(watched, Dataset.from_list(heldout))
    watched.add_callback(looks)
    for trainer in (alone, watched):
        trainer.train()
    keys = ("step", "loss", "num_tokens", "entropy", "mean_token_accuracy")
    lines = [
        [[e[key] for key in keys] for e in trainer.state.log_history if "loss" in e]
        for trainer in (alone, watched)
    ]
    assert [step for step, *_ in lines[0]] == [2, 4]
    assert lines[0] == lines[1]
    _, seen = meters.curves(watched.state.log_history)
    assert seen["step"].tolist() == [0, 0, 2, 2, 4, 4]
    first = seen[seen["step"] == 0].set_index("language")["bits per byte"]
    assert first.to_dict() == looks.before.to_dict()
    last = seen[seen["step"] == 4].set_index("language")["bits per byte"]
    assert last.to_dict() == pytest.approx(looks.bits_per_byte().to_dict())


def test_bits_per_byte_are_those_of_the_models_own_loss(tmp_path):
    """The line break before the response is scored with it, as lm-eval does."""
    trainer = trainer_of(tmp_path)
    instruction, said = "Sema mbili.", "Mbili, ndiyo."
    row = {"language": "sw", "instruction": instruction, "input": "", "output": said}
    heldout = Dataset.from_list([row])
    found = meters.heldout_bits(trainer.model, trainer.processing_class, heldout)
    prompt = instructions.prompt_text(instruction)
    texts = [prompt.rstrip(), prompt + said]
    start, whole = trainer.processing_class(texts)["input_ids"]
    with torch.no_grad():
        logits = trainer.model.eval()(torch.tensor([whole])).logits[0].log_softmax(-1)
    targets = torch.tensor(whole[len(start) :])
    nats = -logits[len(start) - 1 : -1].gather(1, targets[:, None]).sum().item()
    assert found["nats"].tolist() == pytest.approx([nats], rel=1e-4)
    assert found[["language", "bytes"]].values.tolist() == [["sw", 13]]


def test_curves_come_from_the_trainers_log():
    log = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "heldout_sw": 1.5, "heldout_en": 1.0},
        {"step": 2, "train_runtime": 3.0},
    ]
    loss, heldout = meters.curves(json.loads(json.dumps(log)))
    assert loss.to_dict("list") == {"step": [1], "loss": [2.0]}
    assert heldout["language"].tolist() == ["sw", "en"]
    assert heldout["bits per byte"].tolist() == [1.5, 1.0]
