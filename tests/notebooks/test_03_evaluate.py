"""Evaluation: one base for many adapters, resume, what is refused, real rows."""

import json
import re
from functools import partial
from pathlib import Path

import pandas as pd
import papermill
import pytest
import torch
from nbclient.exceptions import DeadKernelError
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from maple_utils import models
from maple_utils.errors import ParameterError
from maple_utils.results import PREDICTIONS_COLUMNS, SCORES_COLUMNS
from maple_utils.training import cards
from tests.model_server import answer, serve
from tests.notebooks.running import error_line, run, run_here

SMALL = {
    "test_limit": 4,
    "tasks": "xcopa,xquad,xlsum",
    "languages": "en,sw",
    "bits": 16,
}
TRAINED = {"instruction_data": "bactrian-x-mini", "languages": ["en", "sw"]}
TRAINED |= {"train_limit": 6, "heldout": 2, "hub_root": "miniature", "bits": 16}


def make_adapter(cell: Path, rank: int, seed: int) -> Path:
    """Make an adapter that changes the answers, and the record that 02 would write."""
    source = models.source("miniature-llama")
    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=rank, target_modules="all-linear"))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    model.peft_config["default"].base_model_name_or_path = "miniature-llama"
    model.save_pretrained(cell / "adapter")
    given = dict.fromkeys(cards.SETTINGS, "") | {"base_model": "miniature-llama"}
    record = {
        "cell": cell.name,
        "source": "miniature-llama",
        "parameters": {**given, **TRAINED, "rank": rank, "seed": seed},
        "plan": dict.fromkeys(("max_length", "dtype", "optimizer"), ""),
        **{"adapter_dtype": "float32", "device": "none"},
        "data": {"name": "d", "fingerprint": "0" * 64, "rows": {"en": 6, "sw": 6}},
        "train": {"curve": [{"step": 1, "loss": 1.0}]},
        "heldout_bits_per_byte": {"en": {"before": 2.0, "after": 1.0}},
    }
    (cell / "train.json").write_text(json.dumps(record))
    return cell / "adapter"


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    return tuple(
        pd.read_parquet(folder / f"{name}.parquet")
        for name in ("predictions", "scores")
    )


