"""Teachers that are real: a model here, a translator here, a server on loopback."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    M2M100Config,
    M2M100ForConditionalGeneration,
    NllbTokenizer,
)

from maple_utils import miniature, models
from maple_utils.errors import ParameterError
from maple_utils.evaluation import Options, evaluate
from maple_utils.languages import LANGUAGES
from maple_utils.params import Cell
from maple_utils.served import connect
from maple_utils.synthesis import seeds
from maple_utils.synthesis.multialpaca import MultiAlpaca
from maple_utils.synthesis.opening import local, nllb
from maple_utils.synthesis.recipes import Job
from maple_utils.synthesis.requests import Cache, Session, ask_all
from maple_utils.synthesis.teachers import (
    Price,
    Teacher,
    endpoint,
    hash_of,
    plain_translator,
    prompted_translator,
)

SOURCE = models.source("miniature-llama")
GREEDY = {"temperature": 0.0, "top_p": 1.0, "max_tokens": 12}
PROMPTS = ["### Instruction:\nName a country.\n\n### Response:\n", "Kenya: "]


def test_a_local_model_answers_in_batches_as_it_does_alone():
    teacher = local(SOURCE, GREEDY)
    tokenizer = AutoTokenizer.from_pretrained(SOURCE)
    model = AutoModelForCausalLM.from_pretrained(SOURCE, dtype="auto")
    for prompt, answer in zip(PROMPTS, teacher.answer(PROMPTS), strict=True):
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0]
        new = ids[inputs["input_ids"].shape[1] :].tolist()
        ended = tokenizer.eos_token_id in new
        assert answer.text == tokenizer.decode(new, skip_special_tokens=True).strip()
        assert answer.finish == ("stop" if ended else "length")
        assert answer.completion_tokens == len(new) - ended
        assert answer.prompt_tokens == inputs["input_ids"].shape[1]


@pytest.fixture(scope="module")
def nllb_folder(tmp_path_factory) -> Path:
    """A model in the shape of NLLB-200, with random weights and few words."""
    folder = tmp_path_factory.mktemp("nllb")
    words = ["<s>", "<pad>", "</s>", "<unk>", "▁", "h", "e", "l", "o", "▁h"]
    vocab = {word: number for number, word in enumerate(words)}
    tokenizer = NllbTokenizer(vocab=vocab, merges=[("▁", "h")])
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16}
    inner = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    torch.manual_seed(0)
    config = M2M100Config(vocab_size=len(tokenizer), **heads, **layers, **inner)
    M2M100ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_nllb_knows_all_languages_of_the_table_but_not_by_the_same_token(nllb_folder):
    tokenizer = AutoTokenizer.from_pretrained(nllb_folder)
    codes = [language.flores for language in LANGUAGES.values()]
    tokens = tokenizer.convert_tokens_to_ids(codes)
    assert tokenizer.unk_token_id not in tokens
    assert len(set(tokens)) == len(set(codes))


def test_nllb_is_told_source_and_target(nllb_folder):
    into_swahili = nllb(str(nllb_folder), max_tokens=6)("en", "sw")
    answers = into_swahili.answer(["hello", "he"])
    tokenizer = AutoTokenizer.from_pretrained(nllb_folder, src_lang="eng_Latn")
    model = M2M100ForConditionalGeneration.from_pretrained(nllb_folder)
    inputs = tokenizer(["hello", "he"], return_tensors="pt", padding=True)
    target = tokenizer.convert_tokens_to_ids("swh_Latn")
    assert inputs["input_ids"][0, 0] == tokenizer.convert_tokens_to_ids("eng_Latn")
    ids = model.generate(**inputs, forced_bos_token_id=target, max_new_tokens=6)
    written = tokenizer.batch_decode(ids, skip_special_tokens=True)
    assert [answer.text for answer in answers] == [text.strip() for text in written]
    assert {answer.finish for answer in answers} <= {"stop", "length"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Yield the address of `transformers serve`, and a chat model that it can load."""
    folder = tmp_path_factory.mktemp("served") / "chat"
    tokenizer = AutoTokenizer.from_pretrained(SOURCE)
    tokenizer.chat_template = "<s>{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(SOURCE).save_pretrained(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}/v1", str(folder)
        finally:
            server.terminate()


def wait_for(address: str, server: subprocess.Popen) -> None:
    for _ in range(120):
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(1)
    pytest.fail("the server did not start within two minutes")


