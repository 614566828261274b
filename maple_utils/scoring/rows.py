"""Write answers to prompts that share little, each in a row of its own.

A tree in one sequence (see `prefixes`) pays where prompts share most of their tokens.
Where they do not, all rows would attend, masked, to each other's prompts. Here every
prompt runs once, alone and without padding, and its keys and values move to a row of a
batch that writes one token per pass. A row that ends makes room for the next prompt.
Where there are enough of them, prompts of similar length go together, so that rows hold
little else than they need.
"""

from collections.abc import Callable, Iterator

import psutil
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
from maple_utils.scoring.prefixes import Answered, PrefixCache, TokenPath

MOST_ROWS = 32  # more than so many gain little on a GPU, and nothing on a CPU
MEMORY_SHARE = 0.5  # of the free memory, for keys and values

Ended = Callable[[list[int]], object | None]


def run_rows(
    model: PreTrainedModel,
    paths: list[TokenPath],
    budget: int,
    new_tokens: int,
    ended: Ended,
    answered: Answered = None,
) -> list:
    """Let every path grow by its likeliest token until `ended` gives its answer.

    `ended(written)` is asked after each token, and must answer by the last of
    `new_tokens`. `budget` is the number of prompt tokens per pass: out of memory, it
    and the number of rows are halved. `answered` is called with each path's number and
    answer as they come.
    """
    order = sorted(range(len(paths)), key=lambda i: -len(paths[i].tokens))
    answers: dict[int, object] = {}
    most = MOST_ROWS
    with torch.inference_mode(), evaluating(model):
        while waiting := [i for i in order if i not in answers]:
            half = len(paths[waiting[0]].tokens) / 2
            alike = sum(len(paths[i].tokens) >= half for i in waiting)
            prompts = {i: paths[i].tokens for i in waiting[: max(alike, most)]}
            try:
                for i, answer in _grow(model, prompts, budget, new_tokens, most, ended):
                    answers[i] = answer
                    if answered:
                        answered(i, answer)
            except (RuntimeError, MemoryError) as error:
                if budget // 2 < SMALLEST_BUDGET or not out_of_memory(error):
                    raise
                most, budget = max(1, most // 2), budget // 2
                FITTING[model] = budget
            free_memory()
    return [answers[i] for i in range(len(paths))]


def _grow(
    model: PreTrainedModel,
    prompts: dict[int, list[int]],
    budget: int,
    new_tokens: int,
    most: int,
    ended: Ended,
) -> Iterator[tuple[int, object]]:
    """Yield the number and the answer of each prompt, the longest first, as they end.

    The room of a row is set by the first prompt; the others must not be longer.
    """
    waiting = list(prompts)
    growing: list[int] = []
    written: dict[int, list[int]] = {i: [] for i in prompts}
    cache = PrefixCache(model)
    cache.move(prompts[waiting[0]], budget)
    rows = Rows(cache, len(prompts[waiting[0]]) + new_tokens, min(most, len(waiting)))
    while waiting or growing:
        while waiting and len(growing) < rows.most:
            growing.append(waiting.pop(0))
            cache.move(prompts[growing[-1]], budget)
            rows.add(cache, len(prompts[growing[-1]]) - 1)
        logits = rows.step([[*prompts[i], *written[i]][-1] for i in growing])
        for row, token in reversed(list(enumerate(logits.argmax(-1).tolist()))):
            written[growing[row]].append(token)
            if answer := ended(written[growing[row]]):
                yield growing[row], answer
                rows.drop(row)
                growing[row] = growing[-1]
                growing.pop()


class Rows:
    """Keys and values of texts that grow side by side, `[row, heads, place, size]`.

    `lengths` are the rows' numbers of tokens. The rows in use are always the first.
    """

    def __init__(self, like: PrefixCache, room: int, most: int) -> None:
        """Make `most` rows, or as many as memory holds, with `room` tokens each."""
        self.model = like.model
        self.lengths: list[int] = []
        pairs = [(layer.keys, layer.values) for layer in like.layers.layers]
        row_bytes = room * sum(k[0, :, 0].nbytes + v[0, :, 0].nbytes for k, v in pairs)
        memory = MEMORY_SHARE * _free_bytes(self.model.device)
        self.most = max(1, min(most, int(memory / row_bytes)))
        self.cache = Cache(layer_class_to_replicate=_RowsLayer)
        for keys, values in pairs:
            layer = _RowsLayer()
            layer.lengths, layer.is_initialized = self.lengths, True
            # Zeros, since a masked place still counts where it holds a NaN.
            heads, size = keys.shape[1], keys.shape[3]
            layer.keys = keys.new_zeros(self.most, heads, room, size)
            layer.values = values.new_zeros(self.most, heads, room, values.shape[3])
            self.cache.layers.append(layer)

    def add(self, cache: PrefixCache, length: int) -> None:
        """Copy the first `length` tokens of a prefix to a new row."""
        row = len(self.lengths)
        for mine, theirs in zip(self.cache.layers, cache.layers.layers, strict=True):
            mine.keys[row, :, :length] = theirs.keys[0, :, :length]
            mine.values[row, :, :length] = theirs.values[0, :, :length]
        self.lengths.append(length)

    def drop(self, row: int) -> None:
        """Give a row back: the last row takes its place."""
        last, length = len(self.lengths) - 1, self.lengths.pop()
        if row < last:
            for layer in self.cache.layers:
                layer.keys[row, :, :length] = layer.keys[last, :, :length]
                layer.values[row, :, :length] = layer.values[last, :, :length]
            self.lengths[row] = length

    def step(self, tokens: list[int]) -> torch.Tensor:
        """Append a token to every row; return float32 logits `[rows, vocabulary]`."""
        device = self.model.device
        places = torch.tensor(self.lengths, device=device)[:, None]
        distance = places - torch.arange(max(self.lengths) + 1, device=device)
        distance = distance[:, None, None]
        output = self.model(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            position_ids=places,
            attention_mask=as_masks(self.model, distance >= 0, distance),
            cache=self.cache,
            use_cache=True,
        )
        self.lengths[:] = [length + 1 for length in self.lengths]
        return output.logits[:, -1].float()


class _RowsLayer(DynamicLayer):
    """One layer of `Rows`."""

    lengths: list[int]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write each row's new token behind its last; return views of all rows."""
        rows, end = len(self.lengths), max(self.lengths) + 1
        places = torch.tensor(self.lengths, device=keys.device)
        self.keys[range(rows), :, places] = keys[:, :, 0]
        self.values[range(rows), :, places] = values[:, :, 0]
        return self.keys[:rows, :, :end], self.values[:rows, :, :end]

    def get_seq_length(self) -> int:
        """Return the length of the longest row in tokens."""
        return max(self.lengths)


def _free_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
