"""Time the settings of notebook 02 against TRL's defaults, on the same rows.

    python benchmarks/training.py
    python benchmarks/training.py --hub_root FOLDER --data alpaca-sample --bits 4 16
    python benchmarks/training.py --base_model FOLDER --dtype auto bfloat16
    python benchmarks/training.py --shape 7b --bits 4 8 16 --rank 8 128  # on a GPU

Useful tokens (no padding) per second of the optimiser's steps, and on a CPU per second
that processors worked, which other programs disturb less; the share of the FLOP/s that
the device reaches in a plain matrix product; the peak memory; medians of `--repeats`
runs, the two sides in turn. On a CPU the peak is the whole process's. `roof` is the
rate if matrix products in the kit's dtype, nothing recomputed, took all of the time.
TRL's defaults are its SFTConfig() but for `use_cpu`, without which it refuses a CPU,
and for the dtype, which is the kit's: its own is bfloat16, slow where the processor has
no units for it. `--shape 7b` takes random weights in the shape of Llama-2-7B, bfloat16.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product
from statistics import mean, median
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
)
from trl import SFTConfig, SFTTrainer
from trl.trainer import utils

from maple_utils import forecast, instructions, miniature, models, training
from maple_utils.training import meters

BATCH = 16  # examples per step of the kit; TRL's defaults have 8
SCORES_ALL = utils._use_triton  # before `training.score_responses_alone`


def rows_of(
    given: argparse.Namespace, tokenizer, longest: int
) -> tuple[Dataset, float]:
    """Return prompts and completions of at most `longest` tokens, and their mean."""
    data = instructions.load(given.data, hub_root=miniature.hub_root(given.hub_root))
    data = instructions.cap(data, given.rows)
    prompts = map(instructions.prompt_text, data["instruction"], data["input"])
    pairs = zip(prompts, data["output"], strict=True)
    rows = [{"prompt": prompt, "completion": said} for prompt, said in pairs]
    texts = (row["prompt"] + row["completion"] for row in rows)
    lengths = [len(tokenizer(text)["input_ids"]) + 1 for text in texts]
    kept = [(row, n) for row, n in zip(rows, lengths, strict=True) if n <= longest]
    return Dataset.from_list([row for row, _ in kept]), mean(n for _, n in kept)


def load(source: str, bits: int, rank: int, plan: training.Plan) -> torch.nn.Module:
    """Return the base model with a fresh adapter."""
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=plan.dtype,
    )
    config = {4: nf4, 8: BitsAndBytesConfig(load_in_8bit=True), 16: None}[bits]
    base = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=plan.dtype,
        quantization_config=config,
        attn_implementation=plan.attn_implementation,
        device_map={"": 0} if torch.cuda.is_available() else None,
    )
    models.disable_cpu_repacking(base)
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return get_peft_model(base, lora)


def sides(plan: training.Plan, rows: int, at_once: int, packing: bool) -> dict:
    """Return the settings of either side; `rows` a step, `at_once` of them a pass."""
    both = {
        "use_cpu": not torch.cuda.is_available(),
        "bf16": plan.dtype == torch.bfloat16,
        "fp16": plan.dtype == torch.float16,
    }
    kit = both | {
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": rows // at_once,
        "padding_free": True,
        "packing": packing,
        "max_length": plan.max_length if packing else None,
        "optim": plan.optimizer,
        "activation_checkpointing": plan.gradient_checkpointing,
    }
    return {"TRL's defaults": both, "this kit": kit}


def measure(model, data, tokenizer, plan, settings, given, rank) -> dict[str, float]:
    """Train `--steps` steps at most, or one epoch, and return what it cost."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                folder,
                num_train_epochs=1,
                max_steps=given.steps,
                save_strategy="no",
                disable_tqdm=True,
                **settings,
            ),
            train_dataset=data,
            processing_class=tokenizer,
        )
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        meter = meters.Meter(trainer)
        ours = settings.get("padding_free")  # as 02 does, TRL does not
        utils._use_triton = SCORES_ALL
        if ours:
            training.score_responses_alone()
        began = time.process_time()
        with disable_input_dtype_casting(model) if ours else nullcontext():
            trainer.train()
        worked = time.process_time() - began
    cost = meter.cost(given.base_model, rank, plan.dtype)
    shape, responses = forecast.shape_of(given.base_model), meter.learned / meter.read
    flops = shape.flops(rank, False, responses)
    roof = meters.matrix_rate(plan.dtype) / flops
    return cost | {"per_processor_second": meter.read / worked, "roof": roof}


