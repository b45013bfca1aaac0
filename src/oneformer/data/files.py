"""A path given by the user -> parsed JSON or a plain message that says what is wrong with the file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from oneformer.errors import DataError, UserError, UserErrors

SHOWN = 5  # examples named in a message that stands for many faults of one kind
KEPT = 1000  # faults of one kind that are kept one by one, however many there are
UNREADABLE = "unreadable_file"
CELL = "::"  # between the path of a table, a column and a row: `train.parquet::image::17` stands where a path may


def read_json(path: str | Path, *, what: str) -> Any:
    """Parse a JSON file (UTF-8, with or without a byte-order mark).

    `what` names the file's role in messages ("annotation file"). Raises DataError when it is missing, a folder, empty
    or broken.
    """
    path = Path(path)
    if not path.exists():
        raise missing(path, what=what)
    if not path.is_file():
        raise DataError(f"the {what} is not a file", where=str(path), hint="name the JSON file itself", kind=UNREADABLE)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        text = f"the {what} is not valid JSON: {error.msg}"
        raise DataError(text, where=where, hint=_cut_off(path, error), kind=UNREADABLE) from None
    except UnicodeDecodeError as error:
        text = f"the {what} is not UTF-8 text (byte {error.start})"
        raise DataError(text, where=str(path), kind=UNREADABLE) from None
    except (OSError, RecursionError) as error:
        raise DataError(f"the {what} cannot be read: {error}", where=str(path), kind=UNREADABLE) from None


def _cut_off(path: Path, error: json.JSONDecodeError) -> str:
    size = path.stat().st_size
    if size == 0:
        return "the file is empty"
    return "the file ends too early: copy or download it again" if error.pos >= len(error.doc.rstrip()) else ""


def missing(path: str | Path, *, what: str) -> DataError:
    """The message for a path that does not exist: names the nearest folder that does, and what lies in it."""
    path = Path(path)
    folder = path.parent
    while not is_folder(folder) and folder != folder.parent:
        folder = folder.parent
    seen = [item for item in folder.iterdir() if not item.name.startswith(".")] if is_folder(folder) else []
    found = sorted(item.name + ("/" if item.is_dir() else "") for item in seen)
    hint = f"{folder} holds {examples(found)}"
    return DataError(f"the {what} does not exist", where=str(path), hint=hint, kind="missing_file")


def is_file(path: Path) -> bool:
    """Whether there is a file of this name; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """The same for folders."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def open_binary(path: str | Path, *, what: str) -> BinaryIO:
    """A file, or a cell of a Parquet table, opened for reading bytes; to be closed. Raises DataError.

    `what` names the file's role in messages ("image file").
    """
    text = str(path)
    if f".parquet{CELL}" in text:
        from oneformer.data.parquet import read_cell

        return io.BytesIO(read_cell(text, what=what))
    if not is_file(Path(path)):
        raise missing(path, what=what)
    try:
        return Path(path).open("rb")
    except OSError as error:
        text = f"the {what} cannot be opened: {error.strerror}"
        raise DataError(text, where=str(path), kind=UNREADABLE) from None


def examples(items: Iterable[object], *, more: int = 0) -> str:
    """The first few items and how many more there are, as text; `more` is how many there are beyond `items`."""
    texts = [str(item) for item in items]
    if not texts:
        return "nothing"
    rest = max(0, len(texts) - SHOWN) + more
    return ", ".join(texts[:SHOWN]) + (f" and {rest} more" if rest else "")


def as_list(value: str | Path | Iterable[str | Path] | None) -> list[str]:
    """One path, several or none as a list; empty texts count as none."""
    if value is None:
        return []
    items = [value] if isinstance(value, str | Path) else list(value)
    return [str(item) for item in items if str(item)]


@dataclass
class _Group:
    """Faults of one kind: the first KEPT of them, and how many there are."""

    kind: str
    warning: bool
    hint: str = ""
    items: list[object] = field(default_factory=list)
    count: int = 0


class Faults:
    """Collects the faults of one file or folder: many of one kind become one message with a count and examples."""

    def __init__(self, where: str | Path) -> None:
        self.where = str(where)
        self._groups: dict[str, _Group] = {}

    def add(self, what: str, item: object, *, hint: str = "", kind: str = "annotation", warning: bool = False) -> None:
        """Note a fault; `what` reads as a sentence before the examples ("there is no image file"); `kind` is its name.

        A `warning` stops nothing.
        """
        group = self._groups.setdefault(what, _Group(kind, warning))
        group.count += 1
        group.hint = group.hint or hint
        if len(group.items) < KEPT:
            group.items.append(item)

    def explain(self, what: str, hint: str, *, kind: str = "") -> None:
        """Give advice, and a better name, that are known only after all faults of a kind are."""
        if what in self._groups:
            self._groups[what].hint = hint
            self._groups[what].kind = kind or self._groups[what].kind

    def items(self, what: str) -> list[object]:
        """What was noted for one kind."""
        return self._groups[what].items if what in self._groups else []

    def errors(self) -> list[UserError]:
        """One DataError per kind, in the order in which the kinds were met."""
        return [self._told(what, group) for what, group in self._groups.items() if not group.warning]

    def warnings(self) -> list[DataError]:
        """The same of the faults that stop nothing."""
        return [self._told(what, group) for what, group in self._groups.items() if group.warning]

    def _told(self, what: str, group: _Group) -> DataError:
        counted = what if group.count == 1 else f"{what} ({group.count} times)"
        more = group.count - len(group.items)
        return DataError(
            f"{counted}: {examples(group.items, more=more)}",
            where=self.where,
            hint=group.hint,
            kind=group.kind,
            items=[str(item) for item in group.items],
        )


def raise_all(errors: list[UserError]) -> None:
    """Raise nothing, the one error itself, or all of them together."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UserErrors(errors)
