"""The claims give the right answer on tables whose truth is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from statsmodels.stats.power import TTestPower

from maple_utils import claims
from maple_utils.claims import contrasts, findings, larger, sometimes
from maple_utils.claims.evidence import Finding
from maple_utils.errors import ParameterError
from maple_utils.languages import resource_level
from tests import simulated_claims as simulated
from tests.test_slopes import predictions

FEW = dict.fromkeys(("xcopa", "belebele", "xquad"), "en es fr ar hi sw te gu qu")
STILL = {"language_slope": 0, "pair_slope": 0, "task_slope": 0, "noise": 0.5}


def scores(seed: int = 0, **truth: object) -> pd.DataFrame:
    """Return 12 finetuned runs and their bases on three tasks, nine languages."""
    grid = simulated.runs(ranks=(4, 8, 16), bits=(4, 16))
    return simulated.table(np.random.default_rng(seed), grid, FEW, **STILL | truth)


def answers(table: pd.DataFrame, **given: object) -> pd.DataFrame:
    """Return the claims table by id."""
    given = {"training": simulated.training(table)} | given
    return claims.evaluate_claims(claims.gather(table, **given)).set_index("id")


def reference(value: float, model: str = "GPT-4", failure: str = "") -> pd.DataFrame:
    """Return a larger model that scores the same everywhere."""
    where = scores()[["task", "language", "metric", "scoring"]].drop_duplicates()
    about = {"model": model, "larger": True, "stderr": 0.0, "failure": failure}
    return where.assign(value=value, **about)


@pytest.mark.parametrize(
    ("claim", "truth", "verdict"),
    [
        ("C1", {"rank_low": 2.0}, "supported"),
        ("C1", {"rank_low": -2.0}, "not supported"),
        ("C1", {}, "not supported"),
        ("C2", {"bits_low": 4.0}, "supported"),
        ("C2", {"bits_low": -4.0}, "not supported"),
        ("C4", {"english": -6.0}, "supported"),
        ("C4", {"english": 6.0}, "not supported"),
        ("C5", {"gain": -5.0, "rank_low": 8.0}, "supported"),
        ("C5", {"gain": 5.0}, "not supported"),
        ("C7", {"base_sd": 4.0, "data_sd": 0.5}, "supported"),
        ("C7", {"base_sd": 0.5, "data_sd": 4.0}, "not supported"),
    ],
)
def test_verdict_follows_the_truth(claim: str, truth: dict, verdict: str) -> None:
    row = answers(scores(**truth)).loc[claim]
    assert row["verdict"] == verdict, row["why"]


def test_estimates_have_the_sign_and_size_of_the_truth() -> None:
    table = answers(scores(rank_low=1.0, bits_low=-1.5, english=-6.0))
    assert table.loc["C1", "estimate"] == pytest.approx(1.0, abs=0.3)
    assert table.loc["C2", "estimate"] == pytest.approx(-3.0, abs=1.0)
    assert table.loc["C4", "estimate"] == pytest.approx(-6.0, abs=1.0)
    inside = table.dropna(subset="p")
    assert (inside["low"] < inside["estimate"]).all()
    assert (inside["estimate"] < inside["high"]).all()


def test_gap_counts_as_closed_only_from_behind_to_level() -> None:
    level_with = answers(scores(gain=15.0), reference=reference(0.60)).loc["C3"]
    still_behind = answers(scores(gain=15.0), reference=reference(0.99)).loc["C3"]
    assert level_with["verdict"] == "supported"
    assert 0 < level_with["share"] <= 1
    assert still_behind["verdict"] == "not supported"
    assert still_behind["share"] == 0
    assert still_behind["estimate"] == pytest.approx(15, abs=1.5)


def test_what_was_in_the_finetuning_data_is_no_resource_level() -> None:
    """Rank helps what was seen, and mostly high-resource languages were (audit, 3)."""
    blind, told = [], []
    for seed in range(12):
        table = scores(seed, rank_seen=2.0)
        training = simulated.training_on_seen(table)
        blind.append(findings.rank_helps_low(claims.gather(table)).estimate)
        evidence = claims.gather(table, training=training)
        told.append(findings.rank_helps_low(evidence).estimate)
    assert np.mean([one.value for one in blind]) < -0.5
    assert np.mean([one.value for one in told]) == pytest.approx(0, abs=0.15)
    assert sum(one.low <= 0 <= one.high for one in told) >= 10
    assert all("in the finetuning data" in one.details["used"] for one in told)


def test_of_low_resource_languages_the_seen_ones_stand_apart() -> None:
    table = scores(gain=2.0)
    training = simulated.training_on_seen(table)
    telugu = table["language"].eq("te") & table["instruction_data"].eq("bactrian-x-22")
    table["value"] += 0.1 * telugu
    assert "(low-resource ones +1" in answers(table, training=training).loc["C5", "why"]
    assert "low-resource ones" not in answers(table, training=None).loc["C5", "why"]


def test_a_level_that_is_all_unseen_is_not_identified() -> None:
    table = scores(rank_low=2.0)
    languages = pd.DataFrame({"language": ["en", "es", "fr", "ar", "hi"]})
    training = simulated.training(table).drop(columns="language").drop_duplicates()
    row = answers(table, training=training.merge(languages, how="cross")).loc["C1"]
    assert row["verdict"] == "not identified with these runs"
    assert "resource level goes hand in hand with" in row["why"]


def test_each_languages_weight_and_the_estimate_without_it() -> None:
    table = scores(rank_low=2.0)
    first = table["language"].eq("qu") & table["rank"].gt(0)
    table["value"] += first * 0.05 * np.log2(table["rank"].clip(lower=1))
    whole = answers(table).loc["C1", "estimate"]
    evidence = claims.gather(table, training=simulated.training(table))
    table = claims.influence(claims.find(evidence))
    assert set(table["claim"]) == {"C1", "C2", "C5"}
    found = table[table["claim"] == "C1"].set_index("language")
    assert found.groupby("low")["weight"].sum().tolist() == pytest.approx([1, 1])
    assert found["without"].idxmin() == "qu"
    assert found.loc["qu", "without"] < whole - 0.5
    assert claims.influence(claims.find(claims.gather(scores().iloc[:0]))).empty


def test_a_gap_that_no_one_closes_is_not_closed() -> None:
    """Ten points behind and nine gained: all better, none level (audit, no. 1)."""
    found = answers(scores(gain=9.0), reference=reference(0.65), margin=0.0).loc["C3"]
    few = answers(scores(gain=9.0), reference=reference(0.65), margin=6.0).loc["C3"]
    assert (found["verdict"], few["verdict"]) == ("not supported", "supported")
    assert "of 648 pairs were behind" in found["why"]


def test_datasets_that_are_not_alike_identify_nothing() -> None:
    table = scores(base_sd=4.0, data_sd=0.5)
    alike = simulated.training(table)
    multi = alike["instruction_data"] == "multialpaca"
    longer = alike.assign(tokens=alike["tokens"].where(~multi, 11_000))
    other = alike[~multi | (alike["language"] != "sw")]
    told = [(longer, "11.0 times the tokens"), (other, "hold different languages")]
    for training, why in [*told, (alike.iloc[:0], "no record of what the runs")]:
        row = answers(table, training=training).loc["C7"]
        assert row["verdict"] == "not identified with these runs"
        assert why in row["why"]
        assert np.isnan(row["p"])


@pytest.mark.parametrize("df", [3, 7.5, 300])
def test_what_could_have_been_found_is_what_a_t_test_would(df: float) -> None:
    """As statsmodels says, at the level of 5 % among four claims."""
    reach = stats.t.ppf(0.975, df)
    estimate = contrasts.Estimate(0.0, -reach, reach, 1.0, df)
    found = Finding(estimate, 1.0, 0.0, 1, holds=False, why="")
    effect = TTestPower().solve_power(nobs=df + 1, alpha=0.05 / 4, power=0.8)
    assert claims.detectable(found, 4) == pytest.approx(effect * np.sqrt(df + 1), 1e-3)


def test_over_seeds_the_setting_is_tested() -> None:
    grid = simulated.runs(ranks=(8,), bits=(4,), seeds=(0, 1, 2))
    table = simulated.table(np.random.default_rng(0), grid, FEW, english=-9, **STILL)
    why = answers(table).loc["C4", "why"]
    assert "over seeds, 12 of 12 settings fall" in why
    assert "of these adapters alone" in answers(scores()).loc["C4", "why"]


def test_a_failed_reference_run_is_no_larger_model() -> None:
    failed = reference(0.01, "GPT-4", "below 0.05")
    both = pd.concat([reference(0.99, "PaLM2"), failed])
    gaps = claims.gather(scores(gain=5.0), reference=both).gaps
    assert (gaps["larger"] == 0.99).all()
    assert answers(scores(), reference=failed).loc["C3", "verdict"].startswith("not te")


def test_runs_of_a_larger_model_are_kept_apart_and_paired_by_example() -> None:
    rng, table = np.random.default_rng(3), scores()
    large = table[(table["base_model"] == "mistral-7b") & (table["rank"] == 0)]
    large = large.assign(base_model="served-70b", value=large["value"] + 0.1)
    both = pd.concat([table, large], ignore_index=True)
    assert larger.apart(both)[1].empty  # at known bits it may be of a grid
    assert len(larger.apart(both.assign(bits=0))[1]) == len(both)
    own, theirs = larger.apart(both, ["served-70b"])
    assert set(theirs["base_model"]) == {"served-70b"}
    reference = larger.reference_results(theirs)
    rows = predictions(pd.concat([own, theirs], ignore_index=True), rng, 200)
    plain = larger.beside_larger(own, reference)
    paired = larger.beside_larger(own, reference, rows)
    base = plain[(plain["rank"] == 0) & (plain["base_model"] == "mistral-7b")]
    assert base["gap"].to_numpy() == pytest.approx(10, abs=1.5)
    # The ease of an example, sd 0.3, is shared; what is left of an answer is 0.1, and
    # there are two of the larger model, at 4 and at 16 bits.
    left = 100 * np.hypot(0.1, 0.1 / 2**0.5) / 200**0.5
    assert paired["gap_stderr"].median() == pytest.approx(left, rel=0.05)
    evidence = claims.gather(own, rows, reference)
    assert "served-70b" in findings.mistral_strong(evidence).why
    assert sometimes.closes_gap(evidence).n > 0


def test_a_scoring_is_compared_with_the_same_scoring_only() -> None:
    ranked = scores(gain=5.0)
    written = ranked.assign(scoring="generate", value=ranked["value"] - 0.2)
    both = pd.concat([ranked, written], ignore_index=True)
    sheet = reference(0.9).assign(scoring="generate")
    found = larger.beside_larger(both, sheet)
    assert set(found["scoring"]) == {"generate"}
    assert larger.beside_larger(ranked, sheet[sheet["task"] == "xcopa"]).empty


def test_english_and_larger_models_ahead_before_finetuning() -> None:
    table = scores()
    english = table["language"] == "en"
    table["value"] += 0.2 * english
    ahead = answers(table, reference=reference(0.95)).loc["C6"]
    behind = answers(table, reference=reference(0.05)).loc["C6"]
    alone = answers(table, reference=reference(0.95).iloc[:0]).loc["C6"]
    assert ahead["verdict"] == "supported"
    assert behind["verdict"] == "not supported"
    assert "not compared" in alone["why"]


def test_mistral_must_lead_and_come_near_gpt4() -> None:
    table = scores()
    table["value"] += 0.1 * (table["base_model"] == "mistral-7b")
    near = answers(table, reference=reference(0.60), margin=8.0).loc["C8"]
    far = answers(table, reference=reference(0.99), margin=8.0).loc["C8"]
    assert near["estimate"] == pytest.approx(10, abs=1)
    assert (near["verdict"], far["verdict"]) == ("supported", "not supported")


def test_holm_runs_over_the_testable_claims_alone() -> None:
    table = answers(scores(english=-6.0), reference=reference(0.9).iloc[:0])
    tested = table.dropna(subset="p")
    assert "C3" not in tested.index
    assert tested["p_holm"].min() == pytest.approx(tested["p"].min() * len(tested))
    assert (tested["p_holm"] >= tested["p"]).all()


def one_cell(table: pd.DataFrame) -> pd.DataFrame:
    """Return one finetuned run and its base model."""
    own = table["base_model"].eq("mistral-7b") & table["bits"].eq(4)
    own &= table["instruction_data"].isin(["", "multialpaca"])
    return table[own & table["rank"].isin([0, 8])]


def holed(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Return the table with every third number of some columns gone."""
    gone = np.arange(len(table)) % 3 == 0
    return table.assign(**{name: table[name].mask(gone) for name in columns})


