"""Weight files by address: fetched once, checked, resumed, and refused in one line where something is wrong."""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from model.weights.holder import Holder, shuffle, swin_spec
from oneformer.errors import CheckpointError, SpecError, WorkError
from oneformer.model.weights import download
from oneformer.model.weights.backbone import load_backbone, locate
from oneformer.model.weights.download import KNOWN, fetch, is_remote

CONTENT = bytes(range(256)) * 20_000  # 5 MB: several chunks
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """A server on this machine that keeps what it was asked for."""

    address: str
    content: bytes = CONTENT
    ranges: bool = True
    """Whether it can go on in the middle of a file."""
    cut: int | None = None
    """Bytes after which it closes the connection."""
    status: int = 200
    leads_to: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oneformer.data.sources.transfer.time.sleep", lambda _: None)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.asked.append(wanted)
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and state.ranges else 0  # type: ignore[index]
            if state.leads_to or state.status != 200 or (start and start >= len(state.content)):
                self.send_response(302 if state.leads_to else state.status if state.status != 200 else 416)
                self.send_header("Location", state.leads_to)
                self.end_headers()
                return
            body = state.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            self.end_headers()
            self.wfile.write(body[: state.cut])
            if state.cut is not None:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *args: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = Server(f"http://127.0.0.1:{listening.server_address[1]}/weights/file.pth")
    threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    yield state
    listening.shutdown()
    listening.server_close()


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def test_a_file_is_fetched_once_and_kept(server: Server, tmp_path: Path) -> None:
    source = f"{server.address}#sha256={CHECKSUM.upper()}"
    file = fetch(source, cache=tmp_path)
    assert file.read_bytes() == CONTENT
    assert files(tmp_path) == [file.name]
    assert file.name.endswith("-file.pth")
    assert fetch(source, cache=tmp_path) == file
    assert server.asked == [""]


def test_a_kept_file_that_has_changed_is_fetched_again(server: Server, tmp_path: Path) -> None:
    source = f"{server.address}#sha256={CHECKSUM}"
    fetch(source, cache=tmp_path).write_bytes(CONTENT[:-1] + b"x")
    assert fetch(source, cache=tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_another_checksum_is_an_error_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=CHECKSUM) as told:
        fetch(f"{server.address}#sha256={'0' * 64}", cache=tmp_path)
    assert told.value.where == server.address
    assert files(tmp_path) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_goes_on_or_starts_again(
    server: Server, tmp_path: Path, ranges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRIES", 0)
    source = f"{server.address}#sha256={CHECKSUM}"
    server.cut, server.ranges = 2_500_000, ranges
    with pytest.raises(WorkError, match="cannot be fetched") as told:
        fetch(source, cache=tmp_path)
    assert told.value.exit_code == 1
    assert "\n" not in told.value.what
    (part,) = files(tmp_path)
    assert part.endswith(".part")
    begun = (tmp_path / part).stat().st_size
    server.cut = None
    file = fetch(source, cache=tmp_path)
    assert file.read_bytes() == CONTENT
    assert files(tmp_path) == [file.name]
    assert server.asked == ["", f"bytes={begun}-"]


@pytest.mark.parametrize("length", [1_000, len(CONTENT), len(CONTENT) + 5])
def test_the_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path, length: int) -> None:
    source = f"{server.address}#sha256={CHECKSUM}"
    file = fetch(source, cache=tmp_path)
    file.unlink()
    file.with_name(file.name + ".part").write_bytes(b"z" * length)
    assert fetch(source, cache=tmp_path).read_bytes() == CONTENT


def test_processes_that_want_the_same_file_fetch_it_once(server: Server, tmp_path: Path) -> None:
    source = f"{server.address}#sha256={CHECKSUM}"
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(source, cache=tmp_path).read_bytes())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "source",
    [
        "https://example.org/file.pth",
        "https://example.org/file.pth#sha256=12",
        "https://example.org/file.pth#md5=0123",
    ],
)
def test_an_address_without_a_checksum_is_refused_and_how_to_give_one_is_told(source: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no checksum") as told:
        fetch(source, cache=tmp_path)
    assert "#sha256=" in told.value.hint
    assert told.value.where == "train.pretrained_backbone"
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "address",
    [
        "http://example.org/file.pth",
        "ftp://example.org/file.pth",
        "ngc://nvidia/tao/file",
        "file:///etc/passwd",
        "https://user:word@example.org/file.pth",
        "https://[::1/file.pth",
        "https:///file.pth",
    ],
)
def test_only_https_is_fetched(address: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="only https") as told:
        fetch(f"{address}#sha256={CHECKSUM}", cache=tmp_path)
    assert "word" not in told.value.message


def test_a_server_cannot_lead_elsewhere(server: Server, tmp_path: Path) -> None:
    server.leads_to = "http://example.org/file.pth"
    with pytest.raises(WorkError, match=r"leads to http://example\.org"):
        fetch(f"{server.address}#sha256={CHECKSUM}", cache=tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusing_server_is_told_in_one_line(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    tries = 1 if status < 500 else 1 + download.RETRIES
    with pytest.raises(WorkError, match=f"answers {status}") as told:
        fetch(f"{server.address}#sha256={CHECKSUM}", cache=tmp_path)
    assert told.value.what.count("\n") == 0
    assert len(server.asked) == tries


def test_no_network_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link that TAO's Swin-T specs name has no checksum to give; it works by name and as it is."""

    def unreachable(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    monkeypatch.setattr(download, "cache_folder", lambda: tmp_path)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    name, address = next(iter(KNOWN.items()))
    for source in (name, address):
        with pytest.raises(WorkError, match="Name or service not known") as told:
            locate(source)
        assert told.value.where == address
        assert "give its path" in told.value.hint


def test_a_known_name_is_fetched_without_a_checksum_and_tells_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(KNOWN, "a_known_name", server.address)
    caplog.set_level(logging.INFO, "oneformer")
    for source in ("a_known_name", server.address):
        assert fetch(source, cache=tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 1
    assert f"sha256={CHECKSUM}" in caplog.text


def test_a_download_without_end_is_ended(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 3 << 20)
    with pytest.raises(WorkError, match="larger than"):
        fetch(f"{server.address}#sha256={CHECKSUM}", cache=tmp_path)
    assert max(p.stat().st_size for p in tmp_path.iterdir()) <= 3 << 20


def test_a_folder_that_cannot_be_written_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WorkError, match="cannot be kept"):
        fetch(f"{server.address}#sha256={CHECKSUM}", cache=tmp_path / "file")


@pytest.mark.parametrize("source", ["weights.pth", "./a/b.pth", "/a/b.pth", "a:b.pth", ""])
def test_paths_are_no_addresses(source: str) -> None:
    assert not is_remote(source)


def test_a_backbone_by_address_goes_into_the_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("oneformer.runs.away.sys.platform", "linux")
    source = shuffle(Holder(swin_spec())).backbone.state_dict()
    torch.save(source, tmp_path / "file.pth")
    server.content = (tmp_path / "file.pth").read_bytes()
    model = Holder(swin_spec())
    report = load_backbone(model, f"{server.address}#sha256={hashlib.sha256(server.content).hexdigest()}")
    assert not report.missing
    assert all(torch.equal(tensor, source[name]) for name, tensor in model.backbone.state_dict().items())
    assert [p.name[-9:] for p in (tmp_path / "cache/oneformer/weights").glob("*.pth")] == ["-file.pth"]
