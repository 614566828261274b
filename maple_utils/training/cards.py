"""The card of an adapter: all that somebody needs who has only its folder."""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from maple_utils import files
from maple_utils.instructions.cards import front_matter, markdown_table
from maple_utils.instructions.published import PUBLISHED
from maple_utils.tasks import TASKS
from maple_utils.training import meters
from maple_utils.training.checkpoints import CHOSEN

SETTINGS = """rank bits lora_alpha_ratio lora_dropout learning_rate epochs max_steps
    batch_size packing seed""".split()


def write(
    adapter: Path, record: dict[str, Any], scores: pd.DataFrame | None = None
) -> None:
    """Write README.md and curves.png into an adapter's folder.

    Args:
        adapter: the folder, as PEFT saved it.
        record: what notebook 02 writes as train.json.
        scores: the main scores of this adapter, once notebook 03 has run.
    """
    text = card_text(record, scores)
    with files.atomic(Path(adapter) / "README.md") as draft:
        draft.write_text(text, encoding="utf-8")
    with files.atomic(Path(adapter) / "curves.png") as draft:
        meters.plot(record["train"]["curve"]).savefig(draft, dpi=120)


def card_text(record: dict[str, Any], scores: pd.DataFrame | None = None) -> str:
    """Return the README.md: YAML for the hub, then data, settings, curves, scores."""
    given, data = record["parameters"], record["data"]
    is_toy = given["base_model"].startswith("miniature")
    head = {
        "base_model": record["source"],
        "license": "other",
        "license_name": "those-of-base-model-and-data",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "language": sorted(data["rows"]),
        "tags": ["lora", "multilingual", "instruction-finetuning"],
    }
    if data["name"] in PUBLISHED:
        head["datasets"] = [PUBLISHED[data["name"]].repository]
    settings = {name: given[name] for name in SETTINGS}
    settings |= {name: record["plan"][name] for name in CHOSEN}
    settings |= {"device": record["device"], "adapter dtype": record["adapter_dtype"]}
    bits = pd.DataFrame.from_dict(record["heldout_bits_per_byte"], "index").round(3)
    lines = [
        *front_matter(head),
        f"# {record['cell']}",
        "",
        f"A LoRA adapter of {given['base_model']}, trained at {given['bits']} bits on "
        f"{sum(data['rows'].values()):,} rows of {data['name']} (sha256 "
        f"{data['fingerprint'][:12]}) with the MAPLE reproduction kit. "
        + ("Of the kit's miniature, a toy world. " if is_toy else "")
        + "It is governed by the licences of its base model and its data.",
        "",
        "![Training loss, and bits per byte of held-out responses](curves.png)",
        "",
        *markdown_table(["setting", "value"], settings.items()),
        "",
        *markdown_table(
            ["language", "rows", "bits per byte before", "after"],
            [(c, data["rows"][c], b.before, b.after) for c, b in bits.iterrows()],
        ),
        "",
        *_scores(scores),
    ]
    return "\n".join(lines) + "\n"


def write_results(adapter: Path, scores: pd.DataFrame) -> None:
    """Write the scores where the hub looks for them: .eval_results/maple.yaml.

    An entry per task, language and way of scoring, for tasks that the hub has.

    Args:
        adapter: the adapter's folder.
        scores: its main scores; values are fractions.
    """
    entries = []
    for row in scores.itertuples():
        source = TASKS[row.task].source_of(row.language) if row.task in TASKS else None
        if source is None or "/" not in source.dataset:
            continue
        entries.append(
            EvalResultEntry(
                dataset_id=source.dataset,
                task_id=f"{row.task}_{row.language}",
                value=round(float(row.value), 4),
                dataset_revision=source.revision or None,
                notes=f"{row.metric}, {row.scoring}, {row.shots:g} shots, {row.n} "
                f"examples, standard error {row.stderr:.4f}",
            )
        )
    folder = Path(adapter) / ".eval_results"
    folder.mkdir(exist_ok=True)
    with files.atomic(folder / "maple.yaml") as draft:
        told = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
        draft.write_text(told, encoding="utf-8")


def _scores(scores: pd.DataFrame | None) -> list[str]:
    if scores is None:
        return ["Scores: not evaluated yet (notebook 03)."]
    keys = ["task", "scoring", "metric"]
    means = scores.groupby(keys, sort=False).agg(
        value=("value", "mean"), languages=("language", "nunique"), n=("n", "sum")
    )
    rows = [(*key, f"{v:.3f}", c, n) for key, v, c, n in means.itertuples(name=None)]
    head = [*keys, "mean over languages", "languages", "examples"]
    return markdown_table(head, rows)
