"""A model behind OpenAI's API on loopback, with log-probabilities of prompts.

It answers as vLLM does. Faults can be ordered: they are what `reply` is wrapped in.
"""

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from peft import PeftModel

from maple_utils import models
from tests.loopback import serve_all

LOADING = threading.Lock()  # two models loaded at once would disturb each other
Reply = Callable[[str, dict], tuple[int, str]]


@cache
def loaded(name: str, adapter: Path | None = None) -> tuple:
    """Load a base model, or an adapter over it, once."""
    model, tokenizer = models.load(name, 16, torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    return model, tokenizer


def answer(
    path: str, body: dict, adapters: Mapping[str, Path] = MappingProxyType({})
) -> tuple[int, str]:
    """Answer a request to `miniature-llama` or an adapter, as vLLM would."""
    if path == "/v1/models":
        names = ["miniature-llama", *adapters]
        listed = [{"id": name, "object": "model", "owned_by": "vllm"} for name in names]
        return 200, json.dumps({"object": "list", "data": listed})
    if path != "/v1/completions":
        return 404, "{}"
    with LOADING:
        model, tokenizer = loaded("miniature-llama", adapters.get(body["model"]))
    asked = tokenizer(body["prompt"])["input_ids"]
    if len(asked) > model.config.max_position_embeddings:
        return 400, '{"error": {"message": "too long"}}'
    written, finish = _write(model, tokenizer, asked, body)
    text = tokenizer.decode(written).split((body.get("stop") or ["\0"])[0])[0]
    kept = asked + written if body.get("echo") else written
    choice = {"index": 0, "finish_reason": finish, "text": text, "logprobs": None}
    if body.get("logprobs") is not None:
        choice["logprobs"] = _logprobs(model, tokenizer, asked + written, len(kept))
    count = {"prompt_tokens": len(asked), "completion_tokens": len(written)}
    usage = {**count, "total_tokens": len(asked) + len(written)}
    head = {"id": "1", "object": "text_completion", "created": 0, "model": "m"}
    return 200, json.dumps({**head, "choices": [choice], "usage": usage})


def _write(model, tokenizer, asked: list[int], body: dict) -> tuple[list[int], str]:
    """Return tokens written greedily up to the stop, and why they ended."""
    written: list[int] = []
    stop = (body.get("stop") or ["\0"])[0]
    while len(written) < body["max_tokens"]:
        with torch.inference_mode():
            logits = model(torch.tensor([asked + written])).logits
        token = int(logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            return written, "stop"
        if stop in tokenizer.decode([*written, token]):
            return written, "stop"
        written.append(token)
    return written, "length"


def _logprobs(model, tokenizer, tokens: list[int], kept: int) -> dict:
    """Return the log-probabilities of the last `kept` tokens; of a first one, none."""
    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    nats = [
        None,
        *logits[:-1].gather(1, torch.tensor(tokens[1:])[:, None])[:, 0].tolist(),
    ]
    names = [tokenizer.decode([token]) for token in tokens]
    return {"tokens": names[-kept:], "token_logprobs": nats[-kept:]}


def serve(
    monkeypatch: pytest.MonkeyPatch, reply: Reply = answer
) -> AbstractContextManager[None]:
    """Answer on loopback by `reply(path, body)`; set the environment."""
    return serve_all(monkeypatch, reply)
