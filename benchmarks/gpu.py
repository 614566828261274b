"""Measure the kit on this machine's GPU, in at most 25 minutes, without a hub.

    make gpu                                          # or: python -m benchmarks.gpu
    python -m benchmarks.gpu --shape small            # on any machine, in minutes
    python -m benchmarks.gpu --fit runs/gpu/NAME.json # the lines of forecast.yaml

A model of Llama-2-7B's shape with random weights is loaded at 4, 8 and 16 bits. At each
width: are the scoring engine's numbers those of a plain forward pass; how fast are
choices against lm-eval's HFLM and written answers against `model.generate` (and vLLM,
where it is installed); then training, by rank, attention and recomputing: tokens per
second, share of the matrix rate, peak memory. What runs out of memory or of time is
named. One JSON file and one Markdown table are written, by the machine's name.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from peft.helpers import disable_input_dtype_casting
from tqdm import tqdm
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available, logging
from trl import SFTConfig, SFTTrainer

from benchmarks import evaluation
from maple_utils import forecast, miniature, models, provenance, scoring
from maple_utils.forecast import Shape
from maple_utils.grid.estimate import UNPACK
from maple_utils.params import short_name, workspace
from maple_utils.training import meters

LENGTH = 1024  # tokens of a row that is trained on


@dataclass(frozen=True)
class Size:
    """How large a model is measured, and by how much work."""

    config: dict[str, int]
    ranks: tuple[int, ...]
    rows: int  # that are trained on at a time, of LENGTH tokens
    length: int
    steps: int
    questions: int
    new_tokens: int


SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
SIZES = {
    "7b": Size({"vocab_size": 32000}, (8, 128), 4, LENGTH, 3, 64, 64),
    "small": Size(
        SMALL | {"vocab_size": 9000, "num_attention_heads": 4},
        *((2,), 1, 64, 1, 4, 4),
    ),
}


def make_model(size: Size, folder: Path) -> evaluation.PreTrainedTokenizerFast:
    """Save a random model and a tokenizer for it; return that."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = LlamaConfig(**size.config, max_position_embeddings=4096)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 0, 1, 1
    torch.manual_seed(0)
    with torch.device(device):
        random = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    random.save_pretrained(folder)
    requests, prompts = texts(size)
    words = [context + "".join(options) for context, options in requests] + prompts
    tokenizer = evaluation.make_tokenizer(words)
    tokenizer.save_pretrained(folder)
    return tokenizer


