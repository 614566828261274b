"""When a run writes checkpoints, where, and which one it resumes from."""

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

WITHOUT_EFFECT = (
    *("output_dir", "micro_batch", "save_minutes", "report_to", "merge", "push_to"),
    "tasks",  # what the rows are only compared with
)
CHOSEN = ("max_length", "dtype", "optimizer")  # another device chooses otherwise


class Clock(TrainerCallback):
    """Has a checkpoint written every so many minutes, and after the last step.

    A step takes from milliseconds to minutes, and what a kill costs is time. The first
    of several processes says when, so that all write after the same step.
    """

    def __init__(self, minutes: float):
        self.seconds = 60 * minutes

    def on_train_begin(self, args, state, control, **kwargs):
        self._since = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        [due] = broadcast_object_list([time.monotonic() - self._since >= self.seconds])
        if due or state.global_step >= state.max_steps:
            control.should_save = True
            self._since = time.monotonic()


def folder_of(
    output: Path,
    parameters: Mapping[str, Any],
    plan: Mapping[str, Any],
    fingerprint: str,
    processes: int = 1,
) -> Path:
    """Return where the checkpoints of this very run go.

    A run with other parameters or data, or on a device that would train otherwise,
    finds none of them, and starts over. How many rows go through at a time, and where
    results go, makes no difference.
    """
    about = {k: v for k, v in parameters.items() if k not in WITHOUT_EFFECT}
    about |= {name: str(plan[name]) for name in CHOSEN}
    text = json.dumps([about, fingerprint, processes], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return output / "checkpoints" / digest


def last(folder: Path) -> str | None:
    """Return the newest whole checkpoint; one that a kill cut short is passed over.

    transformers writes `trainer_state.json` last: one that can be read says that all
    else was written. What torch saved is a zip archive, whose end shows that it is all
    on disk. From a run's very last step within an epoch, transformers would train one
    step too many: the checkpoint before it is taken.
    """
    newest_first = sorted(folder.glob("checkpoint-*"), key=step_of, reverse=True)
    return next((str(path) for path in newest_first if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    if state["global_step"] == state["max_steps"] and state["epoch"] % 1:
        return False
    return all(map(is_zipfile, [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]))


def step_of(checkpoint: str | Path) -> int:
    """Return the optimiser step after which a checkpoint was written."""
    return int(Path(checkpoint).name.removeprefix("checkpoint-"))
