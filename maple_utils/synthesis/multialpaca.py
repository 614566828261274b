"""MultiAlpaca (PolyLM, arXiv 2307.06018): let the teacher write whole tasks."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pandas as pd
import regex

from maple_utils.errors import ParameterError
from maple_utils.instructions.loading import COLUMNS, NO_INPUT
from maple_utils.languages import LANGUAGES
from maple_utils.synthesis import filters
from maple_utils.synthesis.filters import Thresholds
from maple_utils.synthesis.recipes import Job, Synthesis, check_answers, missing, sound
from maple_utils.synthesis.seeds import without_culture
from maple_utils.synthesis.teachers import Answer, hash_of

FIELDS = ("instruction", "input", "output")


PROMPT = """\
Come up with a series of {tasks} different tasks for a text-only language model, in
{language}. The rules:
1. Vary the verbs, and mix questions with imperatives.
2. Cover many types of task: open questions, classification, rewriting, summaries,
   extraction, brainstorming, short stories and others.
3. A model that reads and writes text alone must be able to do each task: no images,
   no sound, no actions in the world.
4. The instructions should be in {language}, and so should input and output. An
   instruction has one or two sentences.
5. The input gives realistic particulars in at most 100 words. Where a task needs no
   input, write <noinput>.
6. The output answers instruction and input in fewer than 200 words.

{shown}
###
Now write tasks {first} to {last} in {language}, in the same format."""

# A label begins a line, and may be a heading or bold, as chat models like it.
_NUMBER, _COLON = r"^[ \t#*]*(?:\d+[ \t]*\.[ \t]*)?", r"[ \t*]*[:：][ \t]*\**"
_ITEM = regex.compile(rf"^[ \t#*]*\d+[ \t]*\.[ \t*]*Instruction{_COLON}", regex.M)
_PARTS = regex.compile(
    rf"(?P<instruction>.*?){_NUMBER}[ \t*]*Input{_COLON}(?P<input>.*?)"
    rf"{_NUMBER}[ \t*]*Output{_COLON}(?P<output>.*)",
    regex.M | regex.S,
)


def prompt_for(language: str, shown: list[dict], tasks: int) -> str:
    """Show some tasks and ask for the rest; the wording is ours, the rules Alpaca's."""
    items = [
        f"{number}. Instruction: {task['instruction']}\n"
        f"{number}. Input: {task['input'] or '<noinput>'}\n"
        f"{number}. Output: {task['output']}"
        for number, task in enumerate(shown, start=1)
    ]
    return PROMPT.format(
        tasks=tasks,
        language=LANGUAGES[language].name,
        shown="\n###\n".join(items),
        first=len(shown) + 1,
        last=tasks,
    )


def parse_tasks(answer: Answer) -> list[dict]:
    """Read numbered items; each has instruction, input, output and reason.

    The reason is "format" where a part is missing or there is no item, "cut off" for a
    last item that the teacher did not finish, else "".
    """
    items = []
    for text in _ITEM.split(answer.text)[1:]:
        parts = _PARTS.match(text)
        item = {"instruction": text, "input": "", "output": ""}
        item |= parts.groupdict() if parts else {}
        item = {key: text.strip().strip("#").strip() for key, text in item.items()}
        if NO_INPUT.fullmatch(item["input"]):
            item["input"] = ""
        items.append({**item, "reason": "" if parts else "format"})
    if not items:
        whole = {"instruction": answer.text.strip(), "input": "", "output": ""}
        refused = answer.finish == "content_filter"
        return [{**whole, "reason": "refusal" if refused else "format"}]
    if answer.finish == "length" or items[-1]["reason"]:
        items[-1]["reason"] = "cut off"
    return items


