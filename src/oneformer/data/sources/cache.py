"""The user's cache folder -> files that appear whole or not at all, whichever process makes them, and when it dies."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oneformer.errors import WorkError
from oneformer.runs.atomic import write_json
from oneformer.runs.away import cache_root

SHORT = 32  # hexadecimal digits of a checksum that name a file


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time on this machine; the others wait. Ends with the process, however it ends."""
    with lock.open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows: processes that meet here do the same work once each
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(file: Path, algorithm: str = "sha256") -> str:
    """Checksum of a file, as hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()


def digest_of(text: str) -> str:
    """A name for a text, of hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:SHORT]


class Cache:
    """The folder of one cache.

    | in it | holds |
    |---|---|
    | `unpacked/<checksum>/` | what was in an archive with that SHA-256 |
    | `files/<checksum>/<name>` | a single file with that SHA-256 |
    | `folders/<checksum>/` | the files of an address that is a folder, named after its listing |
    | `index/<place>.json` | what an address or a local archive held when it was last looked at; no address in clear |
    | `parts/` | transfers and unpackings that are not complete |
    | `locks/` | one file for each of these, held while it is made |

    Raises:
        WorkError: it cannot be written.
    """

    def __init__(self, root: str | Path = "") -> None:
        self.root = Path(root).absolute() if root else cache_root() / "data"
        try:
            for name in ("unpacked", "files", "folders", "index", "parts", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkError(
                f"the cache folder cannot be used: {error.strerror or error}",
                where=str(self.root),
                hint="choose another with dataset.sources.cache_dir=FOLDER",
            ) from error

    def unpacked(self, checksum: str) -> Path:
        """Where the content of an archive belongs."""
        return self.root / "unpacked" / checksum[:SHORT]

    def file(self, checksum: str, name: str) -> Path:
        """Where a single file belongs."""
        return self.root / "files" / checksum[:SHORT] / name

    def folder(self, checksum: str) -> Path:
        """Where the files of a folder belong."""
        return self.root / "folders" / checksum[:SHORT]

    def part(self, name: str) -> Path:
        """Where something is made that is not complete yet."""
        return self.root / "parts" / name

    def alone(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold one of the locks."""
        return alone(self.root / "locks" / name)

    def holds(self, path: Path) -> bool:
        """Whether a path lies in this cache."""
        return path.is_relative_to(self.root)

    def recall(self, place: str) -> dict[str, Any]:
        """What was noted of a place; nothing when there is no note, or a broken one."""
        try:
            noted = json.loads((self.root / "index" / f"{place}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def note(self, place: str, facts: Mapping[str, Any]) -> None:
        """Remember something of a place."""
        write_json(self.root / "index" / f"{place}.json", dict(facts))
