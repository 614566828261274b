"""Run many token paths through a model so that each shared token runs once.

An evaluation repeats itself: every question of a task carries the same few-shot
prefix, every option of a question the same question. Seen as token paths the requests
form a tree. We sort them, so that neighbours share most, and walk along in packs:

* what a pack has in common is its *prefix*: its keys and values stay in one cache,
  which is cropped and extended from pack to pack, never copied;
* the rest of the pack is a *tree*, laid out in one sequence. A block mask lets a token
  see the prefix and its own ancestors only, and its position is its depth, so that
  attention and rotary embedding give what each path gives alone. Nothing is padded;
* a pack takes as many tree tokens as the token budget allows; out of memory, the
  budget is halved and the pack runs again.

A sliding window (Mistral, Gemma) is one more condition on the mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import Cache, DynamicLayer, PreTrainedModel

from maple_utils.scoring.forward import (
    FITTING,
    SMALLEST_BUDGET,
    as_masks,
    evaluating,
    free_memory,
    out_of_memory,
)

SHORT_PREFIX = 16  # tokens; so few run cheaper with the tree than in their own pass


@dataclass(frozen=True)
class TokenPath:
    """Tokens to run; logits are wanted from place `start - 1` to the last one.

    `targets` are the tokens that should follow at those places, where they are scored.
    """

    tokens: list[int]
    start: int
    targets: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tree:
    """A pack's paths beyond the prefix, laid out in one sequence of nodes.

    `depths` are the nodes' positions in their path, `allowed` (bool, `[nodes, nodes]`)
    says which nodes a node sees, `branches[i]` are path i's nodes, first to last.
    """

    tokens: list[int]
    depths: list[int]
    allowed: torch.Tensor
    branches: list[list[int]]


Runner = Callable[["PrefixCache", Tree, list[TokenPath]], list]
Answered = Callable[[int, Any], object] | None  # a path's number and its answer


def run_packs(
    model: PreTrainedModel,
    paths: list[TokenPath],
    budget: int,
    run: Runner,
    answered: Answered = None,
) -> list:
    """Run all paths pack by pack; return what `run` gives for each, in their order.

    `run(cache, tree, pack)` finds the pack's prefix in the cache and returns a list
    with one answer per path. `budget` is the number of tree tokens per pass, at least
    those of one path; `answered` is called with each path's number and answer as they
    come.
    """
    order = sorted(range(len(paths)), key=lambda i: paths[i].tokens)
    walk = [paths[i] for i in order]
    shared = [0, *(common_length(a.tokens, b.tokens) for a, b in pairwise(walk))]
    answers: list = []
    cache = PrefixCache(model)
    with torch.inference_mode(), evaluating(model):
        while len(answers) < len(walk):
            begin = len(answers)
            end = _pack_end(walk, shared, begin, budget)
            new = None
            try:
                new = _run_pack(cache, walk[begin:end], shared[begin:end], budget, run)
            except (RuntimeError, MemoryError) as error:
                if budget // 2 < SMALLEST_BUDGET or not out_of_memory(error):
                    raise
            if new is None:  # not under `except`: the error holds the pack's tensors
                budget, cache = budget // 2, PrefixCache(model)
                FITTING[model] = budget
                free_memory()
                continue
            answers += new
            if answered:
                for place, answer in zip(order[begin:end], new, strict=True):
                    answered(place, answer)
    return [answers[i] for i in np.argsort(order)]


def common_length(left: list[int], right: list[int]) -> int:
    """Return the number of tokens with which both paths begin."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(left), len(right)))


def _pack_end(walk: list[TokenPath], shared: list[int], begin: int, budget: int) -> int:
    """Return the end of the pack that begins at `begin`.

    `shared[i]` is what path i has in common with path i - 1. A pack that would
    overflow ends, in its second half, where neighbours share least: no passage is torn
    from its next question.
    """
    nodes, prefix = len(walk[begin].tokens), walk[begin].start - 1
    for end in range(begin + 1, len(walk)):
        nodes += len(walk[end].tokens) - shared[end]
        prefix = min(prefix, shared[end], walk[end].start - 1)
        if nodes - prefix > budget:
            half = (begin + end) // 2 + 1
            return min(range(half, end + 1), key=lambda i: (shared[i], -i))
    return len(walk)