@dataclass(frozen=True)
class MultiAlpaca:
    """Translate seeds, then let the teacher write tasks in rounds, filtered each time.

    Prompts depend on `seed` and on earlier answers alone, so that a run started again
    asks what it asked before. Numbers are per language; the published ones are the
    defaults. Tasks that lean on culture are left out of the seeds.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    seed: int = 0
    rounds: int = 10
    prompts_first: int = 10
    prompts: int = 100  # per round, after the first
    shown_seeds: int = 2
    shown_pool: int = 1
    tasks: int = 20  # shown and asked for together
    max_tokens: ClassVar[int] = 4096
    mark = staticmethod(without_culture)

    def __post_init__(self):
        if self.shown >= self.tasks:
            raise ParameterError(
                f"tasks_per_prompt: got {self.tasks}, of which {self.shown} are shown; "
                f"allowed: from {self.shown + 1}, or lower shown_seeds or shown_pool"
            )

    @property
    def shown(self) -> int:
        """How many tasks a prompt shows."""
        return self.shown_seeds + self.shown_pool

    @property
    def answer_tokens(self) -> float:
        """How long an answer is expected to be."""
        return 150 * (self.tasks - self.shown)

    def make(self, job: Job) -> Synthesis:
        """Return a row per task that the teacher wrote, in the order of the rounds."""
        shown = {
            code: _own_seeds(job, code, sound(job.translate(FIELDS, code)))
            for code in job.languages
        }
        rows = pd.DataFrame(columns=[*COLUMNS, "finish", "reason"])
        first = ""
        for number in range(self.rounds):
            if not job.session.complete:
                break  # later prompts would not be those of a whole run
            prompts = {
                code: list(self._prompts(code, number, own, _pool(rows, code)))
                for code, own in shown.items()
            }
            answers = job.ask(
                {
                    prompt: code
                    for together in zip(*prompts.values(), strict=True)
                    for code, prompt in zip(prompts, together, strict=True)
                }
            )
            new = _written(prompts, answers, number)
            if number == 0:
                check_answers(new[new["reason"] == ""], job.teacher)
                first = next(iter(answers), "")
            new = self._judged(new, shown, rows)
            rows = pd.concat([rows, new], ignore_index=True)
        return Synthesis(rows, missing(job.session), first)

    def make_some(self, job: Job, count: int) -> Synthesis:
        """Make the tasks of the first `count` prompts, in two rounds at most."""
        first = min(count, self.prompts_first)
        second = min(count - first, self.prompts)
        number = min(self.rounds, 2 if second else 1)
        few = replace(self, rounds=number, prompts_first=first, prompts=second)
        return few.make(job)

    def _prompts(
        self, code: str, number: int, seeds: list[dict], pool: list[dict]
    ) -> Iterator[str]:
        """Draw the tasks to show in a round; seeds stand in for an empty pool."""
        dice = np.random.default_rng([self.seed, number, hash_of(code)])
        from_pool = min(self.shown_pool, len(pool))
        count = min(self.shown - from_pool, len(seeds))
        for _ in range(self.prompts if number else self.prompts_first):
            own = dice.choice(len(seeds), count, replace=False)
            others = dice.choice(len(pool) or 1, from_pool, replace=False)
            shown = [*(seeds[i] for i in own), *(pool[i] for i in others)]
            yield prompt_for(code, shown, self.tasks)

    def _judged(
        self, new: pd.DataFrame, shown: dict[str, list[dict]], rows: pd.DataFrame
    ) -> pd.DataFrame:
        """Filter the new items; near-duplicates against seeds and all kept before."""
        whole = filters.clear_repeated_inputs(new[new["reason"] == ""])
        whole = whole.assign(reason=filters.reasons(whole, self.thresholds))
        for code, part in whole[whole["reason"] == ""].groupby("language"):
            before = [task["instruction"] for task in shown[code] + _pool(rows, code)]
            alike = filters.near_duplicates(
                part["instruction"].tolist(), before, self.thresholds.similarity
            )
            whole.loc[part.index[alike], "reason"] = filters.NEAR_DUPLICATE
        new = new.copy()
        new.loc[whole.index, ["input", "reason"]] = whole[["input", "reason"]]
        return new


def _own_seeds(job: Job, code: str, known: dict[str, Answer]) -> list[dict]:
    """Translate the fields of each seed that do not keep their form."""
    own = []
    for row in job.seeds.to_dict("records"):
        keeps = FIELDS if code == "en" else row.get("keeps_form", ())
        change = [name for name in FIELDS if row[name] and name not in keeps]
        if all(row[name] in known for name in change):
            new = {name: known[row[name]].text.strip() for name in change}
            own.append({name: row[name] for name in FIELDS} | new)
    return own


def _pool(rows: pd.DataFrame, code: str) -> list[dict]:
    kept = rows[(rows["language"] == code) & (rows["reason"] == "")]
    return kept[list(FIELDS)].to_dict("records")


def _written(prompts: dict, answers: dict[str, Answer], number: int) -> pd.DataFrame:
    """Return a row per item of the answers, in the order of the prompts."""
    rows = [
        {"id": f"{code}-{number}-{place}-{i}", "language": code, **item}
        for code, asked in prompts.items()
        for place, prompt in enumerate(asked)
        if prompt in answers
        for i, item in enumerate(parse_tasks(answers[prompt]))
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, "reason"]).assign(finish="stop")
