"""An archive of a stranger (.tar, .tar.gz, .zip) -> plain files below one folder, or a refusal that says why.

Nothing but regular files and folders is made, each new, none outside the folder and none larger or more than allowed.
"""

from __future__ import annotations

import errno
import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from oneformer.data.sources.names import Refused, Taken, inside, is_litter
from oneformer.data.sources.transfer import BLOCK, GIB, Limits
from oneformer.errors import DataError, WorkError

BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError,
    NotImplementedError, RuntimeError, IndexError, KeyError, UnicodeError,
)  # fmt: skip
# Photos and PNGs hardly shrink. Label pictures do, by less than this; zeros by a thousand.
MOST_GROWTH, GROWTH_FROM = 200, 64 << 20
LONGEST_HEADER = 1 << 20  # bytes; names and their attributes need a few hundred


@dataclass(frozen=True)
class Unpacked:
    """What came out."""

    files: int
    size: int
    litter: int
    """Files of operating systems that were passed over."""


def unpack(archive: Path, target: Path, *, limits: Limits, told: str = "") -> Unpacked:
    """Write the files of an archive below `target`, a folder that is not there yet.

    Args:
        archive: the file; its content tells which kind it is.
        target: the folder to make; after a fault it may hold a part and is the caller's to remove.
        limits: of bytes and files.
        told: how the archive may be called in messages.

    Raises:
        DataError: it is broken, no archive, or holds something that is refused.
        WorkError: the files cannot be written.
    """
    told = told or str(archive)
    target.mkdir(parents=True)
    writer = _Writer(target, limits, packed=archive.stat().st_size)
    try:
        with archive.open("rb") as file:
            head = file.read(264)
            file.seek(0)
            if head.startswith(b"PK"):
                _unzip(file, writer)
            elif head.startswith(b"\x1f\x8b"):
                with gzip.GzipFile(fileobj=file) as plain:
                    _untar(plain, writer)
            elif head[257:262] == b"ustar":
                _untar(file, writer)
            else:
                raise _refusal(told, "the file is no archive", hint="archives are .tar, .tar.gz and .zip")
    except Refused as error:
        raise _refusal(told, f"the archive is refused: {error}", hint="nothing of it was kept; make it anew") from None
    except BROKEN as error:
        raise _broken(told, error) from None
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place in the file that a damaged zip directory names
            raise _broken(told, error) from None
        hint = "make room on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise WorkError(f"the archive cannot be unpacked: {error.strerror or error}", where=told, hint=hint) from error
    if not writer.files:
        raise _refusal(told, "the archive holds no file", hint="")
    return Unpacked(writer.files, writer.size, writer.litter)


def _broken(told: str, error: Exception) -> DataError:
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    return _refusal(told, f"the archive is broken: {why}", hint="copy or download it again")


def _refusal(told: str, what: str, *, hint: str) -> DataError:
    return DataError(what, where=told, hint=hint, kind="unreadable_file")


class _Writer:
    """Makes the files and counts them. Raises Refused."""

    def __init__(self, target: Path, limits: Limits, *, packed: int) -> None:
        self.target = target
        self.limits = limits
        self.packed = packed
        self.files = self.size = self.litter = 0
        self._taken = Taken()
        self._seen = 0

    def folder(self, name: str) -> None:
        """Make a folder."""
        self._count()
        path = inside(name)
        if path is not None and not is_litter(path):
            self._taken.add(path, folder=True)
            (self.target / path).mkdir(parents=True, exist_ok=True)

    def file(self, name: str, size: int, content: IO[bytes] | Any) -> None:
        """Make a file of the `size` bytes that `content` has."""
        self._count()
        path = inside(name)
        if path is None:
            raise Refused(f"the name {name[:80]!a} names no file")
        if is_litter(path):
            self.litter += 1
            return
        self._grow(size, path)
        self._taken.add(path)
        place = self.target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        count = 0
        with place.open("xb") as file:
            while block := content.read(BLOCK):
                count += len(block)
                if count > size:
                    break
                file.write(block)
        if count != size:
            raise Refused(f"{str(path)!a} has not the {size} bytes that the archive tells")
        self.files += 1

    def _count(self) -> None:
        self._seen += 1
        if self._seen > self.limits.max_files:
            raise Refused(f"it holds more than {self.limits.max_files} files (dataset.sources.max_files)")

    def _grow(self, size: int, path: PurePosixPath) -> None:
        """What a file claims is counted before a byte of it is written."""
        if size < 0:
            raise Refused(f"{str(path)!a} has {size} bytes")
        self.size += size
        if self.size > self.limits.max_bytes:
            raise Refused(f"it holds more than {self.limits.max_bytes / GIB:.6g} GiB (dataset.sources.max_gib)")
        check_growth(self.size, self.packed)


