"""What makes a cell stale beside its parameters: a digest of the data that it reads.

Snakemake compares digests, not times of files, so that a fresh checkout reruns nothing.
"""

from pathlib import Path
from typing import Any

from maple_utils.miniature.hub import hub
from maple_utils.params import Cell
from maple_utils.provenance import PACKAGE, content_of
from maple_utils.tasks import PAPER_TASKS, TASKS


def data_of(notebook: str, cell: Cell, settings: dict[str, Any]) -> dict[str, str]:
    """Return digests of the folders that a notebook reads for a cell, by their names.

    They are the base model, the instruction data and, for 03, the tasks. What comes
    from the hub is known by its name, and what the grid makes by 01 is an input of its
    own.
    """
    model, root = cell.base_model, settings.get("hub_root", "miniature")
    folders = [Path(model), PACKAGE / "miniature" / model.removeprefix("miniature-")]
    if cell.instruction_data:
        folders.append(Path(cell.instruction_data))
    if root:
        mirror = hub() if root == "miniature" else Path(root)
        read = {cell.instruction_data} - {""}
        if notebook == "03_evaluate":
            for task in (TASKS[t] for t in settings.get("tasks") or PAPER_TASKS):
                read |= {source.dataset for source in task.sources}
        folders += [mirror / name for name in sorted(read)]
    return {folder.name: content_of(folder) for folder in folders if folder.is_dir()}
