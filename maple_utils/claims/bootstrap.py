"""The interval of a slope difference over examples alone."""

import numpy as np
import pandas as pd

from maple_utils.claims.contrasts import WHERE, Estimate
from maple_utils.params import CELL


def bootstrap_examples(
    estimate: Estimate,
    scores: pd.DataFrame,
    answers: pd.DataFrame,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % percentile interval of a slope difference over examples.

    Examples are drawn with replacement within a task, the same ones for every run
    (paired) and for every language that has them (the tests are translations). The
    interval is for these runs and languages: it holds no error of either.

    Args:
        estimate: what `slope_difference` returned for `scores`.
        scores: what `primary_scores` returns.
        answers: what `examples` returns; an example that a run lacks is left out.
        draws: number of bootstrap samples; one that has no example of a language is
            left out.
        seed: of the random draws.
    """
    weights = estimate.details["score_weights"].reset_index()
    wanted = weights.groupby(WHERE, as_index=False).size()
    table = scores[[*CELL, *WHERE]].merge(weights, "left", [*CELL, *WHERE])
    table = table.merge(wanted.reset_index(names="place"), "left", WHERE)
    pull = 100 * answers["value"] * table["weight"].to_numpy()[answers["score"]]
    place = table["place"].to_numpy()[answers["score"]]
    rows = answers[["example"]].assign(place=place, pull=pull).dropna()
    found = rows.groupby(["place", "example"])["pull"].agg(["sum", "size"])
    of_place = found.index.get_level_values("place").astype(int)
    whole = found["size"].to_numpy() == wanted["size"].to_numpy()[of_place]
    pulls = found.loc[whole, "sum"].unstack("place").reindex(columns=wanted.index)
    if not pulls.notna().any().all():
        return np.nan, np.nan
    rng = np.random.default_rng(seed)
    total = np.zeros(draws)
    for _, places in wanted.groupby("task"):
        by_language = pulls[places.index].dropna(how="all")
        n = len(by_language)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=draws)
        known = counts @ by_language.notna().to_numpy(float)
        known[known == 0] = np.nan
        total += (counts @ by_language.fillna(0).to_numpy() / known).sum(axis=1)
    low, high = np.nanquantile(total, [0.025, 0.975])
    return float(low), float(high)
