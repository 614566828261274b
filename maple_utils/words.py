"""Words of any script, and ROUGE-L over them: how texts are counted and compared."""

import regex
from rapidfuzz.distance import LCSseq

# Scripts written without spaces between words: there one letter with its marks is a
# word. Everywhere else a word is a run of letters, marks and digits.
_LETTERS = "".join(
    rf"\p{{{script}}}"
    for script in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar")
)
_WORD = regex.compile(
    rf"[{_LETTERS}]\p{{M}}*"
    rf"|[\p{{L}}\p{{N}}--[{_LETTERS}]][\p{{L}}\p{{M}}\p{{N}}--[{_LETTERS}]]*",
    regex.V1,
)


def tokenize_words(text: str) -> list[str]:
    """Split a text in any script into lower-case words, without punctuation."""
    return _WORD.findall(text.lower())


def rouge_l_f(first: str, second: str) -> float:
    """Return ROUGE-L F1 (Lin 2004): 2 LCS / (words of both), 0 where both are empty."""
    a, b = tokenize_words(first), tokenize_words(second)
    return 2 * LCSseq.similarity(a, b) / (len(a) + len(b)) if a or b else 0.0