# A table, a claim that it cannot answer, and what that claim says of it.
BAD = {
    "no columns": (lambda t: pd.DataFrame(), "C6", "no base model"),
    "no rows": (lambda t: t.iloc[:0], "C1", "no two finetuned runs differ in rank"),
    "one row": (lambda t: t.iloc[[0]], "C6", "no base model"),
    "one run": (lambda t: t[t["rank"].gt(0)].query("rank == 4").head(27), "C2", "bits"),
    "one run and its base": (one_cell, "C1", "differ in rank alone"),
    "one comparison": (lambda t: one_cell(t).head(28).iloc[[0, 27]], "C6", "no base"),
    "one language": (lambda t: t[t["language"].eq("sw")], "C5", "no task with both"),
    "only English": (lambda t: t[t["language"].eq("en")], "C6", "English and in an"),
    "only low resources": (
        lambda t: t[t["language"].isin(simulated.LOW)],
        "C5",
        "both",
    ),
    "three languages": (
        lambda t: t[t["language"].isin(["en", "es", "sw"])],
        "C1",
        "two low-resource",
    ),
    "no English": (lambda t: t[t["language"].ne("en")], "C4", "no English"),
    "no base model": (lambda t: t[t["rank"].gt(0)], "C3", "evaluate the base model"),
    "no Llama base": (lambda t: t[t["rank"].gt(0)], "C8", "no task scored by both"),
    "only base models": (lambda t: t[t["rank"].eq(0)], "C1", "differ in rank"),
    "one base model": (
        lambda t: t[t["base_model"].eq("mistral-7b")],
        "C7",
        "two base models",
    ),
    "one rank": (lambda t: t[t["rank"].isin([0, 8])], "C1", "train with another (02)"),
    "one width": (lambda t: t[t["bits"].eq(4)], "C2", "differ in bits"),
    "no value": (lambda t: t.assign(value=np.nan), "C4", "no finetuned row with its"),
    "no numbers": (
        lambda t: t.assign(value=np.nan, stderr=np.nan, n=np.nan),
        "C4",
        "no finetuned row with its base",
    ),
    "no errors": (lambda t: t.assign(stderr=np.nan), "C3", "no standard errors"),
    "no examples": (lambda t: t.assign(n=0), "C6", "no base model"),
    "another metric": (lambda t: t.assign(metric="bleu"), "C6", "no base model"),
    "all the same": (lambda t: t.assign(value=0.5), "C1", "do not vary"),
    "never varies": (lambda t: t.assign(value=0.5), "C7", "nothing varies"),
    "all zero": (lambda t: t.assign(value=0.0, stderr=0.0), "C8", "nothing varies"),
    "one task": (lambda t: t[t["task"].eq("xcopa")], "", ""),
    "holes": (lambda t: holed(t, "value"), "", ""),
    "holes in errors": (lambda t: holed(t, "stderr"), "", ""),
    "holes everywhere": (lambda t: holed(t, "value", "stderr", "n"), "", ""),
    "zero errors": (lambda t: t.assign(stderr=0.0), "", ""),
    "one example": (lambda t: t.assign(n=1), "", ""),
}


