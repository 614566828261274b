"""The mixed-effects model of slopes: its design, weights, and errors by language."""

import warnings

import numpy as np
import pandas as pd
from statsmodels.regression.mixed_linear_model import MixedLM

from maple_utils.claims.contrasts import WHERE, NotIdentified, NotTestable

PLACE = ["instruction_data", *WHERE]


def design_matrix(slopes: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Return the design matrix, resource level last, and the covariates in it."""
    place = slopes["task"] + " " + slopes["instruction_data"]
    design = pd.get_dummies(place).to_numpy(float)
    used = []
    for name in slopes.columns.difference([*PLACE, "slope", "low"], sort=False):
        wider = np.column_stack([design, slopes[name].astype(float)])
        if slopes[name].notna().all() and _is_full_rank(wider):
            design = wider
            used.append(name)
    design = np.column_stack([design, slopes["low"]])
    if not _is_full_rank(design):
        raise NotIdentified(
            f"resource level goes hand in hand with {' and '.join(used) or 'the task'}"
            "; evaluate languages that differ in one alone (03)"
        )
    return design, used


def _is_full_rank(matrix: np.ndarray) -> bool:
    return np.linalg.matrix_rank(matrix) == matrix.shape[1]


def language_weights(
    slopes: pd.DataFrame, design: np.ndarray, ratio: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return what turns slopes into the estimate, into its errors, and their df.

    The first is a weight per slope. The second has a row per language, whose product
    with the slopes is what that language adds to the error: squared and summed, CR2.
    """
    codes = pd.factorize(slopes["language"])[0]
    same = codes[:, None] == codes[None]
    size = same.sum(axis=1)  # the covariance is 1 plus `ratio` within a language
    whiten = np.eye(len(slopes)) + same * ((1 / np.sqrt(1 + ratio * size) - 1) / size)
    x = whiten @ design
    last = np.linalg.inv(x.T @ x)[-1]
    miss = np.eye(len(x)) - x @ np.linalg.pinv(x)
    ends = np.zeros((codes.max() + 1, len(x)))
    for code in range(len(ends)):
        own = codes == code
        roots, axes = np.linalg.eigh(miss[np.ix_(own, own)])
        free = roots > 1e-9
        axes = axes[:, free] / roots[free] ** 0.25
        ends[code, own] = axes @ axes.T @ (x[own] @ last)
    pull = ends @ miss
    gram = pull @ pull.T
    return last @ x.T @ whiten, pull @ whiten, np.trace(gram) ** 2 / (gram**2).sum()


def language_ratio(slopes: pd.DataFrame, design: np.ndarray) -> float:
    """Return the variance between languages over that within, from MixedLM."""
    if slopes["slope"].std() < 1e-9:
        raise NotTestable("the scores do not vary; more examples may tell runs apart")
    if not slopes["language"].duplicated().any():
        return 0.0
    with warnings.catch_warnings():
        # A variance of zero is an answer here, not a failure to converge.
        warnings.simplefilter("ignore")
        # Without gradients: with them, searches end early where the variance is small.
        model = MixedLM(slopes["slope"], design, slopes["language"])
        fit = model.fit(method="powell")
    # Beyond a hundred million the weights stay the same, and lose their digits.
    return min(float(np.asarray(fit.cov_re)[0, 0] / fit.scale), 1e8)
