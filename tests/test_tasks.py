"""Tasks: rows become examples, shots keep out of the test, faults are named."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from maple_utils.errors import ParameterError
from maple_utils.languages import LANGUAGES
from maple_utils.tasks import PAPER_TASKS, TASKS, available, load_task, select
from maple_utils.tasks.sources import load_rows

SQUAD = {"text": ["Nairobi", "Nairobi"], "answer_start": [3, 3]}
NO_ANSWER = {"text": [""], "answer_start": [-1]}


load = partial(load_task, allow_other_counts=True)  # made-up mirrors are small


def write_mirror(root: Path, dataset: str, configs: dict[str, dict[str, list]]) -> None:
    """Write a mirror's dataset folder: rows by config and split."""
    folder = root / dataset
    listed = []
    for config, splits in configs.items():
        files = []
        for split, rows in splits.items():
            path = folder / config / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(json.dumps(row) for row in rows))
            files.append({"split": split, "path": f"{config}/{split}.jsonl"})
        listed.append({"config_name": config, "data_files": files})
    head = yaml.safe_dump({"configs": listed})
    (folder / "README.md").write_text(f"---\n{head}---\n")


def copa(number: int, label: int = 0, **more) -> dict:
    row = {"premise": f"P{number}.", "choice1": "one", "choice2": "two"}
    return row | {"question": "cause", "label": label} | more


def squad(number: int, answers: dict = SQUAD) -> dict:
    text = {"context": f"In Nairobi {number}.", "question": "Where?"}
    return {"id": f"q{number}"} | text | {"answers": answers}


def test_the_table_has_the_papers_tasks_in_known_languages():
    assert PAPER_TASKS == ("xcopa", "belebele", "xquad", "mlqa", "indicqa", "xlsum")
    others = ("xnli", "xstorycloze", "pawsx", "tydiqa", "words")
    assert tuple(TASKS)[:11] == (*PAPER_TASKS, *others)
    for task in TASKS.values():
        assert set(task.languages) <= set(LANGUAGES)
        for language in task.languages:
            source = task.source_of(language)
            assert "{" not in source.fill(source.config, language)
            assert "{" not in source.fill(source.files, language, "test")


def test_the_six_tasks_cover_41_languages():
    codes = {code for name in PAPER_TASKS for code in TASKS[name].languages}
    assert len({code.split("-")[0] for code in codes}) == 41


@pytest.mark.parametrize(
    ("name", "language", "dataset", "config"),
    [
        ("xcopa", "sw", "cambridgeltl/xcopa", "sw"),
        ("xcopa", "en", "pkavumba/balanced-copa", "default"),
        ("belebele", "zh-Hant", "facebook/belebele", "zho_Hant"),
        ("belebele", "no", "facebook/belebele", "nob_Latn"),
        ("mlqa", "hi", "facebook/mlqa", "mlqa.hi.hi"),
        ("xlsum", "zh-Hans", "csebuetnlp/xlsum", "chinese_simplified"),
        ("xlsum", "sw", "csebuetnlp/xlsum", "swahili"),
    ],
)
def test_where_a_language_is_published(name, language, dataset, config):
    source = TASKS[name].source_of(language)
    assert source.dataset == dataset
    assert source.fill(source.config, language) == config


