"""Google's, Azure's and Hugging Face's storage -> servers of them on this machine, behind a line that breaks."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from urllib.request import Request, urlopen

import pytest

from data.sources.servers import Answer, Server, in_front_of, serving


@dataclass
class Shop:
    """A store that is served here."""

    root: str
    """Address of its bucket, container or repository."""
    line: Server
    put: Callable[[str, bytes], None]
    """Puts an object: (name below the root, content)."""
    secrets: tuple[str, ...]
    """What must stand nowhere."""
    login: Callable[[pytest.MonkeyPatch], None]
    """Sets the environment as a user would."""
    variables: tuple[str, ...]
    """Those of the login that hold it."""


@contextmanager
def google(folder: Path) -> Iterator[Shop]:
    """A bucket that a service account may read: its key lies in a file, its tokens come from a server."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    pytest.importorskip("gcsfs")
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives import serialization as form

    token = "ya29.hush-hush-hush-hush"
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()).decode()

    def give(*_: object) -> Answer:
        said = json.dumps({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}).encode()
        return Answer(200, {"Content-Length": str(len(said)), "Content-Type": "application/json"}, said)

    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    bucket = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="streets")
    bucket.start()
    port = bucket._api._httpd.server_address[1]

    def put(name: str, body: bytes) -> None:
        address = f"http://127.0.0.1:{port}/upload/storage/v1/b/streets/o?uploadType=media&name={quote(name, safe='')}"
        sent = Request(address, data=body, method="POST", headers={"Content-Type": "application/octet-stream"})
        urlopen(sent).close()

    with serving(give) as tokens, in_front_of(port, bearer=token) as line:
        line.hits = lambda method, path: method == "GET" and "alt=media" in path
        account = {"type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": pem}
        account |= {"client_email": "reader@p.example", "token_uri": f"{tokens.address}/token"}
        key = folder / "key.json"
        key.write_text(json.dumps(account))

        def login(monkeypatch: pytest.MonkeyPatch) -> None:
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", line.address)
            monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
            monkeypatch.setenv("NO_GCE_CHECK", "true")  # not whether this machine is one of Google's
            monkeypatch.setenv("HOME", str(folder))

        yield Shop("gs://streets", line, put, (token, pem.split("\n")[1]), login, ("GOOGLE_APPLICATION_CREDENTIALS",))
    bucket.stop()


@contextmanager
def azure(folder: Path) -> Iterator[Shop]:
    """A container of Azurite's."""
    azurite = shutil.which("azurite-blob")
    if azurite is None:
        pytest.skip("azurite-blob is not on the PATH: npm install -g azurite")
    pytest.importorskip("adlfs")
    from azure.storage.blob import BlobServiceClient

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent", "--disableTelemetry"]
    # It is often older than the newest client; what is used here has been the same for years.
    words += ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableProductStyleUrl"]
    server = subprocess.Popen([azurite, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # The key that Azurite is documented to have.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    def connection(address: str) -> str:
        name = "devstoreaccount1"
        return f"DefaultEndpointsProtocol=http;AccountName={name};AccountKey={key};BlobEndpoint={address}/{name};"

    try:
        listening(port)
        client = BlobServiceClient.from_connection_string(connection(f"http://127.0.0.1:{port}"))
        container = client.create_container("streets")

        def put(name: str, body: bytes) -> None:
            container.upload_blob(name, body, overwrite=True)

        with in_front_of(port) as line:
            line.hits = lambda method, path: method == "GET" and "comp=list" not in path and "restype" not in path

            def login(monkeypatch: pytest.MonkeyPatch) -> None:
                monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection(line.address))

            yield Shop("az://streets", line, put, (key,), login, ("AZURE_STORAGE_CONNECTION_STRING",))
        client.close()
    finally:
        server.terminate()
        server.wait()


def listening(port: int) -> None:
    """Wait until a server has come up."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with socket.socket() as link:
            if link.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("no server came up")


@contextmanager
def hub(_: Path) -> Iterator[Shop]:
    """A private repository of data, by the part of the hub's interface that reading uses."""
    pytest.importorskip("huggingface_hub")
    token = "hf_hushhushhushhushhush"
    files: dict[str, bytes] = {}

    def answer(method: str, path: str, headers: dict[str, str], _: bytes) -> Answer:
        parts, query = urlsplit(path), parse_qs(urlsplit(path).query.lower())
        place = unquote(parts.path)
        if headers.get("authorization", headers.get("Authorization")) != f"Bearer {token}":
            return Answer(401, {"Content-Length": "0", "X-Error-Code": "RepoNotFound"})
        for head, tell in (
            ("/api/datasets/us/streets/tree/main", lambda rest: tree(files, rest, query["recursive"] == ["true"])),
            ("/datasets/us/streets/resolve/main", files.get),
            ("/api/datasets/us/streets", lambda _: {"id": "us/streets", "sha": "0" * 40, "private": True}),
        ):
            if place.startswith(head):
                return said(tell(place.removeprefix(head).lstrip("/")), headers)
        return Answer(401, {"Content-Length": "0", "X-Error-Code": "RepoNotFound"})

    with serving(answer) as line:
        line.hits = lambda method, path: method == "GET" and "/resolve/" in path

        def login(monkeypatch: pytest.MonkeyPatch) -> None:
            from huggingface_hub import constants

            # What HF_ENDPOINT says, had it been set before the package was imported.
            template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, line.address)
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            monkeypatch.setattr(constants, "ENDPOINT", line.address)
            monkeypatch.setenv("HF_ENDPOINT", line.address)
            monkeypatch.setenv("HF_TOKEN", token)

        yield Shop("hf://datasets/us/streets", line, files.__setitem__, (token,), login, ("HF_TOKEN",))


def tree(files: dict[str, bytes], top: str, deep: bool) -> list[dict[str, object]] | None:
    """A listing of the hub's: large files by their SHA-256, others by git's name of their content."""
    head = f"{top}/" if top else ""
    found: dict[str, dict[str, object]] = {}
    for name, body in files.items():
        if not name.startswith(head):
            continue
        steps = name.removeprefix(head).split("/")
        for depth in range(1, len(steps)) if deep else range(1, min(2, len(steps))):
            folder = head + "/".join(steps[:depth])
            found[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
        if deep or len(steps) == 1:
            oid = hashlib.sha1(f"blob {len(body)}\0".encode() + body).hexdigest()
            found[name] = {"type": "file", "path": name, "oid": oid, "size": len(body)}
            if name.endswith(".gz"):
                digits = hashlib.sha256(body).hexdigest()
                found[name] |= {"oid": "f" * 40, "lfs": {"oid": digits, "size": len(body), "pointerSize": 134}}
    return list(found.values()) or None


def said(content: object, headers: dict[str, str]) -> Answer:
    """What goes over the wire: JSON, bytes or the part of them that was asked for, or that nothing is there."""
    if content is None:
        return Answer(404, {"Content-Length": "0", "X-Error-Code": "EntryNotFound"})
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    kind = {"Content-Type": "application/octet-stream" if body is content else "application/json"}
    span = headers.get("range", headers.get("Range", ""))
    if not span:
        return Answer(200, {**kind, "Content-Length": str(len(body))}, body)
    start, end = (int(word) for word in span.removeprefix("bytes=").split("-"))
    part = body[start : end + 1]
    told = {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(body)}", "Content-Length": str(len(part))}
    return Answer(206, {**kind, **told}, part)
