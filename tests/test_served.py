"""Served models answer as loaded ones do, and what a server gets wrong is refused."""

import json
import threading
import time
from collections import Counter
from dataclasses import replace
from traceback import format_exception

import numpy as np
import pandas as pd
import pytest
import torch

from maple_utils import evaluation, miniature, served
from maple_utils.errors import ParameterError
from maple_utils.evaluation import Options
from maple_utils.params import Cell
from maple_utils.scoring import generate, loglikelihoods
from maple_utils.synthesis.requests import Cache, Session
from maple_utils.synthesis.teachers import Price, client
from tests.model_server import answer, loaded, serve

CELL = Cell("miniature-llama", "", 0, 16)
OPTIONS = Options(hub_root=miniature.hub(), test_limit=4, shots=1)
OPTIONS = replace(OPTIONS, allow_other_counts=True)
REQUESTS = [
    ("Kenya is a country in", [" Africa", " Europe and Asia"]),
    ("The capital of France is", [" Paris", " London"]),
]


def session(folder, **changes) -> Session:
    changes = {"first_wait": 0.01, "progress": False} | changes
    return Session(Cache(folder / "answers.sqlite"), **changes)


def connect(folder, scorings=("generate", "likelihood"), **changes):
    return served.connect("miniature-llama", session(folder, **changes), scorings)


def test_what_a_server_reads_and_writes_is_what_the_model_does(monkeypatch, tmp_path):
    with serve(monkeypatch):
        model, count = connect(tmp_path)
        there = loglikelihoods(model, count, REQUESTS)
        prompts = [context for context, _ in REQUESTS]
        wrote = generate(model, count, prompts, max_new_tokens=8)
    here = loglikelihoods(*loaded("miniature-llama"), REQUESTS)
    for one, other in zip(there, here, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    own = generate(*loaded("miniature-llama"), prompts, max_new_tokens=8)
    assert [(a.text, a.finished) for a in wrote] == [(a.text, a.finished) for a in own]
    assert model.server.name == "vLLM"


def test_a_task_gets_the_same_table(monkeypatch, tmp_path):
    with serve(monkeypatch):
        model, count = connect(tmp_path)
        costs = evaluation.costs(model, count, [("xcopa", "sw")], OPTIONS)
        there = evaluation.evaluate(model, count, CELL, "xcopa", "sw", OPTIONS)
    here = evaluation.evaluate(*loaded("miniature-llama"), CELL, "xcopa", "sw", OPTIONS)
    pd.testing.assert_frame_equal(there, here)
    # Four questions are written; four contexts are read, and eight options in them and
    # alone, where some may be the same.
    assert 20 < costs.loc["xcopa", "calls"] <= 4 + 4 + 8 + 8
    assert costs.loc["xcopa", "prompt_tokens"] > 100


def after_itself(prompt: str, count: int) -> list[float]:
    """Return what llama-cpp-python does: a token's probability after that token."""
    model, tokenizer = loaded("miniature-llama")
    tokens = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        nats = model(tokens).logits[0].log_softmax(-1)
    own = nats.gather(1, tokens[0][:, None])[:, 0].tolist()
    return (own + own[-1:])[:count]


def broken(kind: str):
    """Return a server whose log-probabilities are of no use."""

    def reply(path: str, body: dict) -> tuple[int, str]:
        status, text = answer(path, body)
        if path == "/v1/models" or status != 200:
            return status, text
        told = json.loads(text)
        nats = told["choices"][0]["logprobs"]
        if kind == "missing":
            told["choices"][0]["logprobs"] = None
        elif nats and body.get("echo"):
            nats["token_logprobs"] = after_itself(body["prompt"], len(nats["tokens"]))
        return 200, json.dumps(told)

    return reply


@pytest.mark.parametrize(
    ("kind", "told"),
    [("missing", "returns no log-prob"), ("shifted", "nats from what")],
)
def test_log_probabilities_are_checked_before_they_are_trusted(
    kind, told, monkeypatch, tmp_path
):
    with serve(monkeypatch, broken(kind)):
        with pytest.raises(ParameterError, match=told) as error:
            connect(tmp_path)
        assert str(error.value).startswith("scoring: got likelihood")
        assert "-p scoring generate" in str(error.value)
        model, count = connect(tmp_path, ["generate"])
        assert generate(model, count, ["Kenya"], max_new_tokens=2)


def chats_alone(path: str, body: dict) -> tuple[int, str]:
    """Answer as OpenAI does: chats, by other names."""
    if path == "/v1/models":
        listed = [{"id": "miniature-llama", "object": "model", "owned_by": "system"}]
        return 200, json.dumps({"object": "list", "data": listed})
    if path != "/v1/chat/completions":
        return 404, "{}"
    assert "max_tokens" not in body
    body["max_tokens"] = body["max_completion_tokens"]
    body["prompt"] = body["messages"][0]["content"]
    status, text = answer("/v1/completions", body)
    told = json.loads(text)
    choice = told["choices"][0]
    choice["message"] = {"role": "assistant", "content": choice.pop("text")}
    return status, json.dumps(told | {"object": "chat.completion"})


def test_where_there_are_chats_alone_answers_are_written_and_not_ranked(
    monkeypatch, tmp_path
):
    with serve(monkeypatch, chats_alone):
        model, count = connect(tmp_path, ["generate"])
        [said] = generate(model, count, ["Kenya is a"], max_new_tokens=3)
        with pytest.raises(ParameterError, match="as a chat alone"):
            connect(tmp_path)
    [own] = generate(*loaded("miniature-llama"), ["Kenya is a"], max_new_tokens=3)
    assert said.text == own.text


class Faults:
    """A server that fails each request at first, in turns of four kinds."""

    def __init__(self):
        self.seen, self.answered = Counter(), Counter()
        self.lock = threading.Lock()

    def __call__(self, path: str, body: dict) -> tuple[int, str]:
        if path == "/v1/models":
            return answer(path, body)
        key = json.dumps(body, sort_keys=True)
        with self.lock:
            first, kind = not self.seen[key], len(self.seen) % 4
            self.seen[key] += 1
            whole = answer(path, body)
        if not first:
            self.answered[key] += 1
            return whole
        if kind == 3:
            time.sleep(6)  # longer than the client waits
        return [(429, "{}"), (500, "oops"), (200, whole[1][:99]), (503, "")][kind]


def test_a_faulty_server_loses_nothing_and_is_asked_nothing_twice(
    monkeypatch, tmp_path
):
    faults = Faults()
    with serve(monkeypatch, faults):
        model, count = connect(tmp_path)
        model = replace(model, asked=client("miniature-llama", timeout=4.0))
        there = evaluation.evaluate(model, count, CELL, "xcopa", "sw", OPTIONS)
        once = faults.answered.copy()
        again, count = connect(tmp_path)
        evaluation.evaluate(again, count, CELL, "xcopa", "sw", OPTIONS)
    here = evaluation.evaluate(*loaded("miniature-llama"), CELL, "xcopa", "sw", OPTIONS)
    pd.testing.assert_frame_equal(there, here)
    assert {"429", "500", "malformed", "time-out"} <= set(model.session.retries)
    assert set(once.values()) == {1}
    assert faults.answered == once
    assert again.session.asked == 0
    assert b"sk-secret" not in (tmp_path / "answers.sqlite").read_bytes()


def test_a_budget_ends_the_run_in_one_line_and_keeps_what_was_answered(
    monkeypatch, tmp_path
):
    with serve(monkeypatch):
        model, count = connect(tmp_path, budget_tokens=900, tries=1, concurrency=1)
        with pytest.raises(ParameterError, match="budget_tokens 900") as error:
            evaluation.evaluate(model, count, CELL, "xcopa", "sw", OPTIONS)
        assert "\n" not in str(error.value)
        spent = model.session.prompt_tokens + model.session.completion_tokens
        assert 0 < spent <= 900
        more, count = connect(tmp_path)
        evaluation.evaluate(more, count, CELL, "xcopa", "sw", OPTIONS)
    assert 0 < more.session.asked < 24


def test_what_is_not_there_is_one_line_without_the_key(monkeypatch, tmp_path):
    there = pytest.raises(ParameterError, match="allowed: what the server has, mini")
    with serve(monkeypatch), there:
        served.connect("gpt-5", session(tmp_path), ["generate"])
    with serve(monkeypatch, lambda path, body: (401, '{"error": "sk-secret"}')):
        with pytest.raises(ParameterError, match="does not list its models") as error:
            connect(tmp_path)
        assert "sk-secret" not in "".join(format_exception(error.value))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ParameterError, match="base_model: .* OPENAI_API_KEY"):
        connect(tmp_path)


