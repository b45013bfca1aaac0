"""A number between 0 and 1 -> a value of one searched key, drawn by its scale; and the words that describe the draw."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

SLOTS = 24  # options with weights are drawn from this many equal places
DIGITS = 4  # of a number that is drawn: more would promise a precision that no search has


SIGNS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    ">": (operator.gt, "above"),
    ">=": (operator.ge, "at least"),
    "<": (operator.lt, "below"),
    "<=": (operator.le, "at most"),
}
MARGIN = 1e-6  # of a range that a number without steps stays away from a bound that it may not reach


@dataclass(frozen=True)
class Bound:
    """A condition between the value of a key and that of another."""

    parent: str
    sign: str
    """`> >= < <=`, or `/`: the parent's whole number divided by `by`, without a rest."""
    by: int = 1

    @property
    def words(self) -> str:
        """What has to hold."""
        return f"{self.parent} // {self.by}" if self.sign == "/" else f"{SIGNS[self.sign][1]} {self.parent}"


@dataclass(frozen=True)
class Dimension:
    """One key that is searched."""

    key: str
    kind: Literal["float", "int", "choice"]
    own: Any
    """The spec's own value; always one of those that can be drawn, unless the range was narrowed on the way."""
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: tuple[Any, ...] = ()
    weights: tuple[float, ...] = ()
    """How often each choice is drawn, relative to the others; empty draws them alike."""
    ties: tuple[str, ...] = ()
    """Keys that take the same value."""
    step: int = 1
    """Whole numbers are multiples of this."""
    bound: Bound | None = None
    widest: tuple[float, float] | None = None
    """Where the range may be widened to on the way; None where it may not."""

    def at(self, place: float) -> Any:
        """The value at a place 0..1 of the range."""
        if self.kind == "choice":
            slots = self.slots()
            return self.choices[slots[min(int(place * len(slots)), len(slots) - 1)]]
        if self.kind == "int":
            half = self.step / 2
            return self.realised(math.floor(self._between(place, self.low - half, self.high + half) + 0.5))
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
        if self.low == self.high:
            return 0.5
        half = self.step / 2 if self.kind == "int" else 0.0
        low, high = self.low - half, self.high + half
        place = math.log(value / low) / math.log(high / low) if self.log else (value - low) / (high - low)
        return min(max(place, 0.0), 1.0)

    def realised(self, value: Any) -> Any:
        """A drawn value as the spec gets it: whole numbers whole, others with few digits, never outside the range."""
        if self.kind == "choice":
            return value
        inside = min(max(value, self.low), self.high)
        if self.kind == "int":
            low, high = math.ceil(self.low / self.step), math.floor(self.high / self.step)
            return min(max(round(inside / self.step), low), high) * self.step if low <= high else round(inside)
        return min(max(float(f"{inside:.{DIGITS}g}"), self.low), self.high)

    def beside(self, parent: Any) -> Dimension | None:
        """The part of the range that the bound leaves at a value of the other key; None where it leaves nothing."""
        assert self.bound
        low, high = self.low, self.high
        if self.bound.sign == "/":
            low = high = min(max(parent // self.bound.by, low), high)
        else:
            low, high = limited(self.bound.sign, parent, low, high, whole=self.kind == "int")
        return replace(self, low=low, high=high) if low <= high else None

    def obeys(self, value: Any, parent: Any) -> bool:
        """Whether the bound holds."""
        assert self.bound
        if self.bound.sign == "/":
            return bool(value == min(max(parent // self.bound.by, self.low), self.high))
        return SIGNS[self.bound.sign][0](value, parent)

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
            said |= {"step": self.step} if self.step > 1 else {}
        said |= {"has_to_be": self.bound.words} if self.bound else {}
        return said | ({"ties": list(self.ties)} if self.ties else {})


def limited(sign: str, number: float, low: float, high: float, *, whole: bool) -> tuple[float, float]:
    """A range without what lies on the wrong side of a number: `>` leaves what is above it."""
    away = 0.0 if whole or "=" in sign else MARGIN * (high - low)
    if sign[0] == ">":
        first = (math.ceil(number) if "=" in sign else math.floor(number) + 1) if whole else number + away
        return max(low, first), high
    last = (math.floor(number) if "=" in sign else math.ceil(number) - 1) if whole else number - away
    return low, min(high, last)
