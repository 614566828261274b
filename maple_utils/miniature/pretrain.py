"""Pretrain the miniature's base models, Llama and Mistral architecture, from a seed.

    python -m maple_utils.miniature.pretrain OUT [--only llama] [--seed 0]

They read word lists, exams and newspapers of the miniature world, in languages of
unequal amounts (the column `miniature` of languages.csv), so that they know many words
of some and few of others, as large models do. Where a text cannot be foreseen (which
thing is in which country), the loss leaves it out: counting only what can be known or
read makes the models learn several times sooner.

The larger model is the Llama grown to twice its width, which reads on: it begins with
what the Llama knows (Chen et al. 2016, "Net2Net"), so that it ends above it.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
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
from maple_utils.miniature.texts import Piece, exam, lesson, lists, newspaper, quiz

VOCABULARY = 5120  # tokens
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

# Kinds of text by share; tokens per row and per step.
TEXTS: dict[Callable[[random.Random, str], list[Piece]], float] = {
    lists: 0.22,
    exam: 0.30,
    quiz: 0.12,
    newspaper: 0.16,
    lesson: 0.20,
}
LENGTH, TOKENS = 192, 3840
ADAMW = {"betas": (0.9, 0.98), "weight_decay": 0.0}
Row = tuple[list[int], list[int]]  # tokens and their labels


def draw_text(rng: random.Random, language: str) -> list[Piece]:
    """Draw one pretraining text."""
    return rng.choices(list(TEXTS), list(TEXTS.values()))[0](rng, language)


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train one byte-level BPE tokenizer, on more of what is read more.

    The amounts go by the square root of a language's share, as large models have it.
    """
    rng = random.Random(f"tokenizer {seed}")
    texts = [
        "".join(text for text, _ in draw_text(rng, language))
        for language, share in world.SHARE.items()
        for _ in range(round(1000 * math.sqrt(share)))
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
            vocab_size=VOCABULARY,
            special_tokens=special,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    names = ("unk_token", "bos_token", "eos_token", "pad_token")
    named = dict(zip(names, special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **named)


def draw_rows(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> Iterator[Row]:
    """Yield rows of texts, each row in one language."""
    while True:
        language = rng.choices(list(world.SHARE), list(world.SHARE.values()))[0]
        tokens: list[int] = []
        labels: list[int] = []
        while len(tokens) < LENGTH:
            tokens, labels = [*tokens, 1], [*labels, -100]
            for text, counts in [*draw_text(rng, language), ("</s>", True)]:
                new = tokenizer.encode(text, add_special_tokens=False)
                tokens += new
                labels += new if counts else [-100] * len(new)
        yield tokens[:LENGTH], labels[:LENGTH]


def loss_of(
    model: PreTrainedModel, tokens: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return the mean loss over the tokens that count; others get no logits."""
    counted = labels[:, 1:] != -100
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[:, :-1][counted])
    return cross_entropy(logits.float(), labels[:, 1:][counted])


def muon_and_adamw(model: PreTrainedModel) -> list[Optimizer]:
    """Return Muon for the matrices, AdamW for all else.

    Muon's update is of the same size however small the gradient, which serves a new
    model, but not one that is only to be refined.
    """
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, **ADAMW),
    ]


def adamw(model: PreTrainedModel) -> list[Optimizer]:
    """Return AdamW for everything."""
    return [torch.optim.AdamW(model.parameters(), **ADAMW)]


@dataclass(frozen=True)
class Recipe:
    """How long, how fast and in which number format a model is trained."""

    steps: int
    peak_rate: float
    optimizers: Callable[[PreTrainedModel], list[Optimizer]]
    dtype: torch.dtype


FROM_NOTHING = Recipe(1800, 0.005, muon_and_adamw, torch.bfloat16)
READING_ON = Recipe(500, 0.001, adamw, torch.float32)
RECIPES = {"llama": FROM_NOTHING, "mistral": FROM_NOTHING, "larger": READING_ON}


def train(model: PreTrainedModel, rows: Iterator[Row], recipe: Recipe) -> None:
    """Train the model in place."""
    optimizers = recipe.optimizers(model)
    mixed = recipe.dtype != torch.float32
    with tqdm(range(recipe.steps), mininterval=2) as bar:
        for step in bar:
            first = next(rows)
            batch = [first, *islice(rows, TOKENS // len(first[0]) - 1)]
            tokens, labels = (torch.tensor(part) for part in zip(*batch, strict=True))
            with torch.autocast("cpu", recipe.dtype, enabled=mixed):
                loss = loss_of(model, tokens, labels)
            loss.backward()
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = recipe.peak_rate * schedule(step / recipe.steps)
                optimizer.step()
                optimizer.zero_grad()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def schedule(progress: float) -> float:
    """Rise over the first 2 %, then follow a cosine down to 3 % of the peak."""
    return min(1.0, progress / 0.02 + 0.05) * (
        0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * progress))
    )


def grow(small: PreTrainedModel, noise: float = 0.1) -> PreTrainedModel:
    """Return a model of twice the width that says what `small` says.

    Every number of its state stands twice, so that a matrix of halved blocks has the
    same output twice; tied logits would be double, so the last norm is halved. Noise,
    as a share of a matrix's standard deviation, lets the two halves part.
    """
    config = small.config.__class__.from_dict(small.config.to_dict())
    for name in ("hidden_size", "intermediate_size", "num_attention_heads"):
        setattr(config, name, 2 * getattr(config, name))
    config.num_key_value_heads *= 2
    large = AutoModelForCausalLM.from_config(config)
    state = small.state_dict()
    for name, parameter in large.named_parameters():
        old = state[name].float()
        if "embed" in name:
            new = torch.cat([old, old], dim=1)
        elif old.ndim == 1:
            new = torch.cat([old, old]) / (2 if name == "model.norm.weight" else 1)
        else:
            strayed = noise * old.std() * torch.randn(parameter.shape)
            new = old.repeat(2, 2) / 2 + strayed
        parameter.data.copy_(new)
    return large


def pretrain(architecture: str, out: Path, seed: int) -> None:
    """Write one base model into `out`, in float16; "larger" needs the Llama there."""
    torch.manual_seed(seed)
    rng = random.Random(f"{architecture} {seed}")
    if architecture == "larger":
        small = AutoModelForCausalLM.from_pretrained(out / "llama", dtype=torch.float32)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "llama")
        model = grow(small)
    else:
        tokenizer = train_tokenizer(seed)
        model = AutoModelForCausalLM.from_config(CONFIGS[architecture])
    train(model, draw_rows(tokenizer, rng), RECIPES[architecture])
    model.half().save_pretrained(out / architecture)
    tokenizer.save_pretrained(out / architecture)


def main() -> None:
    """Write the models as transformers folders."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(RECIPES))
    arguments = parser.parse_args()
    for architecture in [arguments.only] if arguments.only else RECIPES:
        pretrain(architecture, arguments.out, arguments.seed)


if __name__ == "__main__":
    main()
