"""A folder of jobs <-> their records: each always whole on the disk, and changed by one process at a time."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from oneformer.errors import UserError, WorkError
from oneformer.jobs.record import Record, from_dict
from oneformer.runs.atomic import write_json

RECORD, LOG, RESULTS = "job.json", "log.txt", "results"
PRIVATE = ".spec.yaml"
"""The spec with its secrets, for its owner, while the action runs."""
ALIVE = "alive"
"""File of a job that its worker touches, for machines that cannot see the process."""
FOLDER_VARIABLE = "ONEFORMER_JOBS"
PART = ".new-"
_STALE_S = 3600.0


class Store:
    """The jobs of one folder.

    Args:
        root: the folder; empty takes that of the variable ONEFORMER_JOBS, else `jobs`.

    Raises:
        UserError: this system has no file locks.
    """

    def __init__(self, root: str | Path = "") -> None:
        if "://" in str(root):
            hint = "name a folder of this machine, or one that its machines share"
            raise UserError("jobs cannot be kept in an object store", where=str(root), hint=hint)
        self.root = Path(str(root) or os.environ.get(FOLDER_VARIABLE) or "jobs").absolute()
        if os.name != "posix":
            raise UserError("jobs need Linux or macOS", hint="run the action itself, such as oneformer train")

    def folder(self, job: str) -> Path:
        """Where a job lies."""
        return self.root / job

    def create(self, record: Record, files: Mapping[str, str], secret: Mapping[str, str] | None = None) -> Record:
        """Put a new job on the disk, complete or not at all; it gets an id that no other job has.

        Args:
            record: the job; its id is replaced.
            files: name -> text, written into its folder.
            secret: values that only `secrets.json` holds, which others cannot read.

        Raises:
            UserError: the folder of jobs cannot be written to.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            while True:
                named = replace(record, id=f"{record.action}-{secrets.token_hex(3)}", order=time.time_ns())
                part = self.root / f"{PART}{named.id}-{os.getpid()}"
                part.mkdir()
                self._fill(part, named, files, secret or {})
                try:
                    part.rename(self.folder(named.id))  # refused where a job of that name is
                except OSError:
                    shutil.rmtree(part)
                    if not self.folder(named.id).exists():
                        raise
                    continue
                sync(self.root)
                return named
        except OSError as error:
            raise UserError(
                f"the folder of jobs cannot be used: {error.strerror or error}",
                where=str(self.root),
                hint=f"choose another with --jobs FOLDER or {FOLDER_VARIABLE}=FOLDER",
            ) from error

    def _fill(self, folder: Path, record: Record, files: Mapping[str, str], secret: Mapping[str, str]) -> None:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        if secret:
            handle = os.open(folder / "secrets.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(dict(secret), file)
        write_json(folder / RECORD, record.to_dict())

    def secret(self, job: str) -> dict[str, str]:
        """The secret values of a job."""
        with suppress(OSError, ValueError):
            return {str(k): str(v) for k, v in json.loads((self.folder(job) / "secrets.json").read_text()).items()}
        return {}

    def read(self, job: str) -> Record:
        """One record. Raises UserError where there is none, or a broken one."""
        path = self.folder(job) / RECORD
        try:
            return from_dict(json.loads(path.read_text(encoding="utf-8")), where=str(path))
        except OSError as error:
            raise self._missing(job) from error
        except ValueError as error:
            raise UserError(f"the record of the job is broken: {error}", where=str(path)) from error

    def ids(self) -> list[str]:
        """Every job, in no order."""
        try:
            return [e.name for e in os.scandir(self.root) if not e.name.startswith(".") and self._is_job(e.path)]
        except OSError:
            return []

    @staticmethod
    def _is_job(path: str) -> bool:
        return os.path.exists(f"{path}/{RECORD}")  # noqa: PTH110 - thousands of them are asked

    def records(self) -> list[Record]:
        """All that can be read, as they were submitted."""
        found = []
        for job in self.ids():
            with suppress(UserError):
                found.append(self.read(job))
        return sorted(found, key=lambda record: (record.order, record.id))

    def find(self, name: str) -> Record:
        """The job of that id, or the only one whose id, or the digits of it, begin so. Raises UserError."""
        ids = self.ids()
        near = [job for job in ids if name and (job.startswith(name) or job.rpartition("-")[2].startswith(name))]
        found = [name] if name in ids else near
        if len(found) > 1:
            raise UserError(f"{name!r} may be {' or '.join(sorted(found))}", where=str(self.root))
        if not found:
            raise self._missing(name)
        return self.read(found[0])

    def _missing(self, name: str) -> UserError:
        near = get_close_matches(name, self.ids(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "oneformer jobs list shows them; --jobs names another folder"
        return UserError(f"there is no job {name!r}", where=str(self.root), hint=hint)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While open, no other process or thread changes a record; it must not be opened twice at once."""
        with lock(self.root / ".lock"):
            yield

    def write(self, record: Record) -> None:
        """Replace a record, on the disk when this returns; only while `locked`. Raises WorkError."""
        write_json(self.folder(record.id) / RECORD, record.to_dict())
        sync(self.folder(record.id))

    def change(self, job: str, change: Callable[[Record], object]) -> Record:
        """Read, change and write one record while no other process does; returning False leaves it as it is."""
        with self.locked():
            record = self.read(job)
            if change(record) is not False:
                self.write(record)
            return record

    def tidy(self) -> None:
        """Remove what submitters that were killed have begun."""
        for path in self.root.glob(f"{PART}*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """While open, this is the only one that holds the file's lock, which ends with its process. Raises WorkError."""
    import fcntl

    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise WorkError(f"the lock cannot be opened: {error.strerror}", where=str(path)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Like `lock`, but gives False at once when another process holds it."""
    import fcntl

    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def sync(folder: Path) -> None:
    """What was renamed in a folder is safe from a power cut when this returns."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
