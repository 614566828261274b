"""The engine gives the numbers of a plain forward pass, whatever it shares."""

import json
import random
from functools import cache

import numpy as np
import peft
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer, processors
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from maple_utils import models, scoring
from maple_utils.errors import ParameterError
from maple_utils.scoring import forward

FACTS = [
    ("The capital of Kenya is Nairobi.", "What is it?", [" Nairobi", " Mombasa"]),
    ("Mji mkuu wa Kenya ni Nairobi.", "Ni upi?", [" Nairobi", " Mombasa", " Lamu"]),
    ("肯尼亚的首都是内罗毕。", "首都是", ["内罗毕", "蒙巴萨岛"]),
    ("केन्या की राजधानी नैरोबी है।", "कौन सी?", [" नैरोबी", " मोम्बासा"]),
    ("เมืองหลวงของเคนยาคือไนโรบี", "คือ", ["ไนโรบี", "มอมบาซา"]),
    ("عاصمة كينيا هي نيروبي.", "ما هي؟", [" نيروبي", " مومباسا"]),
]
SHAPE = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=13)),
    "gemma": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **SHAPE,
            sliding_window=13,
            tie_word_embeddings=False,  # tied and untrained, it repeats its last token
            query_pre_attn_scalar=16,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        )
    ),
}


def make_tokenizer(*, bos: bool) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the facts, with or without a BOS of its own."""
    tokenizer = ByteLevelBPETokenizer()
    texts = [" ".join([fact, question, *options]) for fact, question, options in FACTS]
    tokenizer.train_from_iterator(texts, 600, special_tokens=["<s>", "</s>"])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer,
        bos_token="<s>" if bos else None,
        eos_token="</s>",
        pad_token="</s>",
    )


def make_model(name: str):
    """Build a small random model whose choices are decided, not tied."""
    torch.manual_seed(0)
    return MODELS[name]().eval()


@pytest.fixture(autouse=True)
def _memory_is_unknown():
    """Forget what memory held in the test before: models are shared."""
    forward.FITTING.clear()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(bos=True)


@pytest.fixture(scope="module")
def llama():
    return make_model("llama")


@pytest.fixture(scope="module")
def requests():
    """Return questions in six languages; each language shares a few-shot prefix."""
    shots = "\n\n".join(f"{fact} {question}{o[0]}" for fact, question, o in FACTS[:3])
    return [
        (f"{prefix}{fact} {question}", options)
        for prefix in (f"{shots}\n\n", "")
        for fact, _, options in FACTS
        for question in ("It?", "Ni upi?", "首都是")
    ]


def encode(tokenizer, context, continuation):
    """Return the tokens of one pair and where they part."""
    [path] = scoring.encode_pairs(tokenizer, [(context, continuation)])
    return path


def plain(model, path) -> float:
    """Return the log-likelihood of a path's targets by one forward pass of its own."""
    tokens = torch.tensor([[*path.tokens, path.targets[-1]]])
    with torch.no_grad():
        logprobs = model(tokens).logits[0, path.start - 1 : -1].float().log_softmax(-1)
    return logprobs.gather(1, torch.tensor(path.targets)[:, None]).sum().item()


def plain_scores(model, tokenizer, requests) -> list[np.ndarray]:
    return [
        np.array([plain(model, encode(tokenizer, c, o)) for o in options])
        for c, options in requests
    ]


@pytest.fixture(scope="module")
def expected(tokenizer, requests):
    """Return a function: a model's name to its plain scores of all requests."""
    return cache(lambda name: plain_scores(make_model(name), tokenizer, requests))


def assert_same(scores, expected, *, within: float) -> None:
    """Compare scores, and the choice of every question."""
    assert [len(s) for s in scores] == [len(e) for e in expected]
    np.testing.assert_allclose(np.hstack(scores), np.hstack(expected), atol=within)
    assert [s.argmax() for s in scores] == [e.argmax() for e in expected]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_a_plain_forward(
    name, attention, tokenizer, requests, expected
):
    model = make_model(name)
    model.set_attn_implementation(attention)
    scores = scoring.loglikelihoods(model, tokenizer, requests)
    assert_same(scores, expected(name), within=1e-4)


def test_an_attention_without_masks_is_set_aside_and_comes_back(
    tokenizer, requests, expected
):
    model = make_model("llama")
    model.set_attn_implementation("flex_attention")
    scores = scoring.loglikelihoods(model, tokenizer, requests)
    assert_same(scores, expected("llama"), within=1e-4)
    assert model.config._attn_implementation == "flex_attention"


