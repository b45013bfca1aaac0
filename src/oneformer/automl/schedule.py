"""Trials and what they have reached -> which trains next, and to which epoch: full runs, ASHA and Hyperband.

Every rule looks at nothing but the trials, so that a search that was killed decides what an unbroken one would have
decided. Nothing is thrown away: a trial pauses at a rung, and a promoted one goes on from its checkpoint.

Sources: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020), algorithm 2, for ASHA with
promotion; Li et al., "Hyperband" (2018), algorithm 1, for the sizes of the brackets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import attrgetter
from typing import Protocol

from oneformer.automl.objective import Ranks
from oneformer.automl.trial import Origin, Rung, Trial


@dataclass(frozen=True)
class Step:
    """What to do next: train a trial, or a new one (None), until it has finished `epoch` epochs."""

    trial: Trial | None
    epoch: int
    bracket: int = 0
    origin: Origin | None = None
    """Of a new trial: the one that it takes its weights or values from."""


@dataclass(frozen=True)
class Expected:
    """How much a search takes if nothing fails."""

    jobs: int
    """Parts of trainings: each start and each promotion."""
    trials: int
    epochs: int
    most: int
    """Epochs that it never goes beyond, repeated ones after faults of the machine not counted."""


class Schedule(Protocol):
    """A rule that says which trial trains next."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which trials pause, rising; the last is the whole training."""

    def next(self, trials: Sequence[Trial]) -> Step | None:
        """The next step; None when nothing can start now. The search is over when nothing runs either."""

    def expected(self) -> Expected:
        """Its size, before anything runs."""


def rungs_between(lowest: int, whole: int, factor: int) -> tuple[int, ...]:
    """`whole`, `whole`/factor, ... down to `lowest`, rising, in whole epochs."""
    levels = 0
    while whole >= lowest * factor ** (levels + 1):
        levels += 1
    return tuple(sorted({max(1, round(whole / factor**level)) for level in range(levels + 1)}))


def best_first(trials: Sequence[Trial], epoch: int, ranks: Ranks) -> list[Trial]:
    """The trials that finished `epoch`, the best first; of equals the older."""
    here = sorted((t for t in trials if epoch in t.rungs), key=attrgetter("id"))
    found = ranks([t.rungs[epoch] for t in here])
    return [here[i] for i in sorted(range(len(here)), key=found.__getitem__, reverse=True)]


def put_back(trials: Sequence[Trial]) -> Trial | None:
    """The oldest trial that has not begun, or was put back before its first rung."""
    return next((t for t in trials if t.state == "waiting"), None)


@dataclass(frozen=True)
class Full:
    """Every trial trains to the end."""

    whole: int
    trials: int

    @property
    def rungs(self) -> tuple[int, ...]:
        """The end alone."""
        return (self.whole,)

    def next(self, trials: Sequence[Trial]) -> Step | None:
        """One after the other."""
        if waiting := put_back(trials):
            return Step(waiting, self.whole)
        return Step(None, self.whole) if len(trials) < self.trials else None

    def expected(self) -> Expected:
        """All of them."""
        return Expected(self.trials, self.trials, self.trials * self.whole, self.trials * self.whole)


