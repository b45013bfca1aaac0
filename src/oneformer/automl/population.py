"""Trials that train side by side -> which goes on, and which starts again from a better one's weights: PBT.

Jaderberg et al., "Population Based Training of Neural Networks" (2017), section 4.1: after each generation the worst
fifth takes over weights and settings of the best fifth, and changes the settings a little. A member that broke is
replaced like the worst; nothing is ever taken over from one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from oneformer.automl.schedule import Expected, Step
from oneformer.automl.trial import Origin, Trial
from oneformer.train.tunable import breaks

SHARE = 0.2
SIZE, GENERATIONS = 10, 20  # where nothing else is asked for, as in TAO


def why_not(key: str) -> str:
    """Why a population cannot change a key: a training could not go on with another value. Empty when it can."""
    return "a training cannot go on with another value of it (automl.algorithm is pbt)" if breaks(key) else ""


@dataclass(frozen=True)
class Population:
    """Members that train generation by generation; a trial's `bracket` is the number of its place among them."""

    rungs: tuple[int, ...]
    size: int
    worth: Callable[[float], float] = field(compare=False)

    def next(self, trials: Sequence[Trial]) -> Step | None:
        """Those that take something over begin before those that it is taken from go on."""
        holders: dict[int, Trial] = {}
        for place in range(self.size):
            mine = [t for t in trials if t.bracket == place and not t.begun]
            if not mine:
                return Step(None, self.rungs[0], place)
            holders[place] = mine[0]
        for number, rung in enumerate(self.rungs):
            if number:
                for place, parent in self._losers(list(holders.values()), self.rungs[number - 1]):
                    origin = Origin(parent.id, self.rungs[number - 1])
                    child = next((t for t in trials if t.bracket == place and t.begun == origin.epoch), None)
                    if child is None:
                        return Step(None, rung, place, origin)
                    holders[place] = child
            for trial in sorted(holders.values(), key=lambda t: (-t.begun, t.id)):
                if trial.state in ("waiting", "paused") and trial.epochs < rung:
                    return Step(trial, rung, trial.bracket)
            late = [t for t in holders.values() if rung not in t.rungs]
            if len(late) == self.size or not all(t.broken for t in late):
                return None  # of this generation nobody is left, or some still train
        return None

    def _losers(self, members: Sequence[Trial], rung: int) -> list[tuple[int, Trial]]:
        """(place, whom it takes over from) of all that are replaced after a generation, the worst first."""
        sound = [t for t in members if rung in t.rungs]
        ordered = sorted(sound, key=lambda t: (-self._now(t, rung), t.id))
        count = round(SHARE * self.size) if self.size > 2 else 0
        best = ordered[: max(1, count)]
        worst = [t for t in ordered[::-1][:count] if t not in best]
        gone = [t for t in members if rung not in t.rungs]
        return [(t.bracket, best[i % len(best)]) for i, t in enumerate([*gone, *worst])] if best else []

    def _now(self, trial: Trial, rung: int) -> float:
        """How good the weights are now: a score is the best so far, and it may have got worse since."""
        measured = [epoch for epoch in trial.curve if epoch <= rung]
        return self.worth(trial.curve[max(measured)] if measured else trial.rungs[rung].score)

    def left_behind(self, trials: Sequence[Trial]) -> set[int]:
        """Trials that have been replaced: nobody goes on with them or takes anything over from them."""
        latest = {t.bracket: t.id for t in trials}
        return {t.id for t in trials if latest[t.bracket] != t.id}

    def expected(self) -> Expected:
        """Every generation whole."""
        generations = len(self.rungs)
        replaced = round(SHARE * self.size) if self.size > 2 else 0
        trials = self.size + replaced * (generations - 1)
        epochs = self.size * self.rungs[-1]
        return Expected(self.size * generations, trials, epochs, epochs)


def generations(shortest: int, whole: int) -> tuple[int, ...]:
    """Epochs at which a generation ends: at most 20 of one length, the last where training ends."""
    step = max(shortest, -(-whole // GENERATIONS))
    return (*range(step, whole, step), whole)
