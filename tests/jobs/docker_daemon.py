"""As much of a Docker daemon as `docker run --detach, inspect, logs, kill, rm` talk to: containers are processes here."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlparse

VERSION = "1.44"
Containers = dict[str, dict[str, Any]]


class _Daemon(http.server.BaseHTTPRequestHandler):
    containers: Containers
    """Name -> what was asked for (`asked`), its process and what that has said (`log`)."""
    missing: set[str]
    """Images that there are not."""

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, code: int, told: Any = None, *, raw: bytes | None = None) -> None:
        body = raw if raw is not None else b"" if told is None else json.dumps(told).encode()
        self.send_response(code)
        self.send_header("Api-Version", VERSION)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlparse(self.path)
        return re.sub(r"^/v[\d.]+", "", parts.path), parse_qs(parts.query)

    def do_HEAD(self) -> None:
        self._answer(200)

    def do_GET(self) -> None:
        path, _ = self._asked()
        match = re.fullmatch(r"/containers/([^/]+)/(json|logs)", path)
        if path == "/_ping":
            self._answer(200, raw=b"OK")
        elif not match or match[1] not in self.containers:
            self._answer(404, {"message": f"No such container: {path.split('/')[-2]}"})
        elif match[2] == "logs":
            self._answer(200, raw=self.containers[match[1]]["log"].encode())
        else:
            self._answer(
                200, {"Id": match[1], "Name": f"/{match[1]}", "Config": {"Tty": True}, "State": self._state(match[1])}
            )

    def _state(self, name: str) -> dict[str, Any]:
        process = self.containers[name].get("process")
        code = process.poll() if process else None
        status = "created" if not process else "running" if code is None else "exited"
        return {"Status": status, "Running": status == "running", "ExitCode": code or 0, "OOMKilled": False}

    def do_POST(self) -> None:
        path, query = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/containers/create":
            asked, name = json.loads(body), query["name"][0]
            if asked["Image"] in self.missing:
                self._answer(404, {"message": f"No such image: {asked['Image']}"})
                return
            self.containers[name] = {"asked": asked, "log": ""}
            self._answer(201, {"Id": name, "Warnings": []})
        elif path == "/images/create":
            self._answer(404, {"message": f"pull access denied for {query['fromImage'][0]}"})
        elif match := re.fullmatch(r"/containers/([^/]+)/(start|kill|wait)", path):
            self._do(match[1], match[2], query)
        else:
            self._answer(404, {"message": "page not found"})

    def _do(self, name: str, what: str, query: dict[str, list[str]]) -> None:
        there = self.containers[name]
        if what == "start" and "hold" not in there["asked"]["Image"]:
            words = [sys.executable if word == "python" else word for word in there["asked"]["Cmd"]]
            environment = {**os.environ, **dict(row.split("=", 1) for row in there["asked"].get("Env") or [])}
            there["process"] = subprocess.Popen(
                words, cwd=there["asked"]["WorkingDir"], env=environment, start_new_session=True
            )
        if what == "kill":
            there["signals"] = [*there.get("signals", []), query["signal"][0]]
            there["process"].terminate()
        self._answer(204)

    def do_DELETE(self) -> None:
        path, _ = self._asked()
        there = self.containers.pop(path.rpartition("/")[2], None)
        self._answer(204 if there else 404, None if there else {"message": "No such container"})


@contextmanager
def daemon() -> Iterator[tuple[str, Containers, set[str]]]:
    """Its address as DOCKER_HOST has it, the containers that it was asked for, and images that it shall not have."""
    handler = type("Daemon", (_Daemon,), {"containers": {}, "missing": set()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.server_address[1]}", handler.containers, handler.missing  # type: ignore[attr-defined]
        server.shutdown()
        for there in handler.containers.values():  # type: ignore[attr-defined]
            if process := there.get("process"):
                process.kill()
                process.wait()