def _run_pack(
    cache: "PrefixCache",
    pack: list[TokenPath],
    shared: list[int],
    budget: int,
    run: Runner,
) -> list:
    """Bring the cache to the pack's prefix, lay out the rest, and run it."""
    prefix = min([path.start - 1 for path in pack] + shared[1:])
    held = common_length(cache.prefix, pack[0].tokens[:prefix])
    if prefix - held < SHORT_PREFIX:
        prefix = held
    cache.move(pack[0].tokens[:prefix], budget)
    return run(cache, _lay_out(pack, [prefix, *shared[1:]]), pack)


def _lay_out(pack: list[TokenPath], shared: list[int]) -> Tree:
    """Lay out the paths as a tree; path i leaves path i - 1 at depth `shared[i]`."""
    prefix = shared[0]
    tokens: list[int] = []
    depths: list[int] = []
    parents: list[int | None] = []
    branches: list[list[int]] = []
    for path, fork in zip(pack, shared, strict=True):
        branch = branches[-1][: fork - prefix] if branches else []
        for depth in range(fork, len(path.tokens)):
            parents.append(branch[-1] if branch else None)
            branch.append(len(tokens))
            tokens.append(path.tokens[depth])
            depths.append(depth)
        branches.append(branch)
    allowed = np.eye(len(tokens), dtype=bool)
    for node, parent in enumerate(parents):
        if parent is not None:
            allowed[node] |= allowed[parent]
    return Tree(tokens, depths, torch.from_numpy(allowed), branches)


class PrefixCache:
    """Keys and values of one prefix, and of the tree that now grows from it."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.layers = Cache(layer_class_to_replicate=_GrowingLayer)
        self.prefix: list[int] = []
        self.depths = torch.empty(0, dtype=torch.long, device=model.device)

    def move(self, prefix: list[int], budget: int) -> None:
        """Drop the tree, keep what both prefixes share, run the rest of the new one."""
        kept = common_length(self.prefix, prefix)
        self.prefix, self.depths = prefix[:kept], self.depths[:kept]
        for layer in self.layers.layers:
            layer.length = kept
        for begin in range(kept, len(prefix), budget):
            tokens = prefix[begin : begin + budget]
            depths = list(range(begin, begin + len(tokens)))
            seen = None
            if begin:
                seen = torch.ones(len(tokens), len(tokens), dtype=torch.bool).tril()
            self.run(tokens, depths, seen, keep=[0])
        self.prefix = prefix

    def run(
        self,
        tokens: list[int],
        depths: list[int],
        allowed: torch.Tensor | None,
        keep: list[int],
    ) -> torch.Tensor:
        """Append tokens; return float32 logits `[len(keep), vocabulary]` at `keep`.

        `allowed` (bool, `[tokens, seen]`) says which of the last `seen` tokens each
        one sees. All see the tokens before those. None is for the first tokens, each
        of which sees those before it: without a mask, attention does half the work.
        """
        device = self.model.device
        new = torch.tensor(depths, device=device)
        self.depths = torch.cat([self.depths, new])
        mask = None
        if allowed is not None:
            before = len(self.depths) - allowed.shape[1]
            sees = torch.nn.functional.pad(allowed.to(device), (before, 0), value=True)
            distance = new[:, None] - self.depths[None, :]
            mask = as_masks(self.model, sees[None, None], distance)
        output = self.model(
            input_ids=torch.tensor([tokens], device=device),
            position_ids=new[None],
            attention_mask=mask,
            cache=self.layers,
            use_cache=True,
            logits_to_keep=torch.tensor(keep, device=device),
        )
        return output.logits[0].float()


class _GrowingLayer(DynamicLayer):
    """A layer's keys and values, `[1, heads, tokens, head size]`, appended in place.

    The library's dynamic layer copies everything at every append, and its sliding one
    forgets what the next pack needs. Here room doubles when full, and cropping to a
    prefix is setting `length`.
    """

    length = 0

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append and return views of all keys and values held."""
        begin, self.length = self.length, self.length + keys.shape[2]
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            self.keys, self.values = keys[:, :, :0], values[:, :, :0]
        if self.length > self.keys.shape[2]:
            self.keys = _with_room(self.keys[:, :, :begin], 2 * self.length)
            self.values = _with_room(self.values[:, :, :begin], 2 * self.length)
        self.keys[:, :, begin : self.length] = keys
        self.values[:, :, begin : self.length] = values
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self) -> int:
        """Return the number of tokens held."""
        return self.length


def _with_room(states: torch.Tensor, tokens: int) -> torch.Tensor:
    """Return a buffer for `tokens` tokens that begins with the given states."""
    batch, heads, length, size = states.shape
    room = states.new_empty(batch, heads, tokens, size)
    room[:, :, :length] = states
    return room
