"""An endpoint on loopback: requests and answers go through real sockets."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

HEAD = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
USAGE = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}


def completion(content: str) -> str:
    """Return the body of an answer as OpenAI's API sends it."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return json.dumps({**HEAD, "choices": [choice], "usage": USAGE})


def serve(
    reply: Callable[[str], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> AbstractContextManager[None]:
    """Answer each chat's prompt with the status and body of `reply`."""
    return serve_all(
        monkeypatch, lambda path, body: reply(body["messages"][0]["content"])
    )


@contextmanager
def serve_all(
    monkeypatch: pytest.MonkeyPatch, reply: Callable[[str, dict], tuple[int, str]]
) -> Iterator[None]:
    """Answer requests by `reply(path, body)`; set the environment."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._send(*reply(self.path, {}))

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(*reply(self.path, body))

        def _send(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    yield
    server.shutdown()
