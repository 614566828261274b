"""What others read of an adapter: its card, its results, its curves in a tracker."""

import pandas as pd
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maple_utils import evaluation
from maple_utils.errors import ParameterError
from maple_utils.libraries import check_tracker
from maple_utils.params import Cell
from maple_utils.tasks import TASKS
from maple_utils.training import cards

CELL = Cell("mistral-7b", "bactrian-x-22", 8, 4)


def scores() -> pd.DataFrame:
    """Return a choice, an answer, and one of a task that no hub has."""
    keys = ["task", "language", "scoring", "metric", "value", "stderr", "n", "shots"]
    rows = [
        ("xcopa", "sw", "likelihood", "accuracy", 0.62, 0.02, 500, 8.0),
        ("xquad", "hi", "generate", "f1", 0.4312345, 0.01, 1190, 3.5),
        ("words", "sw", "likelihood", "accuracy", 0.5, 0.02, 200, 8.0),
    ]
    return pd.DataFrame(rows, columns=keys).assign(**CELL.asdict())


def record() -> dict:
    """Return what 02 writes of an adapter, in short."""
    given = dict.fromkeys(cards.SETTINGS, 1) | {"base_model": "mistral-7b"}
    return {
        "cell": CELL.name,
        "source": "mistralai/Mistral-7B-v0.1",
        "parameters": given,
        "plan": dict.fromkeys(cards.CHOSEN, ""),
        **{"device": "A100", "adapter_dtype": "float32"},
        "data": {"name": "bactrian-x-22", "fingerprint": "0" * 64, "rows": {"sw": 9}},
        "heldout_bits_per_byte": {"sw": {"before": 2.0, "after": 1.0}},
    }


def test_a_card_says_where_an_adapter_comes_from():
    data = ModelCard(cards.card_text(record(), scores())).data
    assert data.base_model == "mistralai/Mistral-7B-v0.1"
    assert data.datasets == ["MBZUAI/Bactrian-X"]
    assert (data.license, data.library_name) == ("other", "peft")
    own = record()
    own["data"]["name"] = "of-my-own"
    assert ModelCard(cards.card_text(own)).data.datasets is None


def test_results_are_what_the_hub_library_reads(tmp_path):
    cards.write_results(tmp_path, scores())
    text = (tmp_path / ".eval_results" / "maple.yaml").read_text()
    choice, answer = parse_eval_result_entries(yaml.safe_load(text))
    assert choice.dataset_id == TASKS["xcopa"].source.dataset
    assert choice.dataset_revision == TASKS["xcopa"].source.revision
    assert (choice.task_id, choice.value) == ("xcopa_sw", 0.62)
    assert answer.value == 0.4312
    assert answer.notes == (
        "f1, generate, 3.5 shots, 1190 examples, standard error 0.0100"
    )


def test_scores_reach_tensorboard(tmp_path):
    subject = evaluation.Subject(CELL, tmp_path, "mistralai/Mistral-7B-v0.1")
    evaluation.track(subject, scores(), "none")
    assert list(tmp_path.iterdir()) == []
    evaluation.track(subject, scores(), "tensorboard")
    events = EventAccumulator(str(tmp_path / "maple"))
    events.Reload()
    assert len(events.Tags()["scalars"]) == 3
    [logged] = events.Scalars("xcopa/sw/likelihood/accuracy")
    assert logged.value == pytest.approx(0.62)


def test_a_tracker_that_is_not_there_is_one_line():
    with pytest.raises(ParameterError, match="report_to: got 'trackio', which is not"):
        check_tracker("trackio")