def test_rows_of_every_task_become_examples(tmp_path):
    """One hand-made row in each published layout."""
    story = {f"input_sentence_{n}": f"S{n}." for n in range(1, 5)}
    story |= {"sentence_quiz1": "a", "sentence_quiz2": "b", "answer_right_ending": 2}
    passage = {
        "link": "l",
        "question_number": 1,
        "flores_passage": "P",
        "question": "Q",
        "correct_answer_num": "3",
    }
    passage |= {f"mc_answer{n}": f"o{n}" for n in range(1, 5)}
    layouts = {
        ("belebele", "zh-Hans"): ("test", passage, 2, ()),
        ("xnli", "sw"): (
            "test",
            {"premise": "p", "hypothesis": "h", "label": 2},
            2,
            (),
        ),
        ("pawsx", "de"): (
            "test",
            {"sentence1": "s", "sentence2": "t", "label": 1},
            1,
            (),
        ),
        ("xstorycloze", "te"): ("eval", story, 1, ()),
        ("indicqa", "ta"): ("test", squad(0, NO_ANSWER), -1, ()),
        ("tydiqa", "fi"): (
            "validation",
            squad(0) | {"id": "finnish-1"},
            -1,
            ("Nairobi",),
        ),
        ("xlsum", "en"): ("test", {"id": "1", "text": "T", "summary": "S"}, -1, ("S",)),
    }
    for (name, language), (split, row, label, references) in layouts.items():
        source = TASKS[name].source_of(language)
        config = source.fill(source.config, language)
        write_mirror(tmp_path, source.dataset, {config: {split: [row]}})
        data = load(name, language, hub_root=tmp_path, shots=0)
        assert data.test[0].label == label
        assert data.test[0].references == references
        assert available(TASKS[name], tmp_path) == [language]


def test_english_xcopa_draws_its_shots_from_what_xcopa_translated(tmp_path):
    rows = [copa(n, n % 2, id=n, mirrored=n > 1000) for n in range(390, 420)]
    rows += [copa(n, n % 2, id=n + 1000, mirrored=True) for n in range(401, 420)]
    test = [copa(n, id=n) for n in range(501, 511)]
    splits = {"train": rows, "test": test}
    write_mirror(tmp_path, "pkavumba/balanced-copa", {"default": splits})
    data = load("xcopa", "en", hub_root=tmp_path)
    assert len(data.test) == 10
    assert all(0 <= int(shot.id) < 100 for shot in data.shots)  # 401 to 500
    assert [example.id for example in data.test] == [str(n) for n in range(10)]


def test_english_xcopa_has_the_shots_of_the_other_languages(tmp_path):
    """SuperGLUE's validation rows are those translated; balanced-copa reorders them."""
    pool = [copa(n, n % 2, idx=n) for n in range(100)]
    test = [copa(900 + n, n % 2, idx=n) for n in range(12)]
    splits = {"validation": pool, "test": test}
    write_mirror(tmp_path, "cambridgeltl/xcopa", {"sw": splits})
    write_mirror(tmp_path, "aps/super_glue", {"copa": {"validation": pool}})
    turned = [copa(n, (n + 1) % 2, id=401 + n, mirrored=False) for n in range(100)]
    english = [copa(900 + n, n % 2, id=501 + n, mirrored=False) for n in range(12)]
    splits = {"train": turned, "test": english}
    write_mirror(tmp_path, "pkavumba/balanced-copa", {"default": splits})
    sw, en = (load("xcopa", code, hub_root=tmp_path, seed=3) for code in ("sw", "en"))
    assert en.shots == sw.shots
    assert en.test == sw.test
    limited = [load("xcopa", c, hub_root=tmp_path, limit=5).test for c in ("sw", "en")]
    assert limited[0] == limited[1]


def test_shots_come_from_their_split_balanced_and_the_same_for_the_same_seed(tmp_path):
    pool = [copa(n, int(n >= 20), idx=n) for n in range(24)]
    test = [copa(100 + n, n % 2, idx=n) for n in range(10)]
    write_mirror(
        tmp_path,
        "cambridgeltl/xcopa",
        {code: {"validation": pool, "test": test} for code in ("sw", "ta")},
    )
    one = load("xcopa", "sw", hub_root=tmp_path, seed=1)
    assert Counter(shot.label for shot in one.shots) == {0: 4, 1: 4}
    assert not {shot.context for shot in one.shots} & {e.context for e in one.test}
    again = load("xcopa", "sw", hub_root=tmp_path, seed=1)
    assert one == again
    assert one.shots == load("xcopa", "ta", hub_root=tmp_path, seed=1).shots
    assert one.shots != load("xcopa", "sw", hub_root=tmp_path, seed=2).shots
    assert len(load("xcopa", "sw", hub_root=tmp_path, shots=3).shots) == 3


