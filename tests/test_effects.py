"""Changes taken apart: each table against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from maple_utils.claims import effects
from maple_utils.claims.__main__ import sentences
from maple_utils.claims.contrasts import primary_scores
from maple_utils.languages import LANGUAGES
from maple_utils.params import CELL
from tests import simulated_claims as simulated


def scores(values: dict[str, float], seeds=(0,)) -> pd.DataFrame:
    """Return two ranks on XCOPA: bases at 50 %, runs ahead by points per language."""
    grid = simulated.runs(ranks=(8, 16), bits=(4,), seeds=seeds)
    places = {"xcopa": " ".join(values)}
    table = simulated.table(np.random.default_rng(0), grid, places)
    gained = table["language"].map(values) / 100
    table["value"] = 0.5 + gained.where(table["rank"] > 0, 0)
    return primary_scores(table)


def test_generation_gain_splits_into_task_and_format() -> None:
    ranked = scores({"en": 2.0, "sw": 5.0})
    written = scores({"en": 12.0, "sw": 9.0}).assign(scoring="generate")
    table = effects.format_and_task(pd.concat([ranked, written]))
    means = table.groupby("language")[["total", "task_change", "format_change"]].mean()
    assert means.loc["en"].tolist() == pytest.approx([12, 2, 10])
    assert means.loc["sw"].tolist() == pytest.approx([9, 5, 4])
    assert len(effects.format_and_task(ranked)) == 0


def test_means_by_script_family_and_level() -> None:
    table = scores({"en": 1.0, "de": 3.0, "hi": 8.0})
    script = effects.mean_changes(table, effects.language_groups("script"))
    assert dict(zip(script["group"], script["mean"], strict=True)) == pytest.approx(
        {"Devanagari": 8, "Latin": 2}
    )
    latin = script.set_index("group").loc["Latin"]
    assert latin["low"] < 2 < latin["high"]
    assert latin[["languages", "n"]].tolist() == [2, 16]
    level, family = (
        effects.language_groups(by).set_index("language")["group"]
        for by in ("level", "family")
    )
    assert level["sw"] == "low"
    assert family["ta"] == LANGUAGES["ta"].family


def test_seen_is_per_instruction_data() -> None:
    table = scores({"en": 1.0, "sw": 7.0})
    seen = {"bactrian-x-22": ["en", "sw"], "multialpaca": ["en"]}
    groups = effects.mean_changes(table, effects.seen_groups(seen)).set_index("group")
    assert groups["mean"].to_dict() == pytest.approx({"seen": 3, "unseen": 7})
    labels = effects.seen_groups({"x": ["zh"]}).set_index("language")["group"]
    assert labels["zh-Hant"] == "seen"
    assert labels["sw"] == "unseen"


def test_frontier_holds_what_nothing_beats() -> None:
    table = scores({"en": 0.0})
    table = table[table["base_model"].eq("mistral-7b") & table["rank"].gt(0)]
    table = table.assign(value=[0.6, 0.5, 0.5, 0.7])
    costs = table[CELL]
    found = effects.pareto(table, costs.assign(cost=[2.0, 1.0, 3.0, 4.0]))
    assert found["cost"].tolist() == [1, 2, 3, 4]
    assert found["score"].tolist() == pytest.approx([50, 60, 50, 70])
    assert found["frontier"].tolist() == [True, True, False, True]


def test_equal_runs_share_the_frontier() -> None:
    table = scores({"en": 0.0})
    table = table[table["rank"] > 0]
    costs = table[CELL]
    assert effects.pareto(table, costs.assign(cost=1.0))["frontier"].all()


def test_seeds_are_compared_where_there_are_several() -> None:
    table = scores({"en": 0.0}, seeds=(0, 1))
    table["value"] += 0.04 * table["seed"]
    found = effects.seed_sensitivity(table)
    assert (found["seeds"] == 2).all()
    assert found["spread"].tolist() == pytest.approx([4.0] * len(found))
    assert found["mean"].iloc[0] == pytest.approx(52)
    assert effects.seed_sensitivity(scores({"en": 0.0})).empty


def test_tokens_per_word_are_set_against_the_gain():
    """Where the gain falls with every token, the rank correlation is -1."""
    codes = ["en", "de", "hi", "th"]
    rows = [
        {"base_model": "b", "instruction_data": data, "rank": rank, "bits": 4}
        | {"seed": 0, "task": "xcopa", "language": code, "scoring": "likelihood"}
        | {"metric": "accuracy", "value": value, "stderr": 0.01, "n": 100}
        for number, code in enumerate(codes)
        for data, rank, value in (("", 0, 0.5), ("d", 8, 0.9 - 0.1 * number))
    ]
    tokens = pd.DataFrame({"language": codes, "tokens_per_word": [1, 2, 3, 4]})
    training = tokens.assign(base_model="b")
    found = effects.tokens_and_gain(pd.DataFrame(rows), training)
    assert found["spearman"].tolist() == pytest.approx([-1.0] * 4)
    changes = found.set_index("language")["change"]
    assert changes[codes].tolist() == pytest.approx([40, 30, 20, 10])
    assert effects.tokens_and_gain(pd.DataFrame(rows), training[:2]).empty


def test_a_language_is_not_higher_for_having_the_easier_tasks() -> None:
    """By hand: task effects of 30 and 60, languages of 0, 5 and -5 points."""
    tasks, languages = {"hard": 30.0, "easy": 60.0}, {"en": 0.0, "es": 5.0, "sw": -5.0}
    rows = [(t, c, tasks[t] + languages[c]) for t in tasks for c in languages]
    table = pd.DataFrame(rows, columns=["task", "language", "points"])
    table = table[(table["task"] != "hard") | (table["language"] != "sw")]
    table = table.assign(base_model="b")
    raw = table.groupby("language")["points"].mean()
    assert raw["sw"] > raw["en"]
    table["points"] = effects.adjusted_for_task(table, "points")
    means = table.groupby("language")["points"].mean()
    assert means.to_dict() == pytest.approx({"en": 45, "es": 50, "sw": 40})


def test_unsure_means_are_drawn_further_towards_the_others() -> None:
    means, reach = np.array([9.0, 1.0, -1.0, 0.0]), np.array([8.0, 1.0, 1.0, 1.0])
    table = pd.DataFrame({"base_model": "b", "mean": means})
    table = table.assign(low=means - reach, high=means + reach)
    found = effects.shrunk(table)
    moved = (found["mean"] - found["shrunk"]).abs()
    assert moved.idxmax() == 0
    assert found["shrunk"].between(-1, 9).all()
    p = 2 * stats.norm.sf(np.abs(means) / (reach / 1.959964))
    assert found["p_holm"].min() == pytest.approx(p.min() * 4, rel=1e-4)
    alone = effects.shrunk(table.iloc[:1])
    assert alone["shrunk"].tolist() == [9.0]


def test_two_sentences_say_who_gained_and_what_rank_did() -> None:
    table = scores({"en": -2.0, "de": 0.0, "sw": 3.0, "yo": 5.0})
    table.loc[table["rank"].eq(16), "value"] += 0.01
    gained, by_rank = sentences(table)
    runs = table[table["rank"] > 0].groupby(CELL).ngroups
    assert gained.startswith(f"Finetuning ({runs} adapters) changed, in points: low-")
    assert "low-resource +4.5 (" in gained
    assert "high-resource +0.5" in gained
    assert "English -1.5" in gained
    assert by_rank == (  # one run, so there is no interval
        "With 16 instead of 8 (rank): "
        "low-resource +1.0, high-resource +1.0, English +1.0."
    )
    assert sentences(table[table["rank"].ne(16)])[1:] == []
    assert sentences(table[table["rank"].gt(0)]) == [
        "No finetuned run stands beside its base model at the same bits."
    ]
