"""One yardstick for every language? Shots shown, and languages answered in."""

import pandas as pd
import seaborn as sns

from maple_utils.figures import style
from maple_utils.figures.scores import before_and_after
from maple_utils.figures.style import Drawn, NotDrawable, drawing
from maple_utils.results import main_metrics


@drawing
def language_consistency(all_scores: pd.DataFrame) -> Drawn:
    """Draw the share of written answers in the language that was asked for.

    It parts "answered in English" from "wrong": see `maple_utils.consistency`.

    Args:
        all_scores: the tidy scores.

    Returns:
        The figure, base models hollow and finetuned ones filled; and per base model and
        language both means, with the range over finetuned runs and tasks (percent).
    """
    told = all_scores[all_scores["metric"] == "in_language"].dropna(subset="value")
    if told.empty:
        raise NotDrawable("no written answers whose language can be told")
    table = before_and_after(told, ["base_model", "language"])
    bases = sorted(set(table["base_model"]))
    codes = style.by_resource(table)[::-1]
    figure, axes = style.grid(1, 1, 1.1 + 0.14 * len(codes))
    place = axes[0, 0]
    style.dumbbells(place, table, table["language"].map(codes.index), bases)
    style.label_rows(place, map(style.language_name, codes))
    place.set(xlabel="in the language asked for (%)")
    style.dumbbell_legend(figure, table, bases)
    return figure, table


@drawing
def shots_by_language(all_scores: pd.DataFrame) -> Drawn:
    """Draw how many examples a question had before it, by task and language.

    Long passages and scripts that a tokenizer hardly knows leave room for fewer.

    Returns:
        The figure; and per task and language the mean number of shots over all runs.
    """
    shown = main_metrics(all_scores).dropna(subset=["value", "shots"])
    table = shown.groupby(["task", "language"], as_index=False)["shots"].mean()
    if not (table["shots"] > 0).any():
        raise NotDrawable("no run had examples before its questions")
    codes = style.by_resource(shown)
    named = table.assign(
        language=table["language"].map(style.language_name),
        task=table["task"].map(style.name_of),
    )
    order = list(map(style.language_name, codes))
    figure, axes = style.grid(1, 1, 1.1 + 0.14 * len(codes))
    sns.stripplot(
        named,
        x="shots",
        y="language",
        hue="task",
        order=order,
        palette="colorblind",
        jitter=False,
        ax=axes[0, 0],
    )
    axes[0, 0].set(xlabel="examples before a question", ylabel="", xlim=(0, None))
    axes[0, 0].get_legend().remove()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    style.legend_below(figure, handles, labels, ncols=3)
    return figure, table
