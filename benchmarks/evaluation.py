"""Time the scoring engine against lm-eval's HFLM and against `model.generate`.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --hub_root FOLDER  # a mirror with the real rows
    python benchmarks/evaluation.py --only generation  # the lines with this word

Both sides work on the same strings with the same random Llama model, in turn, in one
run; the harness at the batch size that is fastest for it. Times are medians of
`--repeats` runs, by the clock and in processor seconds, which other programs on the
machine disturb little where `--threads` is 1. Without a mirror the rows are the
miniature's, which has no XNLI. `--shape 7b --device cuda` takes the shape of Llama-2-7B
in bfloat16 instead of 35 million parameters in float32, `--model FOLDER` a real model
with its tokenizer. Needs the packages of the `test` extra.
"""

import argparse
import random
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import ByteLevelBPETokenizer, processors
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from maple_utils import miniature, scoring
from maple_utils.tasks import TASKS
from maple_utils.tasks.sources import load_rows

SHAPES = {
    "35m": {
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    "7b": {},  # LlamaConfig's defaults are Llama-7B's
}
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
LINKS = {"cause": "kwa sababu", "effect": "kwa hivyo"}
LABELS = ("Ndiyo", "Hivyo", "Hapana")  # lm-eval's words for XNLI in Swahili

Requests = list[tuple[str, list[str]]]


def read(hub_root: Path, task: str, language: str, split: str) -> list[dict]:
    """Load the rows of one split from the mirror."""
    return list(load_rows(TASKS[task].source, language, split, hub_root))


def xcopa(hub_root: Path, rows: int, shots: int = 8) -> Requests:
    """Return 8-shot XCOPA in Swahili: premise and link, the choices continue it."""
    dataset = (hub_root, "xcopa", "sw")
    examples = read(*dataset, "validation")[:shots]

    def text(row: dict) -> str:
        return f"{row['premise'].rstrip('.')} {LINKS[row['question']]}"

    answers = [row[("choice1", "choice2")[row["label"]]] for row in examples]
    pairs = zip(examples, answers, strict=True)
    few = [f"{text(row)} {answer}\n\n" for row, answer in pairs]
    return [
        ("".join(few) + text(row), [f" {row['choice1']}", f" {row['choice2']}"])
        for row in read(*dataset, "test")[:rows]
    ]


def xnli(hub_root: Path, rows: int, shots: int = 4) -> Requests:
    """Return 4-shot XNLI in Swahili as in lm-eval: the label stands in the middle."""
    examples = read(hub_root, "xnli", "sw", "validation")[:shots]

    def text(row: dict, label: int) -> str:
        return f"{row['premise']}, sawa? {LABELS[label]}, {row['hypothesis']}"

    few = "".join(f"{text(row, row['label'])}\n\n" for row in examples)
    test = read(hub_root, "xnli", "sw", "test")[:rows]
    return [(few, [text(row, label) for label in range(3)]) for row in test]


def xnli_words(hub_root: Path, rows: int, shots: int = 4) -> Requests:
    """Return 4-shot XNLI with the label words as answers."""
    examples = read(hub_root, "xnli", "sw", "validation")[:shots]

    def text(row: dict) -> str:
        return f"{row['premise']}\n{row['hypothesis']}\nSawa?"

    few = "".join(f"{text(row)} {LABELS[row['label']]}\n\n" for row in examples)
    options = [f" {label}" for label in LABELS]
    test = read(hub_root, "xnli", "sw", "test")[:rows]
    return [(few + text(row), options) for row in test]


def belebele(hub_root: Path, rows: int, *, letters: bool) -> Requests:
    """Return zero-shot items of Belebele's shape: passage, question, four answers.

    The passages and questions are XQuAD's, two to a passage as in Belebele; wrong
    answers come from other questions.
    """
    generator = random.Random(0)
    qa = read(hub_root, "xquad", "en", "validation")
    answers = [row["answers"]["text"][0] for row in qa]
    requests: Requests = []
    passages = list({row["context"]: None for row in qa})
    for passage in passages:
        for row in [row for row in qa if row["context"] == passage][:2]:
            options = [row["answers"]["text"][0], *generator.sample(answers, 3)]
            generator.shuffle(options)
            text = f"P: {passage}\nQ: {row['question']}\n"
            named = zip("ABCD", options, strict=True)
            listed = "".join(f"{letter}: {option}\n" for letter, option in named)
            ends = [f" {letter}" for letter in "ABCD"] if letters else options
            text += f"{listed}Answer:" if letters else "Answer:"
            requests.append((text, ends if letters else [f" {end}" for end in ends]))
    return requests[:rows]


def xquad(hub_root: Path, rows: int, shots: int = 8) -> list[str]:
    """Return 8-shot XQuAD prompts; the shots are of the last passages."""
    qa = read(hub_root, "xquad", "en", "validation")

    def text(row: dict) -> str:
        return f"{row['context']}\nQ: {row['question']}\nA:"

    last = list({row["context"]: row for row in qa}.values())[-shots:]
    few = "".join(f"{text(row)} {row['answers']['text'][0]}\n\n" for row in last)
    return [few + text(row) for row in qa[:rows]]


def xlsum(hub_root: Path, rows: int) -> list[str]:
    """Return zero-shot prompts of XLSum's shape that share nothing: a text, a wish.

    The texts are XQuAD's passages, each used once, one to eight to a text, so that a
    prompt has about 200 to 1,500 tokens.
    """
    qa = read(hub_root, "xquad", "en", "validation")
    passages = iter({row["context"]: None for row in qa})
    counts = [1 + i % 8 for i in range(rows)]
    texts = [" ".join(islice(passages, count)) for count in counts]
    return [f"{text}\nIn one sentence, this says that" for text in texts if text]


def make_tokenizer(texts: list[str], size: int = 8192) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with BOS on the texts of the benchmark."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, size, special_tokens=["<s>", "</s>"])
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        padding_side="left",
    )


