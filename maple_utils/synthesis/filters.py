"""Filters over generated rows: what is dropped, and why, in any script.

Rows are a DataFrame with the columns id, language, instruction, input, output, finish.
Published thresholds are MultiAlpaca's (PolyLM, arXiv 2307.06018, appendix A); all else
is ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import regex
from rapidfuzz.distance import Indel
from rapidfuzz.process import cdist

from maple_utils.consistency import MIN_LETTERS, count_letters, language_scores
from maple_utils.languages import LANGUAGES
from maple_utils.words import rouge_l_f, tokenize_words

# Wrong language: its own probability is below LOW, another language's at least HIGH.
LOW, HIGH = 0.1, 0.5
LINK = regex.compile(r"https?://|www\.\w", regex.IGNORECASE)

# How chat models begin a refusal. A refusal in other words or languages stays.
REFUSALS = regex.compile(
    r"^\W*(?:(?:i'm |i am )?(?:sorry|afraid)\b.{0,40}\b(?:can(?:no|')t|unable)"
    r"|as an? (?:ai|language model|large language model|assistant)\b"
    r"|i can(?:no|')t (?:help|assist|do)"
    r"|lo siento,? (?:pero )?no puedo|como (?:un )?modelo de lengua"
    r"|(?:je suis )?d[ée]sol[ée].{0,20}je ne peux pas|en tant qu.{1,4}(?:ia|mod[èe]le)"
    r"|es tut mir leid.{0,20}kann (?:ich )?nicht|als (?:ki|sprachmodell)"
    r"|desculpe.{0,20}não posso|como (?:um|uma) (?:modelo de linguagem|ia)\b"
    r"|извините.{0,20}не могу|как (?:языковая модель|ии)\b"
    r"|抱歉.{0,12}(?:不能|无法)|作为(?:一个|一名)?(?:人工智能|ai|语言模型)"
    r"|申し訳.{0,20}(?:できません|できかねます)|(?:ai|言語モデル)として"
    r"|죄송.{0,24}(?:없습니다|없어요)|(?:ai|언어 모델)로서"
    r"|عذر.{0,20}لا (?:يمكنني|أستطيع)|كنموذج لغ"
    r"|क्षमा करें.{0,30}(?:नहीं कर सकत|असमर्थ)|एक (?:एआई|भाषा मॉडल)"
    r"|maaf.{0,20}tidak (?:bisa|dapat)|sebagai (?:ai|model bahasa)"
    r"|xin lỗi.{0,20}không thể|là một mô hình ngôn ngữ"
    r"|samahani.{0,20}siwezi|kama (?:modeli|mfumo) ya lugha)",
    regex.IGNORECASE | regex.DOTALL,
)


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the filters."""

    similarity: float = 0.7  # instructions at least this alike are near-duplicates
    echo: float = 0.5  # instruction and input more alike than this: dropped
    echo_of: dict[str, float] = field(
        default_factory=lambda: {"ko": 0.3, "vi": 0.3, "ar": 0.2}
    )
    max_characters: int = 8192  # instruction, input and output together


def detected_language(text: str, expected: str) -> str | None:
    """Return the language a text is clearly in, where it is not the expected one.

    `consistency.language_scores` identifies it, in texts that are long enough.
    """
    if count_letters(text) < MIN_LETTERS:
        return None
    scores = language_scores(text)
    best = max(scores, key=lambda code: scores[code])
    own = scores.get(LANGUAGES[expected].base, 0.0)
    return best if own < LOW and scores[best] >= HIGH else None


Row = Mapping[str, str]
Test = Callable[[Row, Thresholds], bool]


def _is_echo(row: Row, thresholds: Thresholds) -> bool:
    most = thresholds.echo_of.get(row["language"], thresholds.echo)
    return bool(row["input"]) and rouge_l_f(row["instruction"], row["input"]) > most


PARTS = ("instruction", "input", "output")
# Reasons to drop a row, in the order in which they are tried; the first one counts.
TESTS: dict[str, Test] = {
    "empty": lambda row, _: not row["instruction"].strip() or not row["output"].strip(),
    "cut off": lambda row, _: row["finish"] == "length",
    # The teacher declines, or its provider's filter does.
    "refusal": lambda row, _: (
        row["finish"] == "content_filter" or bool(REFUSALS.search(row["output"]))
    ),
    "link": lambda row, _: any(LINK.search(row[part]) for part in PARTS),
    "too long": lambda row, thresholds: (
        sum(len(row[part]) for part in PARTS) > thresholds.max_characters
    ),
    "wrong language": lambda row, _: (
        detected_language(row["output"], row["language"]) is not None
    ),
    "input repeats instruction": _is_echo,
}
NEAR_DUPLICATE = "near-duplicate"
_BLOCK = 256  # candidates that are compared at a time


def reasons(
    rows: pd.DataFrame, thresholds: Thresholds, tests: Mapping[str, Test] = TESTS
) -> pd.Series:
    """Return, per row, why it is dropped, or "" where it is kept."""
    found = [
        next((name for name, test in tests.items() if test(row, thresholds)), "")
        for row in rows.to_dict("records")
    ]
    return pd.Series(found, index=rows.index, dtype=object)


def near_duplicates(
    candidates: Sequence[str], pool: Sequence[str] = (), threshold: float = 0.7
) -> list[bool]:
    """Compare each candidate with the pool and with the candidates kept before it.

    Says, per candidate, whether its ROUGE-L F with one of them is at least `threshold`
    (above 0, at most 1). Over words that is the normalised Indel similarity: both are
    2 LCS / (words of both).
    """
    words = [tokenize_words(text) for text in candidates]
    kept, found = [tokenize_words(text) for text in pool], []
    for start in range(0, len(words), _BLOCK):
        block = words[start : start + _BLOCK]
        alike = cdist(
            block,
            [*kept, *block],
            scorer=Indel.normalized_similarity,
            score_cutoff=threshold - 1e-6,  # it is rounded to 32 bits
            workers=-1,
        )
        alike, stays = alike > 0, np.ones(alike.shape[1], dtype=bool)
        for row, end in enumerate(range(len(kept), len(stays))):
            # Two texts without a word are alike to Indel, and not to ROUGE-L.
            stays[end] = not block[row] or not (alike[row, :end] & stays[:end]).any()
        new = stays[len(kept) :]
        found += (~new).tolist()
        kept += [text for text, stay in zip(block, new, strict=True) if stay]
    return found


def clear_repeated_inputs(rows: pd.DataFrame) -> pd.DataFrame:
    """Empty an input that stands word for word in its instruction (MultiAlpaca)."""
    pairs = zip(rows["input"], rows["instruction"], strict=True)
    return rows.assign(input=["" if text in whole else text for text, whole in pairs])


def report(rows: pd.DataFrame) -> pd.DataFrame:
    """Count kept and dropped rows: languages down, "kept" and each reason across."""
    table = pd.crosstab(rows["language"], rows["reason"].replace("", "kept"))
    order = ["kept", *table.columns.drop("kept", errors="ignore")]
    return table.reindex(columns=order, fill_value=0).rename_axis(columns=None)