def texts(size: Size) -> tuple[evaluation.Requests, list[str]]:
    """Return what is scored and what is continued: the miniature's questions."""
    hub = miniature.hub()
    ranked = evaluation.xcopa(hub, size.questions)
    return ranked, evaluation.xlsum(hub, size.questions // 2)


def exactness(model: PreTrainedModel, tokenizer, size: Size) -> dict[str, Any]:
    """Compare the engine with plain forward passes, and with `model.generate`."""
    requests, prompts = texts(size)
    few, texts_few = requests[:8], prompts[:4]
    ours = scoring.loglikelihoods(model, tokenizer, few)
    plain = [[_plain(model, tokenizer, c, o) for o in options] for c, options in few]
    pairs = list(zip(ours, plain, strict=True))
    new = {"max_new_tokens": size.new_tokens}
    wrote = scoring.generate(model, tokenizer, texts_few, **new)
    theirs = evaluation.plain_generate(model, tokenizer, texts_few, size.new_tokens, 1)
    same = sum(a.text == b for a, b in zip(wrote, theirs, strict=True))
    return {
        "nats apart": max(float(np.abs(a - np.array(b)).max()) for a, b in pairs),
        "same choices": sum(int(a.argmax() == np.argmax(b)) for a, b in pairs),
        "of": len(few),
        "same texts": same,
        "of texts": len(texts_few),
    }


def _plain(model: PreTrainedModel, tokenizer, context: str, option: str) -> float:
    start = len(tokenizer(context)["input_ids"])
    tokens = torch.tensor([tokenizer(context + option)["input_ids"]])
    with torch.inference_mode():
        logits = model(tokens.to(model.device)).logits[0, :-1].float().log_softmax(-1)
    own = logits.gather(1, tokens[0, 1:, None].to(model.device))[:, 0]
    return float(own[start - 1 :].sum())


def speed(model: PreTrainedModel, tokenizer, size: Size) -> Iterator[dict[str, Any]]:
    """Yield choices and written answers, against HFLM and `model.generate`."""
    requests, prompts = texts(size)
    found = evaluation.compare_scores(model, tokenizer, requests, repeats=1)
    yield {"what": "choices, 8 shots", "peer": "HFLM", **found}
    arguments = (prompts, size.new_tokens, 1)
    found = evaluation.compare_generation(model, tokenizer, *arguments)
    yield {"what": f"{size.new_tokens} tokens", "peer": "generate", **found}


def vllm_seconds(folder: Path, size: Size) -> dict[str, Any]:
    """Time vLLM on the same prompts, at 16 bits."""
    from vllm import LLM, SamplingParams

    _, prompts = texts(size)
    model = LLM(str(folder), gpu_memory_utilization=0.8)
    how = SamplingParams(temperature=0, max_tokens=size.new_tokens, stop=["\n"])
    model.generate(prompts[:2], how)
    began = time.perf_counter()
    model.generate(prompts, how)
    return {"what": f"{size.new_tokens} tokens", "vllm": time.perf_counter() - began}


def training(base: PreTrainedModel, tokenizer, size: Size, setting: dict) -> dict:
    """Train a few steps of full rows, and return what they cost."""
    base.set_attn_implementation(setting["attention"])
    rank, recompute = setting["rank"], setting["recompute"]
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    model = get_peft_model(base, lora)
    rows = [{"input_ids": [5 + i % 99 for i in range(size.length)]}] * 64
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            folder,
            max_steps=size.steps + 1,  # the first compiles and allocates
            per_device_train_batch_size=size.rows,
            gradient_accumulation_steps=2,
            padding_free=setting["attention"] != "eager",
            max_length=None,
            activation_checkpointing=recompute,
            activation_checkpointing_kwargs={"use_reentrant": setting["bits"] == 8},
            bf16=base.dtype == torch.bfloat16,
            use_cpu=not torch.cuda.is_available(),
            **{"save_strategy": "no", "disable_tqdm": True, "report_to": "none"},
        )
        data = Dataset.from_list(rows)
        trainer = SFTTrainer(
            model, config, train_dataset=data, processing_class=tokenizer
        )
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        meter = Later(trainer)
        with disable_input_dtype_casting(model):
            trainer.train()
    model.unload()
    return {"tokens_per_second": meter.read / meter.seconds, "peak_bytes": meter.peak}


class Later(meters.Meter):
    """A meter that leaves out the first step."""

    def on_step_end(self, args, state, control, **kwargs):
        """Count a step, and forget it if it was the first."""
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == 1:
            self.read = self.passed = self.peak = 0
            self.seconds = 0.0


def settings(size: Size) -> Iterator[dict[str, Any]]:
    """Yield what is trained at each width, the most wanted first."""
    kinds = ["sdpa"]
    if torch.cuda.is_available() and is_flash_attn_2_available():
        kinds = ["flash_attention_2", "sdpa"]
    for recompute, attention, rank in product((True, False), kinds, size.ranks):
        yield {"rank": rank, "attention": attention, "recompute": recompute}


def measure(size: Size, folder: Path, minutes: float) -> dict[str, Any]:
    """Return all that was measured before the time was up."""
    tokenizer = make_model(size, folder)
    until = time.monotonic() + 60 * minutes
    dtype = models.compute_dtype()
    rate = meters.matrix_rate(dtype)
    about = {"machine": models.device_name(), "dtype": str(dtype), "matrix rate": rate}
    about |= provenance.environment("gpu", models.device_name())
    found: dict[str, Any] = {**about, "shape": shape(folder).__dict__, "left out": []}
    found |= {"exactness": [], "speed": [], "training": []}

    def attempt(kind: str, names: dict[str, Any], run: Callable[[], Any]) -> None:
        if time.monotonic() > until:
            return found["left out"].append({**names, "kind": kind, "why": "time"})
        try:
            for row in run():
                found[kind].append(names | row)
        except torch.OutOfMemoryError:
            found["left out"].append({**names, "kind": kind, "why": "memory"})
        free()

    for bits in (4, 8, 16):
        model, _ = models.load(str(folder), bits, dtype)
        width, own = {"bits": bits}, (model, tokenizer, size)
        attempt("exactness", width, lambda own=own: [exactness(*own)])
        attempt("speed", width, lambda own=own: speed(*own))
        for setting in tqdm(list(settings(size)), desc=f"training at {bits} bits"):
            names = width | setting
            attempt("training", names, lambda o=own, n=names: [training(*o, n)])
        del model, own
        free()
    if torch.cuda.is_available() and find_spec("vllm"):
        attempt("speed", {"bits": 16}, lambda: [vllm_seconds(folder, size)])
    return found


