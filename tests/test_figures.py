"""Figures: how they look, the numbers beneath, what they refuse, and that they recur.

The images to compare with are in tests/figures; `python -m tests.test_figures` draws
them again.
"""

import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

from maple_utils import claims, figures, printing, tables
from maple_utils.claims import larger
from maple_utils.claims.contrasts import primary_scores, score_changes
from maple_utils.claims.effects import adjusted_for_task, seen_groups
from maple_utils.errors import ParameterError
from maple_utils.figures.scores import along
from maple_utils.figures.style import LEVELS, ONE_COLUMN, STYLE, TWO_COLUMNS
from maple_utils.params import CELL
from tests import simulated_claims

BASELINE = Path(__file__).parent / "figures"
PLACES = {
    "xcopa": "en ht qu sw th zh",
    "belebele": "en no de he",
    "xquad": "en hi el ru th",
}
FIGURES = sorted(set(figures.__all__) - {"NotDrawable", "is_miniature", "save"})


def scores() -> pd.DataFrame:
    """Return a small grid with choices scored both ways; finetuning costs English."""
    rng = np.random.default_rng(0)
    grid = simulated_claims.runs(ranks=(8, 32), bits=(4, 16))
    effects = {"rank_low": 1.0, "gain": 3.0, "english": -6.0, "base_sd": 2.0}
    ranked = simulated_claims.table(rng, grid, PLACES, **effects)
    written = ranked[ranked["metric"] == "accuracy"].assign(scoring="generate")
    lost = np.where(written["rank"] == 0, 0.3, 0.05)
    return pd.concat([ranked, written.assign(value=written["value"] - lost)])


def training(scored: pd.DataFrame) -> pd.DataFrame:
    """Return what 02 would have recorded of the finetuned runs."""
    runs = scored.loc[scored["rank"] > 0, CELL].drop_duplicates(ignore_index=True)
    runs["cell"] = [f"cell-{i}" for i in runs.index]
    runs["seconds"] = 60.0 * runs["rank"] * np.where(runs["bits"] == 4, 1.5, 1.0)
    codes = sorted(set(" ".join(PLACES.values()).split()))
    held = pd.DataFrame({"language": codes, "before": 2.0, "after": 1.5})
    held.loc[held["language"] == "en", ["before", "after"]] = [1.2, 1.3]
    held["tokens_per_word"] = 1.4 + 0.3 * held.index
    return runs.merge(held, how="cross")