@pytest.mark.parametrize("budget", [1, 20, 100, 10_000])
def test_budget_and_order_do_not_change_the_scores(
    budget, tokenizer, requests, expected
):
    model = make_model("mistral")
    order = random.Random(budget).sample(range(len(requests)), len(requests))
    scores = scoring.loglikelihoods(
        model, tokenizer, [requests[i] for i in order], token_budget=budget
    )
    assert_same(scores, [expected("mistral")[i] for i in order], within=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side_of_the_tokenizer_does_not_matter(side, llama, requests):
    tokenizer = make_tokenizer(bos=True)
    tokenizer.padding_side = side
    scores = scoring.loglikelihoods(llama, tokenizer, requests[:4])
    assert_same(scores, plain_scores(llama, tokenizer, requests[:4]), within=1e-4)
    [text] = scoring.generate(llama, tokenizer, ["Mji mkuu"], max_new_tokens=4)
    assert text.text == reference(llama, tokenizer, "Mji mkuu", 4).split("\n")[0]


def count_tokens(model, limit: int | None = None, error: Exception | None = None):
    """Count the tokens of every forward pass; raise `error` for more than `limit`."""
    passes: list[int] = []

    def count(module, args, kwargs):
        size = kwargs["input_ids"].numel()
        if limit is not None and size > limit:
            raise error
        passes.append(size)

    return passes, model.register_forward_pre_hook(count, with_kwargs=True)


def test_every_shared_token_runs_once(llama, tokenizer, requests):
    paths = [
        tuple(encode(tokenizer, context, option).tokens)
        for context, options in requests
        for option in options
    ]
    different = {path[: i + 1] for path in paths for i in range(len(path))}
    passes, hook = count_tokens(llama)
    scoring.loglikelihoods(llama, tokenizer, requests, token_budget=10_000)
    hook.remove()
    assert sum(passes) == len(different) < sum(map(len, paths)) / 5


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_budget(error, llama, tokenizer, requests, expected):
    passes, hook = count_tokens(llama, limit=60, error=error)
    scores = scoring.loglikelihoods(llama, tokenizer, requests, token_budget=800)
    hook.remove()
    assert max(passes) <= 60
    assert_same(scores, expected("llama"), within=1e-4)


@pytest.mark.parametrize("ask", ["score", "write", "write in rows"])
def test_what_memory_holds_is_found_once(ask, llama, tokenizer, requests, request):
    """Each task and language is a call of its own, over the same model."""
    if ask == "write in rows":
        request.getfixturevalue("in_rows")
    refused = []

    def scarce(_, inputs, given):
        if given["input_ids"].numel() > 60:
            refused.append(given["input_ids"].numel())
            raise MemoryError()

    hook = llama.register_forward_pre_hook(scarce, with_kwargs=True)
    prompts = [context for context, _ in requests]
    counts = []
    for _ in range(2):
        if ask == "score":
            scoring.loglikelihoods(llama, tokenizer, requests)
        else:
            scoring.generate(llama, tokenizer, prompts, max_new_tokens=2)
        counts.append(len(refused))
    hook.remove()
    assert counts[0] == counts[1] > 0


def test_other_errors_and_hopeless_memory_are_raised(llama, tokenizer, requests):
    for limit, error in [(60, RuntimeError("a bug")), (0, MemoryError("none at all"))]:
        _, hook = count_tokens(llama, limit, error)
        with pytest.raises(type(error), match=str(error)):
            scoring.loglikelihoods(llama, tokenizer, requests)
        hook.remove()


def test_progress_counts_every_continuation(llama, tokenizer, requests):
    seen: list[int] = []
    scoring.loglikelihoods(
        llama, tokenizer, requests, token_budget=50, progress=seen.append
    )
    assert sum(seen) == sum(len(options) for _, options in requests)
    assert len(seen) > 3


def test_no_requests_no_scores(llama, tokenizer):
    assert scoring.loglikelihoods(llama, tokenizer, []) == []
    assert scoring.generate(llama, tokenizer, [], max_new_tokens=3) == []


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    ("context", "continuation", "scored"),
    [
        ("Mji mkuu ni", " Nairobi", " Nairobi"),
        ("Mji mkuu ni ", "Nairobi", " Nairobi"),
        ("Ni upi?\n", "Nairobi", "\nNairobi"),
        ("Ni upi? \n ", " Lamu", " \n  Lamu"),
        ("", "Nairobi", "Nairobi"),
        ("", "内罗毕", "内罗毕"),
        (" ", "Nairobi", " Nairobi"),
    ],
)
def test_blanks_before_a_continuation_count_to_it(bos, context, continuation, scored):
    tokenizer = make_tokenizer(bos=bos)
    path = encode(tokenizer, context, continuation)
    assert tokenizer.decode(path.targets) == scored
    if bos or not context.strip():
        assert path.tokens[0] == (0 if bos else 1)
    assert tuple(path.tokens[path.start :]) == path.targets[:-1]


