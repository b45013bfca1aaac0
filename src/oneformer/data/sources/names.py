"""Names inside archives and listings -> paths below one folder, different on every file system; or a refusal."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import PurePosixPath

LONGEST = 255  # bytes of one part of a path, on every common file system
DEEPEST = 4000  # bytes of a whole path
# What the systems of photographers leave in archives beside the photos.
LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


class Refused(Exception):
    """A name or member that could do harm; the text says which and why."""


def is_litter(path: PurePosixPath) -> bool:
    """Whether a file is no part of anybody's data."""
    return path.name.startswith("._") or any(part in LITTER for part in path.parts)


def inside(name: str) -> PurePosixPath | None:
    """The path of a member below its folder; None for the folder itself. Raises Refused when it leads out of it."""
    shown = ascii(name[:80])
    if any(ord(sign) < 32 for sign in name):
        raise Refused(f"the name {shown} holds control characters")
    if "\\" in name:
        raise Refused(f"the name {shown} holds a backslash, which parts folders on some systems")
    if name.startswith("/") or name[1:2] == ":":
        raise Refused(f"the name {shown} is absolute")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Refused(f"the name {shown} leads out of its folder")
    try:
        lengths = [len(part.encode("utf-8")) for part in parts]
    except UnicodeEncodeError:
        raise Refused(f"the name {shown} is not UTF-8 text") from None
    if any(length > LONGEST for length in lengths) or sum(lengths) > DEEPEST:
        raise Refused(f"the name {shown}... is too long for a file")
    return PurePosixPath(*parts) if parts else None


@dataclass
class Taken:
    """The names so far; two that some file system takes for one are refused. A file costs the hash of its name."""

    files: set[int] = field(default_factory=set)
    folders: dict[str, str] = field(default_factory=dict)
    """Folder as compared -> as written."""

    def add(self, path: PurePosixPath, *, folder: bool = False) -> None:
        """Note a file or a folder. Raises Refused."""
        for parent in [*path.parents[:-1], *([path] if folder else [])]:
            written = self.folders.setdefault(_compared(parent), str(parent))
            if written != str(parent):
                raise Refused(f"the folders {written!a} and {str(parent)!a} differ in their case only")
            if _hash(parent) in self.files:
                raise Refused(f"{str(parent)!a} is a file and a folder")
        if folder:
            return
        if _hash(path) in self.files:
            raise Refused(f"there are two files {str(path)!a}, or two whose names differ in their case only")
        if _compared(path) in self.folders:
            raise Refused(f"{str(path)!a} is a file and a folder")
        self.files.add(_hash(path))


def _compared(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


def _hash(path: PurePosixPath) -> int:
    return int.from_bytes(blake2b(_compared(path).encode("utf-8"), digest_size=8).digest(), "little")
