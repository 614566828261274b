"""Who is evaluated: a base model, or adapters over it, and where their tables go."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from maple_utils import libraries, models, provenance, results, served
from maple_utils.errors import ParameterError
from maple_utils.evaluation.answers import Options, evaluate
from maple_utils.params import Cell, output_folder


@dataclass(frozen=True)
class Subject:
    """A base model (`adapter` is None) or an adapter; `record` is its `train.json`.

    `source` is the base model's hub id or folder, or endpoint:NAME of a served one.
    """

    cell: Cell
    output: Path
    source: str
    adapter: Path | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_served(self) -> bool:
        """Say whether a server is asked, instead of a model that is loaded."""
        return bool(served.name_of(self.source))

    @property
    def key(self) -> str | None:
        """Return the adapter's name for PEFT, which takes no dots; None for a base."""
        return self.cell.name.replace(".", "-") if self.adapter else None


def subjects(run: SimpleNamespace) -> list[Subject]:
    """Return what 03's parameters ask to evaluate: base or adapter, then `adapters`.

    A served model is known by its name on the server, so are adapters of that name.

    Raises ParameterError for a folder that holds no adapter of this base and bits.
    """
    libraries.check_tracker(run.report_to)
    source = run.base_model
    if name := served.name_of(source):
        served.check_bits(run.bits)
        run = SimpleNamespace(**vars(run) | {"base_model": name})
    else:
        source = models.source(source)
    cell = Cell.of(vars(run))
    output = output_folder(run.output_dir, cell.name)
    first = Subject(cell, output, source)
    if not cell.is_base:
        first = _adapter(run, source, output / "adapter", output)
    others = (_adapter(run, source, Path(folder)) for folder in run.adapters)
    everyone = [first, *others]
    names = [subject.cell.name for subject in everyone]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ParameterError(
            f"adapters: got several that are {', '.join(sorted(repeated))}; allowed: "
            "each data, rank and seed once; evaluate the others in a run of their own"
        )
    return everyone


def _adapter(
    run: SimpleNamespace, source: str, folder: Path, output: Path | None = None
) -> Subject:
    """Describe an adapter by the `train.json` beside it and its own config.

    02 writes CELL/adapter; a folder by another name is known by its own name.
    """
    models.check_adapter(folder, run.base_model)
    is_ours = folder.name == "adapter"
    file = folder.parent / "train.json"
    record = json.loads(file.read_text()) if file.is_file() else {}
    trained = record.get("parameters", {})
    if trained.get("bits", run.bits) != run.bits:
        raise ParameterError(
            f"adapters: got {folder}, trained at {trained['bits']} bits; allowed: "
            f"adapters trained at bits {run.bits}"
        )
    known_as = folder.parent.name if is_ours else folder.name
    cell = Cell(
        base_model=run.base_model,
        instruction_data=trained.get("instruction_data", known_as),
        rank=json.loads((folder / "adapter_config.json").read_text())["r"],
        bits=run.bits,
        seed=trained.get("seed", run.seed),
    )
    place = folder.parent if is_ours else output_folder("", cell.name)
    place = Path(run.output_dir) / cell.name if run.output_dir else place
    return Subject(cell, output or place, source, folder, record)


def loading(everyone: Sequence[Subject]) -> dict[str, Any]:
    """Return the dtype and attn_implementation to load the base model with.

    They are those that the adapters' `train.json` recorded, where the device is of the
    same kind; without a record, or on a CPU after training on a GPU, the device's own.

    Raises:
        ParameterError: where the adapters were trained with different ones.
    """
    own = str(models.compute_dtype()).removeprefix("torch."), "sdpa"
    plans = [s.record.get("plan", {}) for s in everyone if s.adapter]
    if not torch.cuda.is_available():
        plans = [plan for plan in plans if plan.get("preset") == "CPU"]
    found = {
        (plan.get("dtype", own[0]), plan.get("attn_implementation", own[1]))
        for plan in plans
    }
    if len(found) > 1:
        told = " and ".join(sorted(" with ".join(pair) for pair in found))
        raise ParameterError(
            f"adapters: got some trained in {told}; allowed: one of these in a run"
        )
    dtype, attention = found.pop() if found else own
    return {"dtype": getattr(torch, dtype), "attn_implementation": attention}


def part_of(subject: Subject, task: str, language: str, options: Options) -> Path:
    """Return the file that keeps a finished pair until all pairs are done."""
    return parts_folder(subject, options) / f"{task}_{language}.parquet"


def parts_folder(subject: Subject, options: Options) -> Path:
    """Return where a subject's finished pairs are kept until all are done.

    The name is a hash of the base model, the adapter, the tables of tasks and prompts
    and every option that changes an answer: a run that was killed resumes from its
    own, and another run starts over.
    """
    settings = {k: str(v) for k, v in vars(options).items() if k != "token_budget"}
    about = [subject.source, subject.cell.bits, subject.cell.seed, settings]
    about.append(provenance.code_of(["tasks"]))  # with its tables
    about += weights(subject)
    text = json.dumps(about, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return subject.output / f".parts-{digest}"


def weights(subject: Subject) -> list[str]:
    """Return the digests of an adapter's files; none of a base model's."""
    if not subject.adapter:
        return []
    names = ("adapter_config.json", "adapter_model.safetensors")
    files = [subject.adapter / name for name in names]
    return [_digest(file, file.stat().st_mtime_ns) for file in files]


@cache
def _digest(file: Path, changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def is_done(part: Path) -> bool:
    """Say whether a pair's file is there and whole; one that is torn is removed."""
    try:
        pq.read_metadata(part)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        part.unlink()
        return False
    return True


def evaluate_pair(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    subject: Subject,
    task: str,
    language: str,
    options: Options,
) -> None:
    """Write a pair's predictions to its part, unless a run before did so.

    Arguments are those of `evaluate`; the subject's adapter is switched on for it.
    """
    part = part_of(subject, task, language, options)
    if is_done(part):
        return
    with models.switched_to(model, subject.key) as active:
        table = evaluate(
            active, tokenizer, subject.cell, task, language, options, progress=True
        )
    results.write_predictions(table, part)