def assert_same(one: Path, two: Path) -> None:
    for left, right in zip(tables(one), tables(two), strict=True):
        pd.testing.assert_frame_equal(left, right, check_exact=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("base")
    run_here("03_evaluate", {**SMALL, "output_dir": str(out / "cell")})
    return out / "cell"


def test_what_is_written(base):
    predictions, scores = tables(base)
    assert list(predictions) == PREDICTIONS_COLUMNS
    assert list(scores) == SCORES_COLUMNS
    counts = predictions.groupby(["task", "language", "scoring"]).size()
    assert set(counts) == {SMALL["test_limit"]}
    assert {(task, how) for task, _, how in counts.index} == {
        *(("xcopa", "likelihood"), ("xcopa", "generate")),
        *(("xquad", "generate"), ("xlsum", "generate")),
    }
    record = json.loads((base / "evaluate.json").read_text())
    assert record["parameters"]["bits"] == 16
    assert record["words"]["xcopa en"]["cue"] == "Answer:"
    assert not list(base.glob(".parts*"))


def test_the_record_tells_the_words_of_each_language_and_what_is_absent(tmp_path):
    cell = tmp_path / "cell"
    few = {"tasks": "xquad", "languages": "en,hi,sw", "test_limit": 2}
    few |= {"prompt_language": "own", "output_dir": f"{cell}"}
    run_here("03_evaluate", few)
    record = json.loads((cell / "evaluate.json").read_text())
    assert ["", "sw", "in none of these tasks"] in record["notes"]
    words = record["words"]
    assert set(words) == {"xquad en", "xquad hi"}
    assert words["xquad en"]["cue"] == "Answer:"
    assert words["xquad hi"]["cue"] == "उत्तर:"


def test_many_adapters_over_one_base_give_the_tables_of_separate_runs(base, tmp_path):
    cells = [tmp_path / "one", tmp_path / "two"]
    adapters = [
        make_adapter(cell, rank, seed)
        for cell, rank, seed in zip(cells, (4, 2), (0, 1), strict=True)
    ]
    together = {
        "adapters": [str(a) for a in adapters],
        "output_dir": str(tmp_path / "all"),
    }
    run_here("03_evaluate", {**SMALL, **together})
    assert_same(tmp_path / "all", base)
    own = {"instruction_data": "bactrian-x-mini", "rank": 2, "seed": 1}
    run_here("03_evaluate", {**SMALL, **own, "output_dir": str(cells[1])})
    name = "miniature-llama_bactrian-x-mini_r2_16bit_s1"
    assert_same(tmp_path / "all" / name, cells[1])
    predictions, scores = tables(cells[1])
    card = (adapters[1] / "README.md").read_text()
    assert "| xcopa | likelihood | accuracy |" in card
    assert not predictions["prediction"].equals(tables(base)[0]["prediction"])
    asked = ["task", "language", "scoring", "example", "shots"]  # whatever the seed
    pd.testing.assert_frame_equal(predictions[asked], tables(base)[0][asked])
    assert set(scores.loc[scores["task"] == "heldout", "language"]) == {"en", "sw"}


KILL = """
import os, signal
whole, done = evaluation.evaluate_pair, []
def killed(*given):
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(given)
    return whole(*given)
evaluation.evaluate_pair = killed
"""
COUNT = """
parts = [evaluation.part_of(first, *pair, options) for pair in pairs]
done = sum(map(evaluation.is_done, parts))
first.output.joinpath("done").write_text(str(done))
"""


def test_a_killed_evaluation_goes_on_at_the_first_unfinished_pair(base, tmp_path):
    parameters = {**SMALL, "output_dir": str(tmp_path / "cell")}
    with pytest.raises(DeadKernelError):
        run("03_evaluate", tmp_path, parameters, {"todo = [": KILL})
    assert len(list((tmp_path / "cell").glob(".parts*/*.parquet"))) == 2
    assert not (tmp_path / "cell" / "scores.parquet").exists()
    run_here("03_evaluate", parameters, {"todo = [": COUNT})
    assert (tmp_path / "cell" / "done").read_text() == "2"
    assert_same(tmp_path / "cell", base)


def ended(folder: Path) -> pd.DataFrame:
    """Return the predictions but for the texts that ended at the limit of tokens.

    A server is given as many tokens as an answer has bytes.
    """
    table = pd.read_parquet(folder / "predictions.parquet")
    return table[~table["cut_off"].astype(bool)]


def test_a_served_model_and_its_adapter_get_the_tables_of_loaded_ones(
    base, tmp_path, monkeypatch
):
    name = "miniature-llama_bactrian-x-mini_r4_16bit_s1"
    adapter = make_adapter(tmp_path / "cell", 4, 1)
    given = {**SMALL, "adapters": [str(adapter)]}
    here, there = tmp_path / "here", tmp_path / "there"
    run_here("03_evaluate", {**given, "output_dir": str(here)})
    served = {"base_model": "endpoint:miniature-llama", "output_dir": str(there)}
    with serve(monkeypatch, partial(answer, adapters={name: adapter})):
        run_here("03_evaluate", {**given, **served})
    told = json.loads((there / "evaluate.json").read_text())
    assert told["loaded"] == {"server": "vLLM", "asked through": "completions"}
    assert told["spent"]["asked"] > 100
    for folder in (there, there / name):
        one, other = ended(here / folder.relative_to(there)), ended(folder)
        both = one.merge(other, on=PREDICTIONS_COLUMNS[:9], suffixes=("", "_served"))
        assert len(both) == len(one) > 20
        assert (both["prediction"] == both["prediction_served"]).all()
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or b"sk-secret" not in file.read_bytes()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"base_model": "endpoint:gpt-4o", "bits": 4},
            "bits: got 4 of a served model; allowed: 16 where",
        ),
        (
            {"instruction_data": "none-such", "rank": 8},
            "adapters: got .*no adapter_config",
        ),
        ({"rank": 8}, "rank: got 8 with instruction_data ''"),
        ({"tasks": "xcopa,xkopa"}, "tasks: got 'xcopa,xkopa'; allowed: any of xcopa"),
        ({"bits": 8, "adapters": "ADAPTER"}, "adapters: got .*, trained at 16 bits"),
        ({"adapters": "ADAPTER,ADAPTER"}, "adapters: got several that are"),
        ({"languages": "ta", "tasks": "xquad"}, "languages: got ta; none is in"),
    ],
)
def test_what_cannot_be_evaluated_ends_in_one_line(tmp_path, given, line):
    if given.get("adapters"):
        folder = str(make_adapter(tmp_path / "cell", 2, 0))
        given = {**given, "adapters": given["adapters"].replace("ADAPTER", folder)}
    output = tmp_path / "out"
    with pytest.raises(ParameterError) as error:
        run_here("03_evaluate", {**SMALL, **given, "output_dir": str(output)})
    assert re.search(line, str(error.value))
    assert "\n" not in str(error.value)
    assert not output.exists()


def test_papermill_ends_with_the_line(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError) as error:
        run("03_evaluate", tmp_path, {"tasks": "xkopa"})
    assert "ParameterError: tasks: got 'xkopa'; allowed: any" in error_line(error.value)


def test_real_rows(shared_hub, tmp_path):
    parameters = {"hub_root": str(shared_hub), "output_dir": str(tmp_path / "cell")}
    parameters |= {
        "tasks": "xcopa,xquad",
        "languages": "sw,en",
        "test_limit": 3,
        "shots": 2,
    }
    run_here("03_evaluate", parameters)
    scores = tables(tmp_path / "cell")[1]
    assert {"xcopa", "xquad"} >= set(scores["task"]) != set()
    told = scores["metric"] == "in_language"  # where that can be told
    assert set(scores.loc[~told, "n"]) == {3}
