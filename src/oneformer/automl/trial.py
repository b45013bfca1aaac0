"""One setting that is tried: its values, its place in the search, and what each part of its training has given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# State -> those that may follow. A trial waits, runs to a rung, pauses, runs on, and ends in one of the last three.
STATES: dict[str, tuple[str, ...]] = {
    "waiting": ("running", "infeasible"),
    "running": ("waiting", "paused", "done", "failed", "infeasible"),
    "paused": ("running",),
    "done": (),
    "failed": (),
    "infeasible": (),
}
ENDED = tuple(state for state, following in STATES.items() if not following)


@dataclass(frozen=True)
class Rung:
    """What a trial had reached after a number of epochs."""

    epoch: int
    score: float
    """The metric that is searched for, as it was measured: the best so far."""
    seconds: float
    """Time of this part of the training."""
    place: int
    """Its number among all rungs that any trial finished, from 1: the order in which the search learned of them."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Everything that was measured, by name."""
    again: int = 0
    """Epochs before this part that were trained once more: the trial's checkpoints had made room for others."""


@dataclass(frozen=True)
class Origin:
    """The trial that another one comes from."""

    trial: int
    """Its number."""
    epoch: int = 0
    """Epochs after which its weights were taken over; 0 where the other starts anew, with its values alone."""
    seed: int = 0
    """What is added to `train.seed`: the same values once more, with other chance; 0 changes nothing."""


@dataclass(frozen=True)
class Checkpoint:
    """The file that a score belongs to."""

    path: str
    """Relative to the folder of the search."""
    digest: str
    """SHA-256 of its content."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Finished:
    """What one part of a training hands in."""

    score: float
    seconds: float
    metrics: Mapping[str, float]
    """Scores at the epoch of `score`, by name."""
    curve: Mapping[int, float] = field(default_factory=dict)
    """Epoch, from 1 -> the metric that is searched for."""
    checkpoint: Checkpoint | None = None


@dataclass
class Trial:
    """One setting."""

    id: int
    values: dict[str, Any]
    source: str
    """Where the values come from: `own` (the spec's), `random`, `qmc`, the name of a sampler that learned, `llm` (a
    language model's), `pbt` (another trial's, changed a little) or `again` (another trial's)."""
    bracket: int = 0
    origin: Origin | None = None
    """The trial that gave it weights or values."""
    state: str = "waiting"
    reason: str = ""
    """Why it ended without a score, or was last put back."""
    retries: int = 0
    target: int = 0
    """Epoch that it is on its way to while it runs; 0 otherwise."""
    rungs: dict[int, Rung] = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)
    """Epoch, from 1 -> the searched metric at the validation after it."""
    lost: int = 0
    """Epochs whose checkpoints have made room, and that have to be trained once more before it can go on."""
    note: dict[str, Any] = field(default_factory=dict)
    """What came with the values: `why` in words, `ranges` that they are drawn from from here on, and `instead_of` the
    proposer that should have been asked."""

    @property
    def epochs(self) -> int:
        """Epochs that its weights have been trained for."""
        return max(self.rungs, default=self.begun)

    @property
    def begun(self) -> int:
        """Epochs that its weights had behind them when it took them over."""
        return self.origin.epoch if self.origin else 0

    @property
    def repeated(self) -> int:
        """Epochs that it has trained more than once, because its checkpoints had made room."""
        return sum(rung.again for rung in self.rungs.values())

    @property
    def spent(self) -> int:
        """Epochs that it has trained itself, those that were repeated each time."""
        return self.epochs - self.begun + self.repeated

    @property
    def again(self) -> bool:
        """Whether it repeats another trial, to tell how much of its score was chance."""
        return self.origin is not None and self.origin.seed > 0

    @property
    def ended(self) -> bool:
        """Whether it can never run again."""
        return self.state in ENDED

    @property
    def broken(self) -> bool:
        """Whether it ended without a score worth anything."""
        return self.state in ("failed", "infeasible")
