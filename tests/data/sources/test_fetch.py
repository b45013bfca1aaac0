"""Files by address: fetched and unpacked once, gone on with, tried again, checked; and told in one line where not."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.sources.conftest import MakeFetcher, content
from data.sources.servers import Server, web
from oneformer.data.sources.cache import Cache
from oneformer.errors import DataError, MissingExtra, UserError, WorkError
from tiny import TinyDataset

BODY = bytes(range(256)) * 20_000  # 5 MB: several blocks
SUM = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def files(packed: Path) -> dict[str, bytes]:
    return {"/a.bin": BODY, "/images.tar.gz": (packed / "images.tar.gz").read_bytes(), "/bad.tar": b"nothing"}


@pytest.fixture
def server(files: dict[str, bytes]) -> Iterator[Server]:
    with web(files) as running:
        yield running


def left(cache: Path) -> list[str]:
    """What is not complete."""
    return sorted(p.name for p in (cache / "parts").iterdir())


def test_a_file_is_fetched_once_and_asked_for_again_by_its_tag(
    server: Server, fetcher: MakeFetcher, tmp_path: Path
) -> None:
    first = fetcher().local(f"{server.address}/a.bin", key="key")
    assert Path(first).read_bytes() == BODY and Path(first).name == "a.bin"
    assert fetcher().local(f"{server.address}/a.bin", key="key") == first
    assert len(server.asked) == 2  # the second was answered with 304
    assert left(tmp_path / "cache") == []


def test_new_content_is_seen(server: Server, files: dict[str, bytes], fetcher: MakeFetcher) -> None:
    first = fetcher().local(f"{server.address}/a.bin", key="key")
    files["/a.bin"] = b"new"
    second = fetcher().local(f"{server.address}/a.bin", key="key")
    assert (Path(first).read_bytes(), Path(second).read_bytes()) == (BODY, b"new")


def test_a_file_with_a_checksum_needs_no_network_the_second_time(server: Server, fetcher: MakeFetcher) -> None:
    source = f"{server.address}/a.bin#sha256={SUM}"
    first = fetcher().local(source, key="key")
    assert fetcher().local(source, key="key") == first
    assert len(server.asked) == 1


def test_another_checksum_is_an_error_and_nothing_is_kept(server: Server, fetcher: MakeFetcher, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=SUM) as told:
        fetcher().local(f"{server.address}/a.bin#sha256={'0' * 64}", key="key")
    assert told.value.where == f"{server.address}/a.bin"
    assert left(tmp_path / "cache") == [] and content(tmp_path / "cache" / "files") == {}


@pytest.mark.parametrize("fault", ["500", "503", "429", "reset", "short", "cut"])
def test_a_broken_transfer_is_tried_again(
    fault: str, server: Server, fetcher: MakeFetcher, no_pauses: list[float], tmp_path: Path
) -> None:
    server.faults = [fault, fault]
    file = fetcher().local(f"{server.address}/a.bin", key="key")
    assert Path(file).read_bytes() == BODY
    assert len(server.asked) == 3 and len(no_pauses) == 2
    if fault == "short":  # gone on with, not begun anew
        assert [r for _, _, r in server.asked] == ["", "bytes=2560000-", "bytes=3840000-"]
    assert left(tmp_path / "cache") == []


def test_pauses_grow_and_end(server: Server, fetcher: MakeFetcher, no_pauses: list[float]) -> None:
    server.faults = ["500"] * 100
    with pytest.raises(WorkError, match=r"answers 500 .*\(9 tries\)") as told:
        fetcher(retries=8).local(f"{server.address}/a.bin", key="key")
    assert told.value.exit_code == 1 and "\n" not in told.value.what
    assert len(server.asked) == 9 and len(no_pauses) == 8
    assert no_pauses[0] <= 0.5 and 20 < no_pauses[-1] <= 30


@pytest.mark.parametrize(
    ("status", "kind"), [("401", DataError), ("403", DataError), ("404", DataError), ("400", WorkError)]
)
def test_a_refusal_is_not_asked_for_twice(
    status: str, kind: type[UserError], server: Server, fetcher: MakeFetcher, no_pauses: list[float]
) -> None:
    server.faults = [status]
    with pytest.raises(kind, match=f"answers {status}"):
        fetcher().local(f"{server.address}/a.bin", key="key")
    assert not no_pauses


@pytest.mark.parametrize("tags", [True, False])
def test_what_an_earlier_run_left_is_gone_on_with_if_it_is_of_the_same_file(
    tags: bool, files: dict[str, bytes], fetcher: MakeFetcher, tmp_path: Path
) -> None:
    with web(files, tags=tags) as server:
        server.faults = ["short"]
        with pytest.raises(WorkError, match="the connection ended after 2560000 of 5120000 bytes"):
            fetcher(retries=0).local(f"{server.address}/a.bin", key="key")
        assert len(left(tmp_path / "cache")) == 1 + tags
        other = BODY[::-1]
        files["/a.bin"] = other
        assert Path(fetcher().local(f"{server.address}/a.bin", key="key")).read_bytes() == other
        assert server.asked[1][2] == ("bytes=2560000-" if tags else "")
    assert left(tmp_path / "cache") == []


def test_a_signed_address_is_fetched_and_its_signature_is_nowhere(
    server: Server, fetcher: MakeFetcher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.faults = ["500"]
    fetcher().local(f"{server.address}/a.bin?X-Amz-Signature=hush", key="key")
    assert server.asked[0][1] == "/a.bin?X-Amz-Signature=hush"
    assert "hush" not in caplog.text
    assert not any(b"hush" in p.read_bytes() or "hush" in p.name for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises(DataError) as told:
        fetcher().local(f"{server.address}/none?X-Amz-Signature=hush", key="key")
    assert "hush" not in told.value.message + told.value.where


def test_an_archive_is_unpacked_once_whatever_its_address(
    server: Server, fetcher: MakeFetcher, packed: Path, small: TinyDataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = fetcher().local(f"{server.address}/images.tar.gz", key="key")
    assert content(Path(folder)) == {f"set/photos/{n}": b for n, b in content(small.images).items()}
    assert fetcher().local(str(packed / "images.tar.gz"), key="key") == folder
    assert fetcher().local(f"file://{packed}/images.tar.gz", key="key") == folder
    assert caplog.text.count("unpacking") == 1


def test_a_changed_archive_of_this_machine_is_unpacked_again(
    packed: Path, fetcher: MakeFetcher, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.tar.gz"
    mine.write_bytes((packed / "images.tar.gz").read_bytes())
    first = fetcher().local(str(mine), key="key")
    mine.write_bytes((packed / "images_panoptic.tar.gz").read_bytes())
    assert fetcher().local(str(mine), key="key") != first


def test_plain_paths_are_left_alone_and_make_no_cache(fetcher: MakeFetcher, small: TinyDataset, tmp_path: Path) -> None:
    for text in (str(small.images), str(small.annotations), "nowhere/a.json", "rel/../x"):
        assert fetcher().local(text, key="key") == text
    assert not (tmp_path / "cache").exists()
    with pytest.raises(DataError, match=r"the archive dataset\.train\.images does not exist"):
        fetcher().local("nowhere/a.tar.gz", key="dataset.train.images")


def test_a_refused_archive_leaves_nothing(server: Server, fetcher: MakeFetcher, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no archive") as told:
        fetcher().local(f"{server.address}/bad.tar", key="key")
    assert told.value.where == f"{server.address}/bad.tar"
    assert content(tmp_path / "cache" / "unpacked") == {}
    assert not any(name.endswith(".unpack") for name in left(tmp_path / "cache"))


def test_a_file_that_is_too_large_is_refused(server: Server, fetcher: MakeFetcher) -> None:
    with pytest.raises(DataError, match=r"larger than 0\.00390625 GiB"):
        fetcher(max_gib=1 / 256).local(f"{server.address}/a.bin", key="key")
    assert len(server.asked) == 1


def test_a_cache_that_cannot_be_made_is_told(server: Server, fetcher: MakeFetcher, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(WorkError, match="cache folder") as told:
        fetcher().local(f"{server.address}/a.bin", key="key")
    assert "cache_dir" in told.value.hint


@pytest.mark.parametrize(("address", "package", "extra"), [
    ("s3://bucket/a", "s3fs", "s3"), ("gs://bucket/a", "gcsfs", "gs"), ("az://box/a", "adlfs", "az"), ("hf://datasets/a/b", "huggingface_hub", "hf"),
])  # fmt: skip
def test_a_missing_package_names_its_extra(
    address: str, package: str, extra: str, fetcher: MakeFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setitem(sys.modules, package, None)

    def none(protocol: str, **_: object) -> None:
        raise ImportError(f"install {package}")

    monkeypatch.setattr(fsspec, "filesystem", none)
    with pytest.raises(MissingExtra, match=package) as told:
        fetcher().local(address, key="key")
    assert told.value.hint == f'pip install "oneformer[{extra}]"'
    assert f"{extra} = [" in (Path(__file__).parents[3] / "pyproject.toml").read_text()


def test_threads_that_want_the_same_get_it_once(server: Server, fetcher: MakeFetcher) -> None:
    found: list[str] = []
    work = [
        threading.Thread(target=lambda: found.append(fetcher().local(f"{server.address}/images.tar.gz", key="key")))
        for _ in range(4)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert len(server.asked) == 4  # one whole answer, then "not modified"


CHILD = """
import sys
from oneformer.data.sources.fetch import Fetcher
from oneformer.spec.sources import SourcesSpec
print(Fetcher(SourcesSpec(cache_dir=sys.argv[1])).local(sys.argv[2], key="key"), flush=True)
"""


def child(cache: Path, source: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CHILD, str(cache), source], stdout=subprocess.PIPE, text=True)


def test_processes_that_start_together_share_one_unpacking(server: Server, small: TinyDataset, tmp_path: Path) -> None:
    both = [child(tmp_path / "cache", f"{server.address}/images.tar.gz") for _ in range(2)]
    told = [process.communicate(timeout=60)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert told[0] == told[1]
    assert content(Path(told[0])) == {f"set/photos/{n}": b for n, b in content(small.images).items()}
    assert len(list((tmp_path / "cache" / "unpacked").iterdir())) == 1
    assert left(tmp_path / "cache") == []


def test_a_process_that_is_killed_half_way_spoils_nothing(
    files: dict[str, bytes], fetcher: MakeFetcher, small: TinyDataset, tmp_path: Path
) -> None:
    """Once while it fetches, once while it unpacks; the next one goes on, and nobody sees a half."""
    from oneformer.data.sources.transfer import Limits
    from oneformer.data.sources.unpack import unpack

    cache = tmp_path / "cache"
    with web(files) as server:
        server.faults = ["short", *["reset"] * 50]  # it has half, and is left trying
        process = child(cache, f"{server.address}/a.bin")
        until(lambda: len(server.asked) > 1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [name[-6:] for name in left(cache)] == [".fetch", "tch.of"]
        server.faults.clear()
        asked = len(server.asked)
        assert Path(fetcher().local(f"{server.address}/a.bin", key="key")).read_bytes() == BODY
        assert server.asked[asked][2] == "bytes=2560000-"
        # What a process that died while it unpacked has left.
        archive = tmp_path / "x.tar.gz"
        archive.write_bytes(files["/images.tar.gz"])
        checksum = hashlib.sha256(files["/images.tar.gz"]).hexdigest()
        dead = cache / "parts" / f"{checksum[:32]}.host-1.unpack"
        unpack(archive, dead, limits=Limits())
        next(dead.rglob("*.png")).unlink()
        folder = Path(fetcher().local(f"{server.address}/images.tar.gz", key="key"))
    assert content(folder) == {f"set/photos/{n}": b for n, b in content(small.images).items()}
    assert left(cache) == []


def test_who_waits_for_a_process_that_is_killed_takes_over(server: Server, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    hold = f"""
import sys, time
from oneformer.data.sources.cache import Cache, digest_of
with Cache({str(cache.root)!r}).alone(digest_of(sys.argv[1]) + ".fetch"):
    print("held", flush=True)
    time.sleep(100)
"""
    source = f"{server.address}/a.bin"
    holder = subprocess.Popen([sys.executable, "-c", hold, source], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    waiting = child(cache.root, source)
    time.sleep(0.3)
    assert waiting.poll() is None and not server.asked
    os.kill(holder.pid, signal.SIGKILL)
    assert Path(waiting.communicate(timeout=60)[0].strip()).read_bytes() == BODY
    holder.wait()
    holder.stdout.close()


def test_a_broken_note_is_no_harm(server: Server, fetcher: MakeFetcher, tmp_path: Path) -> None:
    first = fetcher().local(f"{server.address}/a.bin", key="key")
    (note,) = (tmp_path / "cache" / "index").iterdir()
    assert json.loads(note.read_text())["sha256"] == SUM
    note.write_text("{")
    assert fetcher().local(f"{server.address}/a.bin", key="key") == first


def until(true: object, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        threading.Event().wait(0.02)
