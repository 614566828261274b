"""Who is evaluated: a base model, or adapters over it, and where their tables go."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from maple_utils import (
    files,
    instructions,
    metrics,
    models,
    provenance,
    results,
    tasks,
)
from maple_utils.errors import ParameterError
from maple_utils.evaluation.answers import Options, evaluate, new_tokens
from maple_utils.params import Cell, output_folder, workspace
from maple_utils.scoring.heldout import heldout_bits
from maple_utils.tasks.prompts import wording
from maple_utils.training import cards


@dataclass(frozen=True)
class Subject:
    """A base model (`adapter` is None) or an adapter; `record` is its `train.json`."""

    cell: Cell
    output: Path
    adapter: Path | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str | None:
        """Return the adapter's name for PEFT, which takes no dots; None for a base."""
        return self.cell.name.replace(".", "-") if self.adapter else None


def subjects(run: SimpleNamespace) -> list[Subject]:
    """Return what 03's parameters ask to evaluate: base or adapter, then `adapters`.

    Raises ParameterError for a folder that holds no adapter of this base and bits.
    """
    cell = Cell.of(vars(run))
    output = output_folder(run.output_dir, cell.name)
    first = Subject(cell, output)
    if not cell.is_base:
        first = _adapter(run, output / "adapter", output)
    everyone = [first, *(_adapter(run, Path(folder)) for folder in run.adapters)]
    names = [subject.cell.name for subject in everyone]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ParameterError(
            f"adapters: got several that are {', '.join(sorted(repeated))}; allowed: "
            "each data, rank and seed once; evaluate the others in a run of their own"
        )
    return everyone


def _adapter(run: SimpleNamespace, folder: Path, output: Path | None = None) -> Subject:
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
    return Subject(cell, output or place, folder, record)


def loading(everyone: Sequence[Subject]) -> dict[str, Any]:
    """Return the dtype and attn_implementation to load the base model with.

    They are those that the adapters' `train.json` recorded, where the device is of the
    same kind; without a record, or on a CPU after training on a GPU, the device's own.

    Raises:
        ParameterError: where the adapters were trained with different ones.
    """
    own = (str(models.compute_dtype()).removeprefix("torch."), "sdpa")
    plans = [s.record.get("plan", {}) for s in everyone if s.adapter]
    if not torch.cuda.is_available():
        plans = [plan for plan in plans if plan.get("preset") == "CPU"]
    names = ("dtype", "attn_implementation")
    found = {
        tuple(plan.get(name) or usual for name, usual in zip(names, own, strict=True))
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
    digest = hashlib.sha256()
    settings = {k: str(v) for k, v in vars(options).items() if k != "token_budget"}
    source = models.source(subject.cell.base_model)
    about = [source, subject.cell.bits, subject.cell.seed, settings]
    digest.update(json.dumps(about, sort_keys=True).encode())
    read = [Path(tasks.__file__).with_name(n) for n in ("tasks.yaml", "prompts.yaml")]
    if subject.adapter:
        names = ("adapter_config.json", "adapter_model.safetensors")
        read += [subject.adapter / name for name in names]
    for file in read:
        digest.update(_digest(file, file.stat().st_mtime_ns))
    return subject.output / f".parts-{digest.hexdigest()[:12]}"


@cache
def _digest(file: Path, changed: int) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def versions_of(task: tasks.Task, hub_root: str | Path) -> dict[str, str]:
    """Return the revision of each dataset behind a task, or its folder's digest."""
    if not hub_root:
        return {source.dataset: source.revision for source in task.sources}
    folders = {s.dataset: Path(hub_root) / s.dataset for s in task.sources}
    return {
        name: f"sha256:{provenance.content_of(folder)}"
        for name, folder in folders.items()
        if folder.is_dir()
    }


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
    with models.switched_to(model, subject.key):
        table = evaluate(
            model, tokenizer, subject.cell, task, language, options, progress=True
        )
    results.write_predictions(table, part)


def heldout_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    subject: Subject,
    options: Options,
) -> pd.DataFrame:
    """Return bits per byte of the rows that 02 held out, as scores by language.

    Raises ParameterError where an adapter's instruction data are not at hand.
    """
    trained = subject.record["parameters"]
    _, rows = instructions.load_split(
        trained["instruction_data"],
        trained["languages"],
        options.hub_root,
        train_limit=trained["train_limit"],
        heldout=trained["heldout"],
        seed=trained["seed"],
        workspace_dir=workspace(),
    )
    with models.switched_to(model, subject.key):
        bits = heldout_bits(model, tokenizer, rows, options.budget)
    scores = []
    for language, part in bits.groupby("language"):
        value, stderr = metrics.bits_per_byte(part["nats"], part["bytes"])
        row = {"language": language, "value": value, "stderr": stderr, "n": len(part)}
        scores.append({**subject.cell.asdict(), **row})
    return results.validate(
        pd.DataFrame(scores).assign(
            task="heldout",
            scoring="likelihood",
            metric="bits_per_byte",
            format_failures=0,
            cut_off=0,
            shots=0.0,
            cutter="",
        )
    )


