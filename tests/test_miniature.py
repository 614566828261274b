"""The offline world is closed, parallel and true; its models have learned something."""

import json
import random
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import get_dataset_config_names, load_dataset
from transformers import AutoModelForCausalLM

from maple_utils import miniature
from maple_utils.instructions import load
from maple_utils.languages import levels_among, miniature_level
from maple_utils.miniature import items, pretrain, texts, world
from maple_utils.tasks import PAPER_TASKS, TASKS, available

LEVELS = ("low", "mid", "high")
ALL = list(world.things())
TAUGHT, HELD_OUT = ALL[::2], ALL[1::2]


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    return miniature.hub(tmp_path_factory.mktemp("cache") / "hub")


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_each_language_can_say_and_ask_everything(language):
    assert set(world.sentences(language)) == set(world.sentences("en"))
    for thing in world.draw_things(random.Random(1), 3):
        question = world.ask(thing, language)
        assert world.word_of(thing, language) in question
        assert "{" not in question


def test_names_and_words_are_those_of_cldr():
    assert world.countries("sw")["UA"] == "Ukraine"
    assert (world.name_of("sun", "de"), world.word_of("sun", "de")) == (
        "Sonne",
        "Wetter",
    )


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_no_text_of_a_language_stands_for_two_things(language):
    said = [*world.countries(language).values()]
    for thing in ALL:
        said += [world.name_of(thing, language), world.word_of(thing, language)]
    assert len({text.casefold() for text in said}) == len(said)


def test_the_right_answer_stands_in_the_text_and_no_word_tells_it():
    for number in range(60):
        item = items.reading(random.Random(number), "de", items.held_out, 3)
        assert f": {item.answer}" in item.text
        assert item.answer not in item.wrong
        assert len({item.answer, *item.wrong}) == 4
        assert sum(f": {name}" in item.text for name in item.wrong) == 2
        assert item.question.rstrip("?").split(": ")[1] not in item.text


def test_texts_speak_more_of_some_things_than_of_others():
    rng = random.Random(0)
    drawn = Counter(thing for _ in range(2000) for thing in world.draw_things(rng, 3))
    often, seldom = (sum(drawn[t] for t in part) for part in (ALL[:10], ALL[-10:]))
    assert often > 8 * seldom > 0
    taught, tested = (sum(drawn[t] for t in p) for p in (TAUGHT, HELD_OUT))
    assert 0.7 < tested / taught < 1.1


def test_levels_are_of_what_was_read_and_span_a_factor_of_forty():
    levels = pd.Series(map(miniature_level, world.LANGUAGES), world.LANGUAGES)
    assert levels.value_counts().to_dict() == {"low": 9, "mid": 5, "high": 5}
    assert sum(world.SHARE.values()) == pytest.approx(100)
    assert max(world.SHARE.values()) / min(world.SHARE.values()) > 40
    assert levels_among(["miniature-llama"])("sw") == "low"
    assert levels_among(["meta-llama/Llama-2-7b-hf"])("sw") == "low"
    assert levels_among(["meta-llama/Llama-2-7b-hf"])("de") == "high"


def test_every_level_has_four_languages_in_four_tasks(hub):
    held = [task for task in TASKS.values() if task.name in (*PAPER_TASKS, "words")]
    levels = {
        task.name: Counter(map(miniature_level, available(task, hub))) for task in held
    }
    full = [name for name, of in levels.items() if min(of[v] for v in LEVELS) >= 4]
    assert full == ["belebele", "xquad", "xlsum", "words"]


def test_items_are_the_same_in_every_language():
    for number in range(60):
        tasks = [items.task(number, language) for language in world.LANGUAGES]
        assert len({bool(task.input) for task in tasks}) == 1
        assert all(task.output for task in tasks)
    english, swahili = items.task(0, "en"), items.task(0, "sw")
    assert (english.output, swahili.output) == ("infinity", "milele")


def test_finetuning_never_speaks_of_the_things_that_are_tested():
    held_out = {world.name_of(thing, "en") for thing in HELD_OUT}
    told = " ".join(f"{task['input']} " for task in miniature.seeds()) + "-"
    assert not [name for name in held_out if f": {name} -" in told]
    assert any(f": {world.name_of(thing, 'en')} -" in told for thing in TAUGHT)


