"""What is asked, how the model answers, and the verdict: a row per test example."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from maple_utils import metrics, miniature
from maple_utils.languages import LANGUAGES
from maple_utils.params import Cell
from maple_utils.results import PREDICTIONS_COLUMNS
from maple_utils.scoring import generate, loglikelihoods
from maple_utils.scoring.limits import positions
from maple_utils.tasks import TASKS, Task, TaskData, available, load_task
from maple_utils.tasks.prompts import Prompt, fit, form_of, wording

FITTING = 0.995  # share of the right answers that fit before ...
SLACK = 1.5  # ... this much more room is given: a right answer may have more words


@dataclass(frozen=True)
class Options:
    """How questions are asked; each name is a parameter of 03, explained there."""

    hub_root: str | Path = ""
    shots: int = -1
    equal_shots: bool = False
    shots_language: str = "own"
    scoring: str = "both"
    test_limit: int = 0
    test_seed: int = 0
    prompt_template: str = "plain"
    prompt_language: str = "en"
    max_new_tokens: int = 0
    token_budget: int = 0
    allow_other_counts: bool = False

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "Options":
        """Return the options among 03's parameters."""
        values = {option.name: parameters[option.name] for option in fields(cls)}
        if values["hub_root"] == "miniature":  # its tests are nobody's published ones
            values["allow_other_counts"] = True
        return cls(**values | {"hub_root": miniature.hub_root(values["hub_root"])})

    def scorings(self, task: Task) -> list[str]:
        """Return how a task is scored: choices as `scoring` says, others generated."""
        both = self.scoring == "both"
        chosen = ["likelihood", "generate"] if both else [self.scoring]
        return chosen if task.kind == "choice" else ["generate"]


@cache
def load(task: str, language: str, options: Options) -> TaskData:
    """Load a task in a language as `tasks.load_task` does, once for all adapters."""
    return load_task(
        task,
        language,
        hub_root=options.hub_root,
        shots=options.shots,
        shots_language=options.shots_language,
        limit=options.test_limit,
        seed=options.test_seed,
        allow_other_counts=options.allow_other_counts,
    )


