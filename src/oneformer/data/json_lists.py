"""A JSON object in a file -> its values; of a large file, lists are read item by item and nothing is kept."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from oneformer.data.files import read_json
from oneformer.errors import DataError

LARGE = 32 << 20  # bytes from which a file is not taken as a whole, which costs four to eight times its size
WINDOW = 4 << 20  # bytes looked at together
CUT = 3  # signs that a number may have lost at the end of a window and still be a number
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


class Irregular(Exception):
    """No JSON object, or one with a name twice."""


def read_object(path: str | Path, *, what: str) -> Any:
    """The content of a JSON file, a `LargeObject` when it is a large object.

    `what` names the file's role in messages. Raises DataError as `read_json` does.
    """
    try:
        facts = Path(path).stat()
        if facts.st_size >= LARGE:
            return _large(str(path), facts.st_size, facts.st_mtime_ns)
    except (OSError, Irregular):  # the whole reader has the words for it
        pass
    return read_json(path, what=what)


@lru_cache(maxsize=8)
def _large(path: str, _size: int, _time: int) -> LargeObject:
    return LargeObject(path)


def listed(content: Any, name: str) -> Items | list[Any] | None:
    """A list of an object; None when it has no such list."""
    value = content.get(name) if isinstance(content, dict | LargeObject) else None
    return value if isinstance(value, list | Items) else None


class LargeObject:
    """The object in a file, read through once to learn where its values stand. Raises OSError or Irregular."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lists: dict[str, int] = {}
        self._values: dict[str, Any] = {}
        with _cursor(path, 0) as cursor:
            cursor.take("{")
            while cursor.peek() != "}":
                if self._lists or self._values:
                    cursor.take(",")
                self._member(cursor)
            cursor.take("}")
            if cursor.peek():
                raise Irregular

    def _member(self, cursor: _Cursor) -> None:
        name = cursor.value()
        cursor.take(":")
        if not isinstance(name, str) or name in self._lists or name in self._values:
            raise Irregular
        if cursor.peek() != "[":
            self._values[name] = cursor.value()
            return
        self._lists[name] = cursor.place
        for _ in cursor.items():
            pass

    def get(self, name: str) -> Any:
        """The value of a name: `Items` for a list, None when there is none."""
        return Items(self.path, self._lists[name]) if name in self._lists else self._values.get(name)


class Items:
    """The items of a list in a file, read anew each time."""

    def __init__(self, path: str, start: int) -> None:
        self._path = path
        self._start = start

    def __iter__(self) -> Iterator[Any]:
        try:
            with _cursor(self._path, self._start) as cursor:
                yield from cursor.items()
        except (OSError, Irregular):
            what = "the annotation file changed while it was read"
            raise DataError(what, where=self._path, hint="start again", kind="unreadable_file") from None


@contextmanager
def _cursor(path: str, start: int) -> Iterator[_Cursor]:
    with Path(path).open("rb") as file:
        mark = 3 if not start and file.read(3) == b"\xef\xbb\xbf" else 0
        yield _Cursor(file, start + mark)


class _Cursor:
    """A place in the bytes of a file.

    The window is decoded as Latin-1, where a byte is a sign, so that places in it are places in the file; JSON's own
    signs are the same there. Values with others in them are decoded a second time, as the UTF-8 that they are.
    """

    def __init__(self, file: BinaryIO, place: int) -> None:
        self._file = file
        self._length = os.fstat(file.fileno()).st_size
        self._load(place, WINDOW)

    def _load(self, place: int, size: int) -> None:
        self._base, self._at = place, 0
        self._file.seek(place)
        self._window = self._file.read(size).decode("latin-1")
        self._whole = place + size >= self._length

    @property
    def place(self) -> int:
        """From the beginning of the file."""
        return self._base + self._at

    def peek(self) -> str:
        """The next sign that is no space; empty at the end."""
        while True:
            space = _SPACE.match(self._window, self._at)
            assert space is not None, "no space is a match too"
            self._at = space.end()
            if self._at < len(self._window):
                return self._window[self._at]
            if self._whole:
                return ""
            self._load(self.place, WINDOW)

    def take(self, sign: str) -> None:
        """Go past a sign. Raises Irregular when another one comes."""
        if self.peek() != sign:
            raise Irregular
        self._at += 1

    def items(self) -> Iterator[Any]:
        """The items of the list that begins here. Raises Irregular."""
        self.take("[")
        first = True
        while self.peek() != "]":
            if not first:
                self.take(",")
            first = False
            yield self.value()
        self.take("]")

    def value(self) -> Any:
        """The value that begins here. Raises Irregular."""
        self.peek()
        size = WINDOW
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._at)
            except (ValueError, RecursionError):
                end = len(self._window)
                if self._whole:
                    raise Irregular from None
            if end + CUT <= len(self._window) or self._whole:
                break
            size *= 2  # it may go on behind the window, as `1e+` does
            self._load(self.place, size)
        raw = self._window[self._at : end]
        self._at = end
        if raw.isascii():
            return value
        try:
            return json.loads(raw.encode("latin-1").decode("utf-8"))
        except ValueError:
            raise Irregular from None
