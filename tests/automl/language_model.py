"""An OpenAI-compatible address on this machine that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[dict[str, Any]], "Said"]


@dataclass(frozen=True)
class Said:
    """One answer of the server."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    hang_s: float = 0.0
    """Seconds before anything is sent."""
    drip_s: float = 0.0
    """Seconds between single bytes."""


def says(text: str, **more: Any) -> Said:
    """A chat completion with this text."""
    told = {"choices": [{"message": {"role": "assistant", "content": text}}], "usage": {"total_tokens": 321}}
    return Said(json.dumps(told).encode(), **more)


def fault(status: int, message: str = "", **headers: str) -> Said:
    """An answer with the status of a fault."""
    body = json.dumps({"error": {"message": message}}).encode() if message else b""
    return Said(body, status, tuple((k.replace("_", "-"), v) for k, v in headers.items()))


@dataclass
class Server:
    """The address.

    Args:
        script: question (the body of a request) -> answer.
    """

    script: Script
    address: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    greetings: int = 0

    def told(self, number: int = -1) -> dict[str, Any]:
        """What the user's message of one question says."""
        return json.loads(self.asked[number]["messages"][1]["content"])


def greeted(body: dict[str, Any]) -> bool:
    """Whether a question only wants to hear whether anybody is there."""
    return len(body["messages"]) == 1


@contextmanager
def language_model(script: Script | list[Said]) -> Iterator[Server]:
    """While open it answers; a list is gone through once, its last answer stays. Greetings are answered beside it."""
    left = list(script) if isinstance(script, list) else []
    server = Server(script if callable(script) else lambda body: left.pop(0) if len(left) > 1 else left[0])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.headers.append(dict(self.headers))
            server.paths.append(self.path)
            if greeted(body) and not callable(script):
                server.greetings += 1
                self._send(says("ready"))
                return
            server.asked.append(body)
            self._send(server.script(body))

        def _send(self, said: Said) -> None:
            time.sleep(said.hang_s)
            try:
                self.send_response(said.status)
                for name, value in said.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said.body)))
                self.end_headers()
                if not said.drip_s:
                    self.wfile.write(said.body)
                for at in range(len(said.body) if said.drip_s else 0):
                    self.wfile.write(said.body[at : at + 1])
                    self.wfile.flush()
                    time.sleep(said.drip_s)
            except OSError:  # who asked has hung up
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr."""

    class Http(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Http(("127.0.0.1", 0), Handler) as http:
        server.address = f"http://127.0.0.1:{http.server_port}/v1"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
