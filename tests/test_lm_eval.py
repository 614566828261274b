"""As a back end of lm-eval the engine gives what lm-eval's own back end gives."""

# ruff: noqa: E402 (the imports that follow need lm_eval)

import json
import math
import os
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, MptConfig, MptForCausalLM

from maple_utils import miniature, models, scoring
from maple_utils.errors import ParameterError
from maple_utils.tasks import TASKS
from maple_utils.tasks.sources import load_rows

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from maple_utils.lm_eval import __main__ as command_line
from maple_utils.lm_eval.model import MapleLM

ROOT = Path(__file__).resolve().parents[1]
BASE = "miniature-llama"
TASK_FILES = {
    "choice": """
output_type: multiple_choice
doc_to_text: "{{premise}}"
doc_to_target: label
doc_to_choice: ["{{choice1}}", "{{choice2}}"]
num_fewshot: 3
fewshot_split: shots
fewshot_config: {sampler: first_n}
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
""",
    "rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: word_perplexity}
  - {metric: bits_per_byte}
""",
    "writing": """
output_type: generate_until
doc_to_text: "{{context}}\\nQ: {{question}}\\nA:"
doc_to_target: "{{answers.text[0]}}"
num_fewshot: 2
fewshot_split: shots
fewshot_config: {sampler: first_n}
generation_kwargs: {until: ["\\n", "Q:"], max_gen_toks: 12, do_sample: false}
metric_list:
  - {metric: exact_match, regexes_to_ignore: ["^ "]}
""",
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    """Write three tasks with their data, and return their folder."""
    folder = tmp_path_factory.mktemp("tasks")

    def rows(task: str, language: str) -> list[dict]:
        split = "validation"
        return list(load_rows(TASKS[task].source, language, split, miniature.hub()))

    facts = [row["context"] for row in rows("xquad", "en")]
    texts = [{"text": text} for text in [*facts[:12], " ".join(facts * 2)]]
    data = {
        "choice": rows("xcopa", "sw"),
        "rolling": texts,  # the last is longer than the model's positions
        "writing": rows("xquad", "es")[:24],
    }
    for name, examples in data.items():
        files = {"shots": examples[:3], "test": examples[3:]}
        for split, some in files.items():
            lines = [json.dumps(row, ensure_ascii=False) for row in some]
            (folder / f"{name}-{split}.jsonl").write_text("\n".join(lines), "utf-8")
        paths = {split: str(folder / f"{name}-{split}.jsonl") for split in files}
        head = f"task: maple_{name}\ndataset_path: json\ntest_split: test\n"
        head += f"dataset_kwargs: {{data_files: {json.dumps(paths)}}}"
        (folder / f"{name}.yaml").write_text(head + TASK_FILES[name], "utf-8")
    return folder


def evaluate(lm, tasks: Path, *names: str, **kwargs) -> dict:
    """Return lm-eval's results of a model, with every request's answer."""
    names = names or tuple(TASK_FILES)
    return lm_eval.simple_evaluate(
        model=lm,
        tasks=[f"maple_{name}" for name in names],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
        **kwargs,
    )


def answers(results: dict, name: str) -> list:
    """Return a task's answers, question by question."""
    return [sample["resps"] for sample in results["samples"][f"maple_{name}"]]


def make(kind, **kwargs):
    """Load the miniature into a back end."""
    folder = models.source(BASE)
    given = {"device": "cpu", "dtype": "float32", "batch_size": 8} | kwargs
    return kind(pretrained=folder, **given)


@pytest.fixture(scope="module")
def theirs():
    return make(HFLM)


@pytest.fixture(scope="module")
def ours():
    return make(MapleLM)


@pytest.fixture(scope="module")
def expected(theirs, tasks):
    return evaluate(theirs, tasks)


@pytest.fixture(scope="module")
def found(ours, tasks):
    return evaluate(ours, tasks)


@pytest.mark.parametrize("name", ["choice", "writing"])
def test_metrics_are_the_same_to_the_digit(name, found, expected):
    task = f"maple_{name}"
    metrics = expected["results"][task]
    assert found["results"][task] == metrics
    values = [
        metrics[key] for key in ("acc,none", "exact_match,none") if key in metrics
    ]
    assert 0 < values[0] < 1


def test_log_likelihoods_and_flags_are_the_same(found, expected):
    pairs = list(
        zip(answers(found, "choice"), answers(expected, "choice"), strict=True)
    )
    assert len(pairs) == 37
    for one, other in pairs:
        for [(score, greedy)], [(plain, flag)] in zip(one, other, strict=True):
            assert score == pytest.approx(plain, abs=1e-3)
            assert greedy is flag


def test_perplexity_is_the_same(found, expected):
    for [[score]], [[plain]] in zip(
        answers(found, "rolling"), answers(expected, "rolling"), strict=True
    ):
        # The last text has 12,000 nats, which lm-eval adds up in float32.
        assert score == pytest.approx(plain, abs=1e-3, rel=1e-6)
    metrics = expected["results"]["maple_rolling"]
    ours = found["results"]["maple_rolling"]
    assert ours["bits_per_byte,none"] == pytest.approx(
        metrics["bits_per_byte,none"], rel=1e-6
    )
    # A perplexity is e to the nats per word, and these are what is as exact as that.
    nats, plain = (math.log(each["word_perplexity,none"]) for each in (ours, metrics))
    assert nats == pytest.approx(plain, rel=1e-6)


def test_texts_are_the_same(found, expected):
    assert answers(found, "writing") == answers(expected, "writing")
    assert len({str(text) for text in answers(expected, "writing")}) > 5


def scored(lm, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    return lm.loglikelihood(requests, disable_tqdm=True)


def written(lm, prompts: list[str], **settings) -> list[str]:
    """Return what a back end writes after the prompts."""
    pairs = [(prompt, settings) for prompt in prompts]
    requests = [Instance("generate_until", {}, pair, 0) for pair in pairs]
    return lm.generate_until(requests, disable_tqdm=True)


PROMPTS = [
    "Kenya: the festival is in",
    "Kenya: the festival is in May. Kenya: the market is on",
    "Türkiye: the market",
    "Mexico",
]


def test_the_models_own_words_are_greedy(ours, theirs):
    texts = written(theirs, PROMPTS, until=[], max_gen_toks=3)
    own = list(zip(PROMPTS, texts, strict=True))
    ends_otherwise = [(prompt, f"{text} 7") for prompt, text in own]
    begins_otherwise = [(prompt, f" 7{text}") for prompt, text in own]
    pairs = [*own, *ends_otherwise, *begins_otherwise]
    flags = [greedy for _, greedy in scored(theirs, pairs)]
    assert [greedy for _, greedy in scored(ours, pairs)] == flags
    assert flags[: len(own)] == [True] * len(own)
    assert not any(flags[len(own) :])


def test_long_texts_lose_their_beginning_as_in_hflm(caplog):
    ours, theirs = (make(kind, max_length=24) for kind in (MapleLM, HFLM))
    long = "Kenya: the festival is in May. " * 4
    pairs = [(long + prompt, " the market is on Monday.") for prompt in PROMPTS]
    plain = scored(theirs, pairs)
    assert [score for score, _ in scored(ours, pairs)] == pytest.approx(
        [score for score, _ in plain], abs=1e-3
    )
    whole = scored(make(MapleLM), pairs)
    assert abs(whole[0][0] - plain[0][0]) > 0.01  # the beginning does matter
    rolling = [Instance("loglikelihood_rolling", {}, (long,), 0)]
    [nats] = ours.loglikelihood_rolling(rolling, disable_tqdm=True)
    assert nats == pytest.approx(theirs.loglikelihood_rolling(rolling)[0], abs=1e-3)
    prompts = [long + prompt for prompt in PROMPTS]
    texts = written(ours, prompts, until=["\n"], max_gen_toks=8)
    assert texts == [
        written(theirs, [p], until=["\n"], max_gen_toks=8)[0] for p in prompts
    ]
    assert "4 of 4 requests are cut on the left" in caplog.text


def test_any_of_several_stops_ends_a_text(ours, theirs):
    articles = ["Kenya: sun - Kenya: bone", "Peru: owl - Peru: pie", "Mali: brain"]
    prompts = [f"Text: - {article}\nSummary:" for article in articles]
    whole = written(theirs, prompts, until=[], max_gen_toks=16)
    stops = [whole[0][3:5], whole[1][4:6], "</s>"]
    for until in (stops, stops[::-1], stops[0], []):
        settings = {"until": until, "max_gen_toks": 16}
        texts = [written(theirs, [prompt], **settings)[0] for prompt in prompts]
        assert written(ours, prompts, **settings) == texts
    ended = min(at for stop in stops if (at := whole[0].find(stop)) >= 0)
    assert ended <= 3
    cut = written(ours, prompts[:1], until=stops, max_gen_toks=16)
    assert cut == [whole[0][:ended]]


def test_nothing_is_written_after_the_first_stop(ours, theirs):
    [whole] = written(theirs, PROMPTS[:1], until=[], max_gen_toks=16)
    passes = []
    hook = ours.model.register_forward_pre_hook(lambda *_: passes.append(1))
    for until in (["€", whole[3:5]], ["€"]):
        written(ours, PROMPTS[:1], until=until, max_gen_toks=16)
        passes.append(0)
    hook.remove()
    stopped, unstopped = passes.index(0), len(passes) - passes.index(0) - 2
    assert stopped < unstopped


def test_an_empty_context_begins_with_the_begin_token(ours, theirs):
    pairs = [("", "Kenya: the festival"), ("", "The market is on Monday.")]
    plain = [score for score, _ in scored(theirs, pairs)]
    assert [score for score, _ in scored(ours, pairs)] == pytest.approx(plain, abs=1e-3)


@pytest.fixture
def no_engine(monkeypatch):
    """Fail where the engine writes or scores."""

    def fail(*args, **kwargs):
        raise AssertionError("the engine ran")

    monkeypatch.setattr(scoring, "grow_paths", fail)
    monkeypatch.setattr(scoring, "score_paths", fail)


@pytest.mark.parametrize(
    "settings", [{"do_sample": True, "temperature": 0.9}, {"repetition_penalty": 1.5}]
)
def test_what_is_not_greedy_is_left_to_hflm(settings, ours, theirs, no_engine):
    texts = []
    for lm in (ours, theirs):
        torch.manual_seed(0)
        texts.append(written(lm, PROMPTS, until=["\n"], max_gen_toks=8, **settings))
    assert texts[0] == texts[1]
    assert texts[0] != written(theirs, PROMPTS, until=["\n"], max_gen_toks=8)


def test_a_model_with_a_penalty_of_its_own_is_left_to_hflm(no_engine, caplog):
    lm = make(MapleLM)
    lm.model.generation_config.repetition_penalty = 1.5
    settings = {"until": ["\n"], "max_gen_toks": 8}
    texts = written(lm, PROMPTS, **settings)
    assert texts == super(MapleLM, lm).generate_until(
        [Instance("generate_until", {}, (p, settings), 0) for p in PROMPTS]
    )
    assert "generation_config sets repetition_penalty" in caplog.text


def test_a_model_that_the_engine_gets_wrong_is_left_to_hflm(ours, theirs, caplog):
    """ALiBi's distances are along the sequence, where the engine lays out a tree."""
    torch.manual_seed(0)
    size = theirs.model.config.vocab_size
    shape = {"d_model": 64, "n_heads": 4, "n_layers": 2, "initializer_range": 0.2}
    model = MptForCausalLM(MptConfig(vocab_size=size, **shape)).eval()
    pairs = [(prompt, end) for prompt in PROMPTS for end in (" May", " January")]
    given = {"pretrained": model, "tokenizer": theirs.tokenizer}
    assert scored(MapleLM(**given), pairs) == scored(HFLM(**given), pairs)
    assert "nats per token off" in caplog.text
    caplog.clear()
    scored(ours, pairs)
    assert "as slow as HFLM" not in caplog.text


@pytest.mark.parametrize(
    ("task", "entry", "passes"),
    [("choice", "score_paths", 5), ("writing", "grow_paths", 40)],
)
def test_a_killed_run_asks_nothing_twice(
    task, entry, passes, tasks, tmp_path, expected, monkeypatch
):
    """Its answers are in lm-eval's own cache as soon as they are there."""
    lm = make(MapleLM, token_budget=64)
    run = partial(evaluate, lm, tasks, task, use_cache=str(tmp_path / "cache"))
    assert not lm._left_to_hflm
    monkeypatch.setattr(scoring, "_share_little", lambda *_: True)
    monkeypatch.setattr("maple_utils.scoring.rows.MOST_ROWS", 2)
    asked, answer = [], getattr(scoring, entry)

    def noted(model, paths, *args, **kwargs):
        asked.append(len(paths))
        return answer(model, paths, *args, **kwargs)

    monkeypatch.setattr(scoring, entry, noted)
    left = [passes]

    def kill(*_):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    hook = lm.model.register_forward_pre_hook(kill)
    with pytest.raises(KeyboardInterrupt):
        run()
    hook.remove()
    lm.cache_hook.dbdict.close()
    results = run()
    lm.cache_hook.dbdict.close()
    assert 0 < asked[1] < asked[0]
    key = f"maple_{task}"
    assert results["results"][key] == expected["results"][key]
    assert len(answers(results, task)) == len(answers(expected, task))


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> Path:
    """Save two adapters of different ranks and return the folder of their runs."""
    runs = tmp_path_factory.mktemp("runs")
    for rank in (2, 4):
        torch.manual_seed(rank)
        model, _ = models.load(BASE, 16, torch.float32)
        config = peft.LoraConfig(
            r=rank, target_modules="all-linear", init_lora_weights=False
        )
        peft.get_peft_model(model, config).save_pretrained(runs / f"r{rank}/adapter")
    return runs


def command(monkeypatch, *args: object) -> None:
    monkeypatch.setattr(sys, "argv", ["maple_utils.lm_eval", *map(str, args)])
    command_line.main()


def test_many_adapters_over_one_base_model(adapters, tasks, tmp_path, monkeypatch):
    loads = []
    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda *args, **kwargs: loads.append(args) or load(*args, **kwargs),
    )
    model_args = f"pretrained={BASE},bits=4,adapters={adapters}/*/adapter"
    asked = ["--model_args", model_args, "--tasks", "maple_choice", "--device", "cpu"]
    asked += ["--include_path", tasks, "--use_cache", tmp_path / "cache"]
    command(monkeypatch, *asked, "--output_path", tmp_path / "out", "--log_samples")
    assert len(loads) == 1
    files = sorted((tmp_path / "out").glob("*/results_*.json"))
    assert [f.parent.name[-11:] for f in files] == ["r2__adapter", "r4__adapter"]
    monkeypatch.undo()
    for rank, file in zip((2, 4), files, strict=True):
        [samples] = file.parent.glob("samples_*.jsonl")
        lines = samples.read_text("utf-8").splitlines()
        base, tokenizer = models.load(BASE, 4, torch.float32)
        folder = adapters / f"r{rank}/adapter"
        model = peft.PeftModel.from_pretrained(base, folder).eval()
        plain = evaluate(HFLM(model, tokenizer=tokenizer), tasks, "choice")
        got = [json.loads(line)["resps"] for line in lines]
        for one, other in zip(got, answers(plain, "choice"), strict=True):
            for [[score, _]], [(value, _)] in zip(one, other, strict=True):
                assert float(score) == pytest.approx(value, abs=1e-3)
        metrics = json.loads(file.read_text())["results"]["maple_choice"]
        same = plain["results"]["maple_choice"]
        assert metrics["acc,none"] == same["acc,none"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model_args", "pretrained=miniature-llama,bits=5"], "bits: got 5; allowed"),
        (
            ["--model_args", "pretrained=miniature-llama,adapters=nowhere/*"],
            "adapters: got 'nowhere/*', which names no folder; allowed",
        ),
        (["--model", "hf"], "--model: got 'hf'; allowed: maple"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(
    args, said, tasks, monkeypatch, capsys
):
    asked = [*args, "--tasks", "maple_choice", "--include_path", tasks]
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, *asked, "--device", "cpu")
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(said)


def test_an_adapter_of_another_model_is_refused(adapters, tasks, monkeypatch, capsys):
    model_args = f"pretrained=miniature-mistral,adapters={adapters}/*/adapter"
    with pytest.raises(SystemExit):
        command(monkeypatch, "--model_args", model_args, "--tasks", "maple_choice")
    assert "trained on" in capsys.readouterr().err.splitlines()[-1]


def test_a_request_that_cannot_be_answered_is_refused_in_one_line(ours):
    with pytest.raises(ParameterError, match="max_gen_toks: got 1024; allowed: 1 to"):
        written(ours, PROMPTS, until=["\n"], max_gen_toks=1024)
    with pytest.raises(ParameterError, match="of 0 tokens; allowed: 1 to 1024"):
        scored(ours, [("Kenya", "")])
    with pytest.raises(ParameterError, match="adapters: got 'x'; allowed: with python"):
        MapleLM(BASE, adapters="x")


def test_without_lm_eval_one_line_says_so():
    code = """
import runpy, sys
class Without:
    def find_spec(name, *_):
        if name.partition(".")[0] == "lm_eval":
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Without)
runpy.run_module("maple_utils.lm_eval", run_name="__main__")
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("lm_eval: not installed; allowed")
    assert "Traceback" not in ran.stderr


def test_lm_eval_knows_it_by_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["lm_eval.models"]
    assert declared == {"maple": f"{MapleLM.__module__}:{MapleLM.__name__}"}
    assert get_model("maple") is MapleLM
