"""A folder of this machine and an address -> the same files in both: fetched before a run, uploaded during and after.

What is where is noted in `.results.json` of both: for each file its SHA-256, size and version in the store. So a
restart uploads only what is missing or changed, and a folder that is gone is fetched again.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from oneformer.data.sources.address import Address
from oneformer.data.sources.cache import alone, digest
from oneformer.data.sources.names import Refused, inside
from oneformer.data.sources.store import Store, patiently, version_of
from oneformer.data.sources.transfer import Limits, Unreachable, transfer
from oneformer.data.sources.upload import copied, put, removed
from oneformer.errors import CheckpointError, UserError, WorkError
from oneformer.runs.atomic import write_json
from oneformer.runs.away import EXCLUDES, here

log = logging.getLogger(__name__)

ENDINGS = (".pth", ".onnx", ".xml", ".pt2", ".engine", ".plan")
NOTE = ".results.json"
STATUS = "status.json"
STATUS_S, ALL_S = 2.0, 15.0  # seconds between looks at the status lines, and at all files
Entry = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A file of this machine as it was when its checksum was taken."""

    mark: tuple[int, int]
    sha256: str


class Mirror:
    """The files of one run at an address and on this machine.

    Args:
        address: where they belong.
        folder: where they are made.
        limits: tries and sizes.
    """

    def __init__(self, address: Address, folder: Path, limits: Limits) -> None:
        self.address, self.folder, self.limits = address, folder, limits
        self._store: Store | None = None
        self._seen: dict[str, Seen] = {}
        self._noted: dict[str, Entry] = {}
        self._warned = ""

    @property
    def store(self) -> Store:
        """The connection, made when it is first needed."""
        if self._store is None:
            self._store = Store.of(self.address)
        return self._store

    def bring(self, wanted: Callable[[str], bool] | None = None) -> None:
        """Fetch what is at the address and not here, and what has changed there since the two were last the same.

        Raises:
            UserError: the address cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with alone(self.folder / ".lock"):
                self._noted = self._there()
                before = _read(self.folder / NOTE)
                # The files first: links lead to them.
                for name, entry in sorted(self._noted.items(), key=lambda item: bool(item[1].get("link"))):
                    if wanted is None or wanted(name):
                        self._bring(name, entry, before.get(name, {}))
                write_json(self.folder / NOTE, self._noted)
        except Unreachable as fault:
            raise self._told(fault, "fetched") from fault

    def names(self) -> list[str]:
        """What is at the address, as of the last look."""
        return sorted(self._noted)

    def push(self, only: str = "") -> None:
        """Upload what is new or has changed here, or one file alone, and remove there what is gone here.

        Raises Unreachable.
        """
        names = [only] if only else [*self._files()]
        changed = False
        for name in names:
            changed |= self._put(name)
        if not only:
            for name in [name for name in self._noted if name not in names]:
                removed(self.store, self._path(name), retries=self.limits.retries)
                del self._noted[name]
                changed = True
        if changed:
            write_json(self.folder / NOTE, self._noted)
            put(self.store, self.folder / NOTE, self._path(NOTE), retries=self.limits.retries)

    def try_push(self, only: str = "") -> None:
        """The same while a run lasts: a fault is logged, once for each kind, and the next look tries again."""
        try:
            self.push(only)
            self._warned = ""
        except (Unreachable, UserError, OSError) as fault:
            if str(fault) != self._warned:
                log.warning("%s: not uploaded, it is tried again: %s", self.address.told, fault)
            self._warned = str(fault)

    def finish(self) -> None:
        """Upload what there is at the end of a run. Raises UserError."""
        try:
            self.push()
        except Unreachable as fault:
            raise self._told(fault, "uploaded") from fault
        except OSError as error:
            raise WorkError(f"the results cannot be read: {error.strerror}", where=str(self.folder)) from error

    def _told(self, fault: Unreachable, what: str) -> UserError:
        hint = f"they are kept in {self.folder}" if what == "uploaded" else ""
        hint = "; ".join(filter(None, (fault.hint, hint and f"{hint}, and the next run at this address uploads them")))
        kind = UserError if fault.wrong else WorkError
        return kind(f"the results cannot be {what}: {fault}", where=self.address.told, hint=hint)

    def _path(self, name: str) -> str:
        return f"{self.address.path.rstrip('/')}/{name}"

    def _files(self) -> Iterator[str]:
        """Names of the files here that belong there, those that links lead to first."""
        if not self.folder.is_dir():
            return
        found = []
        for file in self.folder.rglob("*"):
            name = file.relative_to(self.folder).as_posix()
            if file.is_file() and not is_excluded(name):
                found.append((file.is_symlink(), name))
        yield from (name for _, name in sorted(found))

    def _put(self, name: str) -> bool:
        """Upload a file unless the same is there; whether it was."""
        file = self.folder / name
        try:
            facts = file.stat()
            link = str(file.readlink()) if file.is_symlink() else ""
        except OSError:  # it was removed meanwhile
            return False
        mark = (facts.st_size, facts.st_mtime_ns)
        if name not in self._seen or self._seen[name].mark != mark:
            self._seen[name] = Seen(mark, digest(file))
        sha256 = self._seen[name].sha256
        known = self._noted.get(name, {})
        if known.get("sha256") == sha256:
            return False
        self._noted[name] = {"sha256": "", "size": 0, "version": ""}  # so that what is cut short is removed one day
        twin = next((n for n, entry in self._noted.items() if entry["sha256"] == sha256 and facts.st_size), "")
        if twin:  # the latest and the best checkpoint are among the numbered ones
            version = copied(self.store, self._path(twin), self._path(name), retries=self.limits.retries)
        else:
            version = put(self.store, file, self._path(name), retries=self.limits.retries)
        after = file.stat()
        if (after.st_size, after.st_mtime_ns) != mark:  # it grew on the way; the next look takes it again
            return True
        self._noted[name] = {"sha256": sha256, "size": facts.st_size, "version": version}
        if link and "/" not in link:
            self._noted[name]["link"] = link
        return True

    def _there(self) -> dict[str, Entry]:
        """What is at the address: name -> what is known of it; files that were put there by others have no checksum."""
        retries = self.limits.retries
        try:
            listed = patiently(lambda: self.store.files(self.address.path), retries=retries)
        except Unreachable as fault:
            if "nothing at this address" in str(fault):
                return {}
            raise
        noted = {}
        if NOTE in listed:
            raw = patiently(lambda: self.store.ask("cat_file", self._path(NOTE)), retries=retries)
            noted = _parsed(raw)
        found: dict[str, Entry] = {}
        for name, facts in listed.items():
            try:
                path = inside(name)
            except Refused:
                continue
            if path is None or str(path) != name or is_excluded(name):
                continue
            entry = {"sha256": "", "size": int(facts.get("size") or 0), "version": version_of(facts)}
            known = noted.get(name, {})
            same = all(known.get(key) == entry[key] for key in ("size", "version"))
            found[name] = {**entry, **(known if same else {})}
        return found

    def _bring(self, name: str, entry: Entry, before: Entry) -> None:
        file = self.folder / name
        if file.is_file():
            mine = digest(file)
            self._seen[name] = Seen((file.stat().st_size, file.stat().st_mtime_ns), mine)
            if mine == entry["sha256"]:
                return
            if before and before.get("version") == entry["version"]:  # it has changed here only
                return
        file.parent.mkdir(parents=True, exist_ok=True)
        link = str(entry.get("link") or "")
        if link and PurePosixPath(link).name == link and (file.parent / link).is_file():
            file.unlink(missing_ok=True)
            file.symlink_to(link)
            return
        part = file.with_name(f".{file.name}.part")
        remote = self.store.file(self._path(name))
        transfer(remote, part, told=f"{self.address.told}/{name}", limits=self.limits)
        found = digest(part)
        if entry["sha256"] and found != entry["sha256"]:
            part.unlink()
            raise Unreachable(f"{name} has another checksum than when it was uploaded", wrong=True)
        file.unlink(missing_ok=True)  # a link is replaced, not what it leads to
        part.replace(file)
        entry["sha256"] = found


def model_file(address: Address, limits: Limits) -> Path:
    """A weight file or graph at an address, with what belongs to it beside it, in a folder of this machine.

    Raises:
        UserError: it is not there, cannot be read, or has another checksum than the address says.
    """
    place, _, name = address.url.rpartition("/")
    stem = name.rpartition(".")[0]
    beside = (f"{stem}.bin", f"{stem}.json", f"{name}.json", f"{name}.data", "metrics.csv")
    mirror = Mirror(Address(place), here(place), limits)
    mirror.bring(lambda found: found == name or found in beside)
    file = mirror.folder / name
    if name not in mirror.names():
        near = [found for found in mirror.names() if found.endswith(ENDINGS)]
        hint = f"there are {', '.join(near[-5:])}" if near else "there is no weight file beside it either"
        raise CheckpointError("there is no such file at this address", where=address.told, hint=hint)
    if address.checksum and digest(file) != address.checksum:
        raise CheckpointError("the file has another checksum than asked for", where=address.told)
    return file


class Watching(threading.Thread):
    """Uploads status lines soon and everything else now and then, until it is ended."""

    def __init__(self, mirror: Mirror) -> None:
        super().__init__(daemon=True, name="upload")
        self.mirror = mirror
        self._over = threading.Event()

    def run(self) -> None:
        """Until `end`."""
        last = time.monotonic()
        while not self._over.wait(STATUS_S):
            if time.monotonic() - last >= ALL_S:
                self.mirror.try_push()
                last = time.monotonic()
            elif (self.mirror.folder / STATUS).is_file():
                self.mirror.try_push(STATUS)

    def end(self) -> None:
        """Returns when nothing is on the way any more."""
        self._over.set()
        self.join()


def is_excluded(name: str) -> bool:
    """Whether a file stays on this machine: hidden ones are not complete or not for others."""
    return name.startswith(EXCLUDES) or any(part.startswith(".") for part in PurePosixPath(name).parts)


def _read(file: Path) -> dict[str, Entry]:
    try:
        return _parsed(file.read_bytes())
    except OSError:
        return {}


def _parsed(raw: bytes) -> dict[str, Entry]:
    try:
        found = json.loads(raw)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): entry for name, entry in found.items() if isinstance(entry, dict) and "sha256" in entry}
