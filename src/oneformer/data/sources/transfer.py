"""A file elsewhere -> its bytes in a file here: gone on with where a transfer broke, tried again with longer pauses."""

from __future__ import annotations

import logging
import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from oneformer.errors import MASK, without_secrets

log = logging.getLogger(__name__)

BLOCK = 1 << 20
PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before the first try after a fault, and most before a later one
GIB = 1 << 30
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|CONNECTION_STRING|SAS", re.IGNORECASE)
_FILE_NAME = re.compile(r"_FILE$|^GOOGLE_APPLICATION_CREDENTIALS$")  # these name files, which a message has to tell


class Passing(Exception):
    """A fault that may be gone when the same is asked again; `wait` is how long the other side asks for, in seconds."""

    def __init__(self, why: str, *, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class Unreachable(Exception):
    """A file that does not come. `wrong` when the request is at fault: nothing is there, or it may not be read."""

    def __init__(self, why: str, *, hint: str = "", wrong: bool = False) -> None:
        super().__init__(why)
        self.hint = hint
        self.wrong = wrong


@dataclass(frozen=True)
class Begun:
    """What is here already: the first `size` bytes of the version `version`."""

    size: int = 0
    version: str = ""


@dataclass(frozen=True)
class Reply:
    """What the other side sends: the bytes from `start` to the end of a file of `size` bytes (None: not told)."""

    size: int | None
    version: str
    """Changes with the content; empty when the other side does not tell."""
    start: int
    blocks: Iterator[bytes]
    promise: str = ""
    """A checksum that the other side tells, see `store.kept`."""


class Remote(Protocol):
    """A file elsewhere."""

    def open(self, begun: Begun, *, known: str = "") -> AbstractContextManager[Reply | None]:
        """Its bytes, from where `begun` ends if they are of the same version; None when its version is `known`.

        Raises Passing or Unreachable.
        """
        ...


@dataclass(frozen=True)
class Limits:
    """How often, how much, and how loud."""

    retries: int = 5
    """Tries without progress after the first one."""
    max_bytes: int = 1000 * GIB
    max_files: int = 5_000_000
    quiet: bool = False
    """Say nothing of what goes well, as one of many files."""


@dataclass(frozen=True)
class Got:
    """A complete transfer."""

    size: int
    version: str
    promise: str = ""


def transfer(
    remote: Remote, part: Path, *, told: str, limits: Limits, known: str = "", trust: bool = False
) -> Got | None:
    """Fill `part` with all bytes of a file elsewhere; None when its version is `known`, then nothing is read.

    Bytes that an earlier try has left in `part` are gone on with when they are of the same version, or whatever their
    version when `trust` is set: then the caller compares checksums. A try that got somewhere does not count as failed.

    Args:
        remote: the file.
        part: where its bytes are gathered; beside it, `.of` names their version.
        told: how the file may be called in messages.
        limits: of tries and bytes.
        known: the version that the caller has.
        trust: see above.

    Raises:
        Unreachable: it does not come, or is larger than allowed.
        OSError: `part` cannot be written.
    """
    failed, tried = 0, 0
    while True:
        before = _size(part)
        try:
            return _try(remote, part, told=told, limits=limits, known=known, trust=trust)
        except Passing as fault:
            tried += 1
            failed = 0 if _size(part) >= before + BLOCK else failed + 1
            if not limits.retries or failed > limits.retries or tried > 100 * (limits.retries + 1):
                times = f" ({tried} tries)" if tried > 1 else ""
                raise Unreachable(f"{fault}{times}") from fault
            pause = min(LONGEST_PAUSE, max(fault.wait, PAUSE * 2 ** max(0, failed - 1)))
            log.warning("%s: %s; trying again", told, fault)
            time.sleep(pause * random.uniform(0.75, 1.0))  # noqa: S311  # so that many processes do not ask at once


def _try(remote: Remote, part: Path, *, told: str, limits: Limits, known: str, trust: bool) -> Got | None:
    """One try. Raises Passing, Unreachable or OSError."""
    note = part.with_name(part.name + ".of")
    size, version = _size(part), note.read_text(encoding="utf-8") if note.is_file() else ""
    begun = Begun(size, version) if size and (version or trust) else Begun()
    with remote.open(begun, known=known) as reply:
        if reply is None:
            return None
        _check_room(part, reply, limits)
        if not reply.start:
            note.unlink(missing_ok=True)
            part.unlink(missing_ok=True)  # before its version changes, so that the two never contradict each other
            if reply.version:
                note.write_text(reply.version, encoding="utf-8")
        log.log(logging.DEBUG if limits.quiet else logging.INFO, "fetching %s (%s)", told, _amount(reply))
        with part.open("ab" if reply.start else "wb") as file:
            count = reply.start
            for block in reply.blocks:
                count += len(block)
                if count > limits.max_bytes:
                    raise too_large(limits)
                file.write(block)
    if reply.size is not None and count != reply.size:
        if count > reply.size:
            part.unlink()
        raise Passing(f"the connection ended after {count} of {reply.size} bytes")
    note.unlink(missing_ok=True)
    return Got(count, reply.version, reply.promise)


def _check_room(part: Path, reply: Reply, limits: Limits) -> None:
    if reply.size is None:
        return
    if reply.size > limits.max_bytes:
        raise too_large(limits)
    free = shutil.disk_usage(part.parent).free
    if reply.size - reply.start > free:
        needed = (reply.size - reply.start) / GIB
        raise Unreachable(
            f"{needed:.1f} GiB are to come and {free / GIB:.1f} GiB are free", hint="make room on the disk"
        )


def too_large(limits: Limits) -> Unreachable:
    """For more bytes than are allowed."""
    return Unreachable(f"the file is larger than {limits.max_bytes / GIB:.6g} GiB", wrong=True)


def _amount(reply: Reply) -> str:
    if reply.size is None:
        return "size unknown"
    rest = f", {reply.start / 2**20:.0f} of them are here" if reply.start else ""
    return f"{reply.size / 2**20:.0f} MiB{rest}"


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def in_words(error: BaseException) -> str:
    """What an error of a library says, in one line and without what could be a secret."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "") or type(error).__name__
    for secret in _secrets():
        text = text.replace(secret, MASK)
    text = without_secrets(text)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _secrets() -> Iterator[str]:
    """Values of the environment that may be secrets, and the parts of those that have several."""
    for name, value in os.environ.items():
        if len(value) > 3 and _SECRET_NAME.search(name) and not _FILE_NAME.search(name):
            yield value
            yield from (part for part in re.split(r"[;?&]|(?<=[a-zA-Z])=", value) if len(part) > 15)
