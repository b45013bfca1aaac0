"""Encrypted files: what comes back, what is refused, and that nothing of it lies anywhere in plain."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneformer.errors import CheckpointError, WorkError
from oneformer.runs import encrypt
from oneformer.runs.atomic import write_atomic
from oneformer.runs.by_name import by_name
from oneformer.runs.encrypt import BLOCK, HEAD, TAG, is_encrypted, opened, plain_size, read_plain
from oneformer.runs.key import VARIABLE, environment, plain_files, reading_key, using, writing_key

KEY = "a long walk by the sea"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guessing keys costs little here, and blocks are small."""
    monkeypatch.setattr(encrypt, "COST", 12)
    monkeypatch.setattr(encrypt, "BLOCK", 64)
    monkeypatch.delenv(VARIABLE, raising=False)


def written(path: Path, data: bytes, key: str = KEY) -> Path:
    return write_atomic(path, lambda file: file.write(data), key=key)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128, 1000])
def test_what_was_written_is_read_again_whatever_its_length(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = written(tmp_path / "file", data)
    assert is_encrypted(path) and plain_size(path) == size
    with using(KEY):
        assert read_plain(path) == data
    assert size < 20 or data not in path.read_bytes()


@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.binary(max_size=200), max_size=6), seek=st.integers(0, 700), length=st.integers(0, 200))
def test_any_part_is_that_of_the_plain_file(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], seek: int, length: int
) -> None:
    path = tmp_path_factory.mktemp("parts") / "file"
    write_atomic(path, lambda file: [file.write(piece) for piece in pieces], key=KEY)
    plain = io.BytesIO(b"".join(pieces))
    with using(KEY), opened(path) as file:
        for whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            assert file.seek(seek if whence == os.SEEK_SET else 0, whence) == plain.seek(
                seek if whence == os.SEEK_SET else 0, whence
            )
            assert file.read(length) == plain.read(length)


def test_a_plain_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = written(tmp_path / "file", b"plain", key="")
    assert path.read_bytes() == b"plain" == read_plain(path)
    assert not is_encrypted(path) and plain_size(path) == 5


def test_without_the_key_and_with_another_the_message_says_so_and_no_key(tmp_path: Path) -> None:
    path = written(tmp_path / "file", b"x" * 100)
    with pytest.raises(CheckpointError, match="encrypted, and no key is given"):
        opened(path)
    with using("another walk"), pytest.raises(CheckpointError, match="with another key") as caught:
        opened(path)
    assert "walk" not in str(caught.value)


def test_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "file", os.urandom(200))
    data = path.read_bytes()
    with using(KEY):
        for place in range(len(encrypt.MAGIC), len(data)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            if place == len(encrypt.MAGIC):  # the cost: another one takes longer to refuse
                continue
            with pytest.raises(CheckpointError):
                read_plain(path)


def test_a_file_cut_anywhere_is_refused_at_once(tmp_path: Path) -> None:
    path = written(tmp_path / "file", os.urandom(200))
    data = path.read_bytes()
    with using(KEY):
        for size in range(len(encrypt.MAGIC), len(data)):
            path.write_bytes(data[:size])
            with pytest.raises(CheckpointError, match="cut short"):
                opened(path)
        path.write_bytes(data + b"x")
        with pytest.raises(CheckpointError, match="changed"):
            opened(path)


def test_swapped_repeated_and_foreign_blocks_are_refused(tmp_path: Path) -> None:
    path, other = written(tmp_path / "file", os.urandom(256)), written(tmp_path / "other", os.urandom(256))
    step = 64 + TAG

    def blocks(file: Path) -> list[bytes]:
        bulk = file.read_bytes()[HEAD:]
        return [bulk[at : at + step] for at in range(0, len(bulk), step)]

    head, mine, theirs = path.read_bytes()[:HEAD], blocks(path), blocks(other)
    with using(KEY):
        for wrong in (
            [mine[1], mine[0], *mine[2:]],
            [mine[0], mine[0], *mine[2:]],
            [mine[0], mine[1], mine[3]],
            [theirs[0], *mine[1:]],
            [*mine, mine[-1]],
        ):
            path.write_bytes(head + b"".join(wrong))
            with pytest.raises(CheckpointError, match="damaged"):
                read_plain(path)


def test_the_same_content_looks_different_in_every_file(tmp_path: Path) -> None:
    first, second = (written(tmp_path / name, b"x" * 500).read_bytes() for name in ("a", "b"))
    assert first[HEAD:] != second[HEAD:] and len(first) == len(second)


def test_a_strangers_file_cannot_ask_for_all_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "file", b"x")
    data = bytearray(path.read_bytes())
    data[len(encrypt.MAGIC)] = 40
    path.write_bytes(data)
    with using(KEY), pytest.raises(CheckpointError, match="damaged"):
        opened(path)


def test_the_key_of_the_spec_comes_before_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reading_key() == "" and environment() == {}
    monkeypatch.setenv(VARIABLE, "outside")
    assert reading_key() == "outside" == writing_key()
    with using("inside"):
        assert environment() == {VARIABLE: "inside"}
        with using(""), plain_files():
            assert reading_key() == "inside" and writing_key() == ""
    assert reading_key() == "outside"


def test_accents_typed_on_another_system_are_the_same_key(tmp_path: Path) -> None:
    path = written(tmp_path / "file", b"x", key="caf\u00e9")
    with using("cafe\u0301"):
        assert read_plain(path) == b"x"


def test_files_written_by_name_are_never_on_the_disk_in_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    target, beside = tmp_path / "model.xml", tmp_path / "model.bin"
    with using(KEY):
        with by_name(target, beside, tmp_path / "never") as place:
            place.write_bytes(b"weights")
            place.with_suffix(".bin").write_bytes(b"more")
            kept = [file for file in (tmp_path / "temporary").rglob("*") if file.is_file() and not file.is_symlink()]
            assert not kept or os.name != "posix"
        assert (read_plain(target), read_plain(beside)) == (b"weights", b"more")
    assert not (tmp_path / "never").exists() and not list((tmp_path / "temporary").iterdir())
    assert b"weights" not in target.read_bytes()


def test_a_fault_leaves_neither_a_part_nor_the_target(tmp_path: Path) -> None:
    def fill(file: object) -> None:
        file.write(b"x" * 500)  # type: ignore[attr-defined]
        raise OSError("the disk is full")

    with pytest.raises(WorkError, match="disk is full"):
        write_atomic(tmp_path / "file", fill, key=KEY)
    with using(KEY), pytest.raises(OSError, match="no good"), by_name(tmp_path / "file") as place:
        place.write_bytes(b"half")
        raise OSError("no good")
    assert not list(tmp_path.iterdir())


def test_large_files_pass_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    monkeypatch.setattr(encrypt, "BLOCK", BLOCK)
    piece = os.urandom(4 * BLOCK)
    tracemalloc.start()
    write_atomic(tmp_path / "file", lambda file: [file.write(piece) for _ in range(16)], key=KEY)
    with using(KEY), opened(tmp_path / "file", whole=True) as file:
        file.seek(40 * BLOCK)
        assert file.read(100) == piece[:100]
    assert tracemalloc.get_traced_memory()[1] < 24 * BLOCK, "64 MiB in, and at most some blocks in memory"
    tracemalloc.stop()
