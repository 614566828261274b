"""A served model as the one who is evaluated: connected, and what it will cost."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pandas as pd

from maple_utils import served
from maple_utils.evaluation.answers import Options, ask, load, new_tokens
from maple_utils.evaluation.subjects import Subject, weights
from maple_utils.served.asking import costs as costs_of
from maple_utils.served.servers import Served
from maple_utils.synthesis.requests import Cache, Session
from maple_utils.synthesis.teachers import Price
from maple_utils.tasks import TASKS


def connect(
    run: SimpleNamespace,
    everyone: Sequence[Subject],
    pairs: Sequence[tuple[str, str]],
) -> tuple[Served, Callable]:
    """Return the served model that 03's parameters name, and what counts its tokens.

    Its answers are kept beside the runs, in `answers.sqlite`, for good. Raises
    ParameterError as `served.connect` does.
    """
    name = served.name_of(run.base_model)
    cache = Cache(everyone[0].output.parent / "answers.sqlite")
    budget = (run.budget_dollars, run.budget_tokens)
    session = Session(cache, *budget, concurrency=run.concurrency, progress=False)
    asked = Options.of(vars(run))
    scorings = {way for task, _ in pairs for way in asked.scorings(TASKS[task])}
    marks = {s.key: " ".join(weights(s)) for s in everyone if s.key}
    price = Price(run.price_in, run.price_out)
    return served.connect(name, session, sorted(scorings), price, marks)


def costs(
    model: Served,
    tokenizer: Callable,
    pairs: Sequence[tuple[str, str]],
    options: Options,
) -> pd.DataFrame:
    """Return what one served model would be asked, and what that takes, by task.

    Columns as `served.asking.costs` has them.
    """
    asked = []
    for task, language in pairs:
        data = load(task, language, options)
        for scoring in options.scorings(data.task):
            prompts = ask(model, tokenizer, data, scoring, options)
            texts = [prompt.text for prompt in prompts]
            for prompt in prompts:
                alone = prompt.continuations
                texts += [*alone, *(prompt.text + option for option in alone)]
            teacher = model.reader()
            if scoring == "generate":
                teacher = model.writer(new_tokens(model, tokenizer, data, options))
            asked.append((task, teacher, texts))
    return costs_of(model, asked)
