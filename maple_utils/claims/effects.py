"""What finetuning changes, taken apart: tables beyond the paper, for figures.

All of them start from scores and return tidy tables; changes are in points.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from maple_utils.claims.contrasts import (
    WHERE,
    holm,
    intervals,
    primary_scores,
    score_changes,
    split,
)
from maple_utils.languages import LANGUAGES, check_languages, levels_among
from maple_utils.params import CELL


def format_and_task(all_scores: pd.DataFrame) -> pd.DataFrame:
    """Split the change by generation into learning the task and learning its format.

    Likelihood ranks the options, so no answer can be unparsable: its change is the
    task's. What generation gains beyond it is the format's (ours).

    Args:
        all_scores: the tidy scores, choices scored both ways.

    Returns:
        Per finetuned run, task and language scored both ways: total (change by
        generation), task_change (by likelihood), format_change (the rest) and cell.
    """
    accuracy = all_scores[all_scores["metric"] == "accuracy"]
    generated, ranked = (
        score_changes(primary_scores(accuracy[accuracy["scoring"] == scoring]))
        for scoring in ("generate", "likelihood")
    )
    keys = CELL + WHERE
    table = generated[[*keys, "cell", "change"]].merge(
        ranked[[*keys, "change"]], on=keys, suffixes=("", "_task")
    )
    table = table.rename(columns={"change": "total", "change_task": "task_change"})
    return table.assign(format_change=table["total"] - table["task_change"])


def adjusted_for_task(table: pd.DataFrame, column: str) -> pd.Series:
    """Return a column as if every language had been asked every task.

    Per base model the column is fitted by least squares as the sum of an effect of the
    task and one of the language; of each value its task's effect is taken off, and the
    mean of all tasks' effects is added. Means over the tasks that a language happens to
    have can then be compared, as far as a task is as hard in every language.
    """
    parts = []
    for _, part in table.groupby("base_model"):
        tasks, names = pd.factorize(part["task"])
        languages = pd.get_dummies(part["language"]).to_numpy(float)
        design = np.column_stack([np.eye(len(names))[tasks], languages])
        effects = np.linalg.lstsq(design, part[column].to_numpy(float), rcond=None)[0]
        effects = effects[: len(names)]
        parts.append(part[column] - effects[tasks] + effects.mean())
    return pd.concat(parts) if parts else table[column]


def shrunk(table: pd.DataFrame) -> pd.DataFrame:
    """Add what each of many means is worth beside the others, per base model.

    `shrunk` is the mean drawn towards the mean of all, the more the less sure it is:
    empirical Bayes with the variance between languages of DerSimonian and Laird (1986).
    `p_holm` is its p-value against zero, corrected for the number of languages.

    Args:
        table: columns base_model, mean, low and high (a 95 % interval), a row each;
            where the interval is missing, so is what is added.
    """
    parts = []
    for _, part in table.groupby("base_model"):
        error = (part["high"] - part["low"]) / 2 / stats.norm.ppf(0.975)
        error = error.dropna()
        if error.empty:
            parts.append(part.assign(shrunk=np.nan, p_holm=np.nan))
            continue
        mean = part.loc[error.index, "mean"]
        weight = 1 / error**2
        centre = np.average(mean, weights=weight)
        excess = (weight * (mean - centre) ** 2).sum() - (len(mean) - 1)
        room = weight.sum() - (weight**2).sum() / weight.sum()  # 0 where one is alone
        between = max(excess / room, 0) if len(mean) > 1 else np.inf
        own = 1 / (1 + error**2 / between) if between else 0.0
        p = holm(2 * stats.norm.sf(np.abs(mean) / error))
        drawn = centre + own * (mean - centre)
        parts.append(part.assign(shrunk=drawn, p_holm=pd.Series(p, error.index)))
    return pd.concat(parts)


def mean_changes(scores: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """Return the mean change from the base model per group of languages.

    Args:
        scores: what `primary_scores` returns.
        groups: what `language_groups` or `seen_groups` returns.

    Returns:
        What `intervals` does by language and run, per group, adjusted for task.
    """
    table = score_changes(scores)
    table = table.assign(change=adjusted_for_task(table, "change")).merge(groups)
    return intervals(table, ["group"], "change", "language", "cell")


def language_groups(by: str, base_models: Iterable[str] = ()) -> pd.DataFrame:
    """Return each language with its "script", "family" or resource "level" as group.

    Levels are those of `languages.levels_among` these base models.
    """
    level = levels_among(base_models)
    groups = [
        level(code) if by == "level" else getattr(language, by)
        for code, language in LANGUAGES.items()
    ]
    return pd.DataFrame({"language": list(LANGUAGES), "group": groups})


def seen_groups(seen: Mapping[str, list[str]]) -> pd.DataFrame:
    """Return per instruction dataset and language the group "seen" or "unseen".

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


def pareto(scores: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return each finetuned run's mean score and cost, and whether it is unbeaten.

    The mean (percent) is over the (task, language) that all runs have. A run is on the
    frontier if no other costs at most as much and scores more, or scores at least as
    much and costs less.

    Args:
        scores: what `primary_scores` returns.
        costs: the columns of CELL and cost.

    Returns:
        The run columns, score, cost, frontier; sorted by cost.
    """
    wide = split(scores)[1].pivot(index=CELL, columns=WHERE, values="value")
    means = 100 * wide.dropna(axis=1).mean(axis=1).rename("score")
    table = means.reset_index().merge(costs[[*CELL, "cost"]], on=CELL)
    table = table.sort_values("cost", ignore_index=True)
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
    setting = [name for name in CELL if name != "seed"]
    tuned = split(scores)[1].assign(value=lambda t: 100 * t["value"])
    table = tuned.groupby(setting + WHERE, as_index=False)["value"].agg(
        seeds="size", mean="mean", sd="std", largest="max", smallest="min"
    )
    table["spread"] = table.pop("largest") - table.pop("smallest")
    return table[table["seeds"] > 1].reset_index(drop=True)


def tokens_and_gain(scores: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Return per base model and language tokens_per_word and the mean change (points).

    The change is adjusted for task.
    `spearman` and `p` are the rank correlation of the two over a base model's
    languages. Base models with fewer than three languages are left out.
    """
    keys = ["base_model", "language"]
    tokens = training.groupby(keys, as_index=False)["tokens_per_word"].mean().dropna()
    changes = score_changes(scores)
    changes["change"] = adjusted_for_task(changes, "change")
    means = changes.groupby(keys, as_index=False)["change"].mean()
    table = means.merge(tokens, on=keys)
    table = table[table.groupby("base_model")["language"].transform("size") >= 3]
    for base, part in table.groupby("base_model"):
        found = stats.spearmanr(part["tokens_per_word"], part["change"])
        own = table["base_model"] == base
        table.loc[own, ["spearman", "p"]] = found.statistic, found.pvalue
    return table
