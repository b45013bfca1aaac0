"""A folder or another server -> a server on this machine that answers as it is told: whole, broken or not at all."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What goes over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Server:
    """A listening server; `faults` are played one by one, each for the next request that `hits`."""

    address: str = ""
    faults: list[str] = field(default_factory=list)
    """`500`, `503`, `403` and the like; `reset` before an answer; `short`: half of the body; `cut`: the same, reset."""
    hits: Callable[[str, str], bool] = lambda method, path: method == "GET"
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """(method, path, range) of every request."""


@contextmanager
def serving(answer: Callable[[str, str, dict[str, str], bytes], Answer]) -> Iterator[Server]:
    """A server that gives what `answer` says of (method, path, headers, body), or plays a fault."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def play(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            with lock:
                state.asked.append((self.command, self.path, self.headers.get("Range", "")))
                fault = state.faults.pop(0) if state.faults and state.hits(self.command, self.path) else ""
            if fault == "reset":
                self.abort()
                return
            if fault.isdigit():
                self.say(Answer(int(fault), {"Content-Length": "0"}))
                return
            said = answer(self.command, self.path, dict(self.headers), body)
            if fault in ("short", "cut") and len(said.body) > 1:
                said.body = said.body[: len(said.body) // 2]
            self.say(said)
            if fault in ("short", "cut"):
                self.wfile.flush()
                if fault == "cut":
                    self.abort()
                self.close_connection = True

        def say(self, said: Answer) -> None:
            self.send_response_only(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said.body)

        def abort(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = play

        def finish(self) -> None:
            with suppress(OSError, ValueError):  # a connection that was reset
                super().finish()

        def log_message(self, *args: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            pass

    listening = Quiet(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{listening.server_address[1]}")
    threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield state
    finally:
        listening.shutdown()
        listening.server_close()


@contextmanager
def web(files: dict[str, bytes], *, tags: bool = True) -> Iterator[Server]:
    """A web server with these files (path without its query -> content), which knows ranges and entity tags."""

    def answer(method: str, path: str, headers: dict[str, str], _: bytes) -> Answer:
        body = files.get(path.partition("?")[0])
        if body is None:
            return Answer(404, {"Content-Length": "0"})
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        told = {"ETag": tag} if tags else {}
        if tags and headers.get("If-None-Match") == tag:
            return Answer(304, told)
        wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("Range", ""))
        if wanted and headers.get("If-Range", tag) == tag:
            start = int(wanted[1])
            if start >= len(body):
                return Answer(416, {"Content-Length": "0"})
            span = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            return Answer(206, {**told, **span, "Content-Length": str(len(body) - start)}, body[start:])
        return Answer(200, {**told, "Content-Length": str(len(body))}, body)

    with serving(answer) as server:
        yield server


@contextmanager
def in_front_of(port: int, *, bearer: str = "") -> Iterator[Server]:
    """A server that hands everything on to another one of this machine; with `bearer` only what brings this token."""

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        if bearer and {k.lower(): v for k, v in headers.items()}.get("authorization") != f"Bearer {bearer}":
            said = b'{"error": {"code": 401, "message": "Anonymous caller may not read this."}}'
            return Answer(401, {"Content-Length": str(len(said)), "Content-Type": "application/json"}, said)
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        keep = {k: v for k, v in headers.items() if k.lower() not in ("connection", "transfer-encoding")}
        link.request(method, path, body=body, headers=keep)
        reply = link.getresponse()
        content = reply.read()
        told = {k: v for k, v in reply.getheaders() if k.lower() not in ("connection", "transfer-encoding", "date")}
        if method != "HEAD":
            told = {k: v for k, v in told.items() if k.lower() != "content-length"} | {
                "Content-Length": str(len(content))
            }
        link.close()
        return Answer(reply.status, told, b"" if method == "HEAD" else content)

    with serving(answer) as server:
        yield server