def save(
    subject: Subject,
    options: Options,
    pairs: Sequence[tuple[str, str]],
    heldout: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join the finished pairs, write both tables and the adapter's card; return them.

    `heldout` are scores of the held-out rows, if there are any. Returns predictions
    and scores, as they stand in predictions.parquet and scores.parquet.
    """
    predictions = results.join(part_of(subject, *pair, options) for pair in pairs)
    scores = results.scores_from_predictions(predictions)
    if heldout is not None:
        scores = results.validate(pd.concat([scores, heldout]))
    results.write_predictions(predictions, subject.output / "predictions.parquet")
    results.write_scores(scores, subject.output / "scores.parquet")
    if subject.adapter and subject.record:
        main = results.main_metrics(scores)
        cards.write(subject.adapter, dict(subject.record), main)
    return predictions, scores


def finish(
    subject: Subject,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    options: Options,
    predictions: pd.DataFrame,
    record: Mapping[str, Any],
) -> dict[str, Any]:
    """Write `evaluate.json`, with which the evaluation is complete; drop the parts.

    Adds to `record` who was evaluated, the words of the prompts, the room for written
    answers (`new_tokens`), the revisions of the data, the mean number of shots that
    fitted and the contexts that were cut. Returns what was written.
    """
    pairs = predictions[["task", "language"]].drop_duplicates()
    written = predictions[predictions["scoring"] == "generate"]
    rooms = written[["task", "language"]].drop_duplicates().itertuples(index=False)
    own, seed = options.prompt_language == "own", subject.cell.seed
    spoken = {(t, code if own else "en") for t, code in pairs.itertuples(index=False)}
    words = {
        f"{task} {code}": wording(tasks.TASKS[task], code, options.prompt_language)
        for task, code in sorted(spoken)
    }
    whole = {
        **record,
        **provenance.environment("03_evaluate", models.device_name()),
        "subject": {**subject.cell.asdict(), "adapter": str(subject.adapter or "")},
        "words": words,
        "new_tokens": {
            f"{task} {code}": new_tokens(model, tokenizer, task, code, seed, options)
            for task, code in rooms
        },
        "data": {
            name: versions_of(tasks.TASKS[name], options.hub_root)
            for name in pairs["task"].unique()
        },
        "base_model_revision": models.base_revision(subject.cell.base_model),
        "mean_shots": float(predictions["shots"].mean()),
        "contexts_cut": int(predictions["context_cut"].sum()),
    }
    with files.atomic(subject.output / "evaluate.json") as draft:
        text = json.dumps(whole, indent=2, ensure_ascii=False)
        draft.write_text(text, encoding="utf-8")
    shutil.rmtree(parts_folder(subject, options))
    return whole
