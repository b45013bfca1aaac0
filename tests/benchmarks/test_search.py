"""How soon a search is as good as random search with whole trainings is at its end, on real trainings of a small net."""

from __future__ import annotations

import math
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from _digits import Digits
from search import METHODS, WHOLE, at_epoch, reached, searched

RANDOM, DEFAULT = "random, whole trainings", "ASHA, TPE (default)"
OWN = {
    "train.optim.lr": 1e-2, "train.optim.weight_decay": 0.05, "train.optim.backbone_multiplier": 1.0,
    "model.one_former.dropout": 0.1,
}  # fmt: skip


def test_a_training_that_pauses_reads_digits_as_well_as_one_that_does_not() -> None:
    pausing, whole = Digits(3, WHOLE), Digits(3, WHOLE)
    scores = [pausing(OWN, epoch) for epoch in (1, 3, 9)]
    assert scores == sorted(scores) and scores[-1] == whole(OWN, 9)
    assert scores[-1] > 85 and scores[-1] != Digits(4, WHOLE)(OWN, 9)


@pytest.mark.slow
def test_the_default_search_needs_a_third_of_the_epochs() -> None:
    """Goal G1: at least three times fewer than random search has spent, in the median of ten seeds, reached in nine."""
    budget, times = 40 * WHOLE, []
    for seed in range(10):
        problem = Digits(seed, WHOLE)
        target = at_epoch(searched(METHODS[RANDOM], seed, budget, problem), budget)
        times.append(reached(searched(METHODS[DEFAULT], seed, budget, problem), target))
    assert sum(map(math.isfinite, times)) >= 9
    assert statistics.median(times) <= budget / 3
