"""Code that runs while a recorder is open -> the keys of the spec that the toolkit has read."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import oneformer
from oneformer.spec import ExperimentSpec
from oneformer.spec.tree import fields_of, leaves, sections

SRC = Path(oneformer.__file__).parent
OWN_ROOM = SRC / "spec"  # it loads, checks and writes every key


class Recorder:
    """Notes each read of a leaf by a file of ours outside `spec/`.

    Reading by `dataclasses` (`asdict`, `replace`, comparison) is no use of a value and does not count. Sections carry
    no names; one of a class that stands in one place only is known by its class, the three splits by the section that
    they were taken from.
    """

    def __init__(self) -> None:
        self.read: set[str] = set()
        self.command = ""  # the one that runs now
        self.readers: dict[str, dict[str, set[str]]] = {}
        self._home = {ExperimentSpec: ""}
        places = Counter(cls for cls, _ in sections().values())
        self._home |= {cls: key for key, (cls, _) in sections().items() if places[cls] == 1}
        self._classes = {ExperimentSpec, *places}
        self._place: dict[int, tuple[str, Any]] = {}  # by identity; the object is kept, so that it stays the only one

    def __enter__(self) -> Recorder:
        for cls in self._classes:
            cls.__getattribute__ = self._noted  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *_: Any) -> None:
        for cls in self._classes:
            del cls.__getattribute__

    @property
    def _noted(self) -> Any:
        recorder = self

        def read(section: Any, name: str) -> Any:
            value = object.__getattribute__(section, name)
            if not name.startswith("_") and name in fields_of(type(section)):
                recorder.note(section, name, value, reader=sys._getframe(1).f_code.co_filename)
            return value

        return read

    def note(self, section: Any, name: str, value: Any, *, reader: str) -> None:
        """One read of a field of a section."""
        home = self._home.get(type(section))
        if home is None:
            home = self._place[id(section)][0]
        key = f"{home}.{name}".lstrip(".")
        if type(value) in self._classes:
            self._place[id(value)] = key, value
            return
        path = Path(reader)
        if path.is_relative_to(SRC) and not path.is_relative_to(OWN_ROOM):
            self.read.add(key)
            readers = self.readers.setdefault(key, {"commands": set(), "files": set()})
            readers["commands"].add(self.command)
            readers["files"].add(path.relative_to(SRC).as_posix())

    def told(self) -> dict[str, dict[str, list[str]]]:
        """Key -> the commands and files that read it, in the order of the spec."""
        return {
            key: {name: sorted(found) for name, found in self.readers[key].items()}
            for key in leaves()
            if key in self.readers
        }
