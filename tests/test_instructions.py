"""Instruction data: found where they are, refused where they are faulty, cut fairly."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from datasets import Dataset, load_dataset

from maple_utils import instructions, miniature
from maple_utils.errors import ParameterError
from maple_utils.instructions import cards


def rows(language: str, count: int, **changes) -> list[dict]:
    return [
        {
            "id": f"task-{number}",
            "language": language,
            "instruction": f"Say {number}.",
            "input": "" if number % 2 else "loudly",
            "output": f"{number} in {language}",
            **changes,
        }
        for number in range(count)
    ]


def data(**counts: int) -> Dataset:
    return Dataset.from_list([r for code, n in counts.items() for r in rows(code, n)])


def write_lines(path: Path, lines: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def test_the_prompt_ends_on_a_line_break_and_has_no_empty_block():
    assert instructions.prompt_text("Say a.") == (
        "### Instruction:\nSay a.\n\n### Response:\n"
    )
    assert "### Input:\nb\n\n" in instructions.prompt_text("Say a.", "b")


def test_published_sets_load_from_a_mirror_with_the_same_columns(tmp_path):
    parts = ("id", "instruction", "input", "output")
    lines = [{key: row[key] for key in parts} for row in rows("", 3)]
    write_lines(tmp_path / "MBZUAI/Bactrian-X/data/sw.json.gz", lines)
    empty = {"instruction": "Say.", "input": None, "output": ""}
    bare = [{key: line[key] for key in parts[1:]} for line in lines]
    write_lines(tmp_path / "DAMO-NLP-MT/multialpaca/fr.jsonl", [*bare, empty])

    bactrian = instructions.load("bactrian-x-22", ["sw"], tmp_path)
    with pytest.warns(UserWarning, match="left out 1 empty"):
        alpaca = instructions.load("multialpaca", ["fr"], tmp_path)
    assert bactrian.column_names == alpaca.column_names == list(instructions.COLUMNS)
    assert len(bactrian) == len(alpaca) == 3
    compared = instructions.compare_counts("multialpaca", alpaca)
    assert compared.loc[0].to_dict() == {
        "language": "fr",
        "rows": 3,
        "published": 11_332,
        "difference": 3 - 11_332,
    }


def test_a_folder_that_changed_gives_its_new_rows(tmp_path):
    folder = tmp_path / "mine"
    card = "---\nconfigs:\n- config_name: en\n  data_files: en.jsonl\n---\n"
    for count in (3, 5):
        write_lines(folder / "en.jsonl", rows("en", count))
        (folder / "README.md").write_text(card)
        assert len(instructions.load(str(folder))) == count


@pytest.mark.parametrize(
    ("name", "languages", "line"),
    [
        ("nowhere", [], "instruction_data: got 'nowhere'; allowed: a folder"),
        ("bactrian-x-mini", ["yo"], "languages: got yo; allowed with instruction_data"),
        ("multialpaca-mini", ["de"], "languages: got de"),
    ],
)
def test_what_is_not_there_is_one_line(name, languages, line):
    with pytest.raises(ParameterError) as error:
        instructions.load(name, languages, miniature.hub())
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("train.jsonl", b'{"instruction": "Go.", "out', "cannot be read as a dataset"),
        ("train.csv", "instruction,output\nà,é\n".encode("latin-1"), "cannot be read"),
        ("train.jsonl", b"", "cannot be read as a dataset"),
        ("test.jsonl", json.dumps(rows("en", 1)[0]).encode(), "cannot be read"),
        (
            "train.jsonl",
            json.dumps(rows("en", 1, output=7)[0]).encode(),
            "output as te",
        ),
        ("train.jsonl", json.dumps(rows(None, 1)[0]).encode(), "filled"),
    ],
    ids=["torn", "latin-1", "empty", "test split only", "numbers", "no language"],
)
def test_a_folder_that_cannot_be_trained_on_is_one_line(file, content, line, tmp_path):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ParameterError) as error:
        instructions.load(str(tmp_path))
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_without_an_id_get_one(tmp_path):
    some = [*rows("en", 1), *rows("en", 1, id=None), *rows("en", 1, id=None)]
    write_lines(tmp_path / "mine" / "train.jsonl", some)
    found = instructions.load(str(tmp_path / "mine"))["id"]
    assert list(found) == ["task-0", "mine-en-1", "mine-en-2"]


def test_capping_and_sampling_by_language():
    whole = data(en=80, sw=20)
    assert Counter(instructions.cap(whole, 30)["language"]) == {"en": 30, "sw": 20}
    shares = [
        Counter(instructions.sample(whole, 30, alpha, seed=1)["language"])
        for alpha in (1.0, 0.0)
    ]
    assert shares == [{"en": 24, "sw": 6}, {"en": 15, "sw": 15}]
    first, second = (instructions.sample(whole, 30, 0.5, seed=2) for _ in range(2))
    assert first.to_list() == second.to_list()
    with pytest.raises(ParameterError, match="total: got 101"):
        instructions.sample(whole, 101)


def test_no_translation_of_a_heldout_row_is_trained_on():
    train, heldout = instructions.split_heldout(data(en=30, sw=30), 5, seed=3)
    assert Counter(heldout["language"]) == {"en": 5, "sw": 5}
    assert not set(train["id"]) & set(heldout["id"])
    with pytest.raises(ParameterError, match="heldout: got 30"):
        instructions.split_heldout(data(en=30), 30)


def test_a_written_set_loads_with_plain_datasets_and_by_language(tmp_path):
    folder = cards.write(data(sw=4, en=6), tmp_path / "mine", {"limit": 4})
    assert len(load_dataset(str(folder), split="train")) == 10
    assert set(load_dataset(str(folder), "sw", split="train")["language"]) == {"sw"}
    loaded = instructions.load(str(folder))
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert instructions.fingerprint(loaded) in text
    assert "| sw | 4 |" in text
    assert "| limit | 4 |" in text


def test_loading_capping_and_splitting_in_one_call(tmp_path):
    write_lines(tmp_path / "mine" / "train.jsonl", rows("en", 50))
    train, heldout = instructions.load_split(
        str(tmp_path / "mine"), ["en"], "", train_limit=20, heldout=5, seed=3
    )
    whole = instructions.load(str(tmp_path / "mine"), ["en"])
    by_hand = instructions.split_heldout(instructions.cap(whole, 25, 3), 5, 3)
    assert (len(train), len(heldout)) == (20, 5)
    assert [part.to_list() for part in by_hand] == [train.to_list(), heldout.to_list()]
    everything, _ = instructions.load_split(
        str(tmp_path / "mine"), ["en"], "", train_limit=0, heldout=5, seed=3
    )
    assert len(everything) == 45


def write_rows(folder: Path, code: str, rows: list[dict]) -> None:
    (folder / code).mkdir(parents=True)
    text = "\n".join(json.dumps(row) for row in rows)
    (folder / code / "train.jsonl").write_text(text)
    configs = [
        {"config_name": place.name, "data_files": f"{place.name}/train.jsonl"}
        for place in sorted(folder.iterdir())
        if place.is_dir()
    ]
    head = yaml.safe_dump({"configs": configs})
    (folder / "README.md").write_text(f"---\n{head}---\n")


def test_a_language_that_the_table_lacks_is_never_dropped_in_silence(tmp_path):
    rows = [{"instruction": f"i{n}", "input": "", "output": "o"} for n in range(3)]
    for code in ("sw", "yor"):
        write_rows(tmp_path / "mine", code, rows)
    with pytest.raises(ParameterError, match="languages: got none for .* has yor; all"):
        instructions.load(str(tmp_path / "mine"))
    asked = instructions.load(str(tmp_path / "mine"), ["sw"])
    assert set(asked["language"]) == {"sw"}


@pytest.mark.parametrize(
    "mark", ["<noinput>", "< No Input >", "noinput", "<no_input>."]
)
def test_marks_for_no_input_become_empty_inputs(tmp_path, mark):
    rows = [
        {"instruction": "i", "input": text, "output": "o"}
        for text in (mark, "no", "?!")
    ]
    write_rows(tmp_path / "mine", "es", rows)
    assert instructions.load(str(tmp_path / "mine"))["input"][:] == ["", "no", "?!"]
