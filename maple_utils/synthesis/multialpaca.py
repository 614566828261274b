"""MultiAlpaca (PolyLM, arXiv 2307.06018): let the teacher write whole tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import regex

from maple_utils.errors import ParameterError
from maple_utils.instructions import COLUMNS
from maple_utils.languages import LANGUAGES
from maple_utils.synthesis import asking, filters
from maple_utils.synthesis.asking import Request, Session, ask_all
from maple_utils.synthesis.filters import Settings
from maple_utils.synthesis.made import (
    Made,
    check_answers,
    estimate_translation,
    included,
    missing,
    sound,
    texts_of,
)
from maple_utils.synthesis.teachers import Answer, Teacher, Translator, hash_of

FIELDS = ("instruction", "input", "output")


@dataclass(frozen=True)
class Rounds:
    """How MultiAlpaca asks, per language; the published numbers are the defaults."""

    rounds: int = 10
    prompts_first: int = 10
    prompts: int = 100  # per round, after the first
    shown_seeds: int = 2
    shown_pool: int = 1
    tasks: int = 20  # shown and asked for together

    def __post_init__(self):
        shown = self.shown_seeds + self.shown_pool
        if shown >= self.tasks:
            raise ParameterError(
                f"tasks_per_prompt: got {self.tasks}, of which {shown} are shown; "
                f"allowed: from {shown + 1}, or lower shown_seeds or shown_pool"
            )

    def in_round(self, number: int) -> int:
        """Return how many prompts round `number` (from 0) has."""
        return self.prompts if number else self.prompts_first


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


def prompt_for(language: str, shown: list[dict], tasks: int = 20) -> str:
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
    heads = list(_ITEM.finditer(answer.text))
    ends = [*(head.start() for head in heads[1:]), len(answer.text)]
    items = []
    for head, end in zip(heads, ends, strict=False):
        text = answer.text[head.end() : end]
        parts = _PARTS.match(text)
        item = {"instruction": text, "input": "", "output": ""}
        item |= parts.groupdict() if parts else {}
        item = {key: text.strip().strip("#").strip() for key, text in item.items()}
        if regex.fullmatch(r"<?\s*no\s*input\s*>?", item["input"], regex.IGNORECASE):
            item["input"] = ""
        items.append({**item, "reason": "" if parts else "format"})
    if not items:
        whole = {"instruction": answer.text.strip(), "input": "", "output": ""}
        refused = answer.finish == "content_filter"
        return [{**whole, "reason": "refusal" if refused else "format"}]
    if answer.finish == "length" or items[-1]["reason"]:
        items[-1]["reason"] = "cut off"
    return items


def make(
    seeds: pd.DataFrame,
    languages: Sequence[str],
    teacher: Teacher,
    translator: Translator,
    session: Session,
    settings: Settings,
    rounds: Rounds,
    seed: int = 0,
) -> Made:
    """Translate seeds, then let the teacher write tasks in rounds, filtered each time.

    `seeds` has id, instruction, input and output (`seeds.without_culture` marks what is
    left out and which fields keep their form). Prompts depend on `seed` and on earlier
    answers alone, so that a run started again asks what it asked before.
    """
    seeds = included(seeds, languages)
    shown = {c: _own_seeds(seeds, c, translator, session) for c in languages}
    rows = pd.DataFrame(columns=[*COLUMNS, "finish", "reason"])
    for number in range(rounds.rounds):
        if not session.complete:  # later prompts would not be those of a whole run
            break
        pools = {code: _pool(rows, code) for code in languages}
        prompts = {
            code: _round_prompts(code, number, shown[code], pools[code], rounds, seed)
            for code in languages
        }
        requests = [
            Request(code, prompt)
            for together in zip(*prompts.values(), strict=True)
            for code, prompt in zip(languages, together, strict=True)
        ]
        answers = ask_all(session, teacher, requests)
        new = _written(prompts, answers, number)
        if number == 0:
            check_answers(new[new["reason"] == ""], teacher, settings)
        rows = pd.concat([rows, _judged(new, shown, rows, settings)], ignore_index=True)
    return Made(rows, missing(session))


def estimate(
    seeds: pd.DataFrame,
    languages: Sequence[str],
    teacher: Teacher,
    translator: Translator,
    session: Session,
    rounds: Rounds,
) -> pd.DataFrame:
    """Estimate calls, tokens, dollars and minutes before anything is asked.

    Prompts with English seeds stand in for the real ones. It is the most that can be
    asked: the real prompts depend on earlier answers, so the cache is not seen.
    """
    seeds = included(seeds, languages)
    texts = texts_of(seeds, FIELDS)
    tables = estimate_translation(texts, languages, translator, session)
    shown = seeds.to_dict("records")[:3]
    calls = sum(rounds.in_round(number) for number in range(rounds.rounds))
    requests = [
        Request(code, f"{prompt_for(code, shown, rounds.tasks)}{number}")
        for code in languages
        for number in range(calls)
    ]
    asked_for = rounds.tasks - rounds.shown_seeds - rounds.shown_pool
    tokens = min(150 * asked_for, teacher.decoding.get("max_tokens", np.inf))
    table = asking.estimate(session, teacher, requests, answer_tokens=tokens)
    return pd.concat([*tables, table.assign(step="write")], ignore_index=True)


def _own_seeds(seeds, code: str, translator, session: Session) -> list[dict]:
    """Translate the fields of each seed that do not keep their form."""
    kept = seeds.get("keeps_form", pd.Series([()] * len(seeds), index=seeds.index))
    known: dict[str, Answer] = {}
    if code != "en":
        requests = [Request(code, text) for text in texts_of(seeds, FIELDS)]
        known = sound(ask_all(session, translator("en", code), requests))
    own = []
    for row, keeps in zip(seeds.to_dict("records"), kept, strict=True):
        change = [field for field in FIELDS if row[field] and field not in keeps]
        if code == "en" or all(row[field] in known for field in change):
            new = {field: known[row[field]].text.strip() for field in change if known}
            own.append({field: row[field] for field in FIELDS} | new)
    return own


def _pool(rows: pd.DataFrame, code: str) -> list[dict]:
    kept = rows[(rows["language"] == code) & (rows["reason"] == "")]
    return kept[["instruction", "input", "output"]].to_dict("records")


def _round_prompts(code, number, seeds, pool, rounds: Rounds, seed: int) -> list[str]:
    """Draw the shown tasks of one language and round; seeds stand in for no pool."""
    dice = np.random.default_rng([seed, number, hash_of(code)])
    prompts = []
    for _ in range(rounds.in_round(number)):
        from_pool = min(rounds.shown_pool, len(pool))
        count = min(rounds.shown_seeds + rounds.shown_pool - from_pool, len(seeds))
        picked = [seeds[i] for i in dice.choice(len(seeds), count, replace=False)]
        picked += [
            pool[i] for i in dice.choice(len(pool) or 1, from_pool, replace=False)
        ]
        prompts.append(prompt_for(code, picked, rounds.tasks))
    return prompts


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


def _judged(new, shown, rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Filter the new items; near-duplicates against seeds and all kept before."""
    whole = filters.clear_repeated_inputs(new[new["reason"] == ""])
    whole = whole.assign(reason=filters.reasons(whole, settings))
    sound = whole[whole["reason"] == ""]
    before = {
        code: [task["instruction"] for task in [*own, *_pool(rows, code)]]
        for code, own in shown.items()
    }
    new = new.copy()
    new.loc[whole.index, ["input", "reason"]] = whole[["input", "reason"]]
    new.loc[sound.index, "reason"] = filters.similar(sound, before, settings)
    return new