def check_growth(size: int, packed: int) -> None:
    """Raise Refused for an archive that grows as no data set does."""
    if size > GROWTH_FROM and size > MOST_GROWTH * packed:
        raise Refused(f"its {packed} bytes grow to {size} and more; if that is right, unpack it and name the folder")


class _Metered(io.RawIOBase):
    """The bytes of a tar file, in reads that cannot fill the memory. Raises Refused when there are too many."""

    def __init__(self, file: IO[bytes], packed: int, limits: Limits) -> None:
        self._file = file
        self._packed = packed
        self._most = limits.max_bytes + limits.max_files * 4096  # headers and padding

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, which has to be given and small."""
        if not 0 <= size <= LONGEST_HEADER:
            raise Refused("it holds a header larger than any name needs")
        block = self._file.read(size)
        self._check()
        return block

    def seek(self, offset: int, whence: int = 0) -> int:
        """As files have it, from the beginning."""
        assert whence == 0, "tarfile seeks from the beginning"
        # A packed file is read up to the place, so what lies before it is counted on the way.
        while self._file.tell() < offset:
            step = min(offset, self._file.tell() + GROWTH_FROM)
            before = self._file.tell()
            self._file.seek(step)
            self._check()
            if self._file.tell() == before:
                break
        return self._file.seek(offset) if self._file.tell() > offset else self._file.tell()

    def tell(self) -> int:
        """The place."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Yes."""
        return True

    def readable(self) -> bool:
        """Yes."""
        return True

    def _check(self) -> None:
        place = self._file.tell()
        if place > self._most:
            raise Refused("it is larger than dataset.sources.max_gib and max_files allow")
        check_growth(place, self._packed)


def _untar(file: IO[bytes] | gzip.GzipFile, writer: _Writer) -> None:
    metered = _Metered(file, writer.packed, writer.limits)  # type: ignore[arg-type]
    with tarfile.TarFile(fileobj=metered, mode="r", encoding="utf-8", errors="surrogateescape") as tar:
        for member in _members(tar):
            if member.isdir():
                writer.folder(member.name)
                continue
            if not member.isreg() or member.issparse():
                raise Refused(f"{member.name[:80]!a} is {_kind(member)}, neither a file nor a folder")
            content = tar.extractfile(member)
            assert content is not None, "a regular member has content"
            writer.file(member.name, member.size, content)
        # tarfile takes damage and a cut between two members for the end; the end has a block of zeros.
        metered.seek(tar.offset)
        if metered.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it ends too early or is damaged after {writer.files} files")
        while metered.read(BLOCK):  # the checksum of a packed file stands at its very end
            pass


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """One by one, each let go of: millions of them would fill the memory."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # which the stubs leave out
        yield member


def _kind(member: tarfile.TarInfo) -> str:
    kinds = {
        tarfile.SYMTYPE: "a link", tarfile.LNKTYPE: "a hard link", tarfile.CHRTYPE: "a device",
        tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe",
    }  # fmt: skip
    return "a file with holes" if member.issparse() else kinds.get(member.type, "of an unknown kind")


def _unzip(file: IO[bytes], writer: _Writer) -> None:
    with zipfile.ZipFile(file) as packed:
        infos = packed.infolist()
        check_growth(sum(info.file_size for info in infos), writer.packed)
        for info in infos:
            name, mode = info.filename, stat.S_IFMT(info.external_attr >> 16)
            if info.orig_filename != name and "\0" in info.orig_filename:
                raise Refused(f"the name {info.orig_filename[:80]!a} holds control characters")
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise Refused(f"{name[:80]!a} is a link or a device, neither a file nor a folder")
            if info.flag_bits & 1:
                raise Refused(f"{name[:80]!a} is encrypted")
            if info.is_dir():
                writer.folder(name)
                continue
            with packed.open(info) as content:
                writer.file(name, info.file_size, content)
