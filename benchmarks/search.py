"""Epochs until a search is as good as random search with whole trainings is at the end: ASHA, Hyperband, models.

The decisions are those of `oneformer automl`. The trainings are learning curves by formula, so that ten seeds of each
take a minute; with `--digits` they are real ones, of a small network that reads digits (`_digits.py`). A curve's end
depends on four settings (learning rate and weight decay on a logarithmic scale, two others), its speed on the learning
rate, and there is noise from training to training and from epoch to epoch. Curves cross: a small learning rate starts
slowly and may end well.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from automl.simulated import Score, Search, run
from oneformer.automl.brain import Brain, brain_of
from oneformer.automl.dimension import Dimension
from oneformer.automl.objective import Goal
from oneformer.automl.space import Space
from oneformer.spec import AutomlSpec

WHOLE = 27
SPACE = Space(
    (
        Dimension("train.optim.lr", "float", 1e-4, 1e-6, 1e-1, log=True),
        Dimension("train.optim.weight_decay", "float", 0.05, 1e-5, 1.0, log=True),
        Dimension("train.optim.backbone_multiplier", "float", 0.1, 1e-3, 1.0, log=True),
        Dimension("model.one_former.dropout", "float", 0.1, 0.0, 0.7),
    ),
    {},
)
METHODS: dict[str, dict[str, Any]] = {
    "random, whole trainings": {"algorithm": "random"},
    "TPE, whole trainings": {"algorithm": "random", "sampler": "tpe"},
    "ASHA, random": {"algorithm": "asha", "sampler": "random"},
    "ASHA, TPE (default)": {"algorithm": "asha"},
    "Hyperband, random": {"algorithm": "hyperband"},
    "BOHB (Hyperband, TPE)": {"algorithm": "bohb"},
}


class Curves:
    """Scores in percent; each seed is another problem of the same kind."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(1000 + seed)
        self.seed = seed
        self.best_lr = rng.uniform(-3.6, -2.4)
        self.best_decay = rng.uniform(-2.5, -0.8)
        self.best_multiplier = rng.uniform(-1.6, -0.4)
        self.best_dropout = rng.uniform(0.05, 0.35)

    def __call__(self, values: dict[str, Any], epoch: int) -> float:
        lr = math.log10(values["train.optim.lr"])
        away = ((lr - self.best_lr) / 1.1) ** 2 + (
            (math.log10(values["train.optim.weight_decay"]) - self.best_decay) / 2.5
        ) ** 2
        away += ((math.log10(values["train.optim.backbone_multiplier"]) - self.best_multiplier) / 1.8) ** 2
        away += ((values["model.one_former.dropout"] - self.best_dropout) / 0.5) ** 2
        end = 60 * math.exp(-0.5 * away) - 25 * (lr > self.best_lr + 1.2)
        speed = WHOLE / 5 * 10 ** (0.35 * (self.best_lr - lr))
        point = repr(sorted(values.items()))
        noise = np.random.default_rng(zlib.crc32(f"{self.seed} {point}".encode()))
        training, steps = noise.normal(0, 0.5), noise.normal(0, 0.5, WHOLE)
        return float(
            max(end, 0.0) * (1 - math.exp(-epoch / max(speed, 0.5))) + training + steps[epoch - 1] * (2 - epoch / WHOLE)
        )


def mind(method: dict[str, Any], seed: int, budget: int) -> Brain:
    """The brain of `oneformer automl`, with as many trials as the budget lets it have at most."""
    trials = {"asha": budget // 3, "random": budget // WHOLE}.get(method["algorithm"], 0)
    automl = AutomlSpec(seed=seed, max_trials=trials, **method)
    return brain_of(automl, SPACE, goal=Goal("PQ", maximise=True), whole=WHOLE)


def searched(method: dict[str, Any], seed: int, budget: int, problem: Score) -> list[tuple[int, float]]:
    """(epochs spent, best score of a whole training) as the search goes; brackets begin anew until all is spent."""
    points: list[tuple[int, float]] = []
    spent = repeat = 0
    while spent < budget:
        brain = mind(method, seed + 100 * repeat, budget)
        left = budget - spent

        def over(found: Search, left: int = left) -> bool:
            return found.epochs >= left

        found = run(brain, problem, stop=over)
        points += [(spent + at, score) for at, score in brain.curve(found.trials)]
        spent, repeat = spent + found.epochs, repeat + 1
    best: list[tuple[int, float]] = []
    for at, score in points:
        if at <= budget and (not best or score > best[-1][1]):
            best.append((at, score))
    return best


def at_epoch(curve: list[tuple[int, float]], epochs: int) -> float:
    """The best score after so many epochs; 0 before the first whole training."""
    return max((score for at, score in curve if at <= epochs), default=0.0)


def reached(curve: list[tuple[int, float]], target: float) -> float:
    """Epochs until the score is reached; infinite when it is not."""
    return next((float(at) for at, score in curve if score >= target), math.inf)


def _problem(seed: int, *, digits: bool) -> Score:
    if not digits:
        return Curves(seed)
    from _digits import Digits

    return Digits(seed, WHOLE)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--whole-trainings", type=int, default=40, help="budget, in whole trainings")
    parser.add_argument("--digits", action="store_true", help="real trainings instead of curves by formula")
    asked = parser.parse_args()
    budget = asked.whole_trainings * WHOLE
    found: dict[str, list[list[tuple[int, float]]]] = {name: [] for name in METHODS}
    for seed in range(asked.seeds):
        problem = _problem(seed, digits=asked.digits)
        for name, method in METHODS.items():
            found[name].append(searched(method, seed, budget, problem))
    targets = [at_epoch(curve, budget) for curve in found["random, whole trainings"]]
    print(f"target: what random search has after {budget} epochs, median {statistics.median(targets):.1f}\n")
    print(f"| method | score at {budget // 4} | {budget // 2} | {budget} | epochs to the target (median) | reached |")
    print("|---|---|---|---|---|---|")
    for name, curves in found.items():
        scores = [statistics.median(at_epoch(c, e) for c in curves) for e in (budget // 4, budget // 2, budget)]
        times = [reached(c, t) for c, t in zip(curves, targets, strict=True)]
        cells = [f"{s:.1f}" for s in scores] + [
            f"{statistics.median(times):.0f}",
            f"{sum(map(math.isfinite, times))}/{len(times)}",
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