def test_a_token_that_spans_the_boundary_is_scored(tokenizer):
    whole = tokenizer.encode("Mji mkuu ni Nairobi")
    inside = len("Mji mkuu ni Nai")
    path = encode(
        tokenizer, "Mji mkuu ni Nairobi"[:inside], "Mji mkuu ni Nairobi"[inside:]
    )
    assert [*path.tokens, path.targets[-1]] == whole
    assert tokenizer.decode(path.targets) == " Nairobi"


def test_a_written_bos_is_not_doubled(tokenizer):
    path = encode(tokenizer, "<s>Mji mkuu", " wa Kenya")
    assert path.tokens == encode(tokenizer, "Mji mkuu", " wa Kenya").tokens


@pytest.mark.parametrize(
    ("context", "continuation", "says"),
    [
        ("Mji mkuu", "", "continuation: got ''"),
        ("x" * 1100, " y", "context: got .* allowed: up to 1024"),
    ],
)
def test_texts_that_cannot_be_scored(context, continuation, says, llama, tokenizer):
    with pytest.raises(ParameterError, match=says):
        scoring.loglikelihoods(llama, tokenizer, [(context, [continuation])])


def test_settings_that_cannot_be_used(tokenizer):
    model, requests = make_model("llama"), [("a", [" b"])]
    with pytest.raises(ParameterError, match="token_budget: got 0"):
        scoring.loglikelihoods(model, tokenizer, requests, token_budget=0)
    with pytest.raises(ParameterError, match="max_new_tokens, stop: got 0"):
        scoring.generate(model, tokenizer, ["a"], max_new_tokens=0)
    with pytest.raises(ParameterError, match="allowed: up to 1024"):
        scoring.generate(model, tokenizer, ["a"], max_new_tokens=1024)


def test_dropout_is_off_and_training_goes_on(tokenizer, requests):
    model = MODELS["llama"]()
    model.config.attention_dropout = 0.5
    model.train()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    first, second = (
        scoring.loglikelihoods(model, tokenizer, requests[:2]) for _ in range(2)
    )
    assert model.training
    np.testing.assert_array_equal(np.hstack(first), np.hstack(second))


@pytest.fixture(scope="module")
def saved_llama(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "llama"
    llama.save_pretrained(folder)
    return folder


def with_adapter(model):
    """Add a random LoRA adapter to every linear layer."""
    torch.manual_seed(1)
    config = peft.LoraConfig(
        r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(model, config).eval()


QUANTISED = {
    "4bit": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    ),
    "8bit": BitsAndBytesConfig(load_in_8bit=True),
}


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize(
    ("bits", "within"), [("4bit", 1e-3), ("8bit", 0.2), ("16bit", 0.3), ("32bit", 1e-4)]
)
def test_bits_and_adapters(bits, within, adapter, saved_llama, tokenizer, requests):
    model = AutoModelForCausalLM.from_pretrained(
        saved_llama,
        dtype=torch.bfloat16 if bits == "16bit" else torch.float32,
        quantization_config=QUANTISED.get(bits),
    )
    models.disable_cpu_repacking(model)  # as the kit's own loading does
    model = with_adapter(model) if adapter else model
    requests = requests[:6]
    expected = np.hstack(plain_scores(model, tokenizer, requests))
    scores = np.hstack(scoring.loglikelihoods(model, tokenizer, requests))
    np.testing.assert_allclose(scores, expected, atol=within)
    if adapter:
        with model.disable_adapter():
            base = np.hstack(plain_scores(model, tokenizer, requests))
        assert np.abs(scores - base).max() > 1
    if bits in ("4bit", "32bit"):  # the others round, so a near tie may turn
        texts = [context for context, _ in requests[:2]]
        found = scoring.generate(model, tokenizer, texts, max_new_tokens=6, stop="€")
        written = [reference(model, tokenizer, text, 6) for text in texts]
        assert [answer.text for answer in found] == written


def reference(model, tokenizer, prompt, max_new_tokens) -> str:
    """Return the text of `model.generate` on the full prompt."""
    inputs = tokenizer(prompt or "<s>", return_tensors="pt", add_special_tokens=False)
    ids = inputs["input_ids"]
    if prompt:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
    )
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def prompts(requests):
    """Return prompts with shared prefixes, one that begins another, a twin, none."""
    texts = [context for context, _ in requests[::4]]
    return [*texts, texts[0], texts[3][:20], "Mji", "Mji mkuu wa", ""]


