"""`oneformer skill build DIR` -> the skill folder; `oneformer skill check DIR` -> what is wrong with one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer.errors import UserError
from oneformer.skill.check import NAME, Fault, faults

HEAD = "SKILL.md"


@dataclass(frozen=True)
class Built:
    """A folder that was written."""

    folder: Path
    files: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Folder and files."""
        return {"folder": str(self.folder), "files": list(self.files)}

    def table(self) -> str:
        """One line."""
        return f"wrote {len(self.files)} files to {self.folder}"


@dataclass(frozen=True)
class Checked:
    """What is wrong with a folder."""

    folder: Path
    found: tuple[Fault, ...]

    @property
    def exit_code(self) -> int:
        """1 where there is a fault."""
        return 1 if self.found else 0

    def to_dict(self) -> dict[str, Any]:
        """Folder and faults."""
        return {"folder": str(self.folder), "faults": [fault.to_dict() for fault in self.found]}

    def table(self) -> str:
        """A line for each fault."""
        if not self.found:
            return f"{self.folder}: no fault"
        number = f"{len(self.found)} fault{'s' if len(self.found) > 1 else ''}"
        return "\n".join([*(fault.line for fault in self.found), f"{self.folder}: {number}"])


def build(folder: str) -> Built:
    """Write the skill; the folder's name is the skill's.

    Raises:
        UserError: the name is none for a skill, or the folder holds something else.
    """
    from oneformer.runs.atomic import write_text
    from oneformer.skill.files import files

    path = Path(folder)
    name = path.resolve().name
    if not re.fullmatch(NAME, name) or len(name) > 64:
        what = f"a skill is named like its folder, and {name!r} is no name for one"
        raise UserError(what, where=folder, hint="names are of small letters, digits and single hyphens: oneformer")
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / HEAD).is_file()):
        what = "this is no skill folder, and nothing is written among other files"
        raise UserError(what, where=folder, hint=f"name a new folder, or one that holds {HEAD}")
    texts = files(name)
    for place, text in texts.items():
        write_text(path / place, text)
    return Built(path, tuple(texts))


def check(folder: str) -> Checked:
    """Look at a skill folder. Raises UserError when there is none."""
    path = Path(folder)
    if not path.is_dir():
        raise UserError("there is no such folder", where=folder, hint="`oneformer skill build DIR` writes one")
    return Checked(path, tuple(faults(path)))
