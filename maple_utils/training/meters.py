"""What training costs: seconds, tokens, padding, a share of the device's FLOPs."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from transformers import Trainer, TrainerCallback


class Meter(TrainerCallback):
    """Counts tokens and padding as batches are made, and the seconds of the steps.

    Made just before `trainer.train()`; what is scored between the steps does not count.
    """

    def __init__(self, trainer: Trainer):
        self._collate: Callable[[list[dict]], dict[str, Any]] = trainer.data_collator
        self.read = self.passed = 0
        self.seconds = 0.0
        self._energy = energy()
        trainer.data_collator = self
        trainer.add_callback(self)

    def __call__(self, rows: list[dict]) -> dict[str, Any]:
        batch = self._collate(rows)
        self.read += sum(len(row["input_ids"]) for row in rows)
        self.passed += batch["input_ids"].numel()
        return batch

    def on_step_begin(self, args, state, control, **kwargs):
        self._began = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds += time.perf_counter() - self._began

    def cost(self, flops_per_token: float, dtype: torch.dtype) -> dict[str, float]:
        """Return seconds, tokens, tokens per second, shares of padding and of FLOPs.

        `flop_utilisation` is measured against a matrix product on this device.
        `joules` is there where NVML tells it.
        """
        rate = self.read / self.seconds
        used = flops_per_token * rate / matrix_rate(dtype)
        spent = energy() - self._energy
        return {
            "seconds": round(self.seconds, 1),
            "tokens": self.read,
            "tokens_per_second": round(rate, 1),
            "padding": round(1 - self.read / self.passed, 3),
            "flop_utilisation": round(used, 3),
            **({"joules": round(spent)} if spent else {}),
        }


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


def draw(log: list[dict[str, Any]], left: Axes, right: Axes) -> None:
    """Draw `curves` anew: the loss on the left, held-out languages on the right."""
    loss, heldout = curves(log)
    left.clear()
    right.clear()
    sns.lineplot(loss, x="step", y="loss", marker="o", ax=left)
    style = {"x": "step", "y": "bits per byte", "hue": "language", "marker": "o"}
    sns.lineplot(heldout, ax=right, **style)
    if len(heldout):
        sns.move_legend(right, "center left", bbox_to_anchor=(1, 0.5), title="")


def matrix_rate(dtype: torch.dtype) -> float:
    """Return the FLOP/s that this device reaches in a square matrix product."""
    on_gpu = torch.cuda.is_available()
    size = 8192 if on_gpu else 1024
    one = torch.randn(size, size, device="cuda" if on_gpu else "cpu").to(dtype)
    best = 0.0
    for _ in range(8):
        began = time.perf_counter()
        (one @ one)[0, 0].item()  # waits for the GPU
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


def energy() -> float:
    """Return the joules that the GPU has taken since its driver was loaded; else 0."""
    if not torch.cuda.is_available() or not find_spec("pynvml"):
        return 0.0
    import pynvml  # of nvidia-ml-py, which few have

    pynvml.nvmlInit()
    uuid = f"GPU-{torch.cuda.get_device_properties().uuid}"
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
