"""A learning curve so far -> where it will end, by a power law; and which trials cannot reach the best any more.

The law is the one that Viering and Loog, "The shape of learning curves: a review" (2022), section 4.1 find to fit best
most often: a distance from the end that falls as a power of time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oneformer.automl.trial import Trial

LEAST = 3  # points of a curve: the law has as many numbers
POWERS = np.linspace(0.1, 2.0, 20)


def forecast(curve: Mapping[int, float], epoch: int) -> tuple[float, float] | None:
    """(value at `epoch`, root mean square of the curve's distance from the law); None where the curve is too short."""
    if len(curve) < LEAST:
        return None
    at, values = np.array(sorted(curve), dtype=np.float64), np.array([curve[e] for e in sorted(curve)])
    fits = []
    for power in POWERS:
        columns = np.stack([np.ones_like(at), at**-power], axis=1)  # (N, 2)
        solved = np.linalg.lstsq(columns, values, rcond=None)[0]
        error = float(np.sqrt(np.mean((columns @ solved - values) ** 2)))
        fits.append((error, float(solved[0] + solved[1] * float(epoch) ** -power)))
    error, value = min(fits)
    return value, error


@dataclass(frozen=True)
class Hopeless:
    """Says of a trial that waits at a rung whether it would end clearly below the best of those that are at the end.

    Args:
        whole: epochs of a whole training.
        threshold: what counts as clearly, as a share of the best score.
        worth: of a score; more is better.
    """

    whole: int
    threshold: float
    worth: Callable[[float], float]

    def __call__(self, trial: Trial, trials: Sequence[Trial]) -> bool:
        """True only grows: the best never gets worse, so what was given up stays so."""
        ends = [self.worth(t.rungs[self.whole].score) for t in trials if self.whole in t.rungs and not t.broken]
        found = forecast({e: self.worth(s) for e, s in trial.curve.items()}, self.whole)
        if not ends or found is None:
            return False
        value, error = found
        return max(value, *map(self.worth, trial.curve.values())) + error < max(ends) - self.threshold * abs(max(ends))
