"""The slope difference covers the truth as often as it says."""

import numpy as np
import pandas as pd
import pytest
from scipy import linalg, stats

from maple_utils import claims
from maple_utils.claims import contrasts, findings, mixed_model, slopes
from maple_utils.claims.bootstrap import bootstrap_examples
from maple_utils.languages import resource_level
from maple_utils.params import CELL
from tests import simulated_claims as simulated

FEW = simulated.FEW
GRID = simulated.runs(ranks=(4, 8, 16), bits=(4,))


def estimate(table: pd.DataFrame, axis: str = "rank") -> contrasts.Estimate:
    """Return the slope difference of the scores that count."""
    return slopes.slope_difference(
        contrasts.primary_scores(table), axis, resource_level
    )


def test_interval_covers_and_p_is_level() -> None:
    """The truth is zero here: what is not covered is a false positive.

    Roughly, in a simple world; benchmarks/claims.py asks it of harder ones.
    """
    rng = np.random.default_rng(11)
    found = [
        estimate(simulated.table(rng, GRID, FEW, run_level=0.3, low_spread=1.5))
        for _ in range(80)
    ]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.88 <= covered <= 0.99
    assert np.mean([one.p < 0.05 for one in found]) <= 0.1


def test_a_true_effect_moves_the_estimate_and_nothing_else() -> None:
    """So coverage of zero is coverage of every truth."""
    still = estimate(simulated.table(np.random.default_rng(1), GRID, FEW))
    moved = estimate(simulated.table(np.random.default_rng(1), GRID, FEW, rank_low=3))
    assert moved.value - still.value == pytest.approx(3, abs=1e-3)
    assert moved.high - moved.low == pytest.approx(still.high - still.low, rel=1e-3)


def test_one_task_and_still_runs_give_the_variance_of_welch() -> None:
    """By hand: per-language slopes, two samples of unequal variance."""
    quiet = {"noise": 1e-6, "run": 0, "run_language": 0}
    table = simulated.table(
        np.random.default_rng(2), GRID, {"xcopa": FEW["xcopa"]}, rank_low=1, **quiet
    )
    found = estimate(table)
    rows = contrasts.split(contrasts.primary_scores(table))[1]
    slope = rows.groupby("language").apply(
        lambda t: 100 * np.polyfit(np.log2(t["rank"]), t["value"], 1)[0]
    )
    low = slope.index.map(resource_level) == "low"
    welch = slope[low].var() / low.sum() + slope[~low].var() / (~low).sum()
    error = (found.high - found.value) / stats.t.ppf(0.975, found.df)
    by_hand = slope[low].mean() - slope[~low].mean()
    assert found.value == pytest.approx(by_hand, rel=1e-5)  # an optimum is found so far
    assert error**2 == pytest.approx(welch, rel=1e-3)
    assert min(low.sum(), (~low).sum()) - 1 <= found.df <= len(slope) - 2


def test_variance_between_runs_in_one_level_widens_the_interval() -> None:
    calm = estimate(simulated.table(np.random.default_rng(3), GRID, FEW))
    rough = estimate(simulated.table(np.random.default_rng(3), GRID, FEW, run_level=5))
    assert rough.high - rough.low > 2 * (calm.high - calm.low)


