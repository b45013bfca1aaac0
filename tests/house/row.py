"""One row of the table of effects."""

from __future__ import annotations

from dataclasses import dataclass

from house.world import Look


@dataclass(frozen=True)
class Row:
    """One key's effect."""

    value: str
    look: Look
    on: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    refused: str = ""
    """Words of the refusal that is the effect; everything else must not be refused."""