def test_a_real_openai_compatible_server_answers_as_the_model_itself(
    served, monkeypatch
):
    address, folder = served
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    monkeypatch.setenv("OPENAI_API_KEY", "any word")
    there = endpoint(folder, GREEDY).answer(PROMPTS)
    here = local(folder, GREEDY).answer(PROMPTS)
    assert [answer.text.strip() for answer in there] == [a.text for a in here]
    assert all(answer.completion_tokens > 0 for answer in there)


def test_it_evaluates_as_the_model_itself_and_is_refused_for_likelihood(
    served, monkeypatch, tmp_path
):
    address, folder = served
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    monkeypatch.setenv("OPENAI_API_KEY", "any word")
    mine = Session(Cache(tmp_path / "answers.sqlite"), progress=False)
    with pytest.raises(ParameterError, match="no log-probabilities of a prompt"):
        connect(folder, mine, ["likelihood"])
    model, count = connect(folder, mine, ["generate"])
    assert model.server.api == "completions"
    cell = Cell("miniature-llama", "", 0, 16)
    options = Options(miniature.hub(), 1, test_limit=6, allow_other_counts=True)
    asked = (cell, "xquad", "en", options)
    there = evaluate(model, count, *asked).set_index("example")
    here = evaluate(*models.load(folder, 16, torch.float32), *asked)
    here = here.set_index("example")
    ended = here.index[~here["cut_off"].astype(bool)]
    assert len(ended) > 2
    wrote, own = (t.loc[ended, "prediction"].str.strip() for t in (there, here))
    assert wrote.tolist() == own.tolist()
    assert there["bits"].eq(16).all()


def numbered(prompts: list[str]) -> list[str]:
    """Write two tasks a prompt: one that is new, and one that every prompt gets."""
    answers = []
    for prompt in prompts:
        mark = hash_of(prompt) % 10**6
        words = " ".join(f"{chr(97 + int(digit))}word{digit}" for digit in str(mark))
        items = [f"Describe {words} to a child.", "Name three colours of the rainbow."]
        answers.append(
            "\n###\n".join(
                f"{n}. Instruction: {text}\n{n}. Input: <noinput>\n{n}. Output: "
                "This is an answer in plain English, long enough to be recognised."
                for n, text in enumerate(items, start=4)
            )
        )
    return answers


def test_multialpaca_asks_in_rounds_and_keeps_nothing_twice(tmp_path):
    rows = [
        {"id": f"s{i}", "instruction": text, "input": "", "output": "Yes."}
        for i, text in enumerate(["Write a poem.", "Sort a list.", "Explain the moon."])
    ]
    seen: list[str] = []

    def teach(prompts: list[str]) -> list[str]:
        seen.extend(prompts)
        return numbered(prompts)

    job = Job(
        seeds.checked(rows),
        ["en"],
        Teacher("numbered", teach),
        plain_translator("none", lambda texts, source, target: texts),
        Session(Cache(tmp_path / "answers.sqlite"), progress=False),
    )
    recipe = MultiAlpaca(rounds=3, prompts_first=2, prompts=4)
    made = recipe.make(job)
    assert not made.missing
    assert len(seen) == len(set(seen)) == 2 + 4 + 4
    assert len(made.rows) == 2 * len(seen)
    colours = made.rows["instruction"].str.startswith("Name three")
    reasons = made.rows.loc[colours, "reason"].tolist()
    assert reasons.count("") == 1
    assert set(reasons[1:]) == {"near-duplicate"}
    # From the second round on, a task of the pool stands among those shown.
    pool = made.rows.loc[:3].query("reason == ''")["instruction"]
    assert all(any(text in prompt for text in pool) for prompt in seen[2:6])
    assert all(re.search(r"3\. Instruction", prompt) for prompt in seen)


def test_a_chat_model_translates_by_prompt_and_each_pair_is_kept_apart(tmp_path):
    asked = []

    def chat(prompts: list[str]) -> list[str]:
        asked.extend(prompts)
        return [f"<{prompt.splitlines()[-1]}>" for prompt in prompts]

    teacher = Teacher("chat", chat, {"max_tokens": 9}, price=Price(1, 2))
    translator = prompted_translator(teacher)
    kept = Session(Cache(tmp_path / "answers.sqlite"), progress=False)
    requests = {"Good morning.": "sw", "Good night.": "sw"}
    for _ in range(2):  # the second time from the cache
        for target in ("sw", "fr"):
            into = translator("en", target)
            assert (into.name, into.price) == ("chat", teacher.price)
            answers = ask_all(kept, into, requests)
            assert answers["Good night."].text == "<Good night.>"
    assert len(asked) == 4
    assert "from English into Swahili" in asked[0]
    assert "from English into French" in asked[2]
    assert asked[0].endswith("\n\nGood morning.")
