"""Log-likelihoods of continuations and greedy generation, at a fraction of the cost.

`loglikelihoods` and `generate` turn texts into token paths, and `score_paths` and
`grow_paths` the model's logits into answers; `prefixes` runs the paths so that a
few-shot prefix runs once for a whole task and a question once for all its options. The
numbers are those of a plain forward pass (in float32 to rounding) and of lm-eval's
`HFLM`, whose rules for where a context ends and a continuation begins are followed.

With LLM.int8 weights, bitsandbytes picks outlier columns over all tokens of a pass, so
that numbers depend a little on what runs together, here as in any batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, singledispatch
from itertools import pairwise

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from maple_utils.errors import ParameterError
from maple_utils.scoring.limits import check, default_budget
from maple_utils.scoring.prefixes import (
    Answered,
    PrefixCache,
    TokenPath,
    Tree,
    common_length,
    run_packs,
)
from maple_utils.scoring.rows import run_rows

FEW_ROWS = 16  # prompts in a pass; with fewer, rows of their own may pay
Progress = Callable[[int], object] | None


@dataclass(frozen=True)
class Generation:
    """A greedy continuation: its text before the stop, and its length in tokens.

    `finished` tells that the stop or the end of the sequence was seen.
    """

    text: str
    finished: bool
    n_tokens: int


Ended = Callable[[list[int]], Generation | None]


@singledispatch
def loglikelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: list[tuple[str, list[str]]],
    *,
    token_budget: int | None = None,
    progress: Progress = None,
) -> list[np.ndarray]:
    """Return the log-likelihood in nats of every continuation of every context.

    `requests` holds (context, continuations); the answer holds a float64 array
    `[continuations]` per request. `token_budget` is the number of new tokens per
    forward pass (default by device); `progress` is called with the number of
    continuations just scored.

    Raises:
        ParameterError: for a continuation without a token, or a text longer than the
            model's positions.
    """
    paths = encode_pairs(
        tokenizer, [(c, text) for c, texts in requests for text in texts]
    )
    answered = _counting(progress)
    scored = score_paths(model, paths, token_budget=token_budget, answered=answered)
    scores = np.array([score for score, _ in scored], dtype=np.float64)
    parts = np.cumsum([len(continuations) for _, continuations in requests])
    return np.split(scores, parts)[: len(requests)]


def score_paths(
    model: PreTrainedModel,
    paths: list[TokenPath],
    *,
    token_budget: int | None = None,
    answered: Answered = None,
) -> list[tuple[float, bool]]:
    """Return each path's log-likelihood in nats, and whether greedy decoding writes it.

    `answered` is called with each path's number and answer as they come, in any order;
    the rest is as in `loglikelihoods`.
    """
    check(model, paths, token_budget)
    budget = token_budget or default_budget(model, 512, 4096)
    return run_packs(model, paths, budget, _score, answered)


@singledispatch
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    *,
    max_new_tokens: int,
    stop: str = "\n",
    token_budget: int | None = None,
    progress: Progress = None,
) -> list[Generation]:
    """Continue every prompt greedily to `stop`, the sequence's end or the limit.

    The text is that of `model.generate(do_sample=False)`, cut at the first `stop`.
    `token_budget` is the number of prompt tokens per forward pass (default by device);
    `progress` is called with the number of prompts just finished.

    Raises:
        ParameterError: as `loglikelihoods`, and for an empty stop or limit.
    """
    if max_new_tokens < 1 or not stop:
        raise ParameterError(
            f"max_new_tokens, stop: got {max_new_tokens}, {stop!r}; allowed: an integer"
            ' from 1, a text; e.g. max_new_tokens=32, stop="\\n"'
        )
    encoded = _encode(tokenizer, prompts)
    starts = [encoded[prompt] or [_first_token(tokenizer)] for prompt in prompts]
    paths = [TokenPath(tokens, len(tokens)) for tokens in starts]
    return grow_paths(
        model,
        paths,
        partial(_ended, tokenizer, end_tokens(model, tokenizer), stop, max_new_tokens),
        max_new_tokens=max_new_tokens,
        token_budget=token_budget,
        answered=_counting(progress),
    )


def grow_paths(
    model: PreTrainedModel,
    paths: list[TokenPath],
    ended: Ended,
    *,
    max_new_tokens: int,
    token_budget: int | None = None,
    answered: Answered = None,
) -> list[Generation]:
    """Continue every path greedily until `ended` makes a generation of its new tokens.

    It is asked after each token, and must answer by the last of `max_new_tokens`.
    `answered` is called with each path's number and generation as they come, in any
    order; the rest is as in `generate`.
    """
    check(model, paths, token_budget, max_new_tokens)
    budget = token_budget or default_budget(model, 2048, 8192)
    if _share_little(paths, budget):
        return run_rows(model, paths, budget, max_new_tokens, ended, answered)
    return run_packs(model, paths, budget, partial(_grow, ended=ended), answered)


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]]
) -> list[TokenPath]:
    """Tokenise contexts and continuations together, and find where they part.

    As in lm-eval, blanks that end the context count to the continuation, and BOS (else
    EOS) stands for an empty context. A token that spans both is scored: there lm-eval
    joins the context's own tokens with the tail of the whole, which spells neither.
    """
    texts = [
        text for context, end in pairs for text in (context.rstrip(), context + end)
    ]
    tokens = _encode(tokenizer, texts)
    first = _first_token(tokenizer)
    paths = []
    for context, continuation in pairs:
        whole = tokens[context + continuation]
        start = common_length(tokens[context.rstrip()], whole)
        if not context:
            whole = tokenizer.encode(continuation, add_special_tokens=False)
            start = int(whole[:1] == [first])
        if start == 0:
            whole, start = [first, *whole], 1
        if start == len(whole):
            raise ParameterError(
                f"continuation: got {continuation!r}, which adds no token to its"
                " context; allowed: a text; look at the options of this task"
            )
        paths.append(TokenPath(whole[:-1], start, tuple(whole[start:])))
    return paths


def _encode(
    tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> dict[str, list[int]]:
    """Return every text's tokens, with BOS where the tokenizer sets it, never twice."""
    first = tokenizer.decode([_first_token(tokenizer)])
    tokens: dict[str, list[int]] = {}
    for opened in (False, True):
        some = [text for text in set(texts) if text.startswith(first) is opened]
        if some:
            encoded = tokenizer(some, add_special_tokens=not opened)["input_ids"]
            tokens |= zip(some, encoded, strict=True)
    return tokens


