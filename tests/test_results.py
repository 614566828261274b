"""Tables on disk are whole, checked, and named when they are not."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from maple_utils import files, results
from tests import simulated_claims


def predictions(**changes) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "base_model": "miniature-llama",
            "instruction_data": "",
            "rank": 0,
            "bits": 4,
            "seed": 0,
            "task": "xquad",
            "language": "sw",
            "scoring": "generate",
            "example": ["a", "b", "c", "d"],
            "cluster": ["a", "b", "c", "d"],
            "shots": 2,
            "context_cut": False,
            "cut_off": [False, True, True, False],
            "prediction": ["x", "y", "", "z"],
            "references": [["x"], ["q"], ["q"], ["z"]],
            "format_failure": [False, False, True, False],
            "accuracy": np.nan,
            "accuracy_bytes": np.nan,
            "f1": [1.0, 0.5, 0.0, 1.0],
            "exact_match": [1.0, 0.0, 0.0, 1.0],
            "rouge_l": np.nan,
        }
    )
    return rows.assign(**changes).reindex(columns=results.PREDICTIONS_COLUMNS)


def test_scores_are_means_with_their_standard_error_and_count():
    scores = results.scores_from_predictions(predictions()).set_index("metric")
    assert list(scores.index) == ["exact_match", "f1"]
    f1 = scores.loc["f1"]
    assert (f1["value"], f1["n"], f1["format_failures"]) == (0.625, 4, 1)
    assert (f1["cut_off"], f1["shots"], f1["cutter"]) == (2, 2, "")
    assert f1["stderr"] == pytest.approx(np.std([1, 0.5, 0, 1], ddof=1) / 2)


def test_questions_on_one_passage_are_one_observation():
    alone = results.scores_from_predictions(predictions()).set_index("metric")
    pairs = predictions(cluster=["p", "q", "q", "p"])  # f1: 1 and 1, 0.5 and 0
    paired = results.scores_from_predictions(pairs).set_index("metric")
    means = np.array([1, 0.25])
    expected = means.std(ddof=1) / np.sqrt(2)
    assert paired.loc["f1", "stderr"] == pytest.approx(expected)
    assert paired.loc["f1", "stderr"] > alone.loc["f1", "stderr"]
    one = results.scores_from_predictions(predictions(cluster="p"))
    assert one["stderr"].isna().all()


def test_tables_come_back_as_they_were_written(tmp_path):
    scores = results.scores_from_predictions(predictions())
    results.write_predictions(predictions(), tmp_path / "base" / "predictions.parquet")
    results.write_scores(scores, tmp_path / "base" / "scores.parquet")
    assert list(pd.read_parquet(tmp_path / "base" / "scores.parquet").columns) == [
        *("base_model", "instruction_data", "rank", "bits", "seed", "task", "language"),
        *("scoring", "metric", "value", "stderr", "n", "format_failures"),
        *("cut_off", "shots", "cutter"),
    ]
    collected, problems = results.collect(tmp_path)
    assert problems == []
    pd.testing.assert_frame_equal(collected, scores)
    assert (collected["rank"] == 0).all()


def test_a_damaged_or_foreign_file_is_named_and_skipped(tmp_path):
    scores = results.scores_from_predictions(predictions())
    results.write_scores(scores, tmp_path / "good" / "scores.parquet")
    whole = (tmp_path / "good" / "scores.parquet").read_bytes()
    for name in ("cut", "foreign"):
        (tmp_path / name).mkdir()
    (tmp_path / "cut" / "scores.parquet").write_bytes(whole[: len(whole) // 2])
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "foreign" / "scores.parquet")
    collected, problems = results.collect(tmp_path)
    assert len(collected) == len(scores)
    assert len(problems) == 2
    assert "cut/scores.parquet: " in problems[0]
    assert "foreign/scores.parquet: scores lack base_model" in problems[1]


def test_no_runs_are_an_empty_table(tmp_path):
    collected, problems = results.collect(tmp_path / "nowhere")
    assert list(collected.columns) == results.SCORES_COLUMNS
    assert (len(collected), problems) == (0, [])


def test_an_unknown_language_is_named():
    scores = results.scores_from_predictions(predictions())
    with pytest.raises(ValueError, match="language: got 'tlh'; allowed: those of"):
        results.validate(scores.assign(language="tlh"))


def test_percents_are_refused():
    scores = results.scores_from_predictions(predictions())
    with pytest.raises(ValueError, match="value: got 62.5; allowed: fractions"):
        results.validate(scores.assign(value=62.5))


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")

    def fail():
        with files.atomic(file) as draft:
            draft.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_training_reads_every_record_and_names_what_it_skips(tmp_path):
    about = {"base_model": "b", "instruction_data": "d", "rank": 8, "bits": 4}
    record = {
        "cell": "b_d_r8_4bit",
        "parameters": {**about, "seed": 0, "epochs": 1, "max_length": 0},
        "plan": {"max_length": "512"},
        "train": {"seconds": 12.5, "tokens": 900},
        "data": {"tokens_per_word": {"en": 1.4, "sw": 2.2}},
        "heldout_bits_per_byte": {
            "en": {"before": 1.5, "after": 1.6},
            "sw": {"before": 2.5, "after": 2.0},
        },
    }
    for name, text in (("good", json.dumps(record)), ("bad", "{"), ("old", "{}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.json").write_text(text)
    table, problems = results.training_records(tmp_path)
    assert list(table["language"]) == ["en", "sw"]
    assert list(table["after"]) == [1.6, 2.0]
    assert list(table["tokens_per_word"]) == [1.4, 2.2]
    assert set(table["seconds"]) == {12.5}
    assert set(table["tokens"]) == {900}
    assert [Path(line.split(":")[0]).parent.name for line in problems] == ["bad", "old"]
    assert results.overlaps(tmp_path).empty  # as from a run before there were any
    row = dict.fromkeys(("items", "overlapping", "too_short"), 0) | {"share": None}
    record["overlap"] = [row | {"task": "xlsum", "language": "sw", "note": "no hub"}]
    (tmp_path / "good" / "train.json").write_text(json.dumps(record))
    [found] = results.overlaps(tmp_path).itertuples()
    assert (found.rank, found.task, found.note) == (8, "xlsum", "no hub")
    assert math.isnan(found.share)
    settings = results.used_parameters(tmp_path)
    assert (settings["rank"], settings["max_length"]) == ("8", "512")


def test_the_summary_sorts_names_with_other_numbers_of_numbers():
    grid = simulated_claims.runs(ranks=(8, 16), bits=(4,))
    scores = simulated_claims.table(np.random.default_rng(0), grid, {"xcopa": "en sw"})
    names = list(results.summary(scores).index)
    assert names[:2] == ["llama-2-7b_4bit", "llama-2-7b_bactrian-x-22_r8_4bit"]