def test_where_one_split_is_all_its_shots_leave_the_test(tmp_path):
    rows = [squad(n) for n in range(20)]
    write_mirror(tmp_path, "google/xquad", {"xquad.th": {"validation": rows}})
    data = load("xquad", "th", hub_root=tmp_path, shots=5)
    assert len(data.test) == 15
    assert not set(data.shots) & set(data.test)
    assert any("left out" in note for note in data.notes)
    with pytest.raises(ParameterError, match="shots: got 20; allowed with xquad th: f"):
        load("xquad", "th", hub_root=tmp_path, shots=20)
    with pytest.raises(ParameterError, match="shots: got 21; allowed: up to the 20"):
        load("xquad", "th", hub_root=tmp_path, shots=21)


def test_shots_and_test_rows_share_no_passage(tmp_path):
    """Five questions on each passage: with a shot, its passage leaves the test."""
    rows = [squad(n // 5) | {"id": f"q{n}"} for n in range(50)]
    for code in ("th", "hi"):
        splits = {f"xquad.{code}": {"validation": rows}}
        write_mirror(tmp_path / code, "google/xquad", splits)
        data = load("xquad", code, hub_root=tmp_path / code, shots=4)
        assert len(data.test) == 50 - 4 * 5
        assert not {e.context for e in data.test} & {e.context for e in data.shots}
        assert len({shot.cluster for shot in data.shots}) == 4
        assert "20 rows, are left out" in " ".join(data.notes)
    pool = [squad(n) | {"id": f"finnish-{n}"} for n in range(9)]
    test = [squad(n) | {"id": f"finnish-t{n}"} for n in range(6, 12)]
    splits = {"secondary_task": {"train": pool, "validation": test}}
    write_mirror(tmp_path, "google-research-datasets/tydiqa", splits)
    data = load("tydiqa", "fi", hub_root=tmp_path, shots=4)
    assert len(data.test) == 6
    assert not {e.context for e in data.test} & {e.context for e in data.shots}


def test_shots_in_english_for_all_languages(tmp_path):
    def rows(code):
        more = {"question": f"Where ({code})?"}
        return [squad(n) | more | {"id": f"q{n}"} for n in range(20)]

    configs = {f"xquad.{c}": {"validation": rows(c)} for c in ("en", "th")}
    write_mirror(tmp_path, "google/xquad", configs)
    english = {"shots": 4, "shots_language": "en", "hub_root": tmp_path}
    en, th = (load("xquad", code, **english) for code in ("en", "th"))
    assert th.shots == en.shots
    assert {shot.question for shot in th.shots} == {"Where (en)?"}
    assert {e.id for e in th.test} == {e.id for e in en.test}
    assert not {e.id for e in th.test} & {shot.id for shot in th.shots}
    assert {e.question for e in th.test} == {"Where (th)?"}
    write_mirror(tmp_path, "ai4bharat/IndicQA", {"indicqa.hi": {"test": rows("hi")}})
    with pytest.raises(ParameterError, match="shots_language: got 'en'; allowed"):
        load("indicqa", "hi", **english)


def test_belebele_in_another_order_has_the_same_ids(tmp_path):
    """Rows stand in another order in every language: link and number tell them."""

    def row(n, code):
        passage = {"link": f"https://x.org/{n // 2}", "question_number": n % 2 + 1}
        passage |= {"flores_passage": f"P{n // 2} {code}", "question": f"Q{n}"}
        passage |= {f"mc_answer{i}": f"{code}{n}{i}" for i in range(1, 5)}
        return passage | {"correct_answer_num": str(n % 4 + 1)}

    rng = np.random.default_rng(0)
    orders = {"tha_Thai": rng.permutation(40), "fin_Latn": rng.permutation(40)}
    configs = {
        code: {"test": [row(int(n), code) for n in order]}
        for code, order in orders.items()
    }
    write_mirror(tmp_path, "facebook/belebele", configs)
    th, fi = (load("belebele", c, hub_root=tmp_path, limit=10) for c in ("th", "fi"))
    assert [e.id for e in th.test] == [e.id for e in fi.test]
    assert [e.label for e in th.test] == [e.label for e in fi.test]
    assert [e.question for e in th.test] == [e.question for e in fi.test]
    assert [e.cluster for e in th.test] == [e.cluster for e in fi.test]
    whole = load("belebele", "th", hub_root=tmp_path)
    assert len({e.cluster for e in whole.test}) == 20


def test_shots_of_indicqa_hold_both_kinds_of_question(tmp_path):
    rows = [squad(n, NO_ANSWER if n < 6 else SQUAD) for n in range(60)]
    write_mirror(tmp_path, "ai4bharat/IndicQA", {"indicqa.hi": {"test": rows}})
    data = load("indicqa", "hi", hub_root=tmp_path, shots=8)
    assert sum(not shot.references for shot in data.shots) == 4


def test_placeholders_of_pawsx_are_dropped_and_counted(tmp_path):
    rows = [{"sentence1": f"a{n}", "sentence2": "b", "label": 0} for n in range(5)]
    rows += [{"sentence1": "NS", "sentence2": "b", "label": 0}] * 2
    rows = [row | {"id": n} for n, row in enumerate(rows)]
    place = "google-research-datasets/paws-x"
    write_mirror(tmp_path, place, {"de": {"test": rows}})
    data = load("pawsx", "de", hub_root=tmp_path, shots=0)
    assert len(data.test) == 5
    assert "2 placeholder rows left out" in data.notes


def test_another_number_of_rows_is_refused_unless_allowed(tmp_path, monkeypatch):
    rows = [squad(n) for n in range(4)]
    write_mirror(tmp_path, "google/xquad", {"xquad.th": {"validation": rows}})
    data = load("xquad", "th", hub_root=tmp_path, shots=0)
    assert data.notes == ("xquad th: 4 rows, published 1190",)
    line = "xquad th: 4 rows, published 1190; allowed: .* -p allow_other_counts True"
    with pytest.raises(ParameterError, match=line):
        load_task("xquad", "th", hub_root=tmp_path, shots=0)
    monkeypatch.setattr("maple_utils.tasks.load_rows", lambda *given: rows)
    with pytest.raises(ParameterError, match=line):
        load_task("xquad", "th", shots=0)


def test_each_mirror_gives_its_own_rows_and_new_rows_replace_old_ones(tmp_path):
    """The cache of `datasets` would give the first ones in all three cases."""
    for place, numbers in (("a", range(9)), ("b", range(5)), ("a", range(3))):
        rows = [squad(n) for n in numbers]
        write_mirror(
            tmp_path / place, "google/xquad", {"xquad.th": {"validation": rows}}
        )
        data = load("xquad", "th", hub_root=tmp_path / place, shots=0)
        assert len(data.test) == len(numbers)


def test_unanswerable_questions_stay_and_are_counted(tmp_path):
    rows = [squad(n, NO_ANSWER if n < 3 else SQUAD) for n in range(8)]
    write_mirror(tmp_path, "ai4bharat/IndicQA", {"indicqa.hi": {"test": rows}})
    data = load("indicqa", "hi", hub_root=tmp_path, shots=0)
    assert len(data.test) == 8
    assert "3 of 8 questions have no answer" in data.notes


def test_files_as_the_hub_serves_them_are_read_where_a_script_is_in_the_way(tmp_path):
    """IndicQA's nested JSON and a parquet branch, beside the script that is refused."""
    folder = tmp_path / "ai4bharat" / "IndicQA"
    (folder / "data").mkdir(parents=True)
    (folder / "IndicQA.py").write_text("raise SystemExit")
    asked = {"id": 7, "question": "Q", "answers": [{"text": "A", "answer_start": 0}]}
    silent = {"id": 8, "question": "Q", "answers": [{"text": "", "answer_start": None}]}
    nested = [{"title": "t", "paragraphs": [{"context": "A.", "qas": [asked, silent]}]}]
    (folder / "data" / "indicqa.or.json").write_text(json.dumps({"data": nested}))
    data = load("indicqa", "or", hub_root=tmp_path, shots=0)
    assert [example.references for example in data.test] == [("A",), ()]
    assert [example.id for example in data.test] == ["7", "8"]
    assert available(TASKS["indicqa"], tmp_path) == ["or"]

    folder = tmp_path / "facebook" / "mlqa" / "mlqa.vi.vi"
    for split, count in (("test", 6), ("validation", 9)):
        (folder / split).mkdir(parents=True)
        first = {"test": 0, "validation": 100}[split]
        frame = pd.DataFrame([squad(first + n) for n in range(count)])
        frame.to_parquet(folder / split / "0000.parquet")
    data = load("mlqa", "vi", hub_root=tmp_path)
    assert (len(data.test), len(data.shots)) == (6, 8)


def test_what_to_evaluate(tmp_path):
    write_mirror(tmp_path, "cambridgeltl/xcopa", {"sw": {"test": [copa(1)]}})
    assert select([], [], tmp_path) == [("xcopa", "sw")]
    assert select(["belebele", "xlsum"], ["zh"]) == [
        (name, code)
        for name in ("belebele", "xlsum")
        for code in ("zh-Hans", "zh-Hant")
    ]
    with pytest.raises(ParameterError, match="languages: got hi; none is in"):
        select([], ["hi"], tmp_path)


@pytest.mark.parametrize(
    ("name", "language", "line"),
    [
        ("xkopa", "sw", "tasks: got 'xkopa'; allowed: any of xcopa, belebele"),
        ("xcopa", "fr", "languages: got 'fr'"),
        ("xcopa", "it", "hub_root: got .*xcopa it test does not load"),
        ("xcopa", "sw", "xcopa sw, test of .*row 0: .*'choice2'"),
        ("xcopa", "ta", "xcopa ta, test of .*row 0 has the label -1; allowed: 0 to 1"),
    ],
)
def test_what_cannot_be_used_ends_in_one_line(tmp_path, name, language, line):
    bad = copa(1)
    del bad["choice2"]
    configs = {"sw": {"test": [bad]}, "ta": {"test": [copa(1, -1)]}}
    write_mirror(tmp_path, "cambridgeltl/xcopa", configs)
    with pytest.raises(ParameterError, match=line) as error:
        load(name, language, hub_root=tmp_path, shots=0)
    assert "\n" not in str(error.value)


REAL = [("xcopa", 500), ("xquad", 1190), ("xnli", 5010), ("tydiqa", 0)]


@pytest.mark.parametrize(("name", "published"), REAL)
def test_real_rows_are_as_many_as_published(shared_hub, name, published):
    languages = available(TASKS[name], shared_hub)
    if not languages:
        pytest.skip(f"{shared_hub} has no {name}")
    for language in languages[:2]:
        data = load_task(name, language, hub_root=shared_hub, shots=0)
        assert len(data.test) == (published or TASKS[name].source.published(language))
        assert data.notes == ()
        assert all(example.context for example in data.test)
        if TASKS[name].kind == "answer":
            assert all(example.references for example in data.test)


def test_real_xcopa_has_the_published_labels(shared_hub):
    languages = available(TASKS["xcopa"], shared_hub)
    if not languages:
        pytest.skip(f"{shared_hub} has no xcopa")
    rows = load_rows(TASKS["xcopa"].source, languages[0], "test", shared_hub)
    data = load_task("xcopa", languages[0], hub_root=shared_hub)
    for row, example in zip(rows, data.test, strict=True):
        assert example.options[example.label] == row[f"choice{row['label'] + 1}"]


def test_a_language_that_comes_to_the_folder_is_one_more_to_evaluate(
    shared_hub, tmp_path
):
    here, source = available(TASKS["xcopa"], shared_hub), TASKS["xcopa"].source
    if not here:
        pytest.skip(f"{shared_hub} has no xcopa")
    new = next(code for code in TASKS["xcopa"].languages[1:] if code not in here)
    splits = {
        split: load_rows(source, here[0], split, shared_hub)
        for split in ("validation", "test")
    }
    write_mirror(tmp_path, source.dataset, {new: splits})
    assert select(["xcopa"], [], tmp_path) == [("xcopa", new)]
    data = load_task("xcopa", new, hub_root=tmp_path, limit=20)
    same = load_task("xcopa", here[0], hub_root=shared_hub, limit=20)
    assert (data.test, data.shots) == (same.test, same.shots)