@cache
def new_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TaskData,
    options: Options,
) -> int:
    """Return how many tokens a written answer may take: so many that right ones fit.

    A fixed number would cut answers short in the scripts that a tokenizer hardly knows,
    and only there. It is half as many again as the shortest right answer takes in 99.5
    of 100 rows of the whole test split, plus one for the line end; at least the task's
    own number, which is what most Latin scripts need (ours). Half of the model's
    positions are left to the question.
    """
    wanted = options.max_new_tokens
    if not wanted:
        lengths = [_shortest(tokenizer, right) for right in data.answers if right]
        needed = np.quantile(lengths or [0], FITTING, method="higher")
        wanted = max(data.task.max_new_tokens, math.ceil(SLACK * needed) + 1)
    return min(wanted, positions(model) // 2)


def _shortest(tokenizer: PreTrainedTokenizerBase, right: Sequence[str]) -> int:
    texts = [f" {' '.join(text.split())}" for text in right]
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return min(map(len, encoded))


def notes(
    pairs: Sequence[tuple[str, str]],
    languages: Sequence[str],
    options: Options,
) -> pd.DataFrame:
    """Load all pairs; return what is worth knowing: columns task, language, note.

    That is what differs from the published data, how shots were taken, and which of the
    `languages` asked for are in none of the pairs.
    """
    loaded = [load(*pair, options) for pair in tqdm(pairs, desc="loading")]
    rows = [(d.task.name, d.language, note) for d in loaded for note in d.notes]
    served = {part for _, code in pairs for part in (code, LANGUAGES[code].base)}
    absent = [code for code in languages if code not in served]
    rows += [("", code, "in none of these tasks") for code in absent]
    return pd.DataFrame(rows, columns=["task", "language", "note"])


def fewest_resources(pairs: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Return the first pair of a task and a language of the lowest Joshi class."""
    return min(pairs, key=lambda pair: LANGUAGES[pair[1]].joshi)


@lru_cache(maxsize=64)
def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TaskData,
    scoring: str,
    options: Options,
) -> list[Prompt]:
    """Return the prompt of every test example, made once for all adapters.

    A prompt that is too long for the model loses its shots one by one, or with
    `equal_shots` as many as the task's longest prompt in any language.
    """
    shots = data.shots
    if options.equal_shots:
        about = (data.task.name, scoring, options)
        shots = shots[: _equal_shots(model, tokenizer, *about)]
    form = form_of(data, scoring, options.prompt_template, options.prompt_language)
    room = positions(model)
    if scoring == "generate":
        room -= new_tokens(model, tokenizer, data, options)

    def count(text: str) -> int:
        return len(tokenizer(text)["input_ids"])

    return [fit(form, example, shots, count, room) for example in data.test]


@lru_cache(maxsize=64)
def _equal_shots(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str,
    scoring: str,
    options: Options,
) -> int:
    """Return the largest number of shots that fits in every language of a task."""
    alone = replace(options, equal_shots=False)
    codes = available(TASKS[task], options.hub_root)
    tests = (load(task, code, alone) for code in codes)
    asked = (ask(model, tokenizer, data, scoring, alone) for data in tests)
    return min(prompt.shots for prompts in asked for prompt in prompts)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    cell: Cell,
    task: str,
    language: str,
    options: Options,
    progress: bool = False,
) -> pd.DataFrame:
    """Return a predictions table: a row per test example and way of scoring.

    Args:
        model: the base model, or the adapter that is switched on over it.
        tokenizer: the base model's.
        cell: who this is.
        task: a name in the table of tasks.
        language: a code that the task has.
        options: how it is asked.
        progress: show a bar.

    Returns:
        The columns of `results.PREDICTIONS_COLUMNS`; metrics that do not apply are NaN.

    Raises:
        ParameterError: as `load_task` and `scoring` do.
    """
    tables = []
    data = load(task, language, options)
    for scoring in options.scorings(data.task):
        prompts = ask(model, tokenizer, data, scoring, options)
        total = sum(len(prompt.continuations) or 1 for prompt in prompts)
        name = f"{task} {language} {scoring}"
        answer = {"likelihood": _rank, "generate": _write}[scoring]
        with tqdm(total=total, desc=name, leave=False, disable=not progress) as bar:
            judged = answer(model, tokenizer, data, prompts, options, bar.update)
        asked = zip(data.test, prompts, judged, strict=True)
        rows = [
            {
                "example": example.id,
                "cluster": example.cluster,
                "shots": prompt.shots,
                "context_cut": prompt.is_cut,
                "references": list(example.right_answers),
                **judgement,
            }
            for example, prompt, judgement in asked
        ]
        about = {**cell.asdict(), "task": task, "language": language}
        tables.append(pd.DataFrame(rows).assign(**about, scoring=scoring))
    return pd.concat(tables).reindex(columns=PREDICTIONS_COLUMNS)


def _rank(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TaskData,
    prompts: Sequence[Prompt],
    options: Options,
    progress: Callable[[int], object],
) -> list[dict[str, Any]]:
    """Rank each example's options by likelihood; return `metrics.judge_ranking`'s."""
    requests = [(prompt.text, list(prompt.continuations)) for prompt in prompts]
    alone = [("", list(prompt.continuations)) for prompt in prompts]
    budget = options.token_budget or None
    score = partial(loglikelihoods, model, tokenizer, token_budget=budget)
    nats = score(requests, progress=progress)
    unconditional = score(alone)
    given = zip(data.test, nats, unconditional, strict=True)
    return [metrics.judge_ranking(*each) | {"cut_off": False} for each in given]


def _write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: TaskData,
    prompts: Sequence[Prompt],
    options: Options,
    progress: Callable[[int], object],
) -> list[dict[str, Any]]:
    """Let the model write each answer, up to a line end; return `judge_text`'s."""
    written = generate(
        model,
        tokenizer,
        [prompt.text for prompt in prompts],
        max_new_tokens=new_tokens(model, tokenizer, data, options),
        token_budget=options.token_budget or None,
        progress=progress,
    )
    no_answer = wording(data.task, data.language, options.prompt_language)["none"]
    judge = partial(metrics.judge_text, data.task, data.language, no_answer)
    answers = zip(data.test, written, strict=True)
    return [
        judge(example, answer.text, answer.finished) | {"cut_off": not answer.finished}
        for example, answer in answers
    ]
