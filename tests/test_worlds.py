"""Made-up runs: their answers mean what their abilities say, and luck is no effect."""

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest

from benchmarks import claims as calibration
from maple_utils import claims, results
from maple_utils.claims.contrasts import WHERE, examples, primary_scores
from maple_utils.claims.factors import factor_difference
from maple_utils.claims.worlds import (
    DRAWS,
    Plan,
    World,
    abilities,
    answers,
    expected,
)
from maple_utils.params import CELL, Cell
from tests.simulated_claims import write_runs

BASES, DATA = ["llama-2-7b", "mistral-7b"], ["bactrian-x-22", "multialpaca"]
PLACES = {
    "xcopa": "en ht it qu sw tr vi zh".split(),
    "xquad": "en ar de es hi ru tr vi".split(),
    "xlsum": "en fr hi sw ja my pt te".split(),
}
TUNED = [Cell(*one) for one in product(BASES, DATA, [8, 32, 128], [4], [0])]
CELLS = [*dict.fromkeys(cell.base for cell in TUNED), *TUNED]
PLAN = Plan(CELLS, PLACES, 40, {data: ["en", "sw", "hi"] for data in DATA})
STILL = dict.fromkeys(["base", "base_language", "data", "data_language"], 0.0)


def simulated(world: World, plan: Plan, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores and answers of made-up runs."""
    rng = np.random.default_rng(seed)
    rows = pd.concat(list(answers(abilities(world, plan, rng), plan, rng)))
    scores = primary_scores(results.scores_from_predictions(rows))
    return scores, examples(scores, rows)


def test_scores_of_many_questions_are_the_expected_ones():
    plan = replace(PLAN, cells=CELLS[:4], rows=20_000)
    rng = np.random.default_rng(0)
    ability = abilities(World(low_behind=30), plan, rng)
    places = plan.places()
    truth = expected(ability, places)
    got = np.array(
        [
            rows.groupby(WHERE, sort=False)[["accuracy", "f1", "rouge_l"]]
            .mean()
            .sum(axis=1)
            for rows in answers(ability, plan, rng)
        ]
    )
    assert np.abs(got - truth).max() < 0.02
    low = places["level"].eq("low").to_numpy() & places["task"].eq("xcopa").to_numpy()
    assert truth[:, low].mean() < 0.6 < truth[:, ~low].max()


def test_an_effect_is_as_large_as_was_asked_for():
    rng = np.random.default_rng(0)
    still = dict.fromkeys(DRAWS, 0.0)
    world = World(rank_low=0.5, gain=1, gain_english=-3, sd=still)
    points = abilities(world, PLAN, rng) * 39.9
    runs, places = PLAN.runs(), PLAN.places()
    english = places["language"].eq("en").to_numpy()
    low = places["level"].eq("low").to_numpy()
    most = runs["rank"].eq(128).to_numpy()
    assert points[~runs["rank"].gt(0).to_numpy()] == pytest.approx(0)
    assert points[np.ix_(most, english)] == pytest.approx(-2)
    assert points[np.ix_(most, low)] == pytest.approx(1 + 4 * 0.5)


def test_runs_are_read_as_02_and_03_would_have_left_them(tmp_path):
    truth = write_runs(World(), PLAN, 3, tmp_path)
    again = write_runs(World(), PLAN, 3, tmp_path / "again")
    assert (truth == again).all()
    scores, problems = results.collect(tmp_path)
    training, more = results.training_records(tmp_path)
    assert not problems + more
    assert len(scores) == len(CELLS) * 24
    assert len(training[CELL].drop_duplicates()) == len(TUNED)
    files = [tmp_path / TUNED[0].name / "predictions.parquet"]
    files.append(tmp_path / "again" / TUNED[0].name / "predictions.parquet")
    pd.testing.assert_frame_equal(*map(pd.read_parquet, files))
    predictions, _ = results.predictions(tmp_path)
    evidence = claims.gather(scores, predictions, None, training)
    verdicts = claims.evaluate_claims(evidence).set_index("id")["verdict"]
    assert set(verdicts.drop("C2")) <= {"supported", "not supported"}
    assert verdicts["C2"] == "not testable with these runs"  # one width


def test_luck_of_a_base_model_with_the_questions_is_not_its_merit():
    """C7: without halves of the questions it would pass for a real difference."""
    plan = replace(PLAN, rows=16)
    with_halves, without = [], []
    for seed in range(12):
        scores, rows = simulated(World(sd=STILL), plan, seed)
        with_halves.append(factor_difference(scores, rows).value)
        without.append(factor_difference(scores).value)
    error = np.std([with_halves, without], axis=1) / np.sqrt(12)
    assert abs(np.mean(with_halves)) < 3 * error[0]
    assert np.mean(without) > 3 * error[1]


def test_a_gap_as_large_as_the_margin_is_not_level():
    """C8: all languages share their luck with the questions of a task."""
    row = replace(calibration.ROWS["all gain, none enough"], places=calibration.FEW)
    plan = replace(row.plan(), cells=CELLS, rows=40)
    p = []
    for seed in range(12):
        evidence, _ = calibration.evidence_of(row, plan, seed)
        p.append(claims.CLAIMS[-1].finding(evidence).p)
    assert np.mean(np.array(p) < 0.05) < 0.2


def test_bad_luck_before_is_no_gain_after():
    """C5: low-resource languages far behind, and nothing happens."""
    row = calibration.ROWS["low-resource languages near chance"]
    plan = replace(PLAN, rows=30)
    covered = []
    for seed in range(16):
        evidence, _ = calibration.evidence_of(row, plan, seed)
        found = claims.CLAIMS[4].finding(evidence).estimate
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) > 0.8
