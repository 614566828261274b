"""What a model is asked, and how its answer is read.

The words stand in `prompts.yaml`. A prompt never ends in a blank: the blank before the
answer belongs to the continuation, so that both are tokenised together as one text.

Choice tasks have two forms. "likelihood" ranks the option texts, also where options
have letters: a base model that was never taught the letters can still rank answers.
"generate" lists the options, and the model must write one's label or text and nothing
else. What it scores less than the first is the price of not knowing the format.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from maple_utils.languages import LANGUAGES
from maple_utils.tasks import Example, Task, TaskData


@dataclass(frozen=True)
class Prompt:
    """A prompt, what may follow it, and how many shots it really holds."""

    text: str
    continuations: tuple[str, ...]  # the options, where they are ranked; else none
    shots: int
    is_cut: bool = False  # the context was too long even without shots


@cache
def all_words() -> dict[str, Any]:
    """Return the words of all prompts by language, as `prompts.yaml` has them."""
    file = Path(__file__).with_name("prompts.yaml")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def wording(task: Task, language: str, prompt_language: str = "en") -> dict[str, Any]:
    """Return a task's words: instruction, item, cue, pick, none (and asks).

    `prompt_language` is "en", or "own": the example's own where it has a translation.
    """
    spoken = {"en": ["en"], "own": [language, LANGUAGES[language].base, "en"]}
    for code in spoken[prompt_language]:
        words = all_words().get(code, {"tasks": {}})
        if task.words in words["tasks"]:
            common = {"pick": words["pick"], "none": words["none"]}
            return common | words["tasks"][task.words]
    raise KeyError(f"prompts.yaml has no English words for {task.words}")


@dataclass(frozen=True)
class Form:
    """How the examples of one task and language are asked."""

    task: Task
    words: Mapping[str, Any]
    template: str  # "plain", or "instruction": the template of the training data
    scoring: str  # "likelihood" or "generate"

    @property
    def is_listed(self) -> bool:
        """Say whether the prompt lists the options with their labels."""
        return self.scoring == "generate" and bool(self.task.labels)


def form_of(
    data: TaskData, scoring: str, template: str = "plain", prompt_language: str = "en"
) -> Form:
    """Return how to ask the examples of `data`."""
    words = wording(data.task, data.language, prompt_language)
    return Form(data.task, words, template, scoring)


def instruction(form: Form) -> str:
    """Return what to do, in one or two sentences."""
    text = form.words["instruction"].format(none=form.words["none"])
    if form.is_listed:
        text += " " + form.words["pick"].format(labels="/".join(form.task.labels))
    return text


def item(form: Form, example: Example) -> str:
    """Return one example without its answer, with its options where they are listed."""
    asks = form.words.get("asks", {})
    text = form.words["item"].format(
        context=one_line(example.context),
        question=asks.get(example.question, one_line(example.question)),
    )
    if form.is_listed:
        for label, option in zip(form.task.labels, example.options, strict=True):
            text += f"\n{label}: {one_line(option)}"
    return text


def answer(form: Form, example: Example) -> str:
    """Return the right answer as a shot shows it."""
    if form.is_listed:
        return form.task.labels[example.label]
    if example.options:
        return one_line(example.options[example.label])
    return one_line(example.references[0]) if example.references else form.words["none"]


def one_line(text: str) -> str:
    """Put a text on one line, as a line end ends an answer."""
    return " ".join(text.split())


def build(form: Form, example: Example, shots: Sequence[Example]) -> Prompt:
    """Return the prompt of one example, with all the given shots."""
    told, cue = instruction(form), form.words["cue"]
    if form.template == "plain":
        blank = " "  # between the cue and an answer
        asked = [f"{item(form, each)}\n{cue}" for each in (*shots, example)]
        start = told + "\n\n"
    else:
        # It needs `datasets`, and 04, which only reads answers, need not wait for that.
        from maple_utils.instructions import prompt_text

        blank = start = ""
        asked = [prompt_text(told, item(form, each)) for each in (*shots, example)]
    for place, shot in enumerate(shots):
        asked[place] += blank + answer(form, shot)
    ranked = example.options if form.scoring == "likelihood" else ()
    continuations = tuple(blank + one_line(option) for option in ranked)
    text = start + "\n\n".join(asked)
    return Prompt(text, continuations, len(shots))


def fit(
    form: Form,
    example: Example,
    shots: Sequence[Example],
    count: Callable[[str], int],
    max_tokens: int,
) -> Prompt:
    """Return the prompt with as many shots as fit, the last ones left out first.

    `count` gives a text's tokens; `max_tokens` is what the model takes less the tokens
    to be generated. Where a prompt does not even fit without shots, the end of its
    context is cut off and `is_cut` set: the model still answers for itself.
    """

    def fits(prompt: Prompt) -> bool:
        longest = max(prompt.continuations, key=len, default="")
        return count(prompt.text + longest) <= max_tokens

    for kept in range(len(shots), -1, -1):
        prompt = build(form, example, shots[:kept])
        if fits(prompt):
            return prompt
    low, high = 0, len(example.context)  # the cut lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        cut = replace(example, context=example.context[:middle])
        low, high = (middle, high) if fits(build(form, cut, ())) else (low, middle)
    cut = replace(example, context=example.context[:low])
    return replace(build(form, cut, ()), is_cut=True)


def parse_choice(text: str, options: Sequence[str], labels: str = "") -> int | None:
    """Return which option a generated answer names, None for a format failure.

    The whole answer must be one option's label, its text, or the line that listed it;
    letter case, a pair of brackets and a final full stop are forgiven, digits may be of
    any script. "1 or 2", "Answer: A" and "A because" name nothing.
    """
    given = _plain(text)
    names = [{_plain(option)} for option in options]
    for name, label, option in zip(names, labels, options, strict=False):
        name |= {_plain(label), _plain(f"{label}: {option}")}
    found = [place for place, name in enumerate(names) if given and given in name]
    return found[0] if len(found) == 1 else None


def _plain(text: str) -> str:
    text = one_line(text).casefold().rstrip(".。．।").strip()
    if re.fullmatch(r"[(\[（].*[)\]）]|.[)）]", text):
        text = text.strip("([（)]）")
    return str(int(text)) if text.isdecimal() else text


def parse_answer(text: str, is_finished: bool, none: str) -> tuple[str, bool]:
    """Return a written answer and whether its format failed.

    The format fails when nothing was written, or when the answer met neither a line end
    nor the end of text within the tokens it had. "" stands for "no answer in the text":
    the model must have written the word `none`; writing nothing does not count as that.
    """
    written = one_line(text)
    if not written:
        return written, True
    if _plain(written.strip("\"'“”")) == _plain(none):
        return "", not is_finished
    return written, not is_finished