@pytest.fixture(scope="module")
def answered() -> pd.DataFrame:
    """Return five answers to each task, but none of one run."""
    table = scores()
    rows = predictions(table, np.random.default_rng(1), 5)
    return rows[rows["rank"].ne(8) | rows["bits"].ne(4)]


@pytest.mark.parametrize(
    ("bad", "paired"),
    [
        *((bad, bad != "no errors") for bad in BAD),
        *((bad, False) for bad in ("holes everywhere", "one run and its base")),
    ],
)
@pytest.mark.filterwarnings("error")
def test_claims_that_cannot_be_tested_say_why(bad: str, paired: bool, answered) -> None:
    change, claim, reason = BAD[bad]
    table = change(scores())
    given = (answered if paired else None, None, simulated.training(scores()))
    evidence = claims.gather(table, *given)
    answer = claims.find(evidence)
    found = claims.evaluate_claims(evidence, answer).set_index("id")
    claims.influence(answer)
    assert list(found.index) == [f"C{i}" for i in range(1, 9)]
    told = found["verdict"].isin(["supported", "not supported"])
    numbers = ["estimate", "low", "high", "p", "p_holm", "share", "detectable"]
    assert np.isfinite(found.loc[told, numbers].astype(float)).all(axis=None)
    assert found.loc[~told, "p"].isna().all()
    words = r"not (testable|identified) with these runs"
    assert found.loc[~told, "verdict"].str.fullmatch(words).all()
    # What is missing; and after the semicolon, what to do about it.
    assert found.loc[~told, "why"].str.fullmatch(r"[^;\n]{20,120}; [^;\n]{8,60}").all()
    assert not found["why"].str.contains(r"\b(?:nan|inf)\b").any()
    if claim:
        assert not told[claim]
        assert reason in found.loc[claim, "why"]


