"""The offline world is closed, parallel and true; its models have learned something."""

import json
import random
from pathlib import Path

import pytest
from datasets import get_dataset_config_names, load_dataset

from maple_utils import miniature
from maple_utils.instructions import load
from maple_utils.miniature import items, texts, world


@pytest.fixture(scope="module")
def hub(tmp_path_factory) -> Path:
    return miniature.hub(tmp_path_factory.mktemp("cache") / "hub")


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_each_language_can_say_and_ask_everything(language):
    templates = world.sentences(language)
    assert set(templates) == set(world.sentences("en"))
    assert len(templates["events"]) == len(world.sentences("en")["events"])
    for relation in ("market", "festival", "speaks"):
        fact = world.draw_fact(random.Random(1), relation, "KE")
        question, answer = world.ask(fact, language)
        assert answer in world.say(fact, language)
        assert world.names(language)["country"]["KE"] in question
        assert "{" not in question + world.say(fact, language)


def test_names_are_those_of_cldr():
    assert world.names("sw")["country"]["DE"] == "Ujerumani"
    assert world.names("ta")["festival"][1] == "ஜனவரி"
    assert world.names("ar")["market"][4] == "الجمعة"
    assert world.spoken("KE") == "sw"


def test_items_are_the_same_in_every_language():
    for number in range(60):
        tasks = [items.task(number, language) for language in world.LANGUAGES]
        assert len({bool(task.input) for task in tasks}) == 1
        assert all(task.output for task in tasks)
    english, swahili = items.task(0, "en"), items.task(0, "sw")
    assert (english.output, swahili.output) == ("Cuba", "Kuba")


def test_finetuning_never_speaks_of_the_countries_that_are_tested():
    held_out = {world.names("en")["country"][code] for code in items.HELD_OUT}
    texts = [f"{t['instruction']} {t['input']}" for t in miniature.seeds()]
    assert not [text for text in texts if any(f"{c}:" in text for c in held_out)]


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
    assert not [r for r in empty if r["question"].split(":")[0] in r["context"]]


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
    }
    assert set(found["bactrian-x-mini"]) == set(world.LANGUAGES)


def test_the_mirror_is_the_same_every_time(hub, tmp_path):
    again = miniature.hub(tmp_path / "hub")
    for file in sorted(hub.rglob("*.jsonl")):
        assert file.read_bytes() == (again / file.relative_to(hub)).read_bytes()


def test_instruction_sets_load_as_instructions(hub):
    rows = load("bactrian-x-mini", ["sw", "ta"], hub)
    assert set(rows["language"]) == {"sw", "ta"}
    assert all(rows["output"])


def test_teacher_and_translator_know_their_world():
    seed = next(s for s in miniature.seeds() if s["input"])
    translate = miniature.translate
    instruction, text = translate([seed["instruction"], seed["input"]], "en", "sw")
    answers = miniature.answer([f"{instruction}\n\n{text}"])
    assert answers == miniature.answer([f"{instruction}\n\n{text}"])
    assert answers == translate([seed["output"]], "en", "sw")
    with pytest.raises(ValueError, match="cannot translate 'Hello'"):
        translate(["Hello"], "en", "sw")


def test_the_loss_counts_no_token_that_cannot_be_foreseen():
    for draw in (texts.lists, texts.page):
        pieces = draw(random.Random(3), "en")
        learned = {text.strip() for text, counts in pieces[1:] if counts}
        seen = pieces[0][0]
        assert learned
        assert all(text in seen for text in learned)


def test_weights_are_safetensors_of_eight_megabytes_at_most():
    folder = Path(miniature.__file__).parent
    weights = list(folder.glob("*/*.safetensors"))
    assert len(weights) == 2
    assert sum(file.stat().st_size for file in weights) <= 8_000_000
    assert not [f for f in folder.rglob("*") if f.suffix in {".bin", ".pt", ".pkl"}]
    for name in ("llama", "mistral"):
        config = json.loads((folder / name / "config.json").read_text())
        assert config["model_type"] == name
