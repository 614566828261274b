"""What finetuning changes, taken apart: tables beyond the paper, for figures.

All of them start from the tidy scores and return tidy tables; changes are in points.
"""

from collections.abc import Mapping

import pandas as pd
from scipy import stats

from maple_utils.claims.contrasts import (
    RUN,
    WHERE,
    NotTestable,
    changes,
    clustered_mean,
    primary_scores,
    split,
)
from maple_utils.languages import LANGUAGES, check_languages, resource_level

_SETTING = [name for name in RUN if name != "seed"]


def format_and_task(scores: pd.DataFrame) -> pd.DataFrame:
    """Split the change by generation into learning the task and learning its format.

    Likelihood ranks the options, so no answer can be unparsable: its change is the
    task's. What generation gains beyond it is the format's (ours).

    Returns:
        Per finetuned run, task and language scored both ways: total (change by
        generation), task_change (by likelihood) and format_change (the rest).
    """
    accuracy = scores[scores["metric"] == "accuracy"]
    ways = {
        way: changes(primary_scores(accuracy[accuracy["scoring"] == way]))
        for way in ("generate", "likelihood")
    }
    keys = RUN + WHERE
    table = ways["generate"][[*keys, "change"]].merge(
        ways["likelihood"][[*keys, "change"]], on=keys, suffixes=("", "_task")
    )
    table = table.rename(columns={"change": "total", "change_task": "task_change"})
    return table.assign(format_change=table["total"] - table["task_change"])


def mean_changes(
    scores: pd.DataFrame, labels: pd.DataFrame | pd.Series | Mapping[str, str]
) -> pd.DataFrame:
    """Return the mean change from the base model per group of languages.

    Args:
        scores: the tidy scores, with base rows.
        labels: the group of each language code (see `language_groups`), or a table
            with the columns instruction_data, language and group.

    Returns:
        Columns group, change, low, high (95 %, by language and run; empty where one
        observation has no interval), languages and n.
    """
    table = changes(primary_scores(scores))
    if isinstance(labels, pd.DataFrame):
        table = table.merge(labels, on=["instruction_data", "language"])
    else:
        table["group"] = table["language"].map(labels)
    table["cell"] = table.groupby(RUN).ngroup()
    columns = ["group", "change", "low", "high", "languages", "n"]
    rows = [
        (name, *_interval(group), group["language"].nunique(), len(group))
        for name, group in table.groupby("group")
    ]
    return pd.DataFrame(rows, columns=columns)


def _interval(group: pd.DataFrame) -> tuple[float, float, float]:
    try:
        found = clustered_mean(group["change"], group["language"], group["cell"])
    except NotTestable:
        return group["change"].mean(), float("nan"), float("nan")
    return found.value, found.low, found.high


def language_groups(by: str) -> dict[str, str]:
    """Return each language's "script", "family" or resource "level"."""
    if by == "level":
        return {code: resource_level(code) for code in LANGUAGES}
    return {code: getattr(language, by) for code, language in LANGUAGES.items()}


def seen_groups(seen: Mapping[str, list[str]]) -> pd.DataFrame:
    """Return for `mean_changes` which languages each instruction dataset holds.

    Args:
        seen: language codes per name of instruction data. Chinese in either script is
            seen where `zh` is.
    """
    rows = []
    for data, codes in seen.items():
        known = set(check_languages(codes))
        known |= {code for code in LANGUAGES if LANGUAGES[code].base in known}
        groups = ["seen" if code in known else "unseen" for code in LANGUAGES]
        rows += [(data, *pair) for pair in zip(LANGUAGES, groups, strict=True)]
    return pd.DataFrame(rows, columns=["instruction_data", "language", "group"])


def tokens_against_gain(scores: pd.DataFrame, tokens: pd.DataFrame) -> pd.DataFrame:
    """Return the mean change per base model and language beside its tokens per word.

    Args:
        scores: the tidy scores, with base rows.
        tokens: columns base_model, language, tokens_per_word.
    """
    keys = ["base_model", "language"]
    gains = (
        changes(primary_scores(scores)).groupby(keys, as_index=False)["change"].mean()
    )
    return gains.merge(tokens[[*keys, "tokens_per_word"]], on=keys)


def pareto(scores: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return each finetuned run's mean score and cost, and whether it is unbeaten.

    The mean (percent) is over the (task, language) that all runs have. A run is on the
    frontier if no other costs at most as much and scores more, or scores at least as
    much and costs less.

    Args:
        scores: the tidy scores.
        costs: columns base_model, instruction_data, rank, bits, seed and cost.

    Returns:
        The run columns, score, cost, frontier; sorted by cost.
    """
    tuned = split(primary_scores(scores))[1]
    wide = tuned.pivot(index=RUN, columns=WHERE, values="value").dropna(axis=1)
    means = (100 * wide.mean(axis=1)).rename("score").reset_index()
    costs = costs.astype({"rank": float})[[*RUN, "cost"]]
    table = means.merge(costs, on=RUN).sort_values("cost", ignore_index=True)
    score, cost = table["score"].to_numpy(), table["cost"].to_numpy()
    cheaper, better = cost <= cost[:, None], score >= score[:, None]
    strictly = (cost < cost[:, None]) | (score > score[:, None])
    return table.assign(frontier=~(cheaper & better & strictly).any(axis=1))


def seed_sensitivity(scores: pd.DataFrame) -> pd.DataFrame:
    """Return how far apart seeds lie, per setting, task and language with several.

    Returns:
        Columns base_model, instruction_data, rank, bits, task, language, seeds, mean,
        sd and spread (largest less smallest), in percent and points.
    """
    tuned = split(primary_scores(scores))[1].assign(value=lambda t: 100 * t["value"])
    table = tuned.groupby(_SETTING + WHERE, as_index=False)["value"].agg(
        seeds="size", mean="mean", sd="std", largest="max", smallest="min"
    )
    table["spread"] = table.pop("largest") - table.pop("smallest")
    return table[table["seeds"] > 1].reset_index(drop=True)


def tokens_and_gain(main: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Return per base model and language tokens_per_word and the mean change (points).

    `spearman` and `p` are the rank correlation of the two over a base model's
    languages. Base models with fewer than three languages are left out.
    """
    keys = ["base_model", "language"]
    tokens = training.groupby(keys, as_index=False)["tokens_per_word"].mean().dropna()
    means = changes(main).groupby(keys, as_index=False)["change"].mean()
    table = means.merge(tokens, on=keys)
    table = table[table.groupby("base_model")["language"].transform("size") >= 3]
    for base, part in table.groupby("base_model"):
        found = stats.spearmanr(part["tokens_per_word"], part["change"])
        own = table["base_model"] == base
        table.loc[own, ["spearman", "p"]] = found.statistic, found.pvalue
    return table
