"""The table of languages, and what a person reads who misspells one."""

import pytest

from maple_utils.languages import (
    LANGUAGES,
    ParameterError,
    check_languages,
    resource_level,
)

SIX_TASKS = """en et ht id it qu sw ta th tr vi zh es de ja fr pt nl sv da fi ru no ko
    pl he ar cs hu el hi ro as bn gu kn ml mr or pa te""".split()


def test_codes_are_unique_and_consistent():
    assert list(LANGUAGES) == [language.code for language in LANGUAGES.values()]
    for language in LANGUAGES.values():
        assert len(language.iso3) == 3
        assert language.flores[3] == "_"
        assert 0 <= language.joshi <= 5
        told = {**vars(language), "joshi": 1, "miniature": 1}  # these may be 0
        assert all(told.values())
        assert language.miniature >= 0


def test_every_language_of_the_six_tasks_is_there_and_they_are_41():
    assert len(set(SIX_TASKS)) == 41
    assert set(SIX_TASKS) <= set(LANGUAGES)


def test_scripts_agree_with_the_flores_codes():
    """FLORES codes end in the ISO 15924 script: one script, one ending."""
    endings: dict[str, set[str]] = {}
    for language in LANGUAGES.values():
        endings.setdefault(language.script, set()).add(language.flores[4:])
    assert {script: e for script, e in endings.items() if len(e) > 1} == {
        "Han": {"Hans", "Hant"}
    }


@pytest.mark.parametrize(
    ("code", "level"),
    [
        *(("sw", "low"), ("ht", "low"), ("te", "low"), ("no", "low")),
        *(("ta", "mid"), ("bn", "mid")),
        *(("hi", "high"), ("zh-Hant", "high"), ("en", "high")),
    ],
)
def test_resource_levels_follow_joshi_classes(code, level):
    assert resource_level(code) == level


def test_check_returns_each_code_once_in_order():
    assert check_languages(["sw", "hi", "sw"]) == ["sw", "hi"]
    assert check_languages([]) == []


@pytest.mark.parametrize(
    ("given", "near"),
    [("swahili", "sw"), ("Hindi", "hi"), ("zho", "zh"), ("zh_hant", "zh-Hant")],
)
def test_a_wrong_code_is_named_with_what_was_meant(given, near):
    with pytest.raises(ParameterError) as error:
        check_languages(["en", given])
    line = str(error.value)
    assert "\n" not in line
    assert repr(given) in line
    assert f"did you mean {near}" in line
    assert "allowed: am, ar, as," in line


def test_only_what_a_task_has_is_allowed():
    with pytest.raises(ParameterError, match="got 'hi'.*allowed: en, sw"):
        check_languages(["hi"], ["en", "sw"])


def test_a_notebook_shows_the_one_line_without_a_traceback():
    assert ParameterError("rank: got 0")._render_traceback_() == [
        "ParameterError: rank: got 0"
    ]