def make_model(shape: str, vocabulary: int, device: str) -> LlamaForCausalLM:
    """Build a Llama of the given shape with seeded random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, max_position_embeddings=8192, **SHAPES[shape]
    )
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 0, 1, 1
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    with torch.device(device):
        return LlamaForCausalLM(config).to(dtype).eval()


def timed(run: Callable[[], object]) -> tuple[float, float, object]:
    """Return a call's seconds by the clock, its processor seconds, and its result."""
    begin, cpu = time.perf_counter(), time.process_time()
    result = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin, time.process_time() - cpu, result


def fastest(batch_sizes: tuple[int, ...], run: Callable[[int], object]) -> int:
    """Return the batch size at which `run` is fastest, growing while that helps."""
    times: dict[int, float] = {}
    for size in batch_sizes:
        times[size] = timed(lambda size=size: run(size))[0]
        if times[size] > 1.3 * min(times.values()):
            break
    return min(times, key=times.__getitem__)


def multiply_adds(model: LlamaForCausalLM, run: Callable[[], object]) -> float:
    """Return the multiply-adds of all linear layers in a call, without attention."""
    total = [0]

    def count(layer: torch.nn.Linear, inputs: tuple, output: torch.Tensor) -> None:
        total[0] += output.numel() * layer.in_features

    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in linear]
    run()
    for hook in hooks:
        hook.remove()
    return total[0]


def multiply_rate(model: LlamaForCausalLM) -> float:
    """Return the multiply-adds per second of one large matrix product, best of 5."""
    device, size = model.device, 1024 if model.device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device) for _ in range(2))
    left, right = left.to(model.dtype), right.to(model.dtype)
    return size**3 / min(timed(lambda: left @ right)[0] for _ in range(5))


def harness(lm: HFLM, requests: Requests, batch_size: int) -> list[float]:
    """Score the requests by lm-eval."""
    lm.batch_size_per_gpu = batch_size
    pairs = [(context, option) for context, options in requests for option in options]
    instances = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    return [score for score, _ in lm.loglikelihood(instances, disable_tqdm=True)]


def plain_generate(
    model, tokenizer, prompts: list[str], new_tokens: int, batch_size: int
) -> list[str]:
    """Continue full prompts by `model.generate`, in batches by length, left-padded."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    texts: dict[int, str] = {}
    for begin in range(0, len(order), batch_size):
        batch = order[begin : begin + batch_size]
        inputs = tokenizer(
            [prompts[i] for i in batch],
            padding=True,
            return_tensors="pt",
            return_token_type_ids=False,
        ).to(model.device)
        out = model.generate(
            **inputs,
            do_sample=False,
            max_new_tokens=new_tokens,
            stop_strings=["\n"],
            tokenizer=tokenizer,
        )
        new = out[:, inputs["input_ids"].shape[1] :]
        decoded = tokenizer.batch_decode(new, skip_special_tokens=True)
        texts |= dict(zip(batch, decoded, strict=True))
    return [texts[i].split("\n")[0] for i in range(len(prompts))]


def in_turn(
    model: LlamaForCausalLM,
    theirs: Callable[[], list],
    ours: Callable[[], list],
    repeats: int,
) -> tuple[dict[str, float], list, list]:
    """Time both sides in turn: medians, share of the machine's rate, both answers."""
    rates, slow, fast = [], [], []
    for _ in range(repeats):
        rates.append(multiply_rate(model))
        slow.append(timed(theirs))
        fast.append(timed(ours))
    wall = [median(run[0] for run in runs) for runs in (slow, fast)]
    cpu = [median(run[1] for run in runs) for runs in (slow, fast)]
    share = multiply_adds(model, ours) / wall[1] / median(rates)
    times = {"theirs": wall[0], "ours": wall[1], "share": share}
    times |= {"faster": wall[0] / wall[1], "faster_cpu": cpu[0] / cpu[1]}
    return times, slow[-1][2], fast[-1][2]


