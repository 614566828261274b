"""Synthesis: nothing asked twice, nothing lost, a reason for every dropped row."""

import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from statistics import median
from traceback import format_exception

import pandas as pd
import pytest

from maple_utils import miniature, params
from maple_utils.errors import ParameterError
from maple_utils.synthesis import filters, multialpaca, opening, seeds, teachers
from maple_utils.synthesis.bactrian_x import BactrianX
from maple_utils.synthesis.filters import Thresholds, near_duplicates
from maple_utils.synthesis.multialpaca import MultiAlpaca
from maple_utils.synthesis.recipes import Job, estimate, forecast
from maple_utils.synthesis.requests import Cache, Session, ask_all
from maple_utils.words import rouge_l_f
from tests.loopback import completion, serve

REQUESTS = {f"question {number}": "en" for number in range(24)}
DECODING = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 1024}


def first(count: int) -> dict[str, str]:
    return dict(list(REQUESTS.items())[:count])


def session(folder, **changes) -> Session:
    changes = {"first_wait": 0.01, "progress": False} | changes
    return Session(Cache(folder / "answers.sqlite"), **changes)


def fault(prompt: str, attempt: int) -> tuple[int, str]:
    """Fail each prompt once or twice, in turns of six kinds, then answer."""
    kind, good = int(prompt.split()[-1]) % 6, completion(f"re: {prompt}")
    if kind == 5 and attempt == 0:
        time.sleep(1.0)  # longer than the client waits
    faults = [
        (429, '{"error": {"message": "slow down"}}'),
        (500, "oops"),
        (200, good[: len(good) // 2]),
        (200, '{"choices": "none"}'),
        (503, ""),
    ]
    return faults[kind] if kind < 5 and attempt < 1 + kind % 2 else (200, good)


@pytest.fixture
def asked(monkeypatch):
    """Serve `fault` on loopback; yield how often each prompt was asked."""
    asked = Counter()

    def reply(prompt: str) -> tuple[int, str]:
        asked[prompt] += 1
        return fault(prompt, asked[prompt] - 1)

    with serve(reply, monkeypatch):
        yield asked


def test_a_faulty_server_loses_nothing_and_is_asked_nothing_twice(asked, tmp_path):
    endpoint = teachers.endpoint("tiny", DECODING, timeout=0.5)
    once = session(tmp_path)
    answers = ask_all(once, endpoint, REQUESTS)
    assert {p: a.text for p, a in answers.items()} == {
        prompt: f"re: {prompt}" for prompt in REQUESTS
    }
    assert {"429", "500", "503", "malformed", "time-out"} <= set(once.retries)
    before = asked.copy()
    again = session(tmp_path)
    assert ask_all(again, endpoint, REQUESTS) == answers
    assert asked == before
    assert again.asked == 0
    assert b"sk-secret" not in (tmp_path / "answers.sqlite").read_bytes()


def test_a_missing_key_is_one_line(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ParameterError, match="OPENAI_API_KEY") as error:
        teachers.endpoint("gpt-4o-mini", DECODING)
    assert "\n" not in str(error.value)


KILLED = """
import sys, time
from maple_utils.synthesis import teachers
from tests.test_synthesis import REQUESTS, session
from maple_utils.synthesis.requests import ask_all
from pathlib import Path

def slow(prompts):
    time.sleep(0.1)
    return [p.upper() for p in prompts]

teacher = teachers.Teacher("slow", slow, batch_size=1)
mine = session(Path(sys.argv[1]), concurrency=1)
print("ready", flush=True)
ask_all(mine, teacher, REQUESTS)
"""


def stored(folder) -> int:
    """Count the answers in the cache."""
    with sqlite3.connect(folder / "answers.sqlite") as database:
        return database.execute("SELECT count(*) FROM answers").fetchone()[0]


def test_a_killed_run_asks_only_what_is_missing(tmp_path):
    root = os.path.dirname(os.path.dirname(__file__))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=root,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    while stored(tmp_path) < 3:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()

    asked = []

    def count(prompts):
        asked.extend(prompts)
        return [prompt.upper() for prompt in prompts]

    teacher = teachers.Teacher("slow", count, batch_size=1)
    answers = ask_all(session(tmp_path), teacher, REQUESTS)
    assert {p: a.text for p, a in answers.items()} == {
        prompt: prompt.upper() for prompt in REQUESTS
    }
    assert 0 < len(asked) < len(REQUESTS)
    assert len(set(asked)) == len(asked)


def test_a_budget_stops_cleanly_and_a_larger_one_goes_on(tmp_path):
    def answer(prompts):
        return [teachers.Answer("a", "stop", 10, 10) for _ in prompts]

    teacher = teachers.Teacher("paid", answer, {"max_tokens": 10}, batch_size=1)
    small = session(tmp_path, budget_tokens=900, concurrency=2)
    some = ask_all(small, teacher, REQUESTS)
    assert small.stopped
    assert 0 < len(some) < len(REQUESTS)
    assert small.prompt_tokens + small.completion_tokens <= 900
    large = session(tmp_path)
    assert len(ask_all(large, teacher, REQUESTS)) == len(REQUESTS)
    assert large.asked == len(REQUESTS) - len(some)


def test_a_cap_holds_where_every_answer_is_billed_and_none_can_be_read(
    monkeypatch, tmp_path
):
    asked = []

    def broken(prompt: str) -> tuple[int, str]:
        asked.append(prompt)
        return 200, '{"choices": "none"}'

    with serve(broken, monkeypatch):
        endpoint = teachers.endpoint("m", DECODING, price=teachers.Price(1000, 1000))
        mine = session(tmp_path, budget_dollars=10.0, concurrency=4)
        ask_all(mine, endpoint, REQUESTS)
    assert mine.stopped
    assert len(asked) == 6  # of one prompt; a second one might not have been paid
    assert 6 < mine.dollars <= 10


def test_a_server_that_counts_no_tokens_is_counted_for(monkeypatch, tmp_path):
    body = json.loads(completion("answer " * 10))
    del body["usage"]
    with serve(lambda prompt: (200, json.dumps(body)), monkeypatch):
        mine = session(tmp_path)
        ask_all(mine, teachers.endpoint("m", DECODING), first(4))
    assert mine.prompt_tokens == 4 * math.ceil(0.3 * len("question 0"))
    assert mine.completion_tokens == 4 * 21


def test_what_an_endpoint_alone_refuses_is_asked_once(monkeypatch, tmp_path):
    asked = Counter()

    def picky(prompt: str) -> tuple[int, str]:
        asked[prompt] += 1
        bad = prompt == "question 5"
        return (400, '{"error": {}}') if bad else (200, completion("fine"))

    with serve(picky, monkeypatch):
        for _ in range(2):
            mine = session(tmp_path)
            answers = ask_all(mine, teachers.endpoint("m", DECODING), REQUESTS)
            assert mine.complete
    assert answers["question 5"] == teachers.Answer("", "content_filter")
    assert set(asked.values()) == {1}
    assert len(asked) == len(REQUESTS)


def test_an_endpoint_that_refuses_everything_is_one_line(monkeypatch, tmp_path):
    def closed(prompt: str) -> tuple[int, str]:
        return 400, '{"error": {"message": "no such parameter"}}'

    with serve(closed, monkeypatch):
        teacher = teachers.endpoint("m", DECODING)
        with pytest.raises(ParameterError, match="refuses 'm' with status 400"):
            ask_all(session(tmp_path), teacher, first(3))
    assert stored(tmp_path) == 0


def test_an_address_with_a_password_is_not_repeated(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:S3cret/x@host/v1")
    with pytest.raises(ParameterError, match="OPENAI_BASE_URL holds no") as error:
        teachers.endpoint("m", DECODING)
    assert "S3cret" not in "".join(format_exception(error.value))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-schlüssel")
    with pytest.raises(ParameterError, match="OPENAI_API_KEY, in ASCII"):
        teachers.endpoint("m", DECODING)


def test_teacher_and_translator_have_prices_of_their_own(tmp_path):
    def paid(prompts):
        return [teachers.Answer("a", "stop", 1000, 100) for _ in prompts]

    prices = {"teacher": teachers.Price(1, 10), "translator": teachers.Price(0.5, 1)}
    both = session(tmp_path)
    for name, price in prices.items():
        who = teachers.Teacher(name, paid, price=price)
        estimated = estimate(both, who, REQUESTS, answer_tokens=100)
        tokens = estimated["prompt_tokens"].sum(), 100 * len(REQUESTS)
        assert estimated["dollars"].sum() == pytest.approx(price.of(*tokens), abs=1e-3)
        ask_all(both, who, REQUESTS)
    each = len(REQUESTS) / 1e6
    assert both.dollars == pytest.approx(each * (1000 + 1000) + each * (500 + 100))


@pytest.mark.parametrize(
    ("name", "value"), [("price_out", -1.0), ("budget_dollars", 0.0)]
)
def test_a_price_below_nothing_and_a_budget_of_nothing_are_refused(name, value):
    with pytest.raises(ParameterError, match=f"{name}: got {value:.0f}"):
        params.convert(name, value)


def test_every_reason_is_found():
    fine = {
        "id": "1",
        "language": "en",
        "instruction": "Name the capital city of Kenya.",
        "input": "",
        "output": "The capital city of Kenya is Nairobi.",
        "finish": "stop",
    }
    changes = {
        "": {},
        "empty": {"output": " "},
        "cut off": {"finish": "length"},
        "refusal": {"output": "I'm sorry, but I cannot help with that."},
        "link": {"output": "See https://example.org for more."},
        "too long": {"output": "word " * 2000},
        "wrong language": {"output": "La capitale du Kenya est Nairobi, une ville."},
        "input repeats instruction": {"input": "Name the capital city of Kenya!"},
    }
    rows = pd.DataFrame([fine | change for change in changes.values()])
    assert filters.reasons(rows, Thresholds()).tolist() == list(changes)
    table = filters.report(rows.assign(reason=list(changes)))
    assert table.loc["en"].to_dict() == {name or "kept": 1 for name in changes}


def test_near_duplicates_are_those_of_comparing_all_pairs():
    rng = random.Random(0)
    words = [f"w{number}" for number in range(30)]
    texts = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(400)]
    texts += [text + " w1" for text in texts[:60]]
    pool, candidates = texts[:100], texts[100:]
    kept, expected = list(pool), []
    for text in candidates:
        alike = any(rouge_l_f(text, other) >= 0.7 for other in kept)
        expected.append(alike)
        kept += [] if alike else [text]
    found = near_duplicates(candidates, pool, 0.7)
    assert found == expected
    assert 20 < sum(expected) < 300


FREE = teachers.FREE


def job(start, languages, teacher, translator, mine: Session) -> Job:
    """Give a recipe its work; "miniature" stands for the world as its own teacher."""
    if teacher == "miniature":
        teacher = opening.open_teacher("miniature", FREE, {})
    if translator == "miniature":
        translator = opening.open_translator("miniature", FREE, {})
    return Job(start, languages, teacher, translator, mine)


def test_bactrian_x_leaves_code_out_and_keeps_ids_parallel(tmp_path):
    code = {"id": "c", "instruction": "Write a Python function.", "input": ""}
    start = seeds.checked([*miniature.seeds()[:30], code])
    languages, mine = ["en", "sw", "el"], session(tmp_path)
    marked = seeds.choose(BactrianX().mark(start), languages, 0)
    made = BactrianX().make(job(marked, languages, "miniature", "miniature", mine))
    assert not made.missing
    assert "c" not in set(made.rows["id"])
    assert made.rows.groupby("language")["id"].agg(frozenset).nunique() == 1
    assert len(made.dataset()) == len(made.kept)


def test_a_translation_that_failed_is_asked_about_by_nobody(tmp_path):
    texts = {"Sum it up.": "Fupisha.", "A long text.": "", "Go on.": "Endel", "": ""}
    prompts: list[str] = []

    def translate(batch, source, target):
        cut = {"Go on.": "length"}
        return [teachers.Answer(texts[t], cut.get(t, "stop")) for t in batch]

    def teach(batch):
        prompts.extend(batch)
        return ["Sawa."] * len(batch)

    rows = [
        {"id": "bare", "instruction": "Sum it up."},
        {"id": "empty", "instruction": "Sum it up.", "input": "A long text."},
        {"id": "cut", "instruction": "Go on."},
    ]
    teacher = teachers.Teacher("t", teach)
    translator = teachers.plain_translator("tr", translate)
    start, mine = seeds.checked(rows), session(tmp_path)
    made = BactrianX().make(job(start, ["sw"], teacher, translator, mine))
    assert prompts == ["Fupisha."]
    reasons = made.rows.set_index("id")["reason"].to_dict()
    failed = "translation failed"
    assert reasons == {"bare": "", "empty": failed, "cut": failed}


def test_multialpaca_goes_on_with_the_prompts_of_a_whole_run(tmp_path):
    """A prompt without an answer leaves a pool, and prompts, that no whole run has."""
    asked = Counter()
    start = seeds.checked([{**row, "input": ""} for row in miniature.seeds()[:20]])

    def run(folder, fails: bool):
        def teach(prompts):
            asked.update(prompts)
            if fails and len(asked) == 3:
                raise teachers.Retry("time-out")
            return miniature.answer(prompts)

        teacher = teachers.Teacher("t", teach, batch_size=1)
        mine = session(tmp_path / folder, tries=1, concurrency=1)
        recipe = MultiAlpaca(rounds=3, prompts_first=4, prompts=3)
        return recipe.make(job(start, ["en"], teacher, "miniature", mine))

    (tmp_path / "one").mkdir()
    broken = run("one", fails=True)
    assert "1 prompts got no answer; run again" in broken.missing
    assert len(asked) == 4
    mended = run("one", fails=False)
    assert not mended.missing
    assert sorted(asked.values()) == [1] * 9 + [2]
    (tmp_path / "two").mkdir()
    whole = run("two", fails=False)
    pd.testing.assert_frame_equal(whole.rows, mended.rows)


@pytest.mark.parametrize(
    "recipe",
    [BactrianX(), MultiAlpaca(rounds=3, prompts=60)],
    ids=["bactrian-x", "multialpaca"],
)
def test_the_forecast_for_the_miniature_is_within_a_factor_of_two(
    recipe, tmp_path, monkeypatch
):
    """In seconds of the processor, which a busy machine stretches less; three times."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)
    languages, ratios = ["en", "es", "sw", "zh"], []
    marked = recipe.mark(seeds.checked(miniature.seeds()))
    start = seeds.choose(marked, languages, 400, seed=0)
    for number in range(3):
        mine = session(tmp_path / str(number))
        work = job(start, languages, "miniature", "miniature", mine)
        minutes = forecast(recipe, work)["minutes"].sum()
        before = time.process_time()
        made = recipe.make(work)
        ratios.append(60 * minutes / (time.process_time() - before))
        assert len(made.kept) > 500
    assert 1 / 2 < median(ratios) < 2


def test_a_forecast_counts_every_language_and_asks_nobody(tmp_path):
    def nobody(prompts, **pair):
        raise AssertionError("asked")

    start = seeds.checked(miniature.seeds()[:30])
    teacher = teachers.Teacher("t", nobody)
    translator = teachers.plain_translator("tr", nobody)
    work = job(start, ["en", "sw", "zh"], teacher, translator, session(tmp_path))
    plan = forecast(BactrianX(), work).set_index(["step", "language"])
    assert plan.loc["answer", "calls"].to_dict() == {"en": 30, "sw": 30, "zh": 30}
    assert set(plan.loc["translate"].index) == {"sw", "zh"}
    plan = forecast(MultiAlpaca(rounds=3, prompts=20), work).set_index("step")
    assert plan.loc["answer", "calls"].between(45, 50).all()
    assert stored(tmp_path) == 0


def test_a_teacher_of_the_wrong_language_is_stopped(tmp_path):
    def french(prompts):
        return ["Je ne parle que le français, quelle que soit la question."] * len(
            prompts
        )

    start = seeds.checked(miniature.seeds()[:40])
    teacher, mine = teachers.Teacher("french", french), session(tmp_path)
    with pytest.raises(ParameterError, match="answers in another language"):
        BactrianX().make(job(start, ["sw"], teacher, "miniature", mine))


def test_multialpaca_parses_items_and_says_what_is_wrong_with_them():
    text = (
        "4. Instruction: Name a river.\n4. Input: <noinput>\n4. Output: Nile\n###\n"
        "5. Instruction: Add a word.\n5. Input: red\n5. Output: red rose\n###\n"
        "6. Instruction: No output here.\n###\n7. Instruction: Cut o"
    )
    items = multialpaca.parse_tasks(teachers.Answer(text, "length"))
    assert [item["reason"] for item in items] == ["", "", "format", "cut off"]
    assert items[0] == {
        "instruction": "Name a river.",
        "input": "",
        "output": "Nile",
        "reason": "",
    }
    assert items[1]["input"] == "red"


def test_multialpaca_reads_headings_and_bold_and_counts_what_it_cannot_read():
    text = (
        "**4. Instruction:** Name a river.\n**4. Input:** <noinput>\n"
        "**4. Output:** Nile\n\n### 5. Instruction: Add a word.\n### 5. Input: red\n"
        "### 5. Output: red rose"
    )
    items = multialpaca.parse_tasks(teachers.Answer(text))
    parts = [[item[key] for key in item] for item in items]
    assert parts == [
        ["Name a river.", "", "Nile", ""],
        ["Add a word.", "red", "red rose", ""],
    ]
    chat = multialpaca.parse_tasks(teachers.Answer("Here are some tasks!"))
    assert [item["reason"] for item in chat] == ["format"]
    blocked = multialpaca.parse_tasks(teachers.Answer("", "content_filter"))
    assert [item["reason"] for item in blocked] == ["refusal"]


@pytest.mark.parametrize("name", ["multialpaca", "self-instruct-seeds"])
def test_published_seeds_are_read_and_thirteen_left_out(name, shared_hub):
    table = seeds.without_culture(seeds.load(name, shared_hub))
    assert len(table) == 175
    assert (table["output"] != "").all()
    assert (table["excluded"] != "").sum() == 13
    assert table["keeps_form"].map(len).gt(0).sum() == 23


def test_seeds_without_an_output_are_shown_to_nobody():
    rows = [{"id": "a", "instruction": "Go."}, {"id": "seed_task_7", "output": "x"}]
    marked = seeds.without_culture(seeds.checked(rows))
    assert list(marked["excluded"]) == ["no output", "an English idiom"]


def test_seeds_that_are_not_there_are_one_line(tmp_path):
    with pytest.raises(
        ParameterError, match="seed_tasks: 'nothing' cannot be"
    ) as error:
        seeds.load("nothing", tmp_path)
    assert "\n" not in str(error.value)


def test_empty_seeds_are_one_line():
    with pytest.raises(ParameterError, match="seeds: got none") as error:
        seeds.checked([])
    assert "\n" not in str(error.value)
