"""Figures from any subset of runs: none, one, a base model with its adapter."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from maple_utils.errors import ParameterError
from maple_utils.params import Cell
from maple_utils.results import write_scores
from tests.notebooks.running import ROOT, run, run_here

BASE = Cell("miniature-llama", "", 0, 4)
TUNED = Cell("miniature-llama", "bactrian-x-mini", 8, 4)
SERVED = Cell("gpt-4o", "", 0, 0)  # by an endpoint, which keeps its bits to itself
PLACES = [("xcopa", "en"), ("xcopa", "sw"), ("xquad", "en"), ("xquad", "hi")]


def write_run(runs: Path, cell: Cell, gain: float = 0.0) -> None:
    """Write a run's scores: 0.4, more for every further (task, language), plus gain."""
    rows = []
    for i, (task, language) in enumerate(PLACES):
        metric, scorings = "f1", ["generate"]
        if task == "xcopa":
            metric, scorings = "accuracy", ["likelihood", "generate"]
        for scoring in scorings:
            row = {"task": task, "language": language, "scoring": scoring}
            value = 0.4 + 0.05 * i + gain
            rows.append({**row, "metric": metric, "value": value, "stderr": 0.01})
    table = pd.DataFrame(rows).assign(**cell.asdict(), n=100, format_failures=0)
    table = table.assign(cut_off=0, shots=0.0, cutter="")
    name = {BASE: "base", TUNED: "tuned", SERVED: "served"}[cell]
    write_scores(table, runs / name / "scores.parquet")


def write_record(runs: Path) -> None:
    """Write the finetuned run's train.json, as far as figures read it."""
    record = {
        "cell": "tuned",
        "parameters": TUNED.asdict(),
        "plan": {"max_length": "640"},
        "train": {"seconds": 90, "tokens": 1000},
        "data": {"tokens_per_word": {"en": 1.4}},
        "heldout_bits_per_byte": {"en": {"before": 1.5, "after": 1.75}},
        "overlap": [
            {"task": task, "language": language, "items": 500, "note": ""} | found
            for task, language, found in (
                ("xquad", "hi", {"overlapping": 0, "share": 0.0, "too_short": 0}),
                ("xquad", "en", {"overlapping": 125, "share": 0.25, "too_short": 0}),
                ("xcopa", "en", {"overlapping": 0, "share": None, "too_short": 500}),
            )
        ],
    }
    (runs / "tuned" / "train.json").write_text(json.dumps(record))


def said(notebook: nbformat.NotebookNode) -> str:
    """Return all that the notebook printed."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return "".join(out.get("text", "") for out in outputs)


def shown(notebook: nbformat.NotebookNode) -> str:
    """Return the HTML of all that the notebook displayed."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return "".join(out.get("data", {}).get("text/html", "") for out in outputs)


def pictures(notebook: nbformat.NotebookNode) -> int:
    """Count the figures that stand in the notebook."""
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return sum("image/png" in out.get("data", {}) for out in outputs)


def drawn(output: Path) -> set[str]:
    """Return the figures in the output folder, each there in all four forms."""
    files = [file for file in output.iterdir() if file.is_file()]
    names = {file.stem for file in files}
    assert len(files) == 4 * len(names)
    return names


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[nbformat.NotebookNode, Path]:
    """Run the notebook over a base model and its adapter, and a damaged file."""
    out = tmp_path_factory.mktemp("both")
    write_run(out / "runs", BASE)
    write_run(out / "runs", TUNED, gain=0.1)
    write_record(out / "runs")
    (out / "runs" / "broken").mkdir()
    (out / "runs" / "broken" / "scores.parquet").write_bytes(b"not parquet")
    paths = {"runs_dir": str(out / "runs"), "output_dir": str(out / "figures")}
    return run("04_figures", out, paths), out


def test_what_of_the_tests_was_in_the_data_stands_beside_the_changes(both):
    notebook, out = both
    table = pd.read_csv(out / "figures" / "tables" / "changes.csv")
    assert list(zip(table["task"], table["language"], strict=True)) == [
        *(("xquad", "en"), ("xquad", "hi"), ("xcopa", "en"), ("xcopa", "sw"))
    ]
    assert table["overlap"].fillna(-1).tolist() == [0.25, 0.0, -1, -1]
    assert table["too_short"].fillna(-1).tolist() == [0, 0, 500, -1]
    assert np.allclose(table["change"], 10)
    assert "25.0%" in shown(notebook)


def test_a_served_model_is_what_others_are_compared_with(tmp_path):
    for cell, gain in ((BASE, 0.0), (TUNED, 0.1), (SERVED, 0.25)):
        write_run(tmp_path / "runs", cell, gain)
    run_here(
        "04_figures",
        {"runs_dir": str(tmp_path / "runs"), "output_dir": str(tmp_path / "figures")},
    )
    gaps = pd.read_csv(tmp_path / "figures" / "gap_to_larger_models.csv")
    means = gaps.groupby("when")["mean"].mean()
    assert means["before finetuning"] == pytest.approx(25)
    assert means["after"] == pytest.approx(15)
    claims = pd.read_csv(tmp_path / "figures" / "tables" / "claims.csv", index_col="id")
    assert "larger models ahead by 25.0 points" in claims.loc["C6", "why"]
    table = pd.read_csv(tmp_path / "figures" / "score_by_language.csv")
    assert set(table["base_model"]) == {"miniature-llama"}


