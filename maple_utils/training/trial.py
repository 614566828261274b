"""Does a forward and backward pass fit? It is tried before training."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from accelerate.utils.memory import should_reduce_batch_size
from peft.helpers import disable_input_dtype_casting
from pyarrow.compute import list_value_length
from transformers import Trainer


def largest_micro_batch(trainer: Trainer) -> int:
    """Return how many of the longest rows fit through one forward and backward pass.

    It starts with the trainer's own number and at least halves while memory does not
    suffice, to what divides that number, so that a step stays what it is. The pass is
    one of training: in its dtype, and activations are kept or recomputed as there.
    Weights, random numbers and what TRL counts stay as they are. Of several processes,
    each tries alone, and all take the least.
    """
    data = trainer.train_dataset
    lengths = list_value_length(data.with_format("arrow")[:]["input_ids"])
    longest = np.argsort(-lengths.to_numpy(), kind="stable")
    rows = whole = trainer.args.per_device_train_batch_size
    if trainer.args.activation_checkpointing:  # which train() would do, but later
        how = trainer.args.activation_checkpointing_kwargs
        trainer.model.activation_checkpointing_enable(how)
    while True:
        try:
            with _without_collectives(trainer.accelerator):
                _try_pass(trainer, [data[int(i)] for i in longest[:rows]])
            break
        except RuntimeError as error:
            if rows == 1 or not should_reduce_batch_size(error):
                raise
        torch.cuda.empty_cache()
        rows = largest_divisor(whole, rows // 2)
    trainer._metrics["train"].clear()  # TRL counts every pass, and this was a trial
    trainer._total_train_tokens = 0
    return min(gather_object([rows]))


def largest_divisor(rows: int, most: int) -> int:
    """Return the largest divisor of `rows` that is not above `most`."""
    return next(n for n in range(min(most, rows), 0, -1) if rows % n == 0)


@contextmanager
def _without_collectives(accelerator: Accelerator) -> Iterator[None]:
    """Keep TRL's counts from meeting those of other processes.

    One that runs out of memory tries again, and the others would wait for it for ever.
    """
    vars(accelerator)["gather_for_metrics"] = lambda count: count
    try:
        yield
    finally:
        del vars(accelerator)["gather_for_metrics"]


def _try_pass(trainer: Trainer, rows: list[dict]) -> None:
    model = trainer.model.train()
    inputs = trainer._prepare_inputs(trainer.data_collator(rows))  # to the device
    with torch.random.fork_rng(), disable_input_dtype_casting(model):
        with trainer.accelerator.autocast():  # train() wraps the model in it, but later
            loss = trainer.compute_loss(model, inputs)
        loss.backward()
    model.zero_grad(set_to_none=True)
