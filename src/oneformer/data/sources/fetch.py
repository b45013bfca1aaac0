"""A path or an address as a spec has it -> a file or folder on this machine, fetched and unpacked once."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from oneformer.data.files import missing
from oneformer.data.sources.address import WEB, Address, is_archive, parsed
from oneformer.data.sources.cache import Cache, digest, digest_of
from oneformer.data.sources.names import Refused, Taken, inside, is_litter
from oneformer.data.sources.store import Store, kept, patiently, version_of
from oneformer.data.sources.transfer import GIB, Got, Limits, Unreachable, transfer
from oneformer.data.sources.unpack import unpack
from oneformer.data.sources.web import WebFile
from oneformer.errors import DataError, UserError, WorkError

if TYPE_CHECKING:
    from oneformer.spec.sources import SourcesSpec

log = logging.getLogger(__name__)

OTHER = "what came has another checksum than the store tells"
TOGETHER = 8  # files of a folder that are fetched at the same time
T = TypeVar("T")


class Fetcher:
    """Brings things to this machine as `dataset.sources` says, each once, whoever else asks at the same time."""

    def __init__(self, settings: SourcesSpec) -> None:
        self.limits = Limits(settings.retries, int(settings.max_gib * GIB), settings.max_files)
        self._cache_dir = settings.cache_dir
        self._cache: Cache | None = None
        self._stores: dict[str, Store] = {}

    @property
    def cache(self) -> Cache:
        """Made when it is first needed, so that data on this machine needs none."""
        if self._cache is None:
            self._cache = Cache(self._cache_dir)
        return self._cache

    def made(self, path: Path) -> bool:
        """Whether a path came from here: its folders are those of an archive or a store, not of the user."""
        return self._cache is not None and self._cache.holds(path)

    def local(self, text: str, *, key: str) -> str:
        """The path of a file or folder with the content of `text`; a plain path of anything but an archive as it is.

        Raises:
            SpecError: `text` is no address that can be fetched.
            DataError: nothing is there, it may not be read, has another checksum, or is an archive that is refused.
            WorkError: it does not come, or cannot be kept.
            MissingExtra: a package for this kind of address is not installed.
        """
        place = parsed(text, key=key)
        try:
            if isinstance(place, Path):
                return self._own(place, text, key=key)
            return str(self._fetched(place))
        except Unreachable as fault:
            assert isinstance(place, Address)
            raise told_of(fault, place) from fault
        except OSError as error:
            raise WorkError(f"it cannot be kept: {error.strerror or error}", where=str(self.cache.root)) from error

    def _own(self, path: Path, text: str, *, key: str) -> str:
        """A path of this machine; what lies in an archive when it is one."""
        if not is_archive(path.name) or path.is_dir():
            return text if "://" not in text else str(path)
        if not path.is_file():
            raise missing(path, what=f"archive {key}")
        facts = path.stat()
        place = digest_of(str(path.absolute()))
        noted = self.cache.recall(place)
        mark = [facts.st_size, facts.st_mtime_ns]
        if noted.get("mark") == mark and (there := self.cache.unpacked(str(noted.get("sha256")))).is_dir():
            return str(there)
        checksum = digest(path)
        there = self._unpacked(path, checksum, told=str(path))
        self.cache.note(place, {"mark": mark, "sha256": checksum})
        return str(there)

    def _unpacked(self, archive: Path, checksum: str, *, told: str) -> Path:
        """The folder with the content of an archive."""
        target = self.cache.unpacked(checksum)
        with self.cache.alone(f"{target.name}.unpack"):
            if target.is_dir():
                return target
            # Under the lock every other part of this name is of a process that died.
            for left in self.cache.part("").glob(f"{target.name}.*.unpack"):
                shutil.rmtree(left, ignore_errors=True)
            part = self.cache.part(f"{target.name}.{socket.gethostname()}-{os.getpid()}.unpack")
            log.info("unpacking %s", told)
            try:
                found = unpack(archive, part, limits=self.limits, told=told)
                _settle(part, target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        litter = f", {found.litter} files of operating systems left out" if found.litter else ""
        log.info("%s: %d files, %.0f MiB%s", told, found.files, found.size / 2**20, litter)
        return target

    def _fetched(self, address: Address) -> Path:
        """The file or folder of an address."""
        if address.checksum and (there := self._known(address, address.checksum)):
            return there
        place = digest_of(address.url)
        with self.cache.alone(f"{place}.fetch"):
            if address.scheme not in WEB:
                store = self.store(address)
                if patiently(lambda: store.is_folder(address.path), retries=self.limits.retries):
                    return self._folder(address, store)
            return self._file(address, place)

    def _known(self, address: Address, checksum: str) -> Path | None:
        """What the cache has of a file with this checksum."""
        cache = self.cache
        there = cache.unpacked(checksum) if is_archive(address.name) else cache.file(checksum, address.name)
        return there if there.exists() else None

    def _file(self, address: Address, place: str) -> Path:
        """The content of one file."""
        noted = self.cache.recall(place)
        there = self._known(address, str(noted["sha256"])) if noted.get("sha256") else None
        if address.checksum and noted.get("sha256") != address.checksum:
            there = None
        known = str(noted.get("version", "")) if there else ""
        part = self.cache.part(f"{place}.fetch")
        got, checksum = self._bytes(address, part, known=known)
        if got is None:
            assert there is not None, "only what is there is known"
            return there
        if is_archive(address.name):
            there = self._unpacked(part, checksum, told=address.told)
            part.unlink()
        else:
            there = self.cache.file(checksum, address.name)
            there.parent.mkdir(parents=True, exist_ok=True)
            part.replace(there)
        facts = {"address": address.told, "version": got.version, "size": got.size, "sha256": checksum}
        self.cache.note(place, facts)
        return there

    def _bytes(self, address: Address, part: Path, *, known: str) -> tuple[Got | None, str]:
        """Fill `part`; (what came, its SHA-256). A part that turns out to be of something else is begun anew once."""
        begun = part.is_file()
        got = transfer(
            self.remote(address), part, told=address.told, limits=self.limits, known=known, trust=bool(address.checksum)
        )
        if got is None:
            return None, ""
        fault = _fault(part, got, address)
        if fault and begun:
            part.unlink()
            return self._bytes(address, part, known="")
        if fault:
            part.unlink()
            raise DataError(
                fault,
                where=address.told,
                hint="the other side may have another version; compare with the checksum its publisher gives",
                kind="unreadable_file",
            )
        return got, digest(part)

    def _folder(self, address: Address, store: Store) -> Path:
        """All files below an address that is a folder."""
        listed = patiently(lambda: store.files(address.path), retries=self.limits.retries)
        files = _listed(listed, address, self.limits)
        lines = [f"{name}\0{facts.get('size')}\0{version_of(facts)}" for name, facts in files.items()]
        target = self.cache.folder(digest_of("\n".join(sorted(lines))))
        with self.cache.alone(f"{target.name}.folder"):
            if target.is_dir():
                return target
            part = self.cache.part(f"{target.name}.folder")
            size = sum(int(facts.get("size") or 0) for facts in files.values())
            log.info("fetching %s (%d files, %.0f MiB)", address.told, len(files), size / 2**20)

            each = replace(self.limits, quiet=True)

            def bring(name: str) -> None:
                file = part / name
                if file.is_file():  # by an earlier run that was cut short
                    return
                file.parent.mkdir(parents=True, exist_ok=True)
                begun = file.with_name(f"{file.name}.part")
                remote = store.file(f"{address.path.rstrip('/')}/{name}", files[name])
                got = transfer(remote, begun, told=f"{address.told.rstrip('/')}/{name}", limits=each)
                if got is not None and not kept(begun, got.promise):
                    begun.unlink()
                    raise Unreachable(f"{name}: {OTHER}", wrong=True)
                begun.replace(file)

            with ThreadPoolExecutor(TOGETHER) as pool:
                for done in [pool.submit(bring, name) for name in files]:
                    done.result()
            _settle(part, target)
        return target

    def store(self, address: Address) -> Store:
        """The connection to the store of an address, made once."""
        if address.scheme not in self._stores:
            self._stores[address.scheme] = Store.of(address)
        return self._stores[address.scheme]

    def remote(self, address: Address) -> Any:
        """The file of an address, as `transfer` reads it."""
        return WebFile(address.url) if address.scheme in WEB else self.store(address).file(address.path)

    def holdings(self, text: str, *, key: str, ask: tuple[str, ...]) -> list[str]:
        """The names in a root of data sets; of a web address, which has no listing, those of `ask` that are there.

        Raises UserError.
        """
        place = parsed(text, key=key)
        if isinstance(place, Path):
            if not place.is_dir():
                raise missing(place, what=f"folder {key}")
            return sorted(item.name for item in place.iterdir())
        retries = self.limits.retries
        try:
            if place.scheme in WEB:
                there = [WebFile(joined(place.url, name)) for name in ask]
                return [n for n, file in zip(ask, there, strict=True) if patiently(file.is_there, retries=retries)]
            store = self.store(place)
            return patiently(lambda: store.names(place.path), retries=retries)
        except Unreachable as fault:
            raise told_of(fault, place) from fault


def joined(root: str, name: str) -> str:
    """A name below a root: a folder, or an address, whose query stays at its end."""
    path, mark, query = root.partition("?") if "://" in root else (root, "", "")
    return f"{path.rstrip('/')}/{name}{mark}{query}"


def told_of(fault: Unreachable, address: Address) -> UserError:
    """The one message for what does not come."""
    kind = DataError if fault.wrong else WorkError
    return kind(f"it cannot be fetched: {fault}", where=address.told, hint=fault.hint)


def _fault(part: Path, got: Got, address: Address) -> str:
    """How the bytes that came differ from those that were promised; empty when they do not."""
    if address.checksum and (found := digest(part)) != address.checksum:
        return f"the file has another checksum than asked for: {found}"
    return "" if kept(part, got.promise) else OTHER


def _listed(listed: dict[str, dict[str, Any]], address: Address, limits: Limits) -> dict[str, dict[str, Any]]:
    """The files of a listing, names and sizes checked as those of an archive are. Raises DataError."""
    taken, files, size = Taken(), {}, 0
    try:
        for name, facts in listed.items():
            path = inside(name)
            if path is None or is_litter(path):
                continue
            if str(path) != name:
                raise Refused(f"the name {name[:80]!a} holds empty parts")
            taken.add(path)
            files[name] = facts
            size += int(facts.get("size") or 0)
            if len(files) > limits.max_files or size > limits.max_bytes:
                raise Refused("it holds more than dataset.sources.max_files or max_gib allow")
    except Refused as error:
        raise DataError(f"the folder is refused: {error}", where=address.told, kind="unreadable_file") from None
    if not files:
        raise DataError("there is no file at this address", where=address.told, kind="missing_file")
    return files


def _settle(part: Path, target: Path) -> None:
    """Give a complete folder its name; one that another process was quicker with stays."""
    try:
        part.replace(target)
    except OSError:
        if not target.is_dir():
            raise


def tried(errors: list[UserError], work: Callable[[], T]) -> T | None:
    """The result of `work`, or None with its faults added to `errors`."""
    try:
        return work()
    except UserError as error:
        errors += getattr(error, "errors", [error])
    return None
