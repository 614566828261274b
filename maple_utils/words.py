"""Words of any script, and ROUGE-L over them: how texts are counted and compared."""

from collections.abc import Sequence

import regex
from rapidfuzz.distance import LCSseq

# Scripts written without spaces between words: there one letter with its marks is a
# word. Everywhere else a word is a run of letters, marks and digits.
_SCRIPTS = "".join(
    rf"\p{{{script}}}"
    for script in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
)
_LETTERS = rf"{_SCRIPTS}\u30fc"  # with the long vowel of kana, which no script owns
_WORD = regex.compile(
    rf"[[{_LETTERS}]&&[\p{{L}}\p{{N}}]]\p{{M}}*"
    rf"|[\p{{L}}\p{{N}}--[{_LETTERS}]][\p{{L}}\p{{M}}\p{{N}}--[{_LETTERS}]]*",
    regex.V1,
)
_FORMAT = regex.compile(r"\p{Cf}+")


def without_format(text: str) -> str:
    """Drop the format characters: joiners, soft hyphens, direction marks.

    They are invisible and part no words; texts differ in whether they write them.
    """
    return _FORMAT.sub("", text)


def natural_key(name: str) -> tuple[str | int, ...]:
    """Return a sort key that takes numbers as numbers: r8 before r16."""
    return tuple(int(p) if p.isdecimal() else p for p in regex.split(r"(\d+)", name))


def tokenize_words(text: str) -> list[str]:
    """Split a text in any script into lower-case words, without punctuation."""
    return _WORD.findall(without_format(text.lower()))


def lcs_f(first: Sequence[str], second: Sequence[str]) -> float:
    """Return ROUGE-L F1 (Lin 2004): 2 LCS / (words of both), 0 where both are empty."""
    total = len(first) + len(second)
    return 2 * LCSseq.similarity(first, second) / total if total else 0.0


def rouge_l_f(first: str, second: str) -> float:
    """Return ROUGE-L F1 of two texts over the words of `tokenize_words`."""
    return lcs_f(tokenize_words(first), tokenize_words(second))
