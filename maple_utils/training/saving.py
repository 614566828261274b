"""What is kept of a run: the adapter with its card, and the record, written last."""

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from maple_utils import files, models, provenance
from maple_utils.training import cards


def save(
    output: Path,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    record: dict[str, Any],
    checkpoints: Path,
) -> dict[str, Any]:
    """Write adapter/ with tokenizer and card, then train.json; remove the checkpoints.

    Each appears whole or not at all, and where there is a train.json, the cell is
    complete. The main process writes, the others wait for it.

    Args:
        output: the cell's folder.
        model: its adapter is saved, as PEFT and vLLM load it. The base model is noted
            by its short name or hub id, so that the folder can be moved.
        tokenizer: the base model's.
        record: cell, parameters, plan, data, train, heldout_bits_per_byte and overlap;
            what the model and this machine add to it, is added.
        checkpoints: the folder that nobody needs any more.

    Returns:
        The record as it stands in train.json.
    """
    base_model = record["parameters"]["base_model"]
    toy = base_model.startswith("miniature")  # its folder is another on each machine
    source = base_model if toy else models.source(base_model)
    trained = [p for p in model.parameters() if p.requires_grad]
    plan = {k: str(v).removeprefix("torch.") for k, v in record["plan"].items()}
    record = {
        **record,
        "source": source,
        "plan": plan,
        "base_model_revision": models.base_revision(base_model),
        "adapter_dtype": str(trained[0].dtype),
        "trainable_parameters": sum(p.numel() for p in trained),
        **provenance.environment("02_train", models.device_name()),
    }
    process = PartialState()
    if process.is_main_process:
        model.peft_config["default"].base_model_name_or_path = source
        with files.atomic(output / "adapter") as draft:
            model.save_pretrained(draft, save_embedding_layers=False)
            tokenizer.save_pretrained(draft)
            cards.write(draft, record)
        with files.atomic(output / "train.json") as draft:
            draft.write_text(json.dumps(record, indent=2), encoding="utf-8")
        shutil.rmtree(checkpoints, ignore_errors=True)
    process.wait_for_everyone()
    return record
