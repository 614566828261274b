"""What docs/first-real-grid.md says is what the runs beside it hold."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from pyarrow import parquet

from docs import real_grid
from maple_utils import claims, results
from maple_utils.claims.__main__ import sentences
from maple_utils.params import CELL, Cell

ROOT = Path(__file__).parents[1]
RUNS = real_grid.HERE / "runs"


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    found, problems = results.collect(RUNS)
    assert problems == []
    return found


@pytest.fixture(scope="module")
def page() -> str:
    """The page's words, as one line; a quoted paragraph without its marks."""
    text = (ROOT / "docs" / "first-real-grid.md").read_text(encoding="utf-8")
    return " ".join(re.sub("^> ?", "", text, flags=re.M).split())


def test_the_grid_holds_what_the_page_says(scores, page):
    cells = [
        Cell(*row) for row in scores[CELL].drop_duplicates().itertuples(index=False)
    ]
    adapters = [cell for cell in cells if not cell.is_base]
    axes = yaml.safe_load((ROOT / "params" / "small.yaml").read_text())
    for axis in CELL:
        assert {getattr(cell, axis) for cell in adapters} == set(axes[axis])
    bases = {(cell.base_model, cell.bits) for cell in cells if cell.is_base}
    assert len(bases) == len(axes["base_model"]) * len(axes["bits"])
    assert len(adapters) >= 24
    assert f"{len(adapters)} of them and all six base models" in page


def test_the_two_sentences_are_of_these_runs(scores, page):
    for sentence in sentences(scores):
        assert sentence in page


def test_the_verdicts_are_of_these_runs(scores, page):
    answers, _ = results.predictions(RUNS)
    training, _ = results.training_records(RUNS)
    evidence = claims.gather(scores, answers, training=training)
    verdicts = claims.evaluate_claims(evidence, claims.find(evidence))
    for line in real_grid.verdict_lines(verdicts):
        assert line in page


def test_no_text_of_a_dataset_is_kept():
    for file in RUNS.glob("*/predictions.parquet"):
        names = set(parquet.read_schema(file).names)
        assert names.isdisjoint({"prediction", "references"})
        ids = parquet.read_table(file, columns=["example"])["example"]
        assert max(len(name.as_py()) for name in ids) < 40


def test_no_path_of_a_machine_is_kept():
    for file in RUNS.glob("*/train.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        assert not re.search(r"/(?:tmp|home|root|work|Users)/", json.dumps(record))
