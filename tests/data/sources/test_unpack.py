"""Archives of strangers: what is sound comes out byte by byte, everything else is refused and touches nothing."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oneformer.data.sources.transfer import Limits
from oneformer.data.sources.unpack import unpack
from oneformer.errors import DataError, UserError, WorkError

FILES = {"images/a.png": b"first", "images/deep/b.png": b"", "label.json": b"x" * 3_000_000}


def tar_of(path: Path, members: list[tuple[str, bytes | str]], mode: str = "w", **more: Any) -> Path:
    """A tar file; content that is text names the type of the member instead."""
    kinds = {
        "link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE,
        "block": tarfile.BLKTYPE, "folder": tarfile.DIRTYPE, "unknown": b"Z",
    }  # fmt: skip
    with tarfile.open(path, mode, **more) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o777
            if isinstance(content, str):
                info.type, info.linkname = kinds[content], "/etc/passwd"
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def zip_of(
    path: Path, members: list[tuple[str, bytes]], *, mode: int = 0, compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as packed:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = compression
            packed.writestr(info, content)
    return path


def whole(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


MAKERS: dict[str, Callable[[Path], Path]] = {
    "tar": lambda p: tar_of(p, list(FILES.items())),
    "gnu": lambda p: tar_of(p, list(FILES.items()), format=tarfile.GNU_FORMAT),
    "gz": lambda p: tar_of(p, [("./", "folder"), *FILES.items()], "w:gz"),
    "zip": lambda p: zip_of(p, list(FILES.items())),
    "stored": lambda p: zip_of(p, [("images/", b""), *FILES.items()], compression=zipfile.ZIP_STORED),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_sound_archives_come_out_as_they_went_in(kind: str, tmp_path: Path) -> None:
    found = unpack(MAKERS[kind](tmp_path / "any.name"), tmp_path / "out", limits=Limits())
    assert whole(tmp_path / "out") == FILES
    assert (found.files, found.size, found.litter) == (3, 3_000_005, 0)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert not any(mode & 0o111 for mode in modes)


def test_long_and_foreign_names_come_out(tmp_path: Path) -> None:
    names = ["ä/" + "n" * 200 + ".png", "a/" * 60 + "b.png", "日本.png"]
    for maker in (tar_of, zip_of):
        out = tmp_path / maker.__name__
        unpack(maker(tmp_path / "x", [(n, b"1") for n in names]), out, limits=Limits())
        assert set(whole(out)) == set(names)


def test_files_of_operating_systems_are_left_out(tmp_path: Path) -> None:
    junk = [("__MACOSX/images/._a.png", b"1"), ("images/._a.png", b"1"), (".DS_Store", b"1"), ("images/a.png", b"2")]
    found = unpack(zip_of(tmp_path / "x", junk), tmp_path / "out", limits=Limits())
    assert whole(tmp_path / "out") == {"images/a.png": b"2"}
    assert found.litter == 3


TWO = [("a.png", b"1"), ("b.png", b"2")]
EVIL_TARS: dict[str, tuple[list[tuple[str, bytes | str]], str]] = {
    "traversal": ([("../../evil.png", b"x")], "leads out of its folder"),
    "traversal inside": ([("images/../../evil.png", b"x")], "leads out of its folder"),
    "absolute": ([("/tmp/evil.png", b"x")], "is absolute"),
    "drive": ([("C:evil.png", b"x")], "is absolute"),
    "backslash": ([("..\\evil.png", b"x")], "backslash"),
    "control": ([("a\nb.png", b"x")], "control characters"),
    "link": ([("a", "link"), ("a/evil.png", b"x")], "is a link"),
    "hard link": ([("a", "hard link")], "is a hard link"),
    "fifo": ([("a", "fifo")], "is a pipe"),
    "char": ([("a", "char")], "is a device"),
    "block": ([("a", "block")], "is a device"),
    "twice": ([("a.png", b"1"), ("./a.png", b"2")], "two files 'a.png'"),
    "case": ([("a.png", b"1"), ("A.PNG", b"2")], "differ in their case"),
    "case of folders": ([("a/b.png", b"1"), ("A/c.png", b"2")], "differ in their case"),
    "unicode forms": ([("\u00e9.png", b"1"), ("e\u0301.png", b"2")], "differ in their case"),
    "file and folder": ([("a", b"1"), ("a/b.png", b"2")], "is a file and a folder"),
    "folder and file": ([("a/b.png", b"2"), ("a", b"1")], "is a file and a folder"),
    "long name": ([("n" * 300, b"1")], "too long"),
    "nothing": ([("images", "folder")], "holds no file"),
}  # fmt: skip


@pytest.mark.parametrize("name", EVIL_TARS)
def test_members_that_could_do_harm_are_refused(name: str, tmp_path: Path) -> None:
    members, message = EVIL_TARS[name]
    box = tmp_path / "box"
    (box / "cache").mkdir(parents=True)
    archive = tar_of(tmp_path / "x.tar", members)
    with pytest.raises(DataError, match=message) as told:
        unpack(archive, box / "cache" / "out", limits=Limits())
    assert told.value.where == str(archive)
    assert "\n" not in told.value.what and "\x1b" not in told.value.what
    assert set(box.iterdir()) == {box / "cache"} and set((box / "cache").iterdir()) == {box / "cache" / "out"}
    assert not any(p.is_symlink() for p in box.rglob("*"))


@pytest.mark.parametrize("name", ["traversal", "absolute", "backslash", "twice", "case", "file and folder"])
def test_the_same_holds_for_zip_files(name: str, tmp_path: Path) -> None:
    members, message = EVIL_TARS[name]
    archive = zip_of(tmp_path / "x.zip", members)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        unpack(archive, tmp_path / "box" / "out", limits=Limits())
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_zip_files_are_refused(kind: int, tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", [("a", b"/etc/passwd")], mode=kind | 0o777)
    with pytest.raises(DataError, match="is a link or a device"):
        unpack(archive, tmp_path / "out", limits=Limits())
    assert whole(tmp_path / "out") == {}


def test_an_encrypted_zip_file_is_refused(tmp_path: Path) -> None:
    data = bytearray(zip_of(tmp_path / "x.zip", TWO).read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DataError, match="is encrypted"):
        unpack(tmp_path / "x.zip", tmp_path / "out", limits=Limits())


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_a_bomb_is_refused_before_it_is_written(kind: str, tmp_path: Path) -> None:
    zeros = [("zeros.bin", bytes(80 << 20))]
    archive = tar_of(tmp_path / "x", zeros, "w:gz") if kind == "tar.gz" else zip_of(tmp_path / "x", zeros)
    assert archive.stat().st_size < 200_000
    with pytest.raises(DataError, match="grow to"):
        unpack(archive, tmp_path / "out", limits=Limits())
    assert whole(tmp_path / "out") == {}


def test_a_zip_file_whose_members_share_their_bytes_is_refused(tmp_path: Path) -> None:
    """The other kind of bomb: many entries of the directory point at one packed member."""
    zip_of(tmp_path / "x", [("a.bin", bytes(1 << 20))])
    data = (tmp_path / "x").read_bytes()
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry, count = data[start:end], 200
    entries = b"".join(entry.replace(b"a.bin", f"{i:05d}"[-5:].encode()) for i in range(count))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(entries), start, 0)
    (tmp_path / "x").write_bytes(data[:start] + entries + tail)
    with pytest.raises(DataError, match="grow to|broken"):
        unpack(tmp_path / "x", tmp_path / "out", limits=Limits())


def test_a_member_that_is_larger_than_it_says_is_refused(tmp_path: Path) -> None:
    zip_of(tmp_path / "x", [("a.bin", bytes(3_000_000))])
    data = bytearray((tmp_path / "x").read_bytes())
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<L", 1000)
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError):
        unpack(tmp_path / "x", tmp_path / "out", limits=Limits())
    assert sum(map(len, whole(tmp_path / "out").values())) <= 1000


@pytest.mark.parametrize("maker", [tar_of, zip_of])
def test_there_are_limits_of_files_and_bytes(maker: Any, tmp_path: Path) -> None:
    archive = maker(tmp_path / "x", [(f"{i}.png", bytes(100)) for i in range(20)])
    with pytest.raises(DataError, match=r"more than 10 files .*max_files"):
        unpack(archive, tmp_path / "out", limits=Limits(max_files=10))
    with pytest.raises(DataError, match="max_gib"):
        unpack(archive, tmp_path / "out2", limits=Limits(max_bytes=1000))
    assert len(whole(tmp_path / "out")) == 10 and len(whole(tmp_path / "out2")) == 10


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 40 << 20
    with gzip.open(tmp_path / "x", "wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(40 << 20))
    with pytest.raises(DataError, match="header larger"):
        unpack(tmp_path / "x", tmp_path / "out", limits=Limits())


def test_a_file_with_holes_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398] = b"00000000000\0"
    header[398:410] = b"00000000000\0"
    header[483:495] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    (tmp_path / "x").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(DataError, match="file with holes"):
        unpack(tmp_path / "x", tmp_path / "out", limits=Limits())


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("share", [0.01, 0.5, 0.97, 0.999])
def test_an_archive_that_ends_too_early_is_refused(kind: str, share: float, tmp_path: Path) -> None:
    data = MAKERS[kind](tmp_path / "x").read_bytes()
    padding = len(data) - len(data.rstrip(b"\0")) - 1024 if kind in ("tar", "gnu") else 0
    (tmp_path / "x").write_bytes(data[: int(share * (len(data) - max(0, padding) - 1024 * (kind in ("tar", "gnu"))))])
    with pytest.raises(DataError, match="broken|no archive"):
        unpack(tmp_path / "x", tmp_path / "out", limits=Limits())


def test_a_cut_between_two_members_is_seen(tmp_path: Path) -> None:
    """Where tarfile itself sees the end."""
    data = tar_of(tmp_path / "x", TWO).read_bytes()
    (tmp_path / "x").write_bytes(data[:1024])  # header and content of the first
    with pytest.raises(DataError, match="ends too early"):
        unpack(tmp_path / "x", tmp_path / "out", limits=Limits())


@pytest.mark.parametrize(
    "data", [b"", b"<html>no such page</html>", os.urandom(5000), b"PK\x03\x04", b"\x1f\x8b", b"PK"]
)
def test_what_is_no_archive_is_told(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(DataError, match="no archive|broken") as told:
        unpack(tmp_path / "x.tar.gz", tmp_path / "out", limits=Limits())
    assert told.value.hint


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_crashes_or_leaves_the_folder(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes overwritten anywhere: the archive comes out with files inside the folder only, or is refused."""
    box = tmp_path_factory.mktemp("box")
    kind = data.draw(st.sampled_from(["tar", "gz", "zip"]))
    files = [("images/a.png", b"first" * 20), ("b/c.png", b"second" * 20)]
    makers = {"tar": tar_of, "gz": lambda p, f: tar_of(p, f, "w:gz"), "zip": zip_of}
    content = bytearray(makers[kind](box / "x", files).read_bytes())  # type: ignore[operator]
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (box / "x").write_bytes(content)
    try:
        unpack(box / "x", box / "in" / "out", limits=Limits(max_bytes=1 << 20))
    except UserError as error:
        assert isinstance(error, DataError), error
    assert {p.name for p in box.iterdir()} == {"x", "in"} and {p.name for p in (box / "in").iterdir()} == {"out"}
    assert not any(p.is_symlink() for p in box.rglob("*"))


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tar_of(tmp_path / "x", TWO)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("oneformer.data.sources.unpack._Writer.file", full)
    with pytest.raises(WorkError, match="No space left") as told:
        unpack(archive, tmp_path / "out", limits=Limits())
    assert "make room" in told.value.hint
