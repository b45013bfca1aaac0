"""A number between 0 and 1 -> a value of one searched key, drawn by its scale; and the words that describe the draw."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

SLOTS = 24  # options with weights are drawn from this many equal places
DIGITS = 4  # of a number that is drawn: more would promise a precision that no search has


@dataclass(frozen=True)
class Dimension:
    """One key that is searched."""

    key: str
    kind: Literal["float", "int", "choice"]
    own: Any
    """The spec's own value; always one of those that can be drawn."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()
    weights: tuple[float, ...] = ()
    """How often each choice is drawn, relative to the others; empty draws them alike."""
    ties: tuple[str, ...] = ()
    """Keys that take the same value."""

    def at(self, place: float) -> Any:
        """The value at a place 0..1 of the range."""
        if self.kind == "choice":
            slots = self.slots()
            return self.choices[slots[min(int(place * len(slots)), len(slots) - 1)]]
        if self.kind == "int":
            return self.realised(math.floor(self._between(place, self.low - 0.5, self.high + 0.5) + 0.5))
        return self.realised(self._between(place, self.low, self.high))

    def _between(self, place: float, low: float, high: float) -> float:
        if self.log:
            return low * (high / low) ** place
        return low + place * (high - low)

    def place_of(self, value: Any) -> float:
        """The place 0..1 of a value, the middle of those that give it."""
        if self.kind == "choice":
            same = [i for i, choice in enumerate(self.slots()) if self.choices[choice] == value]
            return (sum(same) / len(same) + 0.5) / len(self.slots())
        low, high = (self.low - 0.5, self.high + 0.5) if self.kind == "int" else (self.low, self.high)
        place = math.log(value / low) / math.log(high / low) if self.log else (value - low) / (high - low)
        return min(max(place, 0.0), 1.0)

    def realised(self, value: Any) -> Any:
        """A drawn value as the spec gets it: whole numbers whole, others with few digits, never outside the range."""
        if self.kind == "choice":
            return value
        inside = min(max(value, self.low), self.high)
        if self.kind == "int":
            return round(inside)
        return min(max(float(f"{inside:.{DIGITS}g}"), self.low), self.high)

    def slots(self) -> list[int]:
        """Places that are drawn alike -> the choice of each; a choice of twice the weight has twice as many."""
        if not self.weights:
            return list(range(len(self.choices)))
        total = sum(self.weights)
        counts = [max(1, round(SLOTS * w / total)) if w > 0 else 0 for w in self.weights]
        least = math.gcd(*counts)
        return [index for index, count in enumerate(counts) for _ in range(count // least)]

    def slot_of(self, value: Any) -> int:
        """The first slot of a choice."""
        return self.slots().index(self.choices.index(value))

    @property
    def scale(self) -> str:
        """linear, log or choice."""
        return "choice" if self.kind == "choice" else "log" if self.log else "linear"

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for the ledger and `--json`."""
        said: dict[str, Any] = {"kind": self.kind, "scale": self.scale, "own": self.own}
        if self.kind == "choice":
            said |= {"choices": list(self.choices)} | ({"weights": list(self.weights)} if self.weights else {})
        else:
            said |= {"low": self.low, "high": self.high}
        return said | ({"ties": list(self.ties)} if self.ties else {})
