"""A spec or the environment -> the passphrase that files are encrypted with; it is never written down here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

VARIABLE = "ONEFORMER_ENCRYPTION_KEY"
_GIVEN: ContextVar[str] = ContextVar("encryption_key", default="")
_WRITES: ContextVar[bool] = ContextVar("encryption", default=True)


@contextmanager
def using(key: str) -> Iterator[None]:
    """While open, files are encrypted and opened with this key; an empty one changes nothing."""
    before = _GIVEN.set(key or _GIVEN.get())
    try:
        yield
    finally:
        _GIVEN.reset(before)


@contextmanager
def plain_files() -> Iterator[None]:
    """While open, files are written as they are; encrypted ones can still be read."""
    before = _WRITES.set(False)
    try:
        yield
    finally:
        _WRITES.reset(before)


def reading_key() -> str:
    """The key that opens files: that of the spec, else that of the environment; empty when there is none."""
    return _GIVEN.get() or os.environ.get(VARIABLE, "")


def writing_key() -> str:
    """The key that files are written with; empty when they are written as they are."""
    return reading_key() if _WRITES.get() else ""


def environment() -> dict[str, str]:
    """What a child process needs in its environment to know the key; a command line would show it to everybody."""
    key = reading_key()
    return {VARIABLE: key} if key else {}
