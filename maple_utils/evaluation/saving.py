"""What is kept of an evaluation: its tables, and the record, written last."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from maple_utils import files, instructions, models, provenance, results, tasks
from maple_utils.evaluation.answers import Options, load, new_tokens
from maple_utils.evaluation.subjects import Subject, part_of, parts_folder
from maple_utils.params import workspace
from maple_utils.scoring.heldout import bits_per_byte, heldout_bits
from maple_utils.tasks.prompts import wording
from maple_utils.training import cards


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
    with models.switched_to(model, subject.key) as active:
        bits = heldout_bits(active, tokenizer, rows, options.token_budget or None)
    scores = []
    for language, part in bits.groupby("language"):
        value, stderr = bits_per_byte(part["nats"], part["bytes"])
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
    parts = (part_of(subject, *pair, options) for pair in pairs)
    predictions = pd.concat(map(pd.read_parquet, parts))
    scores = results.scores_from_predictions(predictions)
    if heldout is not None:
        scores = results.validate(pd.concat([scores, heldout]))
    results.write_predictions(predictions, subject.output / "predictions.parquet")
    results.write_scores(scores, subject.output / "scores.parquet")
    if subject.adapter and subject.record:
        main = results.main_metrics(scores)
        cards.write(subject.adapter, dict(subject.record), main)
        if not subject.cell.base_model.startswith("miniature"):
            cards.write_results(subject.adapter, main)
    return predictions, scores


def track(subject: Subject, scores: pd.DataFrame, report_to: str) -> None:
    """Log a subject's scores to the tracker that 02 logs to; "none" is none."""
    if report_to == "none":
        return
    on_cpu = not torch.cuda.is_available()
    tracker = Accelerator(cpu=on_cpu, log_with=report_to, project_dir=subject.output)
    tracker.init_trackers("maple", config=subject.cell.asdict())
    keys = ["task", "language", "scoring", "metric"]
    values = {"/".join(row[:4]): row[4] for row in scores[[*keys, "value"]].to_numpy()}
    tracker.log(values, step=0)
    tracker.end_training()


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
    words: dict[str, Any] = {}
    rooms: dict[str, int] = {}
    versions: dict[str, Any] = {}
    pairs = predictions[["task", "language"]].drop_duplicates()
    for name, language in pairs.itertuples(index=False):
        task = tasks.TASKS[name]
        spoken = language if options.prompt_language == "own" else "en"
        words[f"{name} {spoken}"] = wording(task, language, options.prompt_language)
        if "generate" in options.scorings(task):
            data = load(name, language, options)
            room = new_tokens(model, tokenizer, data, options)
            rooms[f"{name} {language}"] = room
        versions[name] = versions_of(task, options.hub_root)
    whole = {
        **record,
        **provenance.environment("03_evaluate", models.device_name()),
        "subject": {**subject.cell.asdict(), "adapter": str(subject.adapter or "")},
        "words": words,
        "new_tokens": rooms,
        "data": versions,
        "base_model_revision": ""  # a server tells none
        if subject.is_served
        else models.base_revision(subject.source),
        "mean_shots": float(predictions["shots"].mean()),
        "contexts_cut": int(predictions["context_cut"].sum()),
    }
    with files.atomic(subject.output / "evaluate.json") as draft:
        text = json.dumps(whole, indent=2, ensure_ascii=False)
        draft.write_text(text, encoding="utf-8")
    shutil.rmtree(parts_folder(subject, options))
    return whole
