"""One thing that is wrong with a skill folder -> one line: where, what, and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

from oneformer.errors import UserError


@dataclass(frozen=True, slots=True)
class Fault:
    """Where it is (file in the folder, with a line where there is one), what it is, and what mends it."""

    where: str
    what: str
    mend: str

    @property
    def line(self) -> str:
        """All of it."""
        return " ".join(f"{self.where}: {self.what}; mend: {self.mend}".split())

    def to_dict(self) -> dict[str, str]:
        """Its parts."""
        return {"where": self.where, "what": self.what, "mend": self.mend}


def near(word: str, known: Iterable[str], *, otherwise: str) -> str:
    """The remedy for a word that is none of the known ones."""
    found = get_close_matches(word, list(known), n=1)
    return f"did you mean {found[0]}?" if found else otherwise


def of_error(error: UserError, where: str) -> Iterator[Fault]:
    """The faults of a message of ours, at a place of the folder; a line number in the message is kept."""
    for one in getattr(error, "errors", [error]):
        line = one.where.rpartition(where)[2] if where in one.where else f" ({one.where})" if one.where else ""
        yield Fault(f"{where}{line}", one.what, one.hint or "correct the value")
