"""What an answer scores: accuracy, F1 and exact match, ROUGE-L, its language.

F1 and exact match follow MLQA's official evaluation (Lewis et al. 2020): lower case,
punctuation of all scripts and the language's articles removed, words split at blanks,
in Chinese at every character; here also in the other scripts that are written without
blanks. Languages for which MLQA has no list of articles keep theirs. The Arabic pattern
is the official one, which takes the article out of the middle of words too; lm-eval
mended theirs in 2026. Format characters (joiners, direction marks) are dropped, which
the official script does not do: they are invisible, and answers that differ in them
alone are equal.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import regex

from maple_utils.consistency import in_language
from maple_utils.languages import LANGUAGES
from maple_utils.rouge import rouge_l
from maple_utils.tasks import Example, Task
from maple_utils.tasks.prompts import parse_answer, parse_choice
from maple_utils.words import without_format

ARTICLES = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "ar": r"\sال^|ال",
}
UNSPACED_LANGUAGES = ("zh", "ja", "th", "my", "km", "lo")
_PUNCTUATION = regex.compile(r"[\p{P}$+<=>^`|~]")
# Thai, Lao, Burmese, Khmer, kana, Han (with its extensions and compatibility forms)
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uaa60-\uaa7f\uf900-\ufaff\U00020000-\U000323af"
)
# Before and after every character of these; a mark stays on its letter.
_BETWEEN = regex.compile(
    rf"(?=[[{_UNSPACED}]--\p{{M}}])|(?<=[{_UNSPACED}])(?=\P{{M}})", regex.V1
)


def answer_tokens(text: str, language: str) -> list[str]:
    """Split an answer into the tokens that F1 and exact match compare."""
    base = LANGUAGES[language].base
    text = _PUNCTUATION.sub("", without_format(text.lower()))
    text = re.sub(ARTICLES[base], " ", text) if base in ARTICLES else text
    if base in UNSPACED_LANGUAGES:
        text = _BETWEEN.sub(" ", text)
    return text.split()


def f1_and_exact_match(
    prediction: str, references: Sequence[str], language: str
) -> tuple[float, float]:
    """Return (F1, exact match) in [0, 1], each the best over the references.

    No references means that the text has no answer: then only the empty prediction is
    right, and it is wrong everywhere else, as in SQuAD 2.0.
    """
    given = answer_tokens(prediction, language)
    if not references or not prediction:
        is_right = float(not references and not prediction)
        return is_right, is_right
    golds = [answer_tokens(reference, language) for reference in references]
    return (
        max(_f1(given, gold) for gold in golds),
        float(any(given == gold for gold in golds)),
    )


def _f1(given: list[str], gold: list[str]) -> float:
    if not given or not gold:
        return float(given == gold)
    shared = sum((Counter(given) & Counter(gold)).values())
    return 2 * shared / (len(given) + len(gold))


def best_options(
    loglikelihoods: Sequence[float] | np.ndarray, options: Sequence[str]
) -> tuple[int, int]:
    """Return the best option by summed log-likelihood, and by that per UTF-8 byte."""
    sums = np.asarray(loglikelihoods)
    n_bytes = np.array([len(option.encode()) for option in options])
    return int(sums.argmax()), int((sums / n_bytes).argmax())


def judge_ranking(
    example: Example,
    loglikelihoods: Sequence[float] | np.ndarray,
    unconditional: Sequence[float] | np.ndarray | None = None,
) -> dict[str, Any]:
    """Return prediction, format_failure (never) and the accuracies of one example.

    Args:
        example: whose options were ranked.
        loglikelihoods: nats of each option after the prompt.
        unconditional: nats of the same continuations after an empty context. With them,
            `accuracy_mutual_info` takes the option that the question makes more likely
            by most: log p(option | prompt) - log p(option), as lm-eval's
            `acc_mutual_info`. It is not drawn to frequent words as the sum is. One that
            is NaN, as a server may give, leaves it out.
    """
    by_sum, by_bytes = best_options(loglikelihoods, example.options)
    judged = {
        "prediction": example.options[by_sum],
        "format_failure": False,
        "accuracy": float(by_sum == example.label),
        "accuracy_bytes": float(by_bytes == example.label),
    }
    if unconditional is not None and not np.isnan(unconditional).any():
        gains = np.asarray(loglikelihoods) - np.asarray(unconditional)
        judged["accuracy_mutual_info"] = float(gains.argmax() == example.label)
    return judged


def judge_text(
    task: Task, language: str, none: str, example: Example, text: str, is_finished: bool
) -> dict[str, Any]:
    """Return prediction, format_failure and this task's metrics of a written answer.

    A choice that cannot be parsed counts as wrong. An answer or a summary that was cut
    off is scored as far as it goes; one that is empty scores 0. `none` is the word for
    "no answer in the text". `in_language` is NaN where it cannot be told.
    """
    judged: dict[str, Any] = {"prediction": text}
    if task.kind == "choice":
        choice = parse_choice(text, example.options, task.labels)
        judged["format_failure"] = choice is None
        judged["accuracy"] = float(choice == example.label)
        return judged
    written, failed = parse_answer(text, is_finished, none)
    judged["format_failure"] = failed
    judged["in_language"] = in_language(written, language, example.references)
    if task.kind == "summary":
        return judged | {"rouge_l": rouge_l(text, example.references, language)}
    f1 = exact_match = 0.0
    if written or not failed:
        f1, exact_match = f1_and_exact_match(written, example.references, language)
    judged |= {"f1": f1, "exact_match": exact_match}
    if task.words == "qa_or_none":
        # As SQuAD 2's evaluator: HasAns_f1, HasAns_exact, NoAns_f1 (= NoAns_exact).
        if example.references:
            judged |= {"f1_has_answer": f1, "exact_match_has_answer": exact_match}
        else:
            judged["f1_no_answer"] = f1
    return judged


def standard_errors(rows: pd.DataFrame, keys: list[str], column: str) -> pd.Series:
    """Return the standard error of the mean of a column, per group of `keys`.

    Questions on one passage, which share `cluster`, stand and fall together: with G
    clusters, whose sums of deviations from the mean are s, the error is the root of
    G / (G - 1) times the sum of s squared, over the number of rows. Where every row is
    a cluster of its own that is sd / sqrt(n); with one cluster it is NaN.
    """
    groups = rows.groupby(keys, dropna=False)[column]
    off = rows[[*keys, "cluster"]].assign(off=rows[column] - groups.transform("mean"))
    sums = off.groupby([*keys, "cluster"], dropna=False)["off"].sum()
    squares = (sums**2).groupby(level=keys, dropna=False).agg(["sum", "size"])
    several = squares["size"].where(squares["size"] > 1)
    return np.sqrt(squares["sum"] * several / (several - 1)) / groups.size()
