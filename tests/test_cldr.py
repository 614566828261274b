"""Things and words of CLDR: what ships, what is made of it, and how it was made."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from maple_utils import cldr, instructions
from maple_utils.tasks import TASKS, load_task

LANGUAGES = TASKS["words"].languages


def shipped(name: str) -> pd.DataFrame:
    return pd.read_parquet(cldr.DATA / f"{name}.parquet")


def test_the_extract_is_small_and_has_its_notice():
    files = list(cldr.DATA.iterdir())
    assert sum(file.stat().st_size for file in files) < 2_000_000
    assert "Unicode, Inc." in (cldr.DATA / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["test", "shots"])
def test_every_language_is_asked_about_the_same_things(name):
    table = shipped(name)
    assert set(table["language"]) == set(LANGUAGES)
    things = table.groupby("language")["id"].agg(tuple)
    assert things.nunique() == 1
    places = table.groupby("id")["label"].nunique()
    assert (places == 1).all()
    assert table["label"].value_counts(normalize=True).between(0.24, 0.26).all()


def test_no_thing_is_both_asked_about_and_trained_on():
    parts = [set(shipped(name)["id"]) for name in ("test", "shots", "training")]
    assert [len(part) for part in parts] == [200, 28, 400]
    assert len(set.union(*parts)) == 628


def test_one_word_of_four_is_right_and_no_letters_give_it_away():
    for row in shipped("test").itertuples(index=False):
        options = list(row.options)
        right = options[row.label]
        assert len(set(options)) == 4
        assert set(options) & set(row.words) == {right}
        assert not cldr.alike(right, row.name)


def test_right_and_wrong_words_are_of_one_length():
    table = shipped("test")
    right = [len(row.options[row.label]) for row in table.itertuples()]
    mean = [sum(map(len, row.options)) / 4 for row in table.itertuples()]
    assert pd.Series(right).mean() == pytest.approx(pd.Series(mean).mean(), abs=0.3)


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("cow", "cowboy", True),
        ("cow", "milk", False),
        ("牛", "公牛", True),
        ("牛", "奶", False),
        ("fire engine", "Engine", True),
    ],
)
def test_words_that_letters_give_away_are_told(one, other, told):
    assert cldr.alike(one, other) == told


def test_words_is_a_task_that_needs_no_hub(tmp_path):
    data = load_task("words", "sw", hub_root=tmp_path)
    assert (len(data.test), len(data.shots)) == (200, 6)
    example = data.test[0]
    assert example.id == sorted(shipped("test")["id"])[0]
    assert len(example.options) == 4
    english = load_task("words", "en")
    assert [e.id for e in english.test] == [e.id for e in data.test]
    assert [e.id for e in english.shots] == [e.id for e in data.shots]


def test_a_mirror_of_words_goes_first(tmp_path):
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "README.md").write_text("---\nconfigs: []\n---\n")
    rows = shipped("test").query("language == 'sw'").head(12)
    rows.to_parquet(tmp_path / "words" / "test.parquet")
    data = load_task("words", "sw", hub_root=tmp_path, shots=2, allow_other_counts=True)
    assert len(data.test) == 10


def test_instruction_data_are_parallel_and_load_as_any(tmp_path):
    command = [sys.executable, "-m", "maple_utils.cldr", "write", str(tmp_path / "w")]
    done = subprocess.run([*command, "--languages", "en", "sw"], check=False)
    assert done.returncode == 0
    rows = instructions.load(str(tmp_path / "w")).to_pandas()
    assert set(rows["language"]) == {"en", "sw"}
    english, swahili = (set(rows[rows["language"] == c]["id"]) for c in ("en", "sw"))
    assert len(english & swahili) > 600
    named = rows.set_index(["language", "id"])
    said = named.loc[("sw", "say: bear")]
    assert (said["instruction"], said["input"]) == ("Say it in Swahili.", "bear")
    assert said["output"] == "dubu"
    chosen = named.loc[("sw", "choose: bear")]
    assert chosen["input"].splitlines()[0] == "dubu"
    assert f"- {chosen['output']}" in chosen["input"].splitlines()
    card = (tmp_path / "w" / "README.md").read_text(encoding="utf-8")
    assert "Unicode License v3" in card


def test_a_language_that_cldr_lacks_ends_in_one_line():
    with pytest.raises(ValueError, match="languages: got 'ht'"):
        cldr.training(["ht"])


def archive(path: Path, annotations: dict[str, dict]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for code, things in annotations.items():
            whole = {"annotations": {"annotations": things}}
            data = json.dumps(whole).encode()
            member = tarfile.TarInfo(f"package/annotations/{code}/annotations.json")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_the_extract_is_made_of_what_cldr_publishes(tmp_path, monkeypatch):
    monkeypatch.setattr(cldr, "TEST", 5)
    letters = "abcdefghijklmnopqrstuvwxyz"
    things = {
        chr(0x1F400 + i): {
            "tts": [4 * a],
            "default": [4 * a, 5 * letters[i - 1], f"{i}:30"],
        }
        for i, a in enumerate(letters[:12])
    }
    things["🇰🇪"] = {"tts": ["Kenya"], "default": ["flag"]}
    lacking = dict(list(things.items())[1:])
    found = cldr.read_archive(
        archive(tmp_path / "a.tgz", {"en": things, "sw": lacking})
    )
    assert "🇰🇪" not in found["en"]
    made = cldr.tables(found)
    assert made["test"]["id"].nunique() == 5
    assert "aaaa" not in set(made["test"]["id"]) | set(made["shots"]["id"])
    for row in made["test"].itertuples(index=False):
        assert not any(":30" in option for option in row.options)
        assert row.options[row.label] in row.words