def test_money_is_counted_by_the_servers_own_figures(monkeypatch, tmp_path):
    with serve(monkeypatch):
        mine = session(tmp_path)
        model, count = served.connect(
            "miniature-llama", mine, ["generate"], Price(1e6, 1e6)
        )
        before = mine.dollars
        [said] = generate(model, count, ["Kenya is a"], max_new_tokens=3)
    tokens = len(loaded("miniature-llama")[1]("Kenya is a")["input_ids"])
    assert mine.dollars - before == tokens + said.n_tokens
    assert served.spent(model)["dollars"] == mine.dollars


def test_a_prompt_that_is_too_long_is_wrong_or_named(monkeypatch, tmp_path):
    long = "word " * 3000
    with serve(monkeypatch):
        model, count = connect(tmp_path)
        _, said = generate(model, count, ["Kenya", long], max_new_tokens=3)
        with pytest.raises(ParameterError, match="shots: the server refuses 'word"):
            loglikelihoods(model, count, [(long, [" a"])])
    assert (said.text, said.finished) == ("", True)


def test_without_a_begin_token_the_options_alone_are_not_known(monkeypatch, tmp_path):
    def bare(path: str, body: dict) -> tuple[int, str]:
        status, text = answer(path, body)
        told = json.loads(text)
        if path == "/v1/completions" and body.get("echo"):
            nats = told["choices"][0]["logprobs"]
            nats["tokens"] = nats["tokens"][1:]
            nats["token_logprobs"] = [None, *nats["token_logprobs"][2:]]
            told["usage"]["prompt_tokens"] -= 1
        return status, json.dumps(told)

    with serve(monkeypatch, bare):
        model, count = connect(tmp_path)
        alone = loglikelihoods(model, count, [("", [" Africa"])])
        assert np.isnan(alone[0]).all()
        table = evaluation.evaluate(model, count, CELL, "xcopa", "sw", OPTIONS)
    ranked = table[table["scoring"] == "likelihood"]
    assert ranked["accuracy"].notna().all()
    assert ranked["accuracy_mutual_info"].isna().all()