def _first_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that stands for an empty context."""
    bos = tokenizer.bos_token_id
    return tokenizer.eos_token_id if bos is None else bos


def _counting(progress: Progress) -> Answered:
    """Return what calls `progress` with 1 for each answer."""
    return (lambda _place, _answer: progress(1)) if progress else None


def _score(
    cache: PrefixCache, tree: Tree, pack: list[TokenPath]
) -> list[tuple[float, bool]]:
    """Return every path's summed log-likelihood, and if its targets are likeliest."""
    lengths = [len(path.targets) for path in pack]
    tails = zip(tree.branches, lengths, strict=True)
    places = np.concatenate([branch[-length:] for branch, length in tails])
    keep, rows = np.unique(places, return_inverse=True)
    logits = cache.run(tree.tokens, tree.depths, tree.allowed, keep.tolist())
    targets = [token for path in pack for token in path.targets]
    chosen = (logits[rows, targets] - logits.logsumexp(-1)[rows]).cpu().double()
    first = (logits.argmax(-1).cpu()[rows] == torch.tensor(targets)).split(lengths)
    sums = [part.sum().item() for part in chosen.split(lengths)]
    return [(sum_, bool(part.all())) for sum_, part in zip(sums, first, strict=True)]


def _grow(
    cache: PrefixCache,
    tree: Tree,
    pack: list[TokenPath],
    ended: Ended,
) -> list[Generation]:
    """Let every path grow by its likeliest token until it ends, all in one sequence."""
    leaves = [branch[-1] for branch in tree.branches]
    logits = cache.run(tree.tokens, tree.depths, tree.allowed, leaves)
    allowed = tree.allowed[leaves]
    written: list[list[int]] = [[] for _ in pack]
    answers: dict[int, Generation] = {}
    growing = list(range(len(pack)))
    while True:
        for path, token in zip(growing, logits.argmax(-1).tolist(), strict=True):
            written[path].append(token)
            if answer := ended(written[path]):
                answers[path] = answer
        alive = [i for i, path in enumerate(growing) if path not in answers]
        growing = [growing[i] for i in alive]
        if not growing:
            return [answers[path] for path in range(len(pack))]
        own = torch.eye(len(growing), dtype=torch.bool)
        allowed = torch.cat([allowed[alive], own], dim=1)
        tokens = [written[path][-1] for path in growing]
        depths = [len(pack[path].tokens) + len(written[path]) - 1 for path in growing]
        logits = cache.run(tokens, depths, allowed, list(range(len(growing))))


def _share_little(paths: list[TokenPath], budget: int) -> bool:
    """Say whether few paths fit a pass, with most of their tokens their own."""
    walk = sorted(path.tokens for path in paths)
    total = sum(map(len, walk))
    shared = sum(common_length(left, right) for left, right in pairwise(walk))
    own = (total - shared) / max(1, len(walk))
    return own * FEW_ROWS > budget and 2 * shared < total


def _ended(
    tokenizer: PreTrainedTokenizerBase,
    end_tokens: set[int],
    stop: str,
    limit: int,
    tokens: list[int],
) -> Generation | None:
    """Return the generation if these new tokens end it, else None."""
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    finished = stop in text or tokens[-1] in end_tokens
    if not finished and len(tokens) < limit:
        return None
    return Generation(text.split(stop)[0], finished, len(tokens))


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the tokens that end a sequence, as `model.generate` would know them."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    return set(ends) if isinstance(ends, list) else {ends}