def test_two_runs_cannot_tell_a_trend_from_chance() -> None:
    table = scores()
    two = table["base_model"].eq("mistral-7b") & table["bits"].eq(4)
    two &= table["instruction_data"].eq("multialpaca") & table["rank"].isin([4, 16])
    assert "2 runs leave nothing" in answers(table[two]).loc["C1", "why"]


def test_holes_and_missing_scores_are_left_out() -> None:
    table = scores(rank_low=2.0)
    whole = answers(table).loc["C1"]
    table.loc[::53, "value"] = np.nan
    holed = answers(table).loc["C1"]
    assert 0 < holed["n"] < whole["n"]
    assert holed["estimate"] == pytest.approx(whole["estimate"], abs=0.3)


def test_a_run_with_one_task_does_not_cost_the_others() -> None:
    table = scores(rank_low=2.0)
    partial = table["seed"].eq(0) & table["rank"].eq(16) & table["bits"].eq(4)
    partial &= table["base_model"].eq("mistral-7b")
    table = table[~partial | table["task"].eq("xcopa")]
    whole = answers(scores(rank_low=2.0)).loc["C1"]
    assert answers(table).loc["C1", "n"] == whole["n"] * 22 / 24


def test_unknown_language_is_one_clear_line() -> None:
    with pytest.raises(ParameterError, match="languages: got 'xx'"):
        claims.gather(scores().assign(language="xx"))