def compare(given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row per width, rank and side."""
    named = "miniature-llama" if given.shape == "7b" else given.base_model
    tokenizer = models.load_tokenizer(models.source(named))
    tokenizer.pad_token = training.pad_token(tokenizer)
    usual = dict.fromkeys(
        ("attn_implementation", "optimizer", "gradient_checkpointing"), "auto"
    )
    usual |= {"batch_size": BATCH, "micro_batch": 0, "max_length": 1024}
    usual |= {"packing": given.packing, "base_model": given.base_model}
    usual |= {"report_to": "none"}
    for bits, rank in product(given.bits, given.rank):
        both = {}  # a plan and settings, by side
        for dtype in given.dtype:
            run = SimpleNamespace(**usual, bits=bits, rank=rank, dtype=dtype)
            plan = training.plan(run, training.machine())
            data, mean_length = rows_of(given, tokenizer, plan.max_length)
            rows = training.rows_per_step(run, plan, mean_length)
            for side, settings in sides(plan, *rows, given.packing).items():
                both[f"{side}, {dtype}"] = (plan, settings)
        yield from compared(both, data, tokenizer, given, bits, rank)


def compared(both, data, tokenizer, given, bits, rank) -> Iterator[dict[str, Any]]:
    """Yield a row per side, the sides measured in turn."""
    found = {name: [] for name in both}
    for _ in range(given.repeats):
        for name, (plan, settings) in both.items():
            model = load(given.source, bits, rank, plan)
            arguments = (tokenizer, plan, settings, given, rank)
            found[name].append(measure(model, data, *arguments))
            del model  # before the next one is loaded
    for name, costs in found.items():
        keys = ["tokens_per_second", "padding", "flop_utilisation", "roof"]
        keys += [] if torch.cuda.is_available() else ["per_processor_second"]
        middle = {key: round(median(cost[key] for cost in costs), 3) for key in keys}
        most = max(cost["peak_memory_bytes"] for cost in costs)
        peak = f"{most / 2**30:.1f} GiB"
        yield {"bits": bits, "rank": rank, "side": name, **middle, "peak": peak}


def main() -> None:
    """Print a table, and where the random model of `--shape 7b` came from."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hub_root", default="miniature")
    parser.add_argument("--data", default="bactrian-x-mini")
    parser.add_argument("--rows", type=int, default=100, help="per language")
    parser.add_argument("--bits", type=int, nargs="+", default=[4])
    parser.add_argument("--rank", type=int, nargs="+", default=[8])
    parser.add_argument("--steps", type=int, default=-1, help="-1: one epoch")
    parser.add_argument("--packing", action="store_true", help="rows filled up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--base_model", default="miniature-llama")
    parser.add_argument("--dtype", nargs="+", default=["auto"], help="as in 02")
    parser.add_argument("--shape", choices=["miniature", "7b"], default="miniature")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given.source = ""
        if given.shape == "7b":
            given.base_model, given.source = "llama-2-7b", folder
            with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
                random = LlamaForCausalLM(LlamaConfig()).to(torch.bfloat16)
            random.save_pretrained(folder)
            del random
        given.source = given.source or models.source(given.base_model)
        table = pd.DataFrame(compare(given))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
