"""A path given by the user -> parsed JSON or a plain message that says what is wrong with the file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oneformer.errors import DataError, UserError, UserErrors

SHOWN = 5  # examples named in a message that stands for many faults of one kind


def read_json(path: str | Path, *, what: str) -> Any:
    """Parse a JSON file (UTF-8, with or without a byte-order mark).

    `what` names the file's role in messages ("annotation file"). Raises DataError when it is missing, a folder, empty
    or broken.
    """
    path = Path(path)
    if not path.exists():
        raise missing(path, what=what)
    if not path.is_file():
        raise DataError(f"the {what} is not a file", where=str(path), hint="name the JSON file itself")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise DataError(f"the {what} is not valid JSON: {error.msg}", where=where, hint=_cut_off(path, error)) from None
    except UnicodeDecodeError as error:
        raise DataError(f"the {what} is not UTF-8 text (byte {error.start})", where=str(path)) from None
    except (OSError, RecursionError) as error:
        raise DataError(f"the {what} cannot be read: {error}", where=str(path)) from None


def _cut_off(path: Path, error: json.JSONDecodeError) -> str:
    size = path.stat().st_size
    if size == 0:
        return "the file is empty"
    return "the file ends too early: copy or download it again" if error.pos >= len(error.doc.rstrip()) else ""


def missing(path: str | Path, *, what: str) -> DataError:
    """The message for a path that does not exist: names the nearest folder that does, and what lies in it."""
    path = Path(path)
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    found = sorted(item.name + ("/" if item.is_dir() else "") for item in folder.iterdir()) if folder.is_dir() else []
    return DataError(f"the {what} does not exist", where=str(path), hint=f"{folder} holds {examples(found)}")


def examples(items: Iterable[object]) -> str:
    """The first few items and how many more there are, as text."""
    texts = [str(item) for item in items]
    if not texts:
        return "nothing"
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def as_list(value: str | Path | Iterable[str | Path] | None) -> list[str]:
    """One path, several or none as a list; empty texts count as none."""
    if value is None:
        return []
    items = [value] if isinstance(value, str | Path) else list(value)
    return [str(item) for item in items if str(item)]


class Faults:
    """Collects the faults of one file: many of one kind become one message with a count and examples."""

    def __init__(self, where: str | Path) -> None:
        self.where = str(where)
        self._items: dict[str, list[object]] = {}
        self._hints: dict[str, str] = {}

    def add(self, kind: str, item: object, *, hint: str = "") -> None:
        """Note a fault; `kind` reads as a sentence before the examples ("no image file for")."""
        self._items.setdefault(kind, []).append(item)
        if hint:
            self._hints.setdefault(kind, hint)

    def hint(self, kind: str, hint: str) -> None:
        """Give advice that is known only after all faults of a kind are."""
        if kind in self._items:
            self._hints[kind] = hint

    def items(self, kind: str) -> list[object]:
        """What was noted for one kind."""
        return self._items.get(kind, [])

    def errors(self) -> list[UserError]:
        """One DataError per kind, in the order in which the kinds were met."""
        return [
            DataError(f"{_counted(kind, items)}: {examples(items)}", where=self.where, hint=self._hints.get(kind, ""))
            for kind, items in self._items.items()
        ]


def _counted(kind: str, items: list[object]) -> str:
    return kind if len(items) == 1 else f"{kind} ({len(items)} times)"


def raise_all(errors: list[UserError]) -> None:
    """Raise nothing, the one error itself, or all of them together."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UserErrors(errors)
