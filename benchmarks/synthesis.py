"""Time the near-duplicate filter, and requests against a server that takes its time.

    python benchmarks/synthesis.py

Instructions are drawn with the lengths and the long tail of real ones (4 to 20 words,
Zipf), one in ten a light variation of another; on a sample, decisions are compared with
those of all pairs. The server is a local one that answers after 200 ms.
"""

import argparse
import asyncio
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np

from maple_utils.synthesis.filters import near_duplicates
from maple_utils.synthesis.requests import Cache, Session, ask_all
from maple_utils.synthesis.teachers import endpoint
from maple_utils.words import rouge_l_f

LATENCY = 0.2  # seconds


def draw_instructions(count: int, seed: int) -> list[str]:
    """Draw texts; one in ten is an earlier one with a word changed."""
    rng = np.random.default_rng(seed)
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and rng.random() < 0.1:
            words = list(texts[rng.integers(len(texts))])
            words[rng.integers(len(words))] = f"w{rng.integers(10**5)}"
        else:
            words = [f"w{n}" for n in rng.zipf(1.3, rng.integers(4, 21)) % 10**5]
        texts.append(words)
    return [" ".join(words) for words in texts]


def time_filter(candidates: int, pool: int, repeats: int) -> float:
    """Return the median seconds of filtering candidates against a pool."""
    texts = draw_instructions(candidates + pool, seed=0)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        near_duplicates(texts[pool:], texts[:pool])
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def same_as_all_pairs(candidates: int, pool: int) -> bool:
    """Compare the filter's decisions with those of all pairs."""
    texts = draw_instructions(candidates + pool, seed=1)
    kept, slow = texts[:pool], []
    for text in texts[pool:]:
        slow.append(any(rouge_l_f(text, other) >= 0.7 for other in kept))
        kept = kept if slow[-1] else [*kept, text]
    return slow == near_duplicates(texts[pool:], texts[:pool])


async def answer_late(reader, writer) -> None:
    """Speak just enough HTTP to answer chat requests after LATENCY."""
    choice = {"index": 0, "finish_reason": "stop"}
    choice["message"] = {"role": "assistant", "content": "yes"}
    reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    body = json.dumps({**reply, "choices": [choice]})
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    while not reader.at_eof():
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # the client has hung up
            break
        fields = dict(
            line.lower().split(": ", 1) for line in request.decode().split("\r\n")[1:-2]
        )
        await reader.readexactly(int(fields["content-length"]))
        await asyncio.sleep(LATENCY)
        writer.write(f"{head}{len(body)}\r\n\r\n{body}".encode())
        await writer.drain()
    writer.close()


def serve() -> int:
    """Start the server in a thread of its own and return its port."""
    ready: list[int] = []

    async def run() -> None:
        server = await asyncio.start_server(answer_late, "127.0.0.1", 0)
        ready.append(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
    while not ready:
        time.sleep(0.01)
    return ready[0]


def time_requests(concurrency: int, count: int) -> float:
    """Return answers per second."""
    os.environ["OPENAI_API_KEY"] = "none"
    os.environ["OPENAI_BASE_URL"] = f"http://127.0.0.1:{serve()}/v1"
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache(Path(folder) / "answers.sqlite")
        session = Session(cache, concurrency=concurrency, progress=False)
        teacher = endpoint("m", {"max_tokens": 64})
        ask_all(session, teacher, {f"warm up {concurrency}": "en"})
        requests = {f"question {n}": "en" for n in range(count)}
        start = time.perf_counter()
        answers = ask_all(session, teacher, requests)
        assert len(answers) == count
        return count / (time.perf_counter() - start)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print("same decisions as all pairs:", same_as_all_pairs(1000, 1500))
    for candidates, pool in ((2500, 3750), (5000, 7500), (10_000, 15_000)):
        seconds = time_filter(candidates, pool, repeats)
        print(f"{candidates:6} candidates, pool of {pool:6}: {seconds:6.1f} s")
    for concurrency in (8, 32):
        rate = time_requests(concurrency, 30 * concurrency)
        share = rate / (concurrency / LATENCY)
        print(
            f"{concurrency:3} at once: {rate:6.1f} answers/s, {share:.0%} of the most"
        )


if __name__ == "__main__":
    main()