@pytest.fixture(scope="module")
def written(tokenizer, prompts):
    """Return a function: a model's name to the texts that `generate` continues with."""

    @cache
    def write(name: str) -> list[str]:
        model = make_model(name)
        return [reference(model, tokenizer, prompt, 16) for prompt in prompts]

    return write


@pytest.fixture
def in_rows(monkeypatch):
    """Let prompts grow in rows of their own, whatever they share."""
    monkeypatch.setattr(scoring, "_share_little", lambda *_: True)


def test_prompts_that_share_little_grow_in_rows(tokenizer, requests):
    def grows_in_rows(texts: list[str], budget: int) -> bool:
        tokens = tokenizer(texts)["input_ids"]
        paths = [scoring.TokenPath(path, len(path)) for path in tokens]
        return scoring._share_little(paths, budget)

    facts = [fact for fact, *_ in FACTS]
    shots = [context for context, _ in requests[:18]]
    assert grows_in_rows(facts, 100)
    assert not grows_in_rows(facts, 10_000)  # a pass takes them all
    assert not grows_in_rows(shots, 100)  # most of a prompt is in every prompt


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("budget", [1, 64, None])
@pytest.mark.parametrize("name", MODELS)
def test_generation_is_that_of_generate(
    name, budget, alone, tokenizer, prompts, written, request
):
    if alone:
        request.getfixturevalue("in_rows")
    model = make_model(name)
    found = scoring.generate(
        model, tokenizer, prompts, max_new_tokens=16, stop="€", token_budget=budget
    )
    assert [answer.text for answer in found] == written(name)
    assert all(answer.n_tokens == 16 for answer in found if not answer.finished)
    assert len(set(written(name))) > 5


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("in_rows")
def test_rows_that_end_make_room_for_others(
    name, tokenizer, prompts, written, monkeypatch
):
    monkeypatch.setattr("maple_utils.scoring.rows.MOST_ROWS", 3)
    model, whole = make_model(name), written(name)
    stop = next(t[3:5] for t in whole if len(t) > 5 and "\ufffd" not in t[3:5])
    batches: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, args, inputs: batches.append(inputs["input_ids"].shape[0]),
        with_kwargs=True,
    )
    found = scoring.generate(
        model, tokenizer, prompts, max_new_tokens=16, stop=stop, token_budget=32
    )
    hook.remove()
    assert [answer.text for answer in found] == [t.split(stop)[0] for t in whole]
    assert max(batches) == 3
    written_tokens = sum(answer.n_tokens for answer in found)
    assert sum(n for n in batches if n > 1) > written_tokens / 2  # seldom a row alone


@pytest.mark.usefixtures("in_rows")
def test_rows_take_no_more_memory_than_the_texts_need(llama, tokenizer, monkeypatch):
    rooms: list[int] = []
    make = scoring.rows.Rows.__init__

    def noted(self, like, room: int, most: int) -> None:
        rooms.append(room)
        make(self, like, room, most)

    monkeypatch.setattr(scoring.rows.Rows, "__init__", noted)
    monkeypatch.setattr(scoring.rows, "MOST_ROWS", 2)
    facts = [fact for fact, *_ in FACTS]
    prompts = [facts[0] * 8, facts[1] * 7, *(fact[::-1] for fact in facts)]
    lengths = sorted(len(tokenizer(prompt)["input_ids"]) for prompt in prompts)
    scoring.generate(llama, tokenizer, prompts, max_new_tokens=4, token_budget=64)
    assert rooms[0] == lengths[-1] + 4
    assert rooms[-1] <= lengths[-3] + 4  # the short ones are not kept like the long


def test_generation_stops_inside_a_token(llama, tokenizer, prompts, written):
    whole = written("llama")
    ended = [
        answer.finished
        for answer in scoring.generate(
            llama, tokenizer, prompts, max_new_tokens=16, stop="€"
        )
    ]
    pieces = {text[i : i + 2] for text in whole for i in range(2, len(text) - 3)}
    stops = sorted(piece for piece in pieces if "\ufffd" not in piece)  # half a letter
    assert len(stops) > 5
    for stop in stops[::5]:
        found = scoring.generate(
            llama, tokenizer, prompts, max_new_tokens=16, stop=stop
        )
        assert [answer.text for answer in found] == [t.split(stop)[0] for t in whole]
        stopped = [stop in text for text in whole]
        pairs = zip(stopped, ended, strict=True)
        assert [answer.finished for answer in found] == [a or b for a, b in pairs]
        early = [a.n_tokens for a, s in zip(found, stopped, strict=True) if s]
        assert min(early) < 16


