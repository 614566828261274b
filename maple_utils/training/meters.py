"""What training does and costs: held-out bits per byte, seconds, tokens, FLOPs."""

import time
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from datasets import Dataset
from matplotlib.figure import Figure
from transformers import Trainer, TrainerCallback, TrainerControl

from maple_utils import models
from maple_utils.forecast import shape_of
from maple_utils.scoring.heldout import bits_per_byte, heldout_bits


class HeldOut(TrainerCallback):
    """Scores held-out responses every `eval_steps`, into the trainer's own log.

    From there the numbers reach checkpoints and trackers. Not added to the trainer
    until `trainer.add_callback`: after a Meter, which would count its seconds.
    `before` are those of the untrained adapter, the log's step 0.
    """

    def __init__(self, trainer: Trainer, rows: Dataset):
        self.trainer, self.rows = trainer, rows
        self.before = self.bits_per_byte()

    def bits_per_byte(self) -> pd.Series:
        """Return bits per byte by language, a unit that no tokenizer has a part in."""
        model, tokenizer = self.trainer.model, self.trainer.processing_class
        languages = heldout_bits(model, tokenizer, self.rows).groupby("language")
        found = {c: bits_per_byte(r["nats"], r["bytes"])[0] for c, r in languages}
        return pd.Series(found, dtype=float).rename_axis("language")

    def on_train_begin(self, args, state, control, **kwargs):
        if state.global_step == 0:
            self._log(self.before, control)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % state.eval_steps == 0:
            self._log(self.bits_per_byte(), control)

    def _log(self, found: pd.Series, control: TrainerControl) -> None:
        due = control.should_log  # which trainer.log() takes as done
        model = self.trainer.model.eval()  # in training, TRL adds counts of its own
        self.trainer.log(found.add_prefix("heldout_").to_dict())
        model.train()
        control.should_log = due


COUNTS = ("read", "passed", "learned", "seconds", "joules", "peak")


class Meter(TrainerCallback):
    """Counts tokens and padding as batches are made; seconds and memory of the steps.

    Made just before `trainer.train()`; what is scored between the steps does not count.
    The counts are part of the trainer's state, so that a resumed run has them all.
    """

    def __init__(self, trainer: Trainer):
        self._collate: Callable[[list[dict]], dict[str, Any]] = trainer.data_collator
        # Tokens: without padding, with it, those that have a label.
        self.read = self.passed = self.learned = 0
        self._waiting: deque[tuple[int, int, int]] = deque()  # made ahead of their pass
        self.seconds = self.joules = 0.0
        self.peak = 0  # bytes
        self._energy = energy()
        trainer.data_collator = self
        trainer.add_callback(self)

    def __call__(self, rows: list[dict]) -> dict[str, Any]:
        batch = self._collate(rows)
        read = sum(len(row["input_ids"]) for row in rows)
        learned = int((batch["labels"] != -100).sum())
        self._waiting.append((read, batch["input_ids"].numel(), learned))
        return batch

    def on_train_begin(self, args, state, control, **kwargs):
        self.__dict__.update(state.stateful_callbacks.get("Meter", {}))

    def on_step_begin(self, args, state, control, **kwargs):
        models.forget_peak_memory()
        self._began = time.perf_counter()

    def on_substep_end(self, args, state, control, **kwargs):
        read, passed, learned = self._waiting.popleft()
        self.read += read
        self.passed += passed
        self.learned += learned

    def on_step_end(self, args, state, control, **kwargs):
        self.on_substep_end(args, state, control)
        self.seconds += time.perf_counter() - self._began
        self.peak = max(self.peak, models.peak_memory())
        if control.should_save:
            self._count_energy()
        counts = {name: getattr(self, name) for name in COUNTS}
        state.stateful_callbacks["Meter"] = counts

    def cost(self, base_model: str, rank: int, dtype: torch.dtype) -> dict[str, float]:
        """Return seconds, tokens per second, shares of padding and of FLOPs, memory.

        `flop_utilisation` is the model's FLOPs, without recomputed activations, against
        what a matrix product in `dtype` reaches on this device.
        `joules` is present where NVML reports it. `peak_memory_bytes` is the most that
        the steps held on the GPU; on a CPU, the process meanwhile.
        """
        self._count_energy()
        rate = self.read / self.seconds
        responses = self.learned / self.read
        flops = shape_of(base_model).flops(rank, False, responses)
        used = flops * rate / matrix_rate(dtype)
        return {
            "seconds": round(self.seconds, 1),
            "tokens": self.read,
            "tokens_per_second": round(rate, 1),
            "padding": round(1 - self.read / self.passed, 3),
            "flop_utilisation": round(used, 3),
            "peak_memory_bytes": self.peak,
            **({"joules": round(self.joules)} if self.joules else {}),
        }

    def _count_energy(self) -> None:
        now = energy()
        self.joules += now - self._energy
        self._energy = now


def curves(log: list[dict[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return from a trainer's log: step, loss; and step, language, bits per byte."""
    loss = pd.DataFrame([e for e in log if "loss" in e], columns=["step", "loss"])
    heldout = [
        (entry["step"], name.removeprefix("heldout_"), value)
        for entry in log
        for name, value in entry.items()
        if name.startswith("heldout_")
    ]
    columns = ["step", "language", "bits per byte"]
    return loss, pd.DataFrame(heldout, columns=columns)


def plot(log: list[dict[str, Any]], title: str = "") -> Figure:
    """Plot `curves`: the loss on the left, held-out languages on the right."""
    loss, heldout = curves(log)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="tight")
    figure.suptitle(title)
    sns.lineplot(loss, x="step", y="loss", marker="o", ax=left)
    style = {"x": "step", "y": "bits per byte", "hue": "language", "marker": "o"}
    sns.lineplot(heldout, ax=right, **style)
    if len(heldout):
        sns.move_legend(right, "center left", bbox_to_anchor=(1, 0.5), title="")
    plt.close(figure)
    return figure


def matrix_rate(dtype: torch.dtype) -> float:
    """Return the FLOP/s that this device reaches in a square matrix product.

    The best of half a second: where a CPU has no units for the dtype, one product is
    longer than that.
    """
    on_gpu = torch.cuda.is_available()
    size = 8192 if on_gpu else 1024
    one = torch.randn(size, size, device="cuda" if on_gpu else "cpu").to(dtype)
    best, end = 0.0, time.perf_counter() + 0.5
    while (began := time.perf_counter()) < end:
        (one @ one)[0, 0].item()  # waits for the GPU
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def energy() -> float:
    """Return the joules that the GPU has used since its driver was loaded.

    0 where there is no GPU, no NVML, or a GPU that does not report it.
    """
    if not torch.cuda.is_available() or not find_spec("pynvml"):
        return 0.0
    import pynvml  # of nvidia-ml-py, which few have

    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties().uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    except pynvml.NVMLError:
        return 0.0
