"""Prompts end where a continuation begins, lose shots when too long; strict parsing."""

import pytest

from maple_utils.tasks import TASKS, Example, TaskData
from maple_utils.tasks.prompts import (
    all_words,
    build,
    fit,
    form_of,
    parse_answer,
    parse_choice,
)

CHOICE = Example("0", "It rains.", "effect", ("Streets are wet.", "It is dry."), 0)
SHOT = Example("1", "It snows.", "cause", ("It is cold.", "It is hot."), 0)
QUESTION = Example("2", "In  Nairobi\nit rains.", "Where?", references=("Nairobi",))


def data_of(name: str, language: str = "en") -> TaskData:
    return TaskData(TASKS[name], language, (), (), ())


def words_in(text: str) -> int:
    return len(text.split())


def test_likelihood_ranks_the_texts_and_does_not_list_them():
    prompt = build(form_of(data_of("xcopa"), "likelihood"), CHOICE, [SHOT])
    assert prompt.text.endswith(
        "Question: What was the cause?\nAnswer: It is cold.\n\n"
        "Premise: It rains.\nQuestion: What happened as a result?\nAnswer:"
    )
    assert prompt.continuations == (" Streets are wet.", " It is dry.")
    assert prompt.shots == 1
    assert "It is dry." not in prompt.text


def test_generate_lists_the_options_and_shows_labels():
    prompt = build(form_of(data_of("xcopa"), "generate"), CHOICE, [SHOT])
    assert "1: Streets are wet.\n2: It is dry.\nAnswer:" in prompt.text
    assert "1: It is cold.\n2: It is hot.\nAnswer: 1\n" in prompt.text
    assert "Answer with 1/2 only." in prompt.text
    assert prompt.continuations == ()


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("template", ["plain", "instruction"])
@pytest.mark.parametrize("scoring", ["likelihood", "generate"])
def test_every_prompt_in_every_language_ends_where_the_answer_begins(
    name, template, scoring
):
    task = TASKS[name]
    four = ("a", "b", "c", "d")
    options = {"belebele": four, "words": four, "xnli": ("True", "Neither", "False")}
    choice = task.kind == "choice"
    example = Example(
        "0",
        "context {with} braces",
        "cause" if name == "xcopa" else "question",
        options.get(name, ("x", "y")) if choice else (),
        1 if choice else -1,
        () if choice else ("answer",),
    )
    for language in task.languages:
        asked = form_of(data_of(name, language), scoring, template, "own")
        prompt = build(asked, example, [example])
        assert "context {with} braces" in prompt.text
        assert not prompt.text.endswith(" ")
        assert prompt.text.endswith("\n") == (template == "instruction")
        for continuation in prompt.continuations:
            assert continuation.startswith(" ") == (template == "plain")
            assert "\n" not in continuation


def test_own_language_where_there_is_a_translation_else_english():
    own = form_of(data_of("xquad", "sw"), "generate", prompt_language="own")
    assert "Swali: Where?\nJibu:" in build(own, QUESTION, []).text
    english = form_of(data_of("xquad", "el"), "generate", prompt_language="own")
    assert "Question: Where?\nAnswer:" in build(english, QUESTION, []).text
    always = form_of(data_of("xquad", "sw"), "generate")
    assert "Question: Where?\nAnswer:" in build(always, QUESTION, []).text
    script = form_of(data_of("belebele", "zh-Hant"), "generate", prompt_language="own")
    assert script.words["instruction"].startswith("閱讀")


def test_translations_have_the_same_parts_as_the_english_words():
    english = all_words()["en"]["tasks"]
    for language, words in all_words().items():
        assert words["pick"].count("{labels}") == 1, language
        for name, parts in words["tasks"].items():
            assert set(parts) == set(english[name]), (language, name)
            for field in ("{context}", "{question}"):
                assert (field in parts["item"]) == (field in english[name]["item"])


def test_the_training_template_is_that_of_the_instruction_data():
    prompt = build(form_of(data_of("xquad"), "generate", "instruction"), QUESTION, [])
    assert prompt.text == (
        "### Instruction:\nRead the text and answer the question with words from the "
        "text.\n\n### Input:\nText: In Nairobi it rains.\nQuestion: Where?\n\n"
        "### Response:\n"
    )


def test_unanswerable_shots_show_the_word_that_the_instruction_names():
    asked = form_of(data_of("indicqa", "hi"), "generate")
    silent = Example("3", "T", "Q")
    text = build(asked, QUESTION, [silent]).text
    assert 'write "unanswerable"' in text
    assert "Answer: unanswerable\n" in text


def test_a_prompt_too_long_loses_shots_one_by_one_and_says_so():
    asked = form_of(data_of("xcopa"), "likelihood")
    shots = [SHOT] * 4
    whole = words_in(build(asked, CHOICE, shots).text) + 3
    assert fit(asked, CHOICE, shots, words_in, whole).shots == 4
    assert fit(asked, CHOICE, shots, words_in, whole - 1).shots == 3
    bare = words_in(build(asked, CHOICE, []).text) + 3
    prompt = fit(asked, CHOICE, shots, words_in, bare)
    assert (prompt.shots, prompt.is_cut) == (0, False)
    assert prompt.continuations == (" Streets are wet.", " It is dry.")


def test_a_context_too_long_without_shots_is_cut_at_its_end():
    asked = form_of(data_of("xlsum"), "generate")
    article = Example("0", "word " * 500, references=("s",))
    prompt = fit(asked, article, [article], words_in, 100)
    assert (prompt.shots, prompt.is_cut) == (0, True)
    assert 90 <= words_in(prompt.text) <= 100
    assert prompt.text.endswith("Summary:")


OPTIONS = ("The guests came.", "Nobody came.")


@pytest.mark.parametrize(
    ("text", "option"),
    [
        *(("1", 0), (" 2.", 1), ("(2)", 1), ("1)", 0), ("२", 1), ("١", 0)),
        *(("nobody came", 1), ("2: Nobody came.", 1), ("The guests came.", 0)),
    ],
)
def test_a_whole_answer_names_an_option(text, option):
    assert parse_choice(text, OPTIONS, "12") == option


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "3", "12", "1 or 2", "Answer: 1", "choice1 or choice2", "Both", "."),
        *("1: Nobody came.", "The guests", "1 because the guests came"),
    ],
)
def test_anything_else_is_a_format_failure(text):
    assert parse_choice(text, OPTIONS, "12") is None


def test_faults_of_other_parsers_are_not_repeated():
    """The word "Answer" begins with an A, "True or Neither" holds two labels."""
    four = ("w", "x", "y", "z")
    assert parse_choice("Answer: the passage says so", four, "ABCD") is None
    assert parse_choice("I think B", four, "ABCD") is None
    assert parse_choice("b", four, "ABCD") == 1
    assert parse_choice("True or Neither", ("True", "Neither", "False")) is None
    assert parse_choice("neither.", ("True", "Neither", "False")) == 1
    assert parse_choice("same", ("same", "Same"), "12") is None


@pytest.mark.parametrize(
    ("text", "finished", "parsed"),
    [
        ("Nairobi", True, ("Nairobi", False)),
        ("  ", True, ("", True)),
        ("Nairobi and so on and", False, ("Nairobi and so on and", True)),
        ("Unanswerable.", True, ("", False)),
        ('"unanswerable"', True, ("", False)),
        ("it is unanswerable", True, ("it is unanswerable", False)),
    ],
)
def test_written_answers(text, finished, parsed):
    assert parse_answer(text, finished, "unanswerable") == parsed
