"""Where a run keeps its checkpoints, and which one it goes on from."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

WITHOUT_EFFECT = ("output_dir", "micro_batch", "report_to", "merge", "push_to")


def folder_of(output: Path, run: SimpleNamespace, fingerprint: str) -> Path:
    """Return where checkpoints of this very run go: parameters and data in its name.

    A run with other parameters or data finds none of them, and begins anew. How many
    rows go through at a time, and where results go, makes no difference.
    """
    about = {k: v for k, v in vars(run).items() if k not in WITHOUT_EFFECT}
    text = json.dumps([about, fingerprint], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Path(output) / "checkpoints" / digest


def last(folder: Path) -> str | None:
    """Return the newest whole checkpoint; one that a kill cut short is passed over.

    transformers writes `trainer_state.json` last: one that can be read says that all
    else is there.
    """
    found = map(str, Path(folder).glob("checkpoint-*"))
    newest_first = sorted(found, key=step_of, reverse=True)
    return next((path for path in newest_first if _is_whole(Path(path))), None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return "global_step" in state


def step_of(checkpoint: str) -> int:
    """Return the optimiser step after which a checkpoint was written."""
    return int(Path(checkpoint).name.removeprefix("checkpoint-"))