def yardstick(scored: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with shots, and how many answers are in their language."""
    told = scored.dropna(subset="value").assign(metric="in_language")
    told["value"] = np.where(told["rank"] == 0, 0.6, 0.95)
    everything = pd.concat([scored, told], ignore_index=True)
    fewer = everything["language"].map({"hi": 3.0, "th": 5.5, "en": 8.0})
    return everything.assign(shots=fewer.astype(float).fillna(7.0))


def draw(name: str, table: pd.DataFrame) -> tuple:
    """Call a figure's function with what it needs, from a scores table."""
    one_each = primary_scores(table)
    reference = larger.reference_results(table.iloc[:0])
    beside = larger.beside_larger(table, reference)
    others = {
        "english": (training(table),),
        "score_against_cost": (training(table),),
        "change_by_tokens": (training(table),),
        "change_by_group": (seen_groups({"bactrian-x-22": ["en", "sw", "hi"]}),),
        "gap_to_larger_models": (larger.gap_to_larger(beside),),
    }
    if name == "verdicts":
        verdicts = claims.evaluate_claims(claims.gather(table, None, reference))
        return figures.verdicts(one_each, verdicts)
    firsts = {
        "form_or_task": table,
        "language_consistency": yardstick(table),
        "shots_by_language": yardstick(table),
    }
    first = firsts.get(name, one_each)
    return getattr(figures, name)(first, *others.get(name, ()))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return scores()


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def save_small(figure, path: Path) -> None:
    with mpl.rc_context(STYLE):
        figure.savefig(path, dpi=60, metadata={"Software": None})


@pytest.mark.parametrize("name", FIGURES)
def test_it_looks_as_it_did(name, table, tmp_path):
    figure, _ = draw(name, table)
    save_small(figure, tmp_path / f"{name}.png")
    expected = str(BASELINE / f"{name}.png")
    assert compare_images(expected, str(tmp_path / f"{name}.png"), tol=12) is None
    assert ONE_COLUMN <= figure.get_figwidth() <= TWO_COLUMNS
    assert figure.get_figheight() < 9.5


def test_a_comparison_notices_what_changed(table, tmp_path):
    shifted = table.assign(value=table["value"] * (1 - 0.1 * (table["rank"] == 8)))
    figure, _ = draw("score_by_rank", shifted.astype({"value": float}))
    save_small(figure, tmp_path / "other.png")
    expected = str(BASELINE / "score_by_rank.png")
    assert compare_images(expected, str(tmp_path / "other.png"), tol=12)


def test_numbers_beneath_are_the_means(table):
    one_each = primary_scores(table)
    _, beneath = draw("change_by_language", table)
    row = beneath.query("base_model == 'mistral-7b' and language == 'th'").iloc[0]
    changes = score_changes(one_each)
    thai = adjusted_for_task(changes, "change")[changes["language"] == "th"]
    thai = thai[changes["base_model"] == "mistral-7b"]
    assert row["mean"] == pytest.approx(thai.mean())
    assert (row["tasks"], row["n"]) == (2, 16)
    assert row["low"] < row["mean"] < row["high"]
    _, beneath = draw("score_by_language", table)
    row = beneath.query("base_model == 'llama-2-7b' and task == 'xcopa'").iloc[0]
    same = one_each.query("base_model == 'llama-2-7b' and task == 'xcopa'")
    same = same.loc[same["language"] == row["language"]].set_index("rank")["value"]
    assert row["before"] == pytest.approx(100 * same[same.index == 0].mean())
    assert row["highest"] == pytest.approx(100 * same[same.index > 0].max())


def test_what_is_significant_is_filled(table):
    """And drawn above the hollow marks, which errorbar lifts over other lines."""
    figure, beneath = draw("change_by_language", table)
    lines = [line for axes in figure.axes for line in axes.lines]
    marks = [line for line in lines if line.get_marker() in ("o", "s", "^")]
    filled = [line for line in marks if line.get_markerfacecolor() != "white"]
    others = [line.get_zorder() for line in marks if line not in filled]
    assert (
        sum(len(line.get_xdata()) for line in filled)
        == (beneath["p_holm"] < 0.05).sum()
    )
    assert min(line.get_zorder() for line in filled) > max(others)


def test_languages_answered_in_and_shots_are_means(table):
    _, beneath = draw("language_consistency", table)
    assert beneath["before"].to_numpy() == pytest.approx(60)
    assert beneath["after"].to_numpy() == pytest.approx(95)
    _, beneath = draw("shots_by_language", table)
    shown = beneath.set_index(["task", "language"])["shots"]
    assert (shown["xquad", "hi"], shown["xquad", "en"]) == (3.0, 8.0)
    with pytest.raises(figures.NotDrawable, match="whose language can be told"):
        figures.language_consistency(table)


def test_form_is_what_generation_gains_beyond_likelihood(table):
    _, beneath = draw("form_or_task", table)
    found = beneath.groupby("kind")["mean"].mean()
    assert found["the form of the answer"] == pytest.approx(25, abs=0.1)


def test_english_gets_worse_and_stands_in_both_panels(table):
    _, beneath = draw("english", table)
    assert set(beneath["unit"]) == {"score (%)", "held-out bits per byte"}
    scored = beneath[beneath["unit"] == "score (%)"]
    assert (scored["after"] < scored["before"]).mean() > 0.5


def test_like_is_compared_with_like(table):
    """Rank 32 without one setting: that setting is left out at rank 8 as well."""
    whole = primary_scores(table)
    hole = (whole["rank"] == 32) & (whole["bits"] == 4)
    hole &= whole["instruction_data"] == "multialpaca"
    found = along(whole[~hole], "rank").query("rank > 0")
    sizes = found.groupby(["base_model", "resource"])["n"].nunique()
    assert (sizes == 1).all()
    every = along(whole, "rank").query("rank > 0")
    assert found["n"].sum() == pytest.approx(0.75 * every["n"].sum())


@pytest.mark.parametrize("name", FIGURES)
def test_on_a_screen_no_text_is_smaller_than_11_pixels(name, table):
    figure, _ = draw(name, table)
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert min(text.get_size() for text in texts) * figure.dpi / 72 >= 11


def test_what_sometimes_happens_has_no_filled_dot(table):
    """English falls in XCOPA and rises on average: a dot there would be misread."""
    falling = (table["rank"] > 0) & (table["language"] == "en")
    falling &= table["task"] == "xcopa"
    table = table.assign(value=table["value"].mask(falling, 0.05))
    figure, beneath = draw("verdicts", table)
    claim = beneath.set_index("id").loc["C4"]
    assert claim["verdict"] == "supported"
    assert "xcopa" in claim["where"]
    axes = figure.axes[3]
    assert [line.get_markerfacecolor() for line in axes.lines][-1] == "white"
    words = " ".join(text.get_text() for text in axes.texts)
    assert f"in {claim['share']:.0%} of {claim['n']} comparisons" in words
    assert f"by {claim['size']:.1f} points (median)" in words


@pytest.mark.parametrize("name", FIGURES)
def test_no_scores_make_no_figure(name, table):
    if name == "verdicts":
        _, beneath = draw(name, table.iloc[:0])
        assert (beneath["verdict"] == "not testable with these runs").all()
        return
    with pytest.raises(figures.NotDrawable, match=r"\w+ \w+"):
        draw(name, table.iloc[:0])


def test_base_models_alone(table):
    bases = table[table["instruction_data"] == ""]
    drawn = ["score_by_bits", "score_by_language", "verdicts"]
    drawn += ["language_consistency", "shots_by_language"]
    for name in drawn:
        assert len(draw(name, bases)[1])
    for name in set(FIGURES) - set(drawn):
        with pytest.raises(figures.NotDrawable, match=r"finetun|before|train\.json"):
            draw(name, bases)


def test_a_single_cell_with_its_base(table):
    one = table[(table["base_model"] == "mistral-7b") & (table["bits"] == 4)]
    one = one[one["rank"].isin([0, 8])]
    one = one[one["instruction_data"].isin(["", "bactrian-x-22"])]
    for name in FIGURES:
        _, beneath = draw(name, one)
        assert len(beneath), name


def test_missing_values_are_left_out(table):
    gaps = table.reset_index(drop=True)
    gaps.loc[gaps["language"] == "sw", "value"] = np.nan
    for name in FIGURES:
        _, beneath = draw(name, gaps)
        if "language" in beneath:
            assert "sw" not in set(beneath["language"])
            assert set(beneath["language"]) == set(gaps["language"]) - {"sw"}


def test_an_unknown_language_is_named_in_one_line(table):
    wrong = primary_scores(table).replace({"language": {"sw": "swa"}})
    with pytest.raises(ParameterError, match="languages: got 'swa'; did you mean sw"):
        figures.score_by_language(wrong)


def test_miniature_is_written_on_its_figures_and_no_others(table):
    figure, _ = draw("score_by_rank", table)
    assert figure.get_suptitle() == ""
    small = table.replace({"base_model": {"mistral-7b": "miniature-mistral"}})
    for name in FIGURES:
        assert draw(name, small)[0].get_suptitle() == "miniature"


def test_levels_differ_in_grey():
    def grey(level):
        return np.dot(mpl.colors.to_rgb(LEVELS[level][0]), [0.299, 0.587, 0.114])

    for one, other in combinations(LEVELS, 2):
        assert abs(grey(one) - grey(other)) > 0.1
        assert LEVELS[one][1:] != LEVELS[other][1:]


SAVE = """
from pathlib import Path
from tests.test_figures import *
for name in ("score_by_rank", "form_or_task"):
    figures.save(draw(name, scores())[0], Path({folder!r}), name, pd.DataFrame())
"""


def test_files_are_the_same_when_made_again(table, tmp_path):
    for name in ("score_by_rank", "form_or_task"):
        figures.save(draw(name, table)[0], tmp_path / "one", name, pd.DataFrame())
    command = [sys.executable, "-c", SAVE.format(folder=str(tmp_path / "two"))]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert len(files) == 8
    for file in files:
        one, two = ((tmp_path / which / file).read_bytes() for which in ("one", "two"))
        assert one == two, file


def test_another_process_writes_the_same_bytes_or_says_why_not(
    table, tmp_path, monkeypatch
):
    name, no_folder = "change_by_run", tmp_path / "file"
    no_folder.write_text("")
    colours = mpl.colors.get_named_colors_mapping()
    monkeypatch.setitem(colours, "k", (0.1, 0.1, 0.1))  # as seaborn's set_theme does
    figures.save(draw(name, table)[0], tmp_path / "here", name, pd.DataFrame())
    with ProcessPoolExecutor(1, get_context("spawn")) as beside:
        figure, beneath = draw(name, table)
        figures.save(figure, tmp_path, name, beneath, beside).result()
        about = (pickle.dumps(figure), STYLE, no_folder, name, "svg")
        with pytest.raises(FileExistsError):
            beside.submit(printing.write_pickled, *about).result()
    for ending in ("png", "svg", "pdf"):
        file = f"{name}.{ending}"
        there, here = (tmp_path / file, tmp_path / "here" / file)
        assert there.read_bytes().splitlines() == here.read_bytes().splitlines(), ending


def test_text_stays_text(table, tmp_path):
    figure, beneath = draw("score_by_language", table)
    figures.save(figure, tmp_path, "figure", beneath)
    assert "Swahili</text>" in (tmp_path / "figure.svg").read_text(encoding="utf-8")
    assert b"FontFile2" in (tmp_path / "figure.pdf").read_bytes()  # TrueType
    again = pd.read_csv(tmp_path / "figure.csv")
    assert again["after"].to_numpy() == pytest.approx(beneath["after"], abs=1e-3)


def test_tables_hold_the_scores_with_the_best_in_bold(table, tmp_path):
    one_each = primary_scores(table)
    files = tables.save(one_each, tmp_path)
    assert [file.stem for file in files] == ["belebele", "xcopa", "xquad"]
    greek = one_each.query("task == 'xquad' and language == 'el'")
    best = 100 * greek["value"].max()
    reach = 196 * one_each["stderr"].iloc[0]
    assert f"\\bfseries {best:.1f}{{\\tiny$\\pm${reach:.1f}}}" in (
        tmp_path / "xquad.tex"
    ).read_text(encoding="utf-8")
    assert f"{best:.1f} ± {reach:.1f}" in files[-1].read_text(encoding="utf-8")
    wide = pd.read_csv(tmp_path / "xquad.csv", index_col="run")
    assert wide["el value"].max() == pytest.approx(best, abs=1e-3)
    assert wide.index[0] == "Llama-2-7B, 4 bits"


LATEX = r"""\documentclass{article}
\usepackage{adjustbox, booktabs, rotating}
\begin{document}\input{xcopa}\end{document}
"""


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_a_table_of_the_whole_grid_fits_on_a_page_of_latex(tmp_path):
    grid = simulated_claims.runs()
    table = simulated_claims.table(np.random.default_rng(0), grid)
    tables.save(primary_scores(table), tmp_path)
    (tmp_path / "main.tex").write_text(LATEX)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout
    assert "(1 page" in made.stdout
    assert "too large" not in made.stdout
    assert "Overfull" not in made.stdout


if __name__ == "__main__":
    for name in FIGURES:
        save_small(draw(name, scores())[0], BASELINE / f"{name}.png")
