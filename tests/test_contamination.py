"""Which test items stand in instruction data, in every script."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from datasets import Dataset

from maple_utils import instructions, miniature, results, tasks
from maple_utils.errors import ParameterError
from maple_utils.instructions import contamination
from maple_utils.instructions.contamination import Items, compare, load_items, words
from maple_utils.tasks.examples import Example

ROOT = Path(__file__).resolve().parents[1]


def rows(*outputs: str, input: str = "") -> Dataset:
    """Return instruction data with these responses."""
    row = {"language": "en", "instruction": "Say so.", "input": input}
    table = [row | {"id": str(i), "output": text} for i, text in enumerate(outputs)]
    return Dataset.from_list(table)


def judged(example: Example, language: str, *outputs: str) -> str:
    """Say what becomes of one item beside some responses."""
    [row] = compare(rows(*outputs), [Items("xquad", language, (example,))]).itertuples()
    assert row.items == 1
    if row.too_short:
        assert pd.isna(row.share)
        return "too short"
    assert row.share == row.overlapping
    return "overlaps" if row.overlapping else "clean"


def letters(first: int, last: int, size: int, seed: int = 0) -> list[str]:
    """Return made-up words in the letters from one code point to another."""
    rng = random.Random(seed)
    alphabet = [chr(code) for code in range(first, last + 1)]
    return ["".join(rng.choices(alphabet, k=5)) for _ in range(size)]


SCRIPTS = {
    "en": letters(ord("a"), ord("z"), 40),
    "ar": letters(0x0628, 0x063A, 40),
    "hi": letters(0x0915, 0x0939, 40),
    "ko": letters(0xAC00, 0xD7A3, 40),
}


@pytest.mark.parametrize("language", SCRIPTS)
def test_thirteen_words_in_a_row_overlap_and_twelve_do_not(language):
    told = SCRIPTS[language]
    other = letters(ord("a"), ord("z"), 9, seed=1)
    item = Example("1", " ".join(told), "?")

    def quote(size: int) -> str:
        return " ".join([*other, *told[7 : 7 + size], *other])

    assert judged(item, language, quote(13)) == "overlaps"
    assert judged(item, language, quote(12), quote(12)) == "clean"
    assert judged(item, language, " ".join(reversed(told))) == "clean"


@pytest.mark.parametrize(
    ("language", "first", "n"),
    [("zh", 0x4E00, 21), ("ja", 0x3041, 26), ("th", 0x0E01, 39), ("my", 0x1000, 39)],
)
def test_where_words_are_not_written_apart_letters_count(language, first, n):
    """13 words of English are about 21 letters of Chinese, and 39 of Thai."""
    told = "".join(letters(first, first + 30, 12))
    item = Example("1", told, "?")
    for size, expected in ((n, "overlaps"), (n - 1, "clean")):
        assert judged(item, language, f"abc {told[5 : 5 + size]} abc") == expected


def test_a_row_of_any_language_counts_and_the_parts_of_a_row_are_one_text():
    quoted = " ".join(SCRIPTS["ar"][:13])
    item = Example("1", " ".join(SCRIPTS["ar"]))
    assert judged(item, "ar", "unlike", quoted) == "overlaps"
    tests = [Items("xquad", "ar", (item,))]
    assert compare(rows("unlike", input=quoted), tests)["overlapping"].tolist() == [1]
    halves = quoted.split()
    there = rows(" ".join(halves[5:]), " ".join(halves[:5]))
    assert compare(there, tests)["overlapping"].tolist() == [0]


def test_case_width_punctuation_and_invisible_characters_do_not_matter():
    told = "In the Straße, Ofﬁce of ２０ men: «you, we» — all of us WERE there again"
    same = (
        "in the STRASSE office of 20 men you we all of\u200b us we\u00adre THERE again"
    )
    assert words(told) == words(same)
    assert judged(Example("1", told), "en", same) == "overlaps"
    persian = "می\u200cخواهم کتاب\u200cها را"
    assert words(persian) == words(persian.replace("\u200c", ""))


def test_marks_part_no_word():
    assert len(words("हिन्दी में क्षत्रिय")) == 3
    assert len(words("مُحَمَّدٌ كِتَابٌ")) == 2
    assert len(words("ไม่ได้")) == 4  # letters, each with its marks
    assert words("e\u0301te\u0301") == words("été")


def test_a_short_item_counts_only_where_a_row_holds_all_of_it():
    right, wrong = "He put on a thick coat.", "He opened all the windows."
    item = Example("1", "The man felt cold at night.", "effect", (right, wrong), 0)
    other = "Yes: the man felt cold at night, and so: he put on a thick coat!"
    assert judged(item, "en", other) == "overlaps"
    assert judged(item, "en", "The man felt cold at night.", right) == "clean"
    assert judged(item, "en", f"The man felt cold at night. {wrong}") == "clean"
    assert judged(item, "en", "A man felt cold at night. He put on a thick coat") == (
        "clean"
    )


def test_what_is_too_short_is_not_clean():
    """Seven words say nothing; nor do labels and answers of one word."""
    short = Example("1", "The man was cold.", "Was he warm?", ("True", "False"), 1)
    assert judged(short, "en", "The man was cold. Was he warm? False") == "too short"
    enough = Example("2", "The man was very cold.", "Was he warm?")
    assert judged(enough, "en", "The man was very cold. Was he warm?") == "overlaps"
    assert judged(Example("3", "今天天气很好我们去"), "zh", "今天") == "too short"
    table = compare(rows("x"), [Items("xnli", "en", (short, enough))])
    assert table[["items", "too_short", "share"]].to_numpy().tolist() == [[2, 1, 0.0]]


def test_questions_on_one_passage_stand_and_fall_together():
    passage = " ".join(SCRIPTS["en"])
    asked = [Example(str(i), passage, f"what is number {i}") for i in range(3)]
    alone = Example("4", " ".join(SCRIPTS["en"][::-1]))
    tests = [
        Items("xquad", "en", (*asked, alone)),
        Items("mlqa", "en", (alone,)),
        Items("xlsum", "", note="hub_root does not hold it"),
    ]
    table = compare(rows("b", f"so: {passage}", "c"), tests)
    assert list(table.columns) == results.OVERLAP_COLUMNS
    assert table["overlapping"].tolist() == [3, 0, 0]
    assert table["share"].tolist()[:2] == [0.75, 0.0]
    told = json.loads(json.dumps(contamination.records(table), allow_nan=False))
    assert told[2]["share"] is None
    assert told[2]["note"] == "hub_root does not hold it"


def test_many_rows_agree_with_a_plain_search():
    """Against sets of tuples, over rows that fill several batches."""
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(3)]

    def text(size: int) -> str:
        return " ".join(rng.choices(vocabulary, k=size))

    examples = tuple(Example(str(i), text(rng.randint(9, 20))) for i in range(300))
    outputs = [text(rng.randint(0, 60)) for _ in range(2500)]

    def grams(text: str, n: int) -> set[tuple]:
        cut = text.split()
        return {tuple(cut[i : i + n]) for i in range(len(cut) - n + 1)}

    found = {n: set.union(*(grams(o, n) for o in outputs)) for n in range(9, 14)}
    expected = 0
    for example in examples:
        n = min(13, len(example.context.split()))
        expected += bool(grams(example.context, n) & found[n])
    assert 10 < expected < 290
    table = compare(rows(*outputs), [Items("xquad", "en", examples)])
    assert table["overlapping"].tolist() == [expected]


def test_what_cannot_be_loaded_says_so(tmp_path):
    found = load_items(["xcopa", "xquad"], tmp_path)
    assert [(items.task, items.examples) for items in found] == [
        ("xcopa", ()),
        ("xquad", ()),
    ]
    assert {items.note for items in found} == {"hub_root does not hold it"}
    with pytest.raises(ParameterError, match="tasks: got 'xkopa'"):
        load_items(["xkopa"], tmp_path)


def test_without_a_network_each_dataset_is_tried_once(monkeypatch):
    tried = []

    def offline(name: str, language: str, **options: object) -> None:
        tried.append(language)
        raise ParameterError("hub_root: out of reach") from ConnectionError()

    monkeypatch.setattr(contamination, "load_task", offline)
    found = load_items(["xcopa"])
    assert tried == ["en", "et"]  # English is another dataset
    assert [items.language for items in found] == list(tasks.TASKS["xcopa"].languages)
    assert all(items.note for items in found)
    assert "not tried" in found[-1].note


def test_the_miniature_trains_on_none_of_its_tests():
    tests = load_items(hub_root=miniature.hub())
    assert {items.task for items in tests} == set(tasks.PAPER_TASKS)
    data = instructions.load("bactrian-x-mini", (), miniature.hub())
    table = compare(data, tests)
    assert (table["items"] > 0).all()
    assert not table["overlapping"].any()


def test_real_items_are_found_in_real_rows(shared_hub):
    """None in an Alpaca sample as it is; then twenty of each, written into its rows."""
    tests = load_items(["xcopa", "xquad", "xnli"], shared_hub)
    data = instructions.load("alpaca-sample", (), shared_hub)
    assert not compare(data, tests)["overlapping"].any()
    planted = data.to_list()
    for items in tests:
        for example, row in zip(items.examples[:20], planted, strict=False):
            told = (example.context, example.question, *example.right_answers)
            row["input"] += "\n".join(["", *told])
    table = compare(Dataset.from_list(planted), tests)
    assert {"ar", "en", "hi", "sw", "th", "zh"} <= set(table["language"])
    for items, row in zip(tests, table.itertuples(), strict=True):
        passages = {example.context for example in items.examples[:20]}
        about = sum(example.context in passages for example in items.examples)
        if items.task == "xquad":  # all questions about a passage that is there
            assert (row.overlapping, row.too_short) == (about, 0)
        else:
            first = replace(items, examples=items.examples[:20])
            short = compare(data.select([0]), [first])["too_short"].sum()
            assert 20 - short <= row.overlapping <= about


def test_an_adapter_is_not_made_anew_where_a_test_changes():
    """The record of 02 leaves out the code that the table alone is made of."""
    line = "import json; from maple_utils import provenance;"
    line += "from maple_utils.instructions import contamination;"
    line += "print(json.dumps(provenance.environment('02_train', 'a CPU')['code']))"
    command = [sys.executable, "-c", line]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    code = set(json.loads(ran.stdout))
    assert {"02_train", "instructions", "words"} <= code
    assert not {name for name in code if "tasks" in name or "contamination" in name}