def free() -> None:
    """Give memory back that nothing holds any more."""
    gc.collect()
    torch.cuda.empty_cache()


def shape(folder: Path) -> Shape:
    """Return the sizes of the model in a folder."""
    return forecast.shape_of(str(folder))


def report(found: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    parts = [f"## {found['machine']}, {found['dtype']}"]
    parts += [f"A matrix product reached {found['matrix rate'] / 1e12:.2f} TFLOP/s."]
    rate, sizes = found["matrix rate"], Shape(**found["shape"])
    for kind in ("exactness", "speed", "training", "left out"):
        table = pd.DataFrame(found[kind])
        if kind == "training" and len(table):
            flops = [sizes.flops(rank, False, 1) for rank in table["rank"]]
            table["of the matrix rate"] = table["tokens_per_second"] * flops / rate
            table["peak GB"] = table.pop("peak_bytes") / 1e9
        if len(table):
            parts += [f"### {kind}", markdown(table)]
    return "\n\n".join(parts) + "\n"


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, numbers to three digits."""
    cells = table.map(
        lambda value: f"{value:.3g}" if isinstance(value, float) else value
    )
    lines = [list(table), ["---"] * table.shape[1], *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def fit(found: dict[str, Any]) -> str:
    """Return a device's block for `forecast.yaml`: FLOP/s reached, by bits.

    Training: the median over settings, with what unpacking takes left out; reading: of
    the choices that were scored.
    """
    sizes, bandwidth = Shape(**found["shape"]), found["bandwidth"]
    train: dict[int, list[float]] = {4: [], 8: [], 16: []}
    for row in found["training"]:
        tokens = found["tokens per pass"]
        seconds = tokens / row["tokens_per_second"]
        if row["bits"] < 16:
            seconds -= 3 * sizes.linear * UNPACK / bandwidth
        flops = tokens * sizes.flops(row["rank"], row["recompute"], 1)
        train[row["bits"]].append(flops / seconds)
    ranked = [row for row in found["speed"] if "share" in row and row["peer"] == "HFLM"]
    read = {row["bits"]: float(row["share"] * found["matrix rate"]) for row in ranked}
    block = {
        "train": {bits: median(rates) for bits, rates in train.items() if rates},
        "read": read,
        "bandwidth": bandwidth,
        "source": f"measured on {found['machine']} by make gpu",
    }
    return yaml.safe_dump({short_name(found["machine"]): block}, sort_keys=False)


def bandwidth() -> float:
    """Return the bytes/s at which this device copies its memory, read and written."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one = torch.ones(2**28 if device == "cuda" else 2**24, device=device)
    seconds = min(evaluation.timed(lambda: one.clone())[0] for _ in range(5))
    return 2 * 4 * len(one) / seconds


def main() -> None:
    """Measure, or fit what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SIZES, default="7b")
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--out", type=Path, default=workspace() / "runs" / "gpu")
    parser.add_argument("--fit", type=Path, help="a JSON file that this has written")
    given = parser.parse_args()
    if given.fit:
        return print(fit(json.loads(given.fit.read_text())))
    if given.shape == "7b" and not torch.cuda.is_available():
        parser.exit(2, "shape: got 7b without a GPU; allowed: --shape small\n")
    logging.set_verbosity_error()
    size = SIZES[given.shape]
    with tempfile.TemporaryDirectory() as folder:
        found = measure(size, Path(folder), given.minutes)
    found |= {"bandwidth": bandwidth(), "tokens per pass": size.rows * size.length}
    given.out.mkdir(parents=True, exist_ok=True)
    name = given.out / f"{short_name(found['machine'])}-{given.shape}"
    name.with_suffix(".json").write_text(json.dumps(found, indent=1))
    name.with_suffix(".md").write_text(report(found))
    print(report(found), name.with_suffix(".json"))


if __name__ == "__main__":
    main()
