"""How much of the variance between runs goes with the base model, and with the data."""

import numpy as np
import pandas as pd

from maple_utils.claims.contrasts import (
    ONE_EACH,
    STILL,
    WHERE,
    Estimate,
    NotTestable,
    split,
    student,
)


def factor_difference(
    scores: pd.DataFrame, answers: pd.DataFrame | None = None
) -> Estimate:
    """Return how much more of the variance the base model explains than the data.

    Finetuned runs are matched by rank, bits and seed over every pairing of base model
    and data. Per (task, language) the variance component of a factor is the mean
    product of its effects in two different runs, so that run-to-run variance adds
    nothing on average (an omega squared, not an eta squared); and, where all runs have
    answers, of its effects on two halves of the examples, for a base model that is
    lucky with some is so in every run. The shares are of all the variance between runs.
    The error is a jackknife over matched runs plus one over languages; a bootstrap
    would pair a run with itself and bring that variance back.

    Returns:
        The difference of shares (-1 to 1); details hold the two shares, `base` and
        `data`, the `wins` (fraction of (task, language) where base is ahead), `n`, and
        `halved`: whether the examples were.
    """
    tuned = split(scores)[1]
    halves = pd.DataFrame() if answers is None else _halves(scores, answers)
    halved = len(halves) == 2 * len(tuned) > 0
    if not halved:
        halves = pd.concat([tuned.assign(half=half) for half in range(2)])
    cells = halves.pivot(
        index=["half", "rank", "bits", "seed"],
        columns=["base_model", "instruction_data", *WHERE],
        values="value",
    )
    sizes = [cells.columns.get_level_values(i).nunique() for i in range(2)]
    if min(sizes, default=0) < 2:
        raise NotTestable(ONE_EACH)
    pairs = cells.notna().T.groupby(level=[0, 1]).any().T
    matched = cells[(pairs.sum(axis=1) == sizes[0] * sizes[1])]
    matched = matched.stack(level=[0, 1], future_stack=True).dropna(axis=1)
    runs, places = len(matched) // (2 * sizes[0] * sizes[1]), matched.columns
    if runs < 3 or not len(places):
        raise NotTestable(
            f"{runs} settings have every base model with every dataset; three would do"
        )
    y = 100 * matched.sort_index().to_numpy().reshape(2, runs, *sizes, len(places))
    y = y - y.mean(axis=(2, 3), keepdims=True)
    if not y.any():
        raise NotTestable(STILL)
    language = places.get_level_values("language")
    variance = _jackknife(y, [~np.eye(runs, dtype=bool)[i] for i in range(runs)], 1)
    several = language.unique() if language.nunique() > 1 else []
    variance += _jackknife(y, [language != code for code in several], -1)
    base, data, total = _components(y)
    fewest = min(runs, len(several) or runs)
    return student(
        _difference(y),
        variance,
        fewest - 1,
        base=base.mean() / total,
        data=data.mean() / total,
        wins=float((base > data).mean()),
        n=int(y[0].size),
        halved=halved,
    )


def _halves(scores: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """Return the finetuned scores on two halves of the examples.

    A passage is in one of them, the same in all runs.
    """
    task = scores["task"].to_numpy()[answers["score"]]
    number = answers.groupby(task)["cluster"].transform(
        lambda clusters: pd.factorize(clusters, sort=True)[0]
    )
    means = answers.assign(half=number % 2).groupby(["score", "half"])["value"].mean()
    numbered = scores.drop(columns="value").assign(score=np.arange(len(scores)))
    return split(numbered)[1].merge(means.reset_index(), on="score")


def _components(y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the variance by base and by data per place, and all of it on average.

    `y` is by half, run, base model, data and place.
    """

    def component(effects: np.ndarray) -> np.ndarray:
        _, runs, levels, _ = effects.shape
        products = effects.sum(axis=1).prod(axis=0) - effects.prod(axis=0).sum(axis=0)
        return products.sum(axis=0) / (runs * (runs - 1) * levels)

    base, data = component(y.mean(axis=3)), component(y.mean(axis=2))
    whole = y.mean(axis=0)
    total = (whole**2).sum(axis=(1, 2)).mean() / (y.shape[2] * y.shape[3])
    return base, data, total


def _difference(y: np.ndarray) -> float:
    base, data, total = _components(y)
    return float((base - data).mean() / total) if total else 0.0


def _jackknife(y: np.ndarray, kept: list[np.ndarray], axis: int) -> float:
    left = np.array([_difference(np.compress(keep, y, axis=axis)) for keep in kept])
    return (len(left) - 1) * float(left.var()) if len(left) else 0.0