@dataclass(frozen=True)
class Asha:
    """The best of each rung go on as soon as they are known to be among them; otherwise a new trial starts.

    When no new trial is left, the best goes on to the end even where its rung is too small for a promotion, so that
    every search ends with one whole training.
    """

    rungs: tuple[int, ...]
    factor: int
    trials: int
    ranks: Ranks = field(compare=False)
    most: int = 0
    """Epochs beyond which nothing is promoted, but the one that ends the search; 0 sets no limit."""

    def next(self, trials: Sequence[Trial]) -> Step | None:
        """A promotion from the highest rung that has one, else a new trial, else the last one's end."""
        if waiting := put_back(trials):
            return Step(waiting, self.rungs[0])
        for level in reversed(range(len(self.rungs) - 1)):
            here = best_first(trials, self.rungs[level], self.ranks)
            for trial in here[: len(here) // self.factor]:
                step = Step(trial, self.rungs[level + 1])
                if trial.state == "paused" and trial.epochs == self.rungs[level] and self._affordable(trials, step):
                    return step
        if len(trials) < self.trials:
            return Step(None, self.rungs[0])
        return self._last(trials)

    def _affordable(self, trials: Sequence[Trial], step: Step) -> bool:
        if not self.most or step.trial is None:
            return True
        spent = sum(max(t.epochs, t.target) for t in trials) + self.rungs[0] * (self.trials - len(trials))
        return spent + step.epoch - step.trial.epochs <= self.most - (self.rungs[-1] - self.rungs[0])

    def _last(self, trials: Sequence[Trial]) -> Step | None:
        if any(t.state in ("running", "done") for t in trials):
            return None
        for level in reversed(range(len(self.rungs) - 1)):
            for trial in best_first(trials, self.rungs[level], self.ranks):
                if trial.state == "paused" and trial.epochs == self.rungs[level]:
                    return Step(trial, self.rungs[level + 1])
        return None

    def expected(self) -> Expected:
        """By the shares of the rungs; at most as if each trial were better than all before it."""
        counts = [self.trials]
        for _ in self.rungs[1:]:
            counts.append(max(1, counts[-1] // self.factor))
        worst = spent_when_rising(Asha(self.rungs, self.factor, self.trials, ranks=_by_score))
        return Expected(sum(counts), self.trials, _epochs(counts, self.rungs), worst + self.rungs[-1] - self.rungs[0])


@dataclass(frozen=True)
class Hyperband:
    """Brackets from many short to few long trainings; in each, the best of a rung go on once all have reached it."""

    rungs: tuple[int, ...]
    factor: int
    ranks: Ranks = field(compare=False)
    trials: int = 0
    """Most trials; 0 takes all of every bracket."""
    hopeless: Callable[[Trial, Sequence[Trial]], bool] | None = field(default=None, compare=False)
    """Whether a trial that waits at a rung is given up, though it is among the best there."""

    def brackets(self) -> list[int]:
        """Trials that start in each bracket: the first begins at the lowest rung, the last at the whole training."""
        top = len(self.rungs) - 1
        sizes, left = [], self.trials or math.inf
        for s in range(top, -1, -1):
            size = min(-(-(top + 1) * self.factor**s // (s + 1)), left)
            sizes.append(int(size))
            left -= size
        return sizes

    def counts(self, bracket: int) -> list[int]:
        """Trials at each rung of a bracket, from the rung that it begins with."""
        size = self.brackets()[bracket]
        return [max(1, size // self.factor**i) if size else 0 for i in range(len(self.rungs) - bracket)]

    def next(self, trials: Sequence[Trial]) -> Step | None:
        """From the first bracket that has something to do."""
        for bracket, size in enumerate(self.brackets()):
            inside = [t for t in trials if t.bracket == bracket]
            first = self.rungs[bracket]
            if waiting := put_back(inside):
                return Step(waiting, first, bracket)
            if len(inside) < size:
                return Step(None, first, bracket)
            if step := self._promotion(inside, bracket, trials):
                return step
        return None

    def _promotion(self, inside: Sequence[Trial], bracket: int, trials: Sequence[Trial]) -> Step | None:
        levels, counts = self.rungs[bracket:], self.counts(bracket)
        arrived = list(inside)
        for here, above, count in zip(levels, levels[1:], counts[1:], strict=False):
            if any(here not in t.rungs and not t.ended for t in arrived):
                return None  # the rung is not complete
            arrived = best_first(arrived, here, self.ranks)[:count]
            if self.hopeless:
                arrived = [t for t in arrived if t.epochs > here or t.broken or not self.hopeless(t, trials)]
            for trial in arrived:
                if trial.state == "paused" and trial.epochs == here:
                    return Step(trial, above, bracket)
        return None

    def expected(self) -> Expected:
        """Exactly the sizes of the brackets, though some trials may be given up."""
        jobs = epochs = 0
        for bracket in range(len(self.rungs)):
            counts = self.counts(bracket)
            jobs += sum(counts)
            epochs += _epochs(counts, self.rungs[bracket:])
        return Expected(jobs, sum(self.brackets()), epochs, epochs)


def _by_score(rungs: Sequence[Rung]) -> list[float]:
    return [rung.score for rung in rungs]


def _epochs(counts: Sequence[int], rungs: Sequence[int]) -> int:
    """Epochs when as many trials reach each rung; a promoted one does not start again."""
    return sum(n * (at - before) for n, at, before in zip(counts, rungs, (0, *rungs), strict=False))


def repeated_at_most(schedule: Schedule) -> int:
    """Epochs that promotions may repeat at most where no checkpoint of a waiting trial is kept.

    A promotion repeats what is below its rung, in proportion to what it adds; everything above the first rungs is added
    by promotions.
    """
    rungs, expected = schedule.rungs, schedule.expected()
    shares = [here / (above - here) for here, above in pairwise(rungs)]
    return math.ceil(max(shares, default=0.0) * (expected.most - expected.trials * rungs[0]))


def spent_when_rising(schedule: Schedule) -> int:
    """Epochs that a schedule spends when each new trial is better than all before: the most it promotes."""
    trials: list[Trial] = []
    spent = 0
    while step := schedule.next(trials):
        trial = step.trial
        if trial is None:
            trial = Trial(len(trials), {}, "random", step.bracket)
            trials.append(trial)
        spent += step.epoch - trial.epochs
        trial.rungs[step.epoch] = Rung(step.epoch, float(trial.id), 0.0, 0)
        trial.state = "done" if step.epoch == schedule.rungs[-1] else "paused"
    return spent
