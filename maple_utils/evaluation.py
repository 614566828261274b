"""Who is evaluated, and the tables that come of it.

A subject is a base model or one adapter over it. The notebook loads the model and does
the scoring; here is what would distract there.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from maple_utils import instructions, metrics, models, params, results
from maple_utils.errors import ParameterError
from maple_utils.tasks import Task, TaskData
from maple_utils.tasks.prompts import Prompt


@dataclass(frozen=True)
class Subject:
    """A base model (`adapter` is None) or an adapter; `trained` is 02's parameters."""

    name: str
    output: Path
    about: Mapping[str, Any]  # results.CELL: base_model, instruction_data, rank ...
    adapter: Path | None = None
    trained: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Return a name for PEFT, which takes no dots."""
        return self.name.replace(".", "-")

    @property
    def seed(self) -> int:
        """Return the seed that draws its shots, as in a run of its own."""
        return self.about["seed"]


def subjects(run: SimpleNamespace, cell: str, output: Path) -> list[Subject]:
    """Return what the parameters ask to evaluate: the base or an adapter, then others.

    Raises ParameterError for a folder that holds no adapter of this base and bits.
    """
    about = {"base_model": run.base_model, "instruction_data": "", "rank": None}
    about |= {"bits": run.bits, "seed": run.seed}
    if run.instruction_data:
        first = _adapter(run, output / "adapter", output)
    else:
        first = Subject(cell, output, about)
    everyone = [first, *(_adapter(run, Path(folder)) for folder in run.adapters)]
    names = [subject.name for subject in everyone]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ParameterError(
            f"adapters: got several that are {', '.join(sorted(repeated))}; allowed: "
            "each data, rank and seed once; evaluate the others in a run of their own"
        )
    return everyone


def _adapter(run: SimpleNamespace, folder: Path, output: Path | None = None) -> Subject:
    """Describe an adapter by the `train.json` beside it and its own config."""
    models.check_adapter(folder, run.base_model)
    record = folder.parent / "train.json"
    trained = json.loads(record.read_text())["parameters"] if record.is_file() else {}
    if trained.get("bits", run.bits) != run.bits:
        raise ParameterError(
            f"adapters: got {folder}, trained at {trained['bits']} bits; allowed: "
            f"adapters trained at bits {run.bits}"
        )
    about = {
        "base_model": run.base_model,
        "instruction_data": trained.get("instruction_data", folder.parent.name),
        "rank": json.loads((folder / "adapter_config.json").read_text())["r"],
        "bits": run.bits,
        "seed": trained.get("seed", run.seed),
    }
    name = params.cell_name(**about)
    place = Path(run.output_dir) / name if run.output_dir else folder.parent
    return Subject(name, output or place, about, folder, trained)


def ways(task: Task, scoring: str) -> list[str]:
    """Return how a task is scored: choices as `scoring` says, the others generated."""
    both = ["likelihood", "generate"] if scoring == "both" else [scoring]
    return both if task.kind == "choice" else ["generate"]


def rows(
    subject: Subject,
    data: TaskData,
    how: str,
    asked: Sequence[Prompt],
    judged: Iterable[Mapping[str, Any]],
) -> pd.DataFrame:
    """Return a predictions table of one task and language, one row per example."""
    about = {**subject.about, "task": data.task.name, "language": data.language}
    table = []
    for example, prompt, judgement in zip(data.test, asked, judged, strict=True):
        right = example.references
        if example.options:
            right = (example.options[example.label],)
        answer = {"example": example.id, "references": list(right), **judgement}
        table.append({**about, "scoring": how, "shots": prompt.shots, **answer})
    return pd.DataFrame(table).reindex(columns=results.PREDICTIONS_COLUMNS)


def parts_folder(subject: Subject, source: str, run: SimpleNamespace) -> Path:
    """Return where the finished pairs of this subject are kept until all are done.

    The name is a hash of the base model, the adapter's weights and every parameter that
    changes an answer, so that another run never takes them for its own.
    """
    ignored = {"tasks", "languages", "adapters", "output_dir", "token_budget"}
    ignored |= {"instruction_data", "rank", "seed"}  # the subject's own count
    settings = {key: value for key, value in vars(run).items() if key not in ignored}
    digest = hashlib.sha256(json.dumps([source, settings, subject.seed]).encode())
    if subject.adapter:
        weights = subject.adapter / "adapter_model.safetensors"
        digest.update(weights.read_bytes())
    return subject.output / f".parts-{digest.hexdigest()[:12]}"


def join(files: Iterable[Path]) -> pd.DataFrame:
    """Join the predictions tables of several pairs."""
    tables = [pd.read_parquet(file) for file in files]
    kept = [table.dropna(axis="columns", how="all") for table in tables]
    return pd.concat(kept).reindex(columns=results.PREDICTIONS_COLUMNS)


def heldout_rows(subject: Subject, hub_root: str | Path) -> pd.DataFrame:
    """Return the rows that 02 kept from the training of an adapter.

    Raises ParameterError where its instruction data are not at hand.
    """
    of = SimpleNamespace(**subject.trained)
    data = instructions.load(
        of.instruction_data, of.languages, hub_root, params.workspace()
    )
    if of.train_limit:
        data = instructions.cap(data, of.train_limit + of.heldout, of.seed)
    return instructions.split_heldout(data, of.heldout, of.seed)[1].to_pandas()


def heldout_scores(
    subject: Subject, heldout: pd.DataFrame, nats: Sequence[float]
) -> pd.DataFrame:
    """Return bits per byte of the held-out responses as scores, a row per language."""
    frame = heldout.assign(nats=nats)
    frame["bytes"] = frame["output"].str.encode("utf-8").str.len()
    scores = []
    for language, of in frame.groupby("language"):
        value, stderr = metrics.bits_per_byte(of["nats"], of["bytes"])
        row = {"language": language, "value": value, "stderr": stderr, "n": len(of)}
        scores.append({**subject.about, **row})
    return results.validate(
        pd.DataFrame(scores).assign(
            task="heldout",
            scoring="likelihood",
            metric="bits_per_byte",
            format_failures=0,
        )
    )
