"""A key of the spec -> what it means, may hold and starts from, who reads it, and how TAO differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Told:
    """What is known about a key or section."""

    facts: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return self.facts

    def table(self) -> str:
        """What stands on stdout."""
        from oneformer.schema.explain import as_text

        return as_text(self.facts)


def run(key: str) -> Told:
    """Explain one key, section or short name. Raises SpecError with the nearest keys where there is none."""
    from oneformer.schema.explain import explain

    return Told(explain(key))
