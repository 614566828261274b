"""What the shipped tables must show for the paper's question to be asked of them."""

from itertools import product
from pathlib import Path

import pandas as pd
import pytest
import yaml

from maple_utils import claims, results
from maple_utils.claims.contrasts import intervals, score_changes
from maple_utils.claims.evidence import Finding
from maple_utils.claims.larger import LARGER, apart, reference_results
from maple_utils.languages import miniature_level
from maple_utils.params import CELL, Cell

ROOT = Path(__file__).parents[1]

SHARED = ["belebele", "xquad", "xlsum", "words"]  # each level has four languages there
CHANCE = {"belebele": 1 / 4, "words": 1 / 4}  # of ranking; others must be written
ORDER = ["English", "high", "mid", "low"]
MODELS = ["miniature-llama", "miniature-mistral"]


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """All scores but the larger model's, and the primary ones of the base models."""
    scores, _ = apart(results.shipped(), [LARGER])
    primary = claims.primary_scores(scores)
    return scores, primary[primary["rank"] == 0]


def above_chance(table: pd.DataFrame) -> pd.DataFrame:
    """Return scores from 0 (a guess) to 1, with the level: English is one itself."""
    chance = table["task"].map(CHANCE).fillna(0)
    level = table["language"].map(miniature_level)
    return table.assign(
        value=(table["value"] - chance) / (1 - chance),
        level=level.mask(table["language"] == "en", "English"),
    )


def by_level(table: pd.DataFrame) -> pd.Series:
    """Return the mean over the shared tasks of a level's mean over languages."""
    kept = above_chance(table[table["task"].isin(SHARED)])
    means = kept.groupby(["level", "task"])["value"].mean()
    return means.groupby("level").mean()[ORDER]


def test_all_cells_of_the_grid_are_there(tables):
    runs = tables[0][CELL].drop_duplicates()
    axes = yaml.safe_load((ROOT / "params" / "miniature.yaml").read_text())
    every = [Cell(*values) for values in product(*(axes[name] for name in CELL))]
    wanted = {*every, *(cell.base for cell in every if cell.seed == 0)}
    assert {Cell(*row) for row in runs.itertuples(index=False)} == wanted


@pytest.mark.parametrize("model", [*MODELS, LARGER])
def test_base_models_know_more_where_they_read_more(model, tables):
    base = pd.concat(
        [tables[1], apart(claims.primary_scores(results.shipped()), [LARGER])[1]]
    )
    levels = by_level(base[(base["base_model"] == model) & (base["bits"] == 16)])
    assert list(levels.sort_values(ascending=False).index) == ORDER, levels
    assert (levels.diff().dropna() <= -0.08).all() or model == LARGER, levels


def test_the_larger_model_is_ahead(tables):
    own = tables[1][tables[1]["bits"] == 16]
    theirs = reference_results(apart(results.shipped(), [LARGER])[1])
    both = theirs.merge(own, on=["task", "language", "scoring", "metric"])
    ahead = both["value_x"] - both["value_y"]
    assert ahead.groupby(both["base_model_y"]).mean().gt(0).all()


@pytest.mark.parametrize("model", MODELS)
def test_no_shared_task_is_at_its_floor_or_ceiling_for_all(model, tables):
    kept = above_chance(tables[1][tables[1]["base_model"] == model])
    spread = kept[kept["task"].isin(SHARED)].groupby("task")["value"]
    assert (spread.max() > 0.25).all()
    assert (spread.min() < 0.75).all()


def test_four_bits_cost_the_base_models_bits_per_byte():
    keys = ["base_model", "instruction_data", "language"]
    before = results.shipped_training().drop_duplicates([*keys, "bits"])
    wide = before.pivot(index=keys, columns="bits", values="before")
    lost = (wide[4] - wide[16]).rename("change").reset_index().assign(task="heldout")
    found = intervals(lost, ["base_model"], "change", "language")
    assert (found["low"] > 0).any(), found.to_string()


def test_english_loses_somewhere(tables):
    changes = score_changes(claims.primary_scores(tables[0]))
    english = changes[changes["language"] == "en"]
    found = intervals(english, ["base_model", "rank", "task"], "change", "cell")
    assert (found["high"] < 0).any(), found.to_string()


def test_every_claim_has_a_verdict(tables):
    training = results.shipped_training()
    reference = reference_results(apart(results.shipped(), [LARGER])[1])
    evidence = claims.gather(tables[0], None, reference, training)
    found = claims.find(evidence)
    assert all(isinstance(each, Finding) for each in found.values()), found
    verdicts = claims.evaluate_claims(evidence, found).set_index("id")
    assert set(verdicts["verdict"]) <= {"supported", "not supported"}
    assert verdicts["detectable"].notna().all()