def test_levels_can_be_given() -> None:
    given = {"sw": "low", "ar": "low", "hi": "low"}
    table = scores()
    table = table[~table["language"].isin(["te", "gu", "qu"])]
    assert np.isnan(answers(table).loc["C1", "p"])
    with_levels = answers(table, level=lambda code: given.get(code, "high"))
    assert with_levels.loc["C1", "p"] > 0


def test_what_sometimes_happens_is_rarely_found_where_it_does_not() -> None:
    wrong = {"C4": 0, "C5": 0}
    truth = STILL | {"noise": 1.5, "run": 0, "run_language": 0}
    grid = simulated.runs(ranks=(8, 16), bits=(4,))
    for seed in range(20):
        table = simulated.table(np.random.default_rng(seed), grid, FEW, **truth)
        evidence = claims.gather(table, reference=reference(0.9).iloc[:0])
        wrong["C4"] += sometimes.english_worse(evidence).p < 0.05
        wrong["C5"] += sometimes.low_up_high_down(evidence).p < 0.05
    assert max(wrong.values()) <= 2


def test_reference_follows_its_own_rules() -> None:
    table = larger.reference_results(scores().iloc[:0])
    assert not table.duplicated(["model", "task", "language", "metric"]).any()
    assert table["value"].between(0, 1).all()
    assert set(table["metric"]) == {"accuracy", "f1", "exact_match", "rouge_l"}
    chance = {"belebele": 1 / 4, "xnli": 1 / 3}
    chance |= dict.fromkeys(("xcopa", "pawsx", "xstorycloze"), 1 / 2)
    floor = 0.8 * table["task"].map(chance)
    low = table["value"] < floor.fillna(0.05)
    bad = low | table["value"].eq(1)
    most = bad.groupby([table["model"], table["task"]]).transform("mean") > 0.5
    assert (table["failure"].ne("") == (bad | most)).all()
    assert (table["failure"].ne("").sum(), len(table)) == (196, 965)
    assert resource_level(table.loc[table["task"].eq("belebele"), "language"].iloc[0])


def test_one_cell_is_judged_by_its_examples() -> None:
    table = scores(english=-12.0)
    one = table["base_model"].eq("mistral-7b") & table["bits"].eq(4)
    one &= table["task"].eq("xcopa") & table["rank"].isin([0, 8])
    one &= table["instruction_data"].isin(["", "multialpaca"])
    row = answers(table[one]).loc["C4"]
    assert row["n"] == 1
    assert row["verdict"] == "supported"
    reach = 1.96 * 100 * np.hypot(*table[one].query("language == 'en'")["stderr"])
    assert row["high"] - row["estimate"] == pytest.approx(reach, rel=1e-3)


def test_every_claim_names_a_function_of_findings() -> None:
    places = [claim.find.split(".") for claim in claims.CLAIMS]
    functions = [getattr(claims.FINDERS[module], name) for module, name in places]
    assert [claim.id for claim in claims.CLAIMS] == [f"C{i}" for i in range(1, 9)]
    assert len(set(functions)) == 8
    for claim, function in zip(claims.CLAIMS, functions, strict=True):
        assert function.__doc__.startswith(f"{claim.id}: ")


PARAMS = Path(__file__).parents[1] / "params"
STATED = {"base_model", "instruction_data", "rank", "bits"}  # in part, by an abstract


def test_every_choice_of_the_papers_grid_says_how_it_is_known() -> None:
    choices, known = (
        yaml.safe_load((PARAMS / name).read_text(encoding="utf-8"))
        for name in ("paper.yaml", "provenance/paper.yaml")
    )
    assert list(known) == list(choices)
    for tags in known.values():
        assert tags
        assert set(tags) <= {"stated", "inferred", "ours"}
        assert all(isinstance(told, str) and told for told in tags.values())
    assert {name for name, tags in known.items() if "stated" in tags} == STATED
