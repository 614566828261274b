"""The pieces under the claims, checked by hand or against another implementation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from maple_utils.claims import contrasts, factors
from tests import simulated_claims as simulated

FEW = dict.fromkeys(("xcopa", "belebele", "xquad"), "en es fr zh ar hi sw te")


def test_mean_by_one_clustering_is_the_t_test_of_cluster_means() -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(1, 1, 6)
    values = pd.Series(np.repeat(means, 4))
    found = contrasts.clustered_mean(values, pd.Series(np.repeat(range(6), 4)))
    expected = stats.ttest_1samp(means, 0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.low == pytest.approx(expected.confidence_interval().low)


def test_mean_without_two_clusters_is_refused() -> None:
    one = pd.Series([1.0, 2.0])
    with pytest.raises(contrasts.NotTestable, match="single observation"):
        contrasts.clustered_mean(one, pd.Series(["en", "en"]))


def test_mean_by_two_clusterings_covers_the_truth() -> None:
    rng = np.random.default_rng(2)
    rows, columns = (a.ravel() for a in np.indices((8, 12)))
    hits = []
    for _ in range(600):
        y = rng.normal(0, 1, 8)[rows] + rng.normal(0, 1, 12)[columns]
        y = pd.Series(y + rng.normal(0, 1, 96))
        found = contrasts.clustered_mean(y, pd.Series(rows), pd.Series(columns))
        hits.append(found.low <= 0 <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.97


def test_primary_prefers_likelihood_unless_more_runs_were_generated() -> None:
    grid = simulated.runs(ranks=(8,), bits=(4,))
    table = simulated.table(np.random.default_rng(3), grid, {"xcopa": "en sw"})
    generated = table.assign(scoring="generate", value=0.1)
    both = contrasts.primary_scores(pd.concat([generated, table]))
    some = contrasts.primary_scores(pd.concat([generated, table[table["rank"] > 0]]))
    assert set(both["scoring"]) == {"likelihood"}
    assert set(some["scoring"]) == {"generate"}
    assert len(both) == len(some) == len(table)


def test_primary_leaves_out_bits_per_byte_and_second_metrics() -> None:
    grid = simulated.runs(ranks=(8,), bits=(4,))
    table = simulated.table(np.random.default_rng(3), grid, {"xquad": "en sw"})
    others = [table.assign(metric=name) for name in ("exact_match", "bits_per_byte")]
    assert set(contrasts.primary_scores(pd.concat([*others, table]))["metric"]) == {
        "f1"
    }


def test_change_is_from_the_base_at_the_same_bits() -> None:
    grid = simulated.runs(ranks=(8,), bits=(4, 16))
    table = simulated.table(np.random.default_rng(4), grid, {"xcopa": "en"})
    base = table["rank"] == 0
    table.loc[base, "value"] = 0.4 + table.loc[base, "bits"] / 100
    table.loc[~base, "value"] = 0.6
    changed = contrasts.score_changes(contrasts.primary_scores(table)).groupby("bits")
    assert changed["change"].mean().to_dict() == pytest.approx({4: 16.0, 16: 4.0})


def test_no_standard_error_below_one_example() -> None:
    grid = simulated.runs(ranks=(8,), bits=(4,))
    table = simulated.table(np.random.default_rng(4), grid, {"xcopa": "en"}, n=50)
    scores = contrasts.primary_scores(table.assign(stderr=0.0))
    changed = contrasts.score_changes(scores)
    assert (changed["change_stderr"] == 2.0).all()


def test_shares_of_variance_are_those_put_in() -> None:
    still = {"language_slope": 0, "pair_slope": 0, "task_slope": 0}
    table = simulated.table(
        np.random.default_rng(5), simulated.runs(), FEW, base_sd=3, **still
    )
    found = factors.factor_difference(contrasts.primary_scores(table))
    assert found.details["base"] > 0.5
    assert found.details["data"] == pytest.approx(0, abs=0.03)
    assert found.low > 0


def test_a_base_model_that_explains_everything_has_all_the_variance() -> None:
    grid = simulated.runs(ranks=(4, 8, 16), bits=(4,))
    table = simulated.table(np.random.default_rng(0), grid, FEW)
    noise = np.random.default_rng(1).normal(0, 1e-3, len(table))
    first = table["base_model"] == table["base_model"].iloc[0]
    table["value"] = 0.3 + 0.2 * first + noise
    found = factors.factor_difference(contrasts.primary_scores(table))
    assert found.details["base"] == pytest.approx(1, abs=0.01)
    assert found.details["data"] == pytest.approx(0, abs=0.01)
    assert found.value == pytest.approx(1, abs=0.01)


def test_equal_factors_are_rarely_told_apart() -> None:
    still = {"language_slope": 0, "pair_slope": 0, "task_slope": 0}
    grid = simulated.runs(ranks=(4, 8, 16), bits=(4,))
    wrong = 0
    for seed in range(40):
        table = simulated.table(
            np.random.default_rng(seed), grid, FEW, base_sd=1, data_sd=1, **still
        )
        wrong += factors.factor_difference(contrasts.primary_scores(table)).p < 0.05
    assert wrong <= 4


def test_holm_corrects_as_statsmodels_does() -> None:
    rng = np.random.default_rng(0)
    for p in (rng.random(40) ** 3, np.repeat([0.3, 0.01, 0.02], 4), [0.5]):
        expected = multipletests(p, method="holm")[1]
        assert contrasts.holm(p) == pytest.approx(expected, abs=1e-12)
    assert len(contrasts.holm([])) == 0