def test_every_answer_stands_in_its_text(hub):
    for config in ("mlqa.en.en", "mlqa.zh.zh", "mlqa.ar.ar"):
        rows = load_dataset(str(hub / "facebook" / "mlqa"), config, split="test")
        for row in rows:
            answer, start = row["answers"]["text"][0], row["answers"]["answer_start"][0]
            assert answer
            assert row["context"][start:].startswith(answer)


def test_unanswerable_questions_ask_for_what_the_text_lacks(hub):
    rows = load_dataset(str(hub / "ai4bharat" / "IndicQA"), "indicqa.hi", split="test")
    empty = [row for row in rows if row["answers"]["text"] == [""]]
    assert 0.1 < len(empty) / len(rows) < 0.4
    names = {world.word_of(t, "hi"): world.name_of(t, "hi") for t in ALL}
    asked = [row["question"].removesuffix("?").split(": ")[1] for row in empty]
    for word, row in zip(asked, empty, strict=True):
        assert names[word] not in row["context"]


def test_the_mirror_has_all_six_tasks_and_both_instruction_sets(hub):
    found = {
        str(card.parent.relative_to(hub)): get_dataset_config_names(str(card.parent))
        for card in hub.rglob("README.md")
    }
    assert set(found) == {
        "ai4bharat/IndicQA",
        "bactrian-x-mini",
        "cambridgeltl/xcopa",
        "csebuetnlp/xlsum",
        "facebook/belebele",
        "facebook/mlqa",
        "google/xquad",
        "multialpaca-mini",
        "pkavumba/balanced-copa",
        "words",
    }
    assert set(found["bactrian-x-mini"]) == set(found["multialpaca-mini"])
    seen = Counter(map(miniature_level, found["bactrian-x-mini"]))
    every = Counter(map(miniature_level, world.LANGUAGES))
    assert all(seen[level] >= 2 for level in LEVELS)
    assert all(every[level] - seen[level] >= 2 for level in LEVELS)


def test_the_mirror_is_the_same_every_time(hub, tmp_path):
    again = miniature.hub(tmp_path / "hub")
    for file in sorted(hub.rglob("*.jsonl")):
        assert file.read_bytes() == (again / file.relative_to(hub)).read_bytes()


def test_instruction_sets_load_as_instructions(hub):
    rows = load("bactrian-x-mini", ["sw", "el"], hub)
    assert set(rows["language"]) == {"sw", "el"}
    assert all(rows["output"])


def test_teacher_and_translator_know_their_world():
    _, seed, *_ = (task for task in miniature.seeds() if task["input"])
    translate = miniature.translate
    instruction, text = translate([seed["instruction"], seed["input"]], "en", "sw")
    answers = miniature.answer([f"{instruction}\n\n{text}"])
    assert answers == miniature.answer([f"{instruction}\n\n{text}"])
    assert answers == translate([seed["output"]], "en", "sw")
    with pytest.raises(ValueError, match="cannot translate 'Hello'"):
        translate(["Hello"], "en", "sw")


def test_the_loss_counts_no_token_that_cannot_be_foreseen():
    known = {world.word_of(thing, "en") for thing in ALL}
    known |= {world.name_of(thing, "en") for thing in ALL}
    for draw in (texts.lists, texts.exam, texts.quiz):
        before = ""
        for text, counts in draw(random.Random(3), "en"):
            assert not counts or text.strip() in before or text.strip() in known
            before += text


def test_a_grown_model_is_larger_and_says_what_the_small_one_says():
    torch.manual_seed(0)
    small = AutoModelForCausalLM.from_config(pretrain.CONFIGS["mistral"]).eval()
    tokens = torch.randint(4, 100, (1, 40))
    large = pretrain.grow(small, noise=0.0).eval()
    assert large.num_parameters() > 3 * small.num_parameters()
    with torch.no_grad():
        one, two = (model(tokens).logits for model in (small, large))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_weights_are_safetensors_of_twelve_megabytes_at_most():
    folder = Path(miniature.__file__).parent
    weights = list(folder.glob("*/*.safetensors"))
    assert len(weights) == 2
    assert sum(file.stat().st_size for file in weights) <= 12_000_000
    assert not [f for f in folder.rglob("*") if f.suffix in {".bin", ".pt", ".pkl"}]
    for name in ("llama", "mistral"):
        config = json.loads((folder / name / "config.json").read_text())
        assert config["model_type"] == name