def compare_scores(model, tokenizer, requests: Requests, repeats: int) -> dict:
    """Time both sides on log-likelihoods, and compare every number and choice."""
    lm = HFLM(pretrained=model, tokenizer=tokenizer)
    pilot = requests[: max(1, len(requests) // 4)]
    best = fastest(BATCH_SIZES, lambda n: harness(lm, pilot, n))
    times, theirs, ours = in_turn(
        model,
        lambda: harness(lm, requests, best),
        lambda: scoring.loglikelihoods(model, tokenizer, requests),
        repeats,
    )
    ends = np.cumsum([len(options) for _, options in requests])[:-1]
    pairs = zip(ours, np.split(np.array(theirs), ends), strict=True)
    choices = sum(a.argmax() == b.argmax() for a, b in pairs)
    difference = np.abs(np.hstack(ours) - np.array(theirs)).max()
    same = f"{choices}/{len(requests)} choices, within {difference:.0e}"
    return {**times, "batch": best, "same": same}


def compare_generation(
    model, tokenizer, prompts: list[str], new_tokens: int, repeats: int
) -> dict:
    """Time both sides on greedy generation, and compare every text."""
    pilot = prompts[:: max(1, len(prompts) // 16)]

    def theirs_on(texts: list[str], size: int) -> list[str]:
        return plain_generate(model, tokenizer, texts, new_tokens, size)

    best = fastest(BATCH_SIZES, lambda n: theirs_on(pilot, n))
    times, theirs, ours = in_turn(
        model,
        lambda: theirs_on(prompts, best),
        lambda: scoring.generate(model, tokenizer, prompts, max_new_tokens=new_tokens),
        repeats,
    )
    same = sum(a.text == b for a, b in zip(ours, theirs, strict=True))
    return {**times, "batch": best, "same": f"{same}/{len(prompts)} texts"}


def main() -> None:
    """Run every comparison and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hub_root", type=Path, help="mirror; default: the miniature")
    parser.add_argument("--rows", type=int, default=100, help="questions per task")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shape", choices=SHAPES, default="35m")
    parser.add_argument("--model", help="folder of a real model instead of a shape")
    parser.add_argument("--only", default="", help="part of the names of lines to run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    root, rows = args.hub_root or miniature.hub(), args.rows
    scored = {"XCOPA sw, 8 shots": xcopa(root, rows)}
    if (root / "facebook/xnli").is_dir():
        scored["XNLI sw, 4 shots, label inside"] = xnli(root, rows)
        scored["XNLI sw, 4 shots, label word"] = xnli_words(root, rows)
    scored["Belebele's shape, letters"] = belebele(root, rows, letters=True)
    scored["Belebele's shape, answers"] = belebele(root, rows, letters=False)
    few, long = max(2, rows // 2), xlsum(root, max(2, rows // 2))
    prompts = {"XQuAD en, 8 shots, generation of 32": (xquad(root, few), 32)}
    for new in (64, 128):
        prompts[f"XLSum's shape, nothing shared, generation of {new}"] = (long, new)
    scored = {name: items for name, items in scored.items() if args.only in name}
    prompts = {name: items for name, items in prompts.items() if args.only in name}
    if args.model:
        tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
        model = model.eval().to(args.device)
    else:
        texts = [context + "".join(o) for r in scored.values() for context, o in r]
        texts += [text for items, _ in prompts.values() for text in items]
        tokenizer = make_tokenizer(texts)
        model = make_model(args.shape, len(tokenizer), args.device)
    size = sum(p.numel() for p in model.parameters()) / 1e6
    print(
        f"{size:.0f} million parameters, {model.dtype}, {args.threads} threads on"
        f" {args.device}; rows of {root.name if args.hub_root else 'the miniature'};"
        f" a matrix product: {multiply_rate(model) / 1e9:.0f} billion multiply-adds/s\n"
        "\n| strings | rows | theirs s (batch) | ours s | times faster"
        " | in processor s | of the machine's rate | same |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    runs = [(n, compare_scores, (r,), len(r)) for n, r in scored.items()]
    runs += [(n, compare_generation, p, len(p[0])) for n, p in prompts.items()]
    for name, compare, items, count in runs:
        got = compare(model, tokenizer, *items, args.repeats)
        print(
            f"| {name} | {count} | {got['theirs']:.2f} ({got['batch']})"
            f" | {got['ours']:.2f} | {got['faster']:.1f} | {got['faster_cpu']:.1f}"
            f" | {got['share']:.0%} | {got['same']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
