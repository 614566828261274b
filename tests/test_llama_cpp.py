"""A real llama.cpp server and SmolLM2, which tests/llama_cpp.sh brings.

Its answers are those of the same weights loaded here, and its log-probabilities, which
belong to the next token, are refused.
"""

import os
import socket
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from maple_utils.errors import ParameterError
from maple_utils.evaluation import Options, ask, evaluate, load
from maple_utils.params import Cell
from maple_utils.scoring import loglikelihoods
from maple_utils.served import connect
from maple_utils.synthesis.requests import Cache, Session
from tests.test_teachers import wait_for

SERVER, GGUF = (os.environ.get(f"MAPLE_{name}") for name in ("LLAMA_CPP", "GGUF"))
NEAR = 0.3  # nats between two answers that rounding may turn
pytestmark = pytest.mark.skipif(
    not SERVER, reason="bash tests/llama_cpp.sh builds the server, in six minutes"
)


@pytest.fixture(scope="module")
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [SERVER, "-m", "llama_cpp.server", "--model", GGUF, "--port", str(port)]
    command += ["--model_alias", "smollm2", "--n_ctx", "2048", "--logits_all", "true"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/v1/models", server)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


def test_it_writes_what_the_weights_write_here_and_is_not_trusted_to_read(
    address, monkeypatch, tmp_path
):
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    monkeypatch.setenv("OPENAI_API_KEY", "any word")
    mine = Session(Cache(tmp_path / "answers.sqlite"), concurrency=1, progress=False)
    with pytest.raises(ParameterError, match="nats from what it was when writing it"):
        connect("smollm2", mine, ["likelihood"])
    served = connect("smollm2", mine, ["generate"])
    assert served[0].server.name == "llama-cpp-python"
    file = Path(GGUF)
    about = {"gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, dtype=torch.float32, **about
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **about)
    cell = Cell("smollm2", "", 0, 16)
    options = Options(shots=4, scoring="generate", test_limit=30)
    asked = (cell, "words", "en", options)
    there, here = evaluate(*served, *asked), evaluate(model, tokenizer, *asked)
    prompts = ask(model, tokenizer, load(*asked[1:3], 0, options), "generate", options)
    answers = zip(prompts, there["prediction"], here["prediction"], strict=True)
    apart = [
        loglikelihoods(model, tokenizer, [(prompt.text, [one, other])])[0]
        for prompt, one, other in answers
        if one.strip() != other.strip()
    ]
    # Both unpack the same 4-bit weights; llama.cpp rounds activations to 8 bits, too.
    assert len(apart) <= 6
    assert all(abs(nats[0] - nats[1]) < NEAR for nats in apart), apart
