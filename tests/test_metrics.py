"""Metrics in every script, against public implementations and by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from maple_utils.metrics import (
    best_options,
    f1_and_exact_match,
    judge_ranking,
    judge_text,
)
from maple_utils.scoring.heldout import bits_per_byte, standard_error
from maple_utils.tasks import TASKS, Example, available, load_task
from maple_utils.words import tokenize_words

REAL_TEXT = {  # a sentence, and one that shares about half of it
    "ar": ("ذهب الولد إلى المدرسة صباحا", "ذهب الولد إلى السوق مساء"),
    "hi": ("लड़का सुबह स्कूल गया था", "लड़का शाम को स्कूल गया"),
    "th": ("เด็กชายไปโรงเรียนตอนเช้า", "เด็กชายไปตลาดตอนเย็น"),
    "zh": ("男孩早上去了学校", "男孩晚上去了市场"),
    "my": ("ကောင်လေးကျောင်းသွားတယ်", "ကောင်လေးဈေးသွားတယ်"),
    "ta": ("சிறுவன் காலையில் பள்ளிக்குச் சென்றான்", "சிறுவன் மாலையில் சந்தைக்குச் சென்றான்"),
    "ru": ("мальчик пошёл утром в школу", "мальчик пошёл вечером на рынок"),
}


@pytest.mark.parametrize("language", REAL_TEXT)
def test_f1_sees_every_script(language):
    """The fault to avoid: a tokeniser of [a-z0-9] scores these 0."""
    one, two = REAL_TEXT[language]
    f1, exact = f1_and_exact_match(one, [two], language)
    assert 0.3 < f1 < 0.95
    assert exact == 0


@pytest.mark.parametrize("language", ["en", "es", "de", "hi", "vi", "zh"])
def test_f1_and_exact_match_agree_with_lm_eval(shared_hub, language):
    """Predictions: the answer, the answer with a frame, and a piece of the text."""
    theirs = pytest.importorskip("lm_eval.tasks.mlqa.utils")
    if language not in available(TASKS["xquad"], shared_hub):
        pytest.skip(f"{shared_hub} has no {language} xquad")
    data = load_task("xquad", language, hub_root=shared_hub, shots=0, limit=40)
    framed = {"en": "It is the {}.", "es": "Es la {}.", "de": "Das ist der {}!"}
    for example in data.test:
        golds = list(example.references)
        answer = framed.get(language, "「{}」。").format(golds[0])
        for given in (golds[0], answer, example.context[:60]):
            f1, exact = f1_and_exact_match(given, golds, language)
            best = theirs.metric_max_over_ground_truths
            assert f1 == pytest.approx(best(theirs.f1_score, given, golds, language))
            assert exact == best(theirs.exact_match_score, given, golds, language)


@pytest.mark.parametrize(
    ("language", "given", "gold"),
    [
        ("en", "The  Nairobi.", "nairobi"),
        ("es", "la ciudad", "Ciudad"),
        ("de", "«Der Baum»", "baum"),
        ("ar", "المدينة", "مدينة"),
        ("hi", "दिल्ली।", "दिल्ली"),
        ("zh", "《北京》", "北京"),
        ("ta", "சென்னை!", "சென்னை"),
    ],
)
def test_punctuation_and_articles_do_not_count(language, given, gold):
    assert f1_and_exact_match(given, [gold], language) == (1, 1)


def test_unspaced_scripts_are_compared_by_character():
    assert f1_and_exact_match("北京市", ["北京"], "zh")[0] == pytest.approx(0.8)
    assert f1_and_exact_match("北京市", ["北京"], "zh-Hant")[0] == pytest.approx(0.8)
    assert f1_and_exact_match("กรุงเทพ", ["กรุงเทพมหานคร"], "th")[0] > 0.6
    assert f1_and_exact_match("東京タワー", ["東京"], "ja")[0] > 0.4
    assert f1_and_exact_match("東京タワー", ["東京"], "en")[0] == 0


def test_the_best_reference_counts_and_no_answer_is_right_only_where_there_is_none():
    assert f1_and_exact_match("two", ["one", "two"], "en") == (1, 1)
    assert f1_and_exact_match("", [], "en") == (1, 1)
    assert f1_and_exact_match("one", [], "en") == (0, 0)
    assert f1_and_exact_match("", ["one"], "en") == (0, 0)


def test_bits_per_byte_by_hand():
    assert bits_per_byte([math.log(2) * 30], [10])[0] == pytest.approx(3)
    value, error = bits_per_byte(np.array([10, 50]) * math.log(2), [10, 10])
    assert value == pytest.approx(3)
    assert error == pytest.approx(standard_error([1, 5]))
    assert bits_per_byte([2.0, 6.0], [1, 3])[1] == pytest.approx(0)


def test_options_are_ranked_by_sum_and_by_bytes():
    options = ("ja", "kwa sababu mvua ilinyesha")
    assert best_options([-4.0, -10.0], options) == (0, 1)
    # In bytes a Hindi word is as long as three Latin ones of as many letters.
    assert best_options([-9.0, -4.0], ("नमस्ते", "abc")) == (1, 0)
    judged = judge_ranking(Example("0", "", options=options, label=1), [-4.0, -10.0])
    assert (judged["accuracy"], judged["accuracy_bytes"]) == (0, 1)
    assert judged["prediction"] == "ja"


def test_frequent_words_do_not_win_by_mutual_information():
    """By sum the frequent word wins, though the question makes the other likelier."""
    example = Example("0", "", options=("house", "heron"), label=1)
    judged = judge_ranking(example, [-4.0, -6.0], [-5.0, -12.0])
    assert (judged["accuracy"], judged["accuracy_mutual_info"]) == (0, 1)
    assert "accuracy_mutual_info" not in judge_ranking(example, [-4.0, -6.0])


def test_mutual_information_is_that_of_lm_eval():
    """Their `process_results` on the same numbers: conditional, then unconditional."""
    task = pytest.importorskip("lm_eval.api.task").ConfigurableTask
    options = ("ja", "kwa sababu mvua ilinyesha", "नमस्ते")
    rng = np.random.default_rng(0)
    verdicts = set()
    for _ in range(200):
        given, alone = -rng.gamma(4, 3, 3), -rng.gamma(4, 3, 3)
        label = int(rng.integers(3))
        names = ("acc", "acc_bytes", "acc_mutual_info")
        asked = SimpleNamespace(
            OUTPUT_TYPE="multiple_choice",
            _metric_fn_list=dict.fromkeys(names),
            doc_to_choice=lambda doc: list(options),
            doc_to_target=lambda doc, label=label: label,
            multiple_input=0,
            multiple_target=0,
            config=SimpleNamespace(process_results=None),
        )
        results = [(value, False) for value in (*given, *alone)]
        theirs = task.process_results(asked, {}, results)
        example = Example("0", "", options=options, label=label)
        judged = judge_ranking(example, given, alone)
        ours = ("accuracy", "accuracy_bytes", "accuracy_mutual_info")
        assert [judged[name] for name in ours] == [theirs[name] for name in names]
        verdicts.add(tuple(judged[name] for name in ours))
    assert len(verdicts) == 8  # the three judgements differ in every way


def judge(name: str, example: Example, text: str, finished: bool = True) -> dict:
    return judge_text(TASKS[name], "en", "unanswerable", example, text, finished)


def test_wrong_answers_and_format_failures_are_told_apart():
    example = Example("0", "", options=("wet", "dry"), label=0)
    assert judge("xcopa", example, "1")["accuracy"] == 1
    wrong, failed = judge("xcopa", example, "2"), judge("xcopa", example, "1 or 2")
    assert (wrong["accuracy"], wrong["format_failure"]) == (0, False)
    assert (failed["accuracy"], failed["format_failure"]) == (0, True)


def test_written_answers_are_judged():
    asked, silent = Example("0", "", references=("Nairobi",)), Example("1", "")
    assert judge("indicqa", asked, "Nairobi")["f1"] == 1
    assert judge("indicqa", silent, "unanswerable")["exact_match"] == 1
    assert judge("indicqa", asked, "unanswerable")["f1"] == 0
    # Writing nothing earns nothing, not even where there is no answer.
    empty = judge("indicqa", silent, "")
    assert (empty["f1"], empty["exact_match"], empty["format_failure"]) == (0, 0, True)
    endless = judge("xquad", asked, "Nairobi Nairobi Nairobi", finished=False)
    assert endless["format_failure"]
    assert endless["f1"] == pytest.approx(0.5)
    assert judge("xlsum", asked, "Nairobi")["rouge_l"] == 1


def test_questions_with_and_without_an_answer_are_reported_apart():
    """Finding 6: never answering earns the unanswerable share of one F1 over both."""
    asked, silent = Example("0", "", references=("Lake Victoria",)), Example("1", "")
    given = judge("indicqa", asked, "Lake")
    assert given["f1_has_answer"] == given["f1"] == pytest.approx(2 / 3)
    assert given["exact_match_has_answer"] == 0
    assert "f1_no_answer" not in given
    for text, right in (("unanswerable", 1), ("Lake", 0), ("", 0)):
        judged = judge("indicqa", silent, text)
        assert judged["f1_no_answer"] == judged["f1"] == right
        assert "f1_has_answer" not in judged
    assert judge("indicqa", asked, "")["f1_has_answer"] == 0
    assert not {"f1_has_answer", "f1_no_answer"} & set(judge("xquad", asked, "Lake"))


@pytest.mark.parametrize(
    ("language", "given", "gold"),
    [
        ("hi", "अंग्रे\u200dज़ी", "अंग्रेज़ी"),
        ("ml", "അവന്\u200d", "അവന്"),
        ("ar", "\u200fنيروبي", "نيروبي"),
        ("de", "Zusammen\u00adarbeit", "Zusammenarbeit"),
        ("th", "กรุง\u200bเทพ", "กรุงเทพ"),
    ],
)
def test_format_characters_do_not_count(language, given, gold):
    assert f1_and_exact_match(given, [gold], language) == (1, 1)
    assert tokenize_words(given) == tokenize_words(gold)


def test_words_hold_no_punctuation_in_any_script():
    assert tokenize_words("သွားတယ်။") == tokenize_words("သွားတယ်")
    assert tokenize_words("タワー2024") == ["タ", "ワ", "ー", "2024"]


def test_written_answers_say_whether_they_are_in_the_language():
    example = Example("0", "", references=("نيروبي",))
    task = TASKS["xquad"]
    for text, expected in (("نيروبي", 1), ("Nairobi", 0)):
        judged = judge_text(task, "ar", "unanswerable", example, text, True)
        assert judged["in_language"] == expected
    # The word for "no answer" is English because the prompt is.
    judged = judge_text(
        TASKS["indicqa"], "hi", "unanswerable", Example("1", ""), "unanswerable", True
    )
    assert math.isnan(judged["in_language"])
    choice = Example("2", "", options=("a", "b"), label=0)
    judged = judge_text(TASKS["xcopa"], "th", "", choice, "1", True)
    assert "in_language" not in judged


def test_standard_error_agrees_with_theory():
    values = np.r_[np.ones(300), np.zeros(700)]
    error = math.sqrt(0.3 * 0.7 / 999)
    assert standard_error(values) == pytest.approx(error)
    assert math.isnan(standard_error([1.0]))