def predictions(table: pd.DataFrame, rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Return n scored examples behind each row; all runs share an example's ease."""
    rows = table.loc[table.index.repeat(n)].reset_index(drop=True)
    rows["example"] = np.tile(np.arange(n), len(table)).astype(str)
    ease = pd.Series(rng.normal(0, 0.3, n), index=np.arange(n).astype(str))
    value = rows["value"] + rows["example"].map(ease) + rng.normal(0, 0.1, len(rows))
    for metric in ("accuracy", "f1"):
        rows[metric] = value.where(rows["metric"] == metric)
    keys = [*CELL, *contrasts.WHERE, "scoring", "example", "accuracy", "f1"]
    return rows[keys].assign(cluster=rows["example"])


def test_bootstrap_draws_the_same_examples_for_every_run() -> None:
    rng = np.random.default_rng(4)
    table = simulated.table(rng, GRID, FEW, rank_low=2)
    found = estimate(table)
    rows = predictions(table, rng, 50)
    one_each = contrasts.primary_scores(table)
    answers = contrasts.examples(one_each, rows)
    low, high = bootstrap_examples(found, one_each, answers)
    again = bootstrap_examples(found, one_each, answers)
    assert low < found.value < high
    assert (low, high) == again
    # Unpaired, the shared ease of examples alone would give about 2 points.
    assert high - low < 1


def test_bootstrap_without_the_examples_is_empty() -> None:
    rng = np.random.default_rng(4)
    table = simulated.table(rng, GRID, FEW)
    rows = predictions(table, rng, 5)
    rows = rows[rows["task"] != "xcopa"]
    one_each = contrasts.primary_scores(table)
    answers = contrasts.examples(one_each, rows)
    found = bootstrap_examples(estimate(table), one_each, answers, draws=10)
    assert np.isnan(found).all()


def test_paired_errors_are_those_of_the_differences() -> None:
    rng = np.random.default_rng(5)
    table = simulated.table(rng, GRID.iloc[:1], {"xcopa": "en sw"})
    rows = predictions(table, rng, 40)
    one_each = contrasts.primary_scores(table)
    paired = contrasts.score_changes(one_each, contrasts.examples(one_each, rows))
    english = rows[rows["language"] == "en"]
    base = english["rank"] == 0
    values = english.loc[~base, "accuracy"].to_numpy()
    difference = 100 * (values - english.loc[base, "accuracy"].to_numpy())
    expected = difference.std(ddof=1) / np.sqrt(40)
    row = paired[paired["language"] == "en"].iloc[0]
    assert row["change_stderr"] == pytest.approx(expected)
    unpaired = contrasts.score_changes(one_each).iloc[0]
    assert unpaired["change_stderr"] == pytest.approx(1.5 * np.sqrt(2))


def test_the_bootstrap_of_bits_takes_the_base_models_off() -> None:
    """Examples that are easier for 4-bit models, finetuned or not, cancel out."""
    rng = np.random.default_rng(6)
    table = simulated.table(
        rng, simulated.runs(ranks=(4, 8, 16), bits=(4, 16)), FEW, bits_low=2
    )
    rows = predictions(table, rng, 30)
    evidence = claims.gather(table, rows)
    found = findings.bits_help_low(evidence)
    weights = found.estimate.details["score_weights"]
    joined = contrasts.primary_scores(table).set_index([*CELL, *contrasts.WHERE])
    total = (weights * 100 * joined["value"].reindex(weights.index)).sum()
    assert total == pytest.approx(found.estimate.value)
    row = claims.evaluate_claims(evidence).set_index("id").loc["C2"]
    assert row["bootstrap_low"] < row["estimate"] < row["bootstrap_high"]
    assert weights.groupby(["base_model", "bits", "task"]).sum().abs().max() < 1e-9


def bell_mccaffrey(x: np.ndarray, clusters: pd.Series) -> tuple[np.ndarray, float]:
    """Return CR2's residual makers of the last coefficient, and their Satterthwaite df.

    Written down from Bell and McCaffrey (2002) and Pustejovsky and Tipton (2018, eqs. 6
    and 11) with whole matrices, for independent errors.
    """
    bread = np.linalg.inv(x.T @ x)
    hat = np.eye(len(x)) - x @ bread @ x.T
    makers = []
    for _, own in clusters.groupby(clusters).indices.items():
        block = hat[np.ix_(own, own)]
        adjusted = x[own].T @ linalg.fractional_matrix_power(block, -0.5) @ hat[own]
        makers.append((bread @ adjusted)[-1])
    products = np.array([[one @ other for other in makers] for one in makers])
    return np.array(makers), np.trace(products) ** 2 / (products**2).sum()


@pytest.mark.parametrize("ratio", [0.0, 1.5])
def test_errors_by_language_are_those_of_bell_and_mccaffrey(ratio: float) -> None:
    """Of a few uneven clusters; with a random effect, in the model without it."""
    rng = np.random.default_rng(7)
    codes = [*"aaaabbbccdddeeef", *"ggh"]
    table = pd.DataFrame({"language": codes, "instruction_data": "one"})
    table["task"] = np.array(["x", "y", "z"])[rng.integers(0, 3, len(table))]
    table["low"] = table["language"].isin([*"adfg"]).astype(float)
    table["tokens"] = rng.normal(size=len(table))
    table["slope"] = rng.normal(size=len(table))
    design, used = mixed_model.design_matrix(table)
    weigh, pull, df = mixed_model.language_weights(table, design, ratio)
    together = table["language"].to_numpy()[:, None] == table["language"].to_numpy()
    covariance = np.eye(len(table)) + ratio * together
    root = linalg.inv(linalg.sqrtm(covariance))
    makers, expected = bell_mccaffrey(root @ design, table["language"])
    found = ((pull @ table["slope"]) ** 2).sum()
    assert used == ["tokens"]
    assert found == pytest.approx(((makers @ root @ table["slope"]) ** 2).sum())
    assert df == pytest.approx(expected)
    # Unbiased: if the model holds, the error's mean is the variance of the estimate.
    assert np.trace(pull @ covariance @ pull.T) == pytest.approx(
        weigh @ covariance @ weigh
    )


def test_error_of_a_mean_is_what_clubsandwich_is_held_to() -> None:
    """The formulas of CR2 and its df in its tests, test_intercept_formulas.R."""
    rng = np.random.default_rng(8)
    size = np.array([1, 2, 2, 4, 7, 9])
    table = pd.DataFrame({"language": np.repeat([*"abcdef"], size)})
    table["slope"] = rng.normal(size=len(table))
    ones = np.ones((len(table), 1))
    weigh, pull, df = mixed_model.language_weights(table, ones, 0.0)
    mean, total = table.groupby("language")["slope"].mean(), size.sum()
    off = (mean.to_numpy() - table["slope"].mean()) ** 2
    rest = total - size
    spread = total**2 * (size**2 / rest**2).sum()
    spread -= 2 * total * (size**3 / rest**2).sum()
    spread += (size**2 / rest).sum() ** 2
    assert weigh @ table["slope"] == pytest.approx(table["slope"].mean())
    assert ((pull @ table["slope"]) ** 2).sum() == pytest.approx(
        (size**2 * off / (1 - size / total)).sum() / total**2
    )
    assert df == pytest.approx(total**2 / spread)