def test_generation_ends_at_the_end_of_the_sequence(tokenizer, prompts):
    model = make_model("llama")
    ids = tokenizer(prompts[0], return_tensors="pt")["input_ids"]
    out = model.generate(ids, do_sample=False, max_new_tokens=6)[0, ids.shape[1] :]
    model.generation_config.eos_token_id = [1, out[3].item()]
    found = scoring.generate(model, tokenizer, prompts, max_new_tokens=9, stop="€")
    assert found[0].finished
    assert found[0].n_tokens <= 4
    expected = [reference(model, tokenizer, prompt, 9) for prompt in prompts]
    assert [answer.text for answer in found] == expected


@pytest.mark.parametrize("alone", [False, True])
def test_generation_survives_out_of_memory(alone, llama, tokenizer, prompts, request):
    if alone:
        request.getfixturevalue("in_rows")
    expected = scoring.generate(llama, tokenizer, prompts, max_new_tokens=5)
    seen: list[int] = []
    passes, hook = count_tokens(llama, limit=60, error=MemoryError())
    found = scoring.generate(
        llama,
        tokenizer,
        prompts,
        max_new_tokens=5,
        progress=seen.append,
    )
    hook.remove()
    assert found == expected
    assert max(passes) <= 60
    assert sum(seen) == len(prompts)


def harness_scores(model, tokenizer, requests) -> list[np.ndarray]:
    """Score by lm-eval's HFLM."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, device="cpu")
    instances = [
        Instance("loglikelihood", {}, (context, option), 0)
        for context, options in requests
        for option in options
    ]
    scores = [score for score, _ in harness.loglikelihood(instances, disable_tqdm=True)]
    ends = np.cumsum([len(options) for _, options in requests])[:-1]
    return np.split(np.array(scores), ends)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_scores_are_those_of_lm_eval(name, bos, requests):
    pytest.importorskip("lm_eval")
    model, tokenizer = make_model(name), make_tokenizer(bos=bos)
    blanks = [
        ("Mji mkuu ni ", ["Nairobi", "Mombasa"]),
        ("Ni upi?\n", ["Nairobi", "Lamu"]),
        ("", ["Nairobi", "内罗毕 ni mji"]),
        ("首都是\n\n", ["A", "B", "C", "D"]),
    ]
    requests = requests[:8] + blanks  # the ninth: see the next test
    scores = scoring.loglikelihoods(model, tokenizer, requests)
    assert_same(scores, harness_scores(model, tokenizer, requests), within=1e-3)


def test_lm_eval_scores_another_text_where_a_token_spans_the_boundary(
    llama, tokenizer, requests
):
    """It joins the context's own tokens with the tail of the whole, skipping some."""
    pytest.importorskip("lm_eval")
    context, [option, *_] = requests[8]
    own, whole = tokenizer.encode(context), tokenizer.encode(context + option)
    joined = [*own, *whole[len(own) :]]
    assert tokenizer.decode(joined) != tokenizer.decode(whole)
    theirs = scoring.TokenPath(joined[:-1], len(own), tuple(joined[len(own) :]))
    [[harness]] = harness_scores(llama, tokenizer, [(context, [option])])
    assert harness == pytest.approx(plain(llama, theirs), abs=1e-4)
    start = len(own) - 1  # the last of the context's tokens became part of another
    ours = scoring.TokenPath(whole[:-1], start, tuple(whole[start:]))
    [[score]] = scoring.loglikelihoods(llama, tokenizer, [(context, [option])])
    assert score == pytest.approx(plain(llama, ours), abs=1e-4)
    assert abs(score - harness) > 1


@pytest.mark.parametrize("language", ["sw", "ta", "th", "zh"])
def test_real_rows_score_as_in_lm_eval(language, llama, tokenizer, shared_hub):
    pytest.importorskip("lm_eval")
    folder = shared_hub / "cambridgeltl" / "xcopa" / language
    lines = (folder / "validation.jsonl").read_text("utf-8").splitlines()[:12]
    rows = [json.loads(line) for line in lines]
    shots = "\n\n".join(f"{row['premise']}\n{row['choice1']}" for row in rows[:2])
    requests = [
        (f"{shots}\n\n{row['premise']}\n", [row["choice1"], row["choice2"]])
        for row in rows[2:]
    ]
    scores = scoring.loglikelihoods(llama, tokenizer, requests)
    assert_same(scores, harness_scores(llama, tokenizer, requests), within=1e-3)