def test_a_base_model_and_its_adapter(both):
    notebook, out = both
    names = drawn(out / "figures")
    assert len(names) == 12
    assert pictures(notebook) == 12
    assert "gap_to_larger_models" in names  # beside the miniature's own larger model
    assert str(out / "runs" / "broken" / "scores.parquet") in said(notebook)
    beneath = pd.read_csv(out / "figures" / "change_by_language.csv")
    assert np.allclose(beneath["mean"], 10)
    assert list(beneath["language"]) == ["en", "hi", "sw"]
    claims = pd.read_csv(out / "figures" / "tables" / "claims.csv")
    assert list(claims["id"]) == [f"C{i}" for i in range(1, 9)]
    assert {file.name for file in (out / "figures" / "tables").iterdir()} == {
        *("claims.csv", "changes.csv", "influence.csv")
    } | {
        f"{task}.{ending}"
        for task in ("xcopa", "xquad")
        for ending in ("csv", "tex", "html")
    }


def test_the_report_stands_alone(both):
    _, out = both
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--no-input"]
    command += ["--template", "report", str(out / "04_figures.out.ipynb")]
    folder = ROOT / "maple_utils" / "data"
    command += [f"--TemplateExporter.extra_template_basedirs={folder}"]
    command += ["--output-dir", str(out), "--output", "report.html"]
    subprocess.run(command, check=True, capture_output=True)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert page.count("data:image/png;base64") == 12
    assert 'href="../runs/base/"' in page
    assert "runs of the miniature, not of the paper" in page
    assert "that it varies: stated; the values: ours" in page
    assert "640" in page
    assert "inferred" in page
    assert "Colab" not in page


def test_a_base_model_alone(tmp_path, capsys):
    write_run(tmp_path / "runs", BASE)
    settings = {
        "runs_dir": str(tmp_path / "runs"),
        "output_dir": str(tmp_path / "figures"),
        "languages": "en,hi",
        "scoring": "generate",
    }
    run_here("04_figures", settings)
    names = drawn(tmp_path / "figures")
    assert names == {"score_by_language", "score_by_bits", "verdicts"}
    printed = capsys.readouterr().out
    assert "change_by_language is not drawn: no finetuned run" in printed
    beneath = tmp_path / "figures" / "score_by_language.csv"
    beneath = pd.read_csv(beneath)
    assert set(beneath["language"]) == {"en", "hi"}
    assert beneath["after"].isna().all()


def test_without_runs_the_shipped_ones_are_drawn(tmp_path):
    for name in ("notebooks", "maple_utils", "params"):
        (tmp_path / name).symlink_to(ROOT / name)
    paths = {"output_dir": str(tmp_path / "out")}
    notebook = run("04_figures", tmp_path, paths, cwd=tmp_path)
    assert "the kit's own miniature" in said(notebook)
    assert "2, 8, 32" in shown(notebook)
    names = {"score_by_rank", "score_by_bits", "english", "change_by_tokens"}
    assert names <= drawn(tmp_path / "out")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"runs_dir": "nowhere"}, ("runs_dir: got ", "is no folder")),
        ({"runs_dir": "empty"}, ("runs_dir: got ", "holds no scores")),
        ({"tasks": "xkopa"}, ("tasks: got 'xkopa'", "xcopa")),
    ],
)
def test_what_is_not_there_ends_in_one_line(tmp_path, wrong, told):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    if wrong.get("runs_dir") == "empty":
        wrong = {"runs_dir": str(tmp_path / "empty")}
    with pytest.raises(ParameterError) as error:
        run_here("04_figures", {"output_dir": str(out), **wrong})
    assert str(error.value).startswith(told[0])
    assert told[1] in str(error.value)
    assert not out.exists()


BAD = {  # of the runs that `write_run` makes
    "no numbers": lambda t: t.assign(value=np.nan, stderr=np.nan),
    "no base model": lambda t: t[t["rank"].gt(0) & t["language"].eq("hi")],
    "no errors": lambda t: t.assign(stderr=np.nan, n=1),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_does_not_suffice_is_said_and_nothing_crashes(tmp_path, bad, capsys):
    for cell in (BASE, TUNED):
        write_run(tmp_path / "runs", cell, gain=0.1 * cell.rank / 8)
    for file in (tmp_path / "runs").glob("*/scores.parquet"):
        table = BAD[bad](pd.read_parquet(file))
        file.unlink()
        if len(table):
            write_scores(table, file)
    (tmp_path / "runs" / "tuned" / "predictions.parquet").write_bytes(b"no parquet")
    paths = {"runs_dir": str(tmp_path / "runs"), "output_dir": str(tmp_path / "out")}
    found = run_here("04_figures", paths)["verdicts"]
    said = capsys.readouterr().out
    assert "predictions.parquet: " in said
    for name in ("score_by_rank", "gap_to_larger_models"):
        made = (tmp_path / "out" / f"{name}.png").is_file()
        assert made or f"{name} is not drawn: " in said
    assert list(found["id"]) == [f"C{i}" for i in range(1, 9)]
    assert found["verdict"].str.startswith("not ").all()
