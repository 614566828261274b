"""What training costs: seconds, tokens, padding, a share of the device's FLOPs."""

import json
import time
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from transformers import Trainer, TrainerCallback


class Meter(TrainerCallback):
    """Counts tokens and padding as batches are made, and the seconds of the steps.

    Made just before `trainer.train()`; what is scored between the steps does not count.
    A checkpoint keeps the counts, so that a run that goes on from it has them all.
    """

    def __init__(self, trainer: Trainer):
        self._collate: Callable[[list[dict]], dict[str, Any]] = trainer.data_collator
        self.read = self.passed = 0  # tokens, without and with padding
        self._waiting: deque[tuple[int, int]] = deque()  # made ahead of their pass
        self.seconds = self.joules = 0.0
        self._energy = energy()
        trainer.data_collator = self
        trainer.add_callback(self)

    def __call__(self, rows: list[dict]) -> dict[str, Any]:
        batch = self._collate(rows)
        read = sum(len(row["input_ids"]) for row in rows)
        self._waiting.append((read, batch["input_ids"].numel()))
        return batch

    def on_train_begin(self, args, state, control, **kwargs):
        kept = _kept_in(args.output_dir, state.global_step)
        if kept.is_file():
            vars(self).update(json.loads(kept.read_text()))

    def on_save(self, args, state, control, **kwargs):
        self._count_energy()
        counts = {n: getattr(self, n) for n in ("read", "passed", "seconds", "joules")}
        if state.is_world_process_zero:
            _kept_in(args.output_dir, state.global_step).write_text(json.dumps(counts))

    def on_step_begin(self, args, state, control, **kwargs):
        self._began = time.perf_counter()

    def on_substep_end(self, args, state, control, **kwargs):
        read, passed = self._waiting.popleft()
        self.read += read
        self.passed += passed

    def on_step_end(self, args, state, control, **kwargs):
        self.on_substep_end(args, state, control)
        self.seconds += time.perf_counter() - self._began

    def cost(self, flops_per_token: float, dtype: torch.dtype) -> dict[str, float]:
        """Return seconds, tokens, tokens per second, shares of padding and of FLOPs.

        `flop_utilisation` is measured against a matrix product on this device.
        `joules` is there where NVML tells it. Rates are left out where no step is known
        of: a run that was killed between its last checkpoint and its counts.
        """
        if not self.seconds:
            return {"seconds": 0.0, "tokens": 0}
        self._count_energy()
        rate = self.read / self.seconds
        used = flops_per_token * rate / matrix_rate(dtype)
        return {
            "seconds": round(self.seconds, 1),
            "tokens": self.read,
            "tokens_per_second": round(rate, 1),
            "padding": round(1 - self.read / self.passed, 3),
            "flop_utilisation": round(used, 3),
            **({"joules": round(self.joules)} if self.joules else {}),
        }

    def _count_energy(self) -> None:
        now = energy()
        self.joules += now - self._energy
        self._energy = now


def _kept_in(folder: str, step: int) -> Path:
    return Path(folder) / f"checkpoint-{step}" / "meter.json"


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
    """Return the joules that the GPU has taken since its driver was loaded.

    0 where there is no GPU, no NVML, or a GPU that does not tell.
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
