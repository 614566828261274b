"""Where a run keeps its checkpoints, and which one it goes on from."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from zipfile import is_zipfile

from maple_utils.training import Plan

WITHOUT_EFFECT = ("output_dir", "micro_batch", "report_to", "merge", "push_to")
CHOSEN = (
    "max_length",
    "dtype",
    "optimizer",
)  # of the plan: another device, another run


def folder_of(
    output: Path, run: SimpleNamespace, plan: Plan, fingerprint: str, processes: int = 1
) -> Path:
    """Return where checkpoints of this very run go: parameters and data in its name.

    A run with other parameters or data, or on a device that would train otherwise,
    finds none of them, and begins anew. How many rows go through at a time, and where
    results go, makes no difference.
    """
    about = {k: v for k, v in vars(run).items() if k not in WITHOUT_EFFECT}
    about |= {name: str(getattr(plan, name)) for name in CHOSEN}
    text = json.dumps([about, fingerprint, processes], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Path(output) / "checkpoints" / digest


def last(folder: Path) -> str | None:
    """Return the newest whole checkpoint; one that a kill cut short is passed over.

    transformers writes `trainer_state.json` last: one that can be read says that all
    else was written. What torch saved is a zip archive, whose end shows that it is all
    on disk. From a run's very last step within an epoch, transformers would go on with
    one step too many: the checkpoint before it is taken.
    """
    found = map(str, Path(folder).glob("checkpoint-*"))
    newest_first = sorted(found, key=step_of, reverse=True)
    return next((path for path in newest_first if _can_go_on(Path(path))), None)


def _can_go_on(checkpoint: Path) -> bool:
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    if state["global_step"] == state["max_steps"] and state["epoch"] % 1:
        return False
    return all(map(is_zipfile, [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]))


def step_of(checkpoint: str) -> int:
    """Return the optimiser step after which a checkpoint was written."""
    return int(Path(checkpoint).name.removeprefix("checkpoint-"))
