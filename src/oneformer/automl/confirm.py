"""The best trials of a search -> each trained again with fresh seeds, and which of them is then the best.

The best of many scores is high by chance as well. Scores of fresh seeds were not chosen, so their mean tells what the
settings are worth.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from oneformer.automl.objective import Ranks
from oneformer.automl.schedule import Expected, Schedule, Step, best_first, put_back
from oneformer.automl.trial import Origin, Trial


@dataclass(frozen=True)
class Fresh:
    """What fresh seeds have shown of one trial."""

    trial: Trial
    scores: tuple[float, ...]
    broken: int
    """Trainings that came to nothing."""

    @property
    def mean(self) -> float:
        """Of the scores; no number when all trainings broke."""
        return statistics.fmean(self.scores) if self.scores else math.nan

    @property
    def spread(self) -> float | None:
        """Standard deviation; None with fewer than two."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


@dataclass(frozen=True)
class Confirmed:
    """A schedule, and after it the best of its trials once more with fresh seeds, the spec's own values among them.

    Args:
        inner: the schedule.
        ranks: how good whole trainings are.
        finalists: trials that are repeated.
        seeds: how often each.
    """

    inner: Schedule
    ranks: Ranks
    finalists: int
    seeds: int

    @property
    def rungs(self) -> tuple[int, ...]:
        """Those of the schedule."""
        return self.inner.rungs

    def next(self, trials: Sequence[Trial]) -> Step | None:
        """What the schedule says; when it has ended, the repetitions, one seed after the other."""
        searched, whole = [t for t in trials if not t.again], self.rungs[-1]
        if step := self.inner.next(searched):
            return step
        if any(t.state == "running" for t in searched):
            return None
        if waiting := put_back([t for t in trials if t.again]):
            return Step(waiting, whole)
        for seed in range(1, self.seeds + 1):
            for trial in self.chosen(searched):
                origin = Origin(trial.id, 0, seed)
                if all(t.origin != origin for t in trials):
                    return Step(None, whole, origin=origin)
        return None

    def chosen(self, searched: Sequence[Trial]) -> list[Trial]:
        """The finalists, and the spec's own values where they were trained to the end."""
        ended = best_first([t for t in searched if not t.broken], self.rungs[-1], self.ranks)
        return ended[: self.finalists] + [t for t in ended[self.finalists :] if t.id == 0]

    def verdicts(self, trials: Sequence[Trial]) -> list[Fresh]:
        """What is known of the finalists once all repetitions are done, the best first; empty before."""
        whole, found = self.rungs[-1], []
        for trial in self.chosen([t for t in trials if not t.again]):
            mine = [t for t in trials if t.again and t.origin and t.origin.trial == trial.id]
            if len(mine) < self.seeds or not all(t.ended for t in mine):
                return []
            scores = tuple(t.rungs[whole].score for t in mine if not t.broken)
            found.append(Fresh(trial, scores, len(mine) - len(scores)))
        means = [self._mean([t for t in trials if t.again], fresh.trial.id) for fresh in found]
        return [f for _, _, _, f in sorted((f.broken, -m, f.trial.id, f) for m, f in zip(means, found, strict=True))]

    def _mean(self, again: Sequence[Trial], number: int) -> float:
        """How good the repetitions of a trial are."""
        mine = [t.rungs[self.rungs[-1]] for t in again if t.origin and t.origin.trial == number and not t.broken]
        return statistics.fmean(self.ranks(mine)) if mine else -math.inf

    def expected(self) -> Expected:
        """The schedule's size and the repetitions; the spec's own values may be one finalist more."""
        of, whole = self.inner.expected(), self.rungs[-1]
        more = self.finalists * self.seeds
        most = of.most + (more + self.seeds) * whole
        return Expected(of.jobs + more, of.trials + more, of.epochs + more * whole, most)
