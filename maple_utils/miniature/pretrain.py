"""Pretrain the two miniature base models, Llama and Mistral architecture, from a seed.

    python -m maple_utils.miniature.pretrain OUT [--seed 0]

Each text is a page of the notice board, in one language. Languages come in unequal
amounts (SHARE), so that the models are strong in some and weak in others, as large
ones are. Where a text cannot be foreseen (which country has which weekday), the loss
leaves it out: counting only what can be known or read makes the models learn to read
several times sooner. A second, shorter stage has longer rows with exams in them, as
the web has, so that the models can take examples from their prompt.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from tqdm.auto import tqdm
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from maple_utils.instructions import prompt_text
from maple_utils.miniature import items, world
from maple_utils.miniature.texts import (
    Piece,
    atlas,
    exam,
    lists,
    newspaper,
    page,
    quiz,
    story,
)

# Share of each language in the pretraining texts: Swahili and Tamil are the low ones.
SHARE = {
    "en": 0.30,
    "es": 0.16,
    "fr": 0.14,
    "zh": 0.13,
    "ar": 0.10,
    "hi": 0.08,
    "ta": 0.05,
    "sw": 0.04,
}
VOCABULARY = 3072  # tokens
# Marks of the Indic scripts belong to their word; GPT-2's own pattern cuts them off.
WORDS = Regex(r" ?[\p{L}\p{M}]+| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]|\s")

SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "initializer_range": 0.04,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=6),
    "mistral": MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=128),
}


Kind = Callable[[random.Random, str], list[Piece]]


@dataclass(frozen=True)
class Stage:
    """What is read: kinds of text by share, tokens per row, rows per step, steps."""

    texts: dict[Kind, float]
    length: int
    rows: int
    steps: int
    peak_rate: float


FIRST = Stage(
    {lists: 0.28, page: 0.50, story: 0.13, atlas: 0.05, newspaper: 0.04},
    length=224,
    rows=16,
    steps=2000,
    peak_rate=0.005,
)
SECOND = Stage(
    {
        exam: 0.50,
        quiz: 0.10,
        lists: 0.10,
        page: 0.15,
        story: 0.05,
        atlas: 0.05,
        newspaper: 0.05,
    },
    length=640,
    rows=6,
    steps=700,
    peak_rate=0.003,
)


def draw_text(stage: Stage, rng: random.Random, language: str) -> list[Piece]:
    """Draw one pretraining text."""
    return rng.choices(list(stage.texts), list(stage.texts.values()))[0](rng, language)


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train one byte-level BPE tokenizer on equal amounts of all languages."""
    rng = random.Random(f"tokenizer {seed}")
    texts = [
        "".join(text for text, _ in draw_text(FIRST, rng, language))
        for language in world.LANGUAGES
        for _ in range(3000)
    ]
    for language in world.LANGUAGES:
        tasks = [items.task(number, language) for number in range(600)]
        texts += [prompt_text(task.instruction, task.input) for task in tasks]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    names = ("unk_token", "bos_token", "eos_token", "pad_token")
    named = dict(zip(names, special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **named)


def draw_rows(
    stage: Stage, tokenizer: PreTrainedTokenizerFast, rng: random.Random
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield rows of tokens and their labels, each row in one language."""
    while True:
        language = rng.choices(list(SHARE), list(SHARE.values()))[0]
        tokens: list[int] = []
        labels: list[int] = []
        while len(tokens) < stage.length:
            tokens, labels = [*tokens, 1], [*labels, -100]
            for text, counts in [*draw_text(stage, rng, language), ("</s>", True)]:
                new = tokenizer.encode(text, add_special_tokens=False)
                tokens += new
                labels += new if counts else [-100] * len(new)
        yield tokens[: stage.length], labels[: stage.length]


def train(
    stage: Stage, model: PreTrainedModel, rows: Iterator[tuple[list[int], list[int]]]
) -> None:
    """Train in place: Muon for the matrices, AdamW for embeddings and norms."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    with tqdm(range(stage.steps), mininterval=2) as bar:
        for step in bar:
            batch = [next(rows) for _ in range(stage.rows)]
            tokens, labels = (torch.tensor(part) for part in zip(*batch, strict=True))
            loss = model(input_ids=tokens, labels=labels).loss
            loss.backward()
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = stage.peak_rate * schedule(step / stage.steps)
                optimizer.step()
                optimizer.zero_grad()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def schedule(progress: float) -> float:
    """Rise over the first 2 %, then follow a cosine down to 3 % of the peak."""
    return min(1.0, progress / 0.02 + 0.05) * (
        0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress))
    )


def pretrain(architecture: str, out: Path, seed: int) -> None:
    """Run both stages; each is kept in `out`, and one that is there is not run again.

    Weights are written in float16, and the second stage starts from what was written.
    """
    tokenizer = train_tokenizer(seed)
    for stage, source, target in (
        (FIRST, None, out / f"{architecture}-first"),
        (SECOND, out / f"{architecture}-first", out / architecture),
    ):
        if target.is_dir():
            continue
        torch.manual_seed(seed)
        model = (
            AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
            if source
            else AutoModelForCausalLM.from_config(CONFIGS[architecture])
        )
        rng = random.Random(f"{architecture} {seed}")
        train(stage, model, draw_rows(stage, tokenizer, rng))
        model.half().save_pretrained(target)
        tokenizer.save_pretrained(target)


def main() -> None:
    """Write the base models as transformers folders."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(CONFIGS))
    arguments = parser.parse_args()
    for architecture in [arguments.only] if arguments.only else CONFIGS:
        pretrain(architecture, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
