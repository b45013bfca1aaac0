"""One score or several: directions are said, sums are sums, and a front is what no other beats."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl.simulated import brain, run
from oneformer.automl.objective import fronts, goal_of, spacing
from oneformer.automl.trial import Rung
from oneformer.errors import UserErrors
from oneformer.spec import AutomlSpec

TWO = {"PQ": {"direction": "maximize"}, "size_mib": {"direction": "minimize", "weight": 2, "scale": 10}}


def rung(**metrics: float) -> Rung:
    goal = goal_of(AutomlSpec(objectives=TWO))
    return Rung(1, goal.score(metrics["PQ"], metrics) or 0.0, 1.0, 1, metrics)


def test_a_weighted_sum_by_hand() -> None:
    goal = goal_of(AutomlSpec(objectives=TWO))
    assert goal.score(50.0, {"PQ": 50.0, "size_mib": 30.0}) == 50.0 - 2 * 30.0 / 10
    assert goal.score(50.0, {"PQ": 50.0}) is None and goal.score(math.nan, {"PQ": 1.0, "size_mib": 1.0}) is None
    assert goal.name == "1 PQ - 0.2 size_mib" and goal.more and goal.metric == "PQ"
    assert goal.ranks([rung(PQ=50, size_mib=30), rung(PQ=40, size_mib=5)]) == [44.0, 39.0]


def test_a_front_by_hand() -> None:
    values = np.array([[1, 5], [2, 4], [3, 3], [1, 4], [2, 3], [0, 0], [3, 3]], dtype=float)
    assert fronts(values).tolist() == [0, 0, 0, 1, 1, 2, 0]
    assert spacing(np.array([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0]])).tolist() == [math.inf, 1.0 + 1.0, math.inf]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_fronts_are_those_of_the_definition(rows: list[tuple[int, ...]]) -> None:
    found = fronts(np.array(rows, dtype=float))
    left, number = set(range(len(rows))), 0
    while left:
        here = {
            i for i in left
            if not any(all(a >= b for a, b in zip(rows[j], rows[i], strict=True)) and rows[j] != rows[i] for j in left)
        }  # fmt: skip
        assert {i for i in range(len(rows)) if found[i] == number} == here
        left, number = left - here, number + 1


@pytest.mark.parametrize(
    ("objectives", "more", "message"),
    [
        ({"PQ": {}}, {}, "its direction"),
        ({"PQ": {"direction": "up"}}, {}, "its direction"),
        ({"PQ": {"direction": "minimize"}}, {}, "of PQ more is better"),
        ({"latency_ms": {"direction": "minimize"}}, {}, "how good a network is"),
        ({"PQ": {"direction": "maximize", "weight": 0}}, {}, "weight has to be a number above 0"),
        ({"PQ": {"direction": "maximize", "wight": 1}}, {}, "its direction"),
        ({"latency": {"direction": "minimize"}}, {}, "did you mean latency_ms"),
        ({"PQ": {"direction": "maximize"}}, {"combine": "pareto"}, "needs two objectives"),
        ({}, {"combine": "pareto"}, "needs two objectives"),
        ({"PQ": {"direction": "maximize"}}, {"metric": "AP"}, "automl.metric is AP"),
    ],
)
def test_what_makes_no_sense_is_refused(objectives: dict, more: dict, message: str) -> None:
    with pytest.raises(UserErrors) as error:
        goal_of(AutomlSpec(objectives=objectives, **more))
    assert message in error.value.message


@pytest.mark.parametrize(
    ("more", "message"),
    [({"algorithm": "pbt"}, "curve of one score"), ({"combine": "pareto", "finalists": 2}, "no single best")],
)
def test_what_does_not_go_together_is_refused(more: dict, message: str) -> None:
    with pytest.raises(UserErrors, match=message):
        brain(**{"algorithm": "asha", "objectives": TWO, **more})


def costly(sign: float) -> Any:
    """Better with more layers, and larger; `sign` -1 measures what is to be low instead."""

    def score(values: dict[str, Any], epochs: int) -> dict[str, float]:
        layers = values["model.one_former.dec_layers"]
        good = layers - abs(math.log10(values["train.optim.lr"]) + 3) - 1 / epochs
        return {"PQ" if sign > 0 else "train_loss": sign * good, "size_mib": 10.0 * layers}

    return score


def two(sign: float, combine: str) -> dict[str, Any]:
    kept = {"PQ": {"direction": "maximize"}} if sign > 0 else {"train_loss": {"direction": "minimize"}}
    return {
        "objectives": {**kept, "size_mib": {"direction": "minimize", "weight": 2.0, "scale": 40.0}},
        "combine": combine,
    }


@pytest.mark.parametrize(
    ("combine", "algorithm", "sampler"),
    list(product(("weighted", "pareto"), ("asha", "hyperband", "random"), ("tpe", "nsga2"))),
)
def test_mirrored_objectives_give_mirrored_decisions(combine: str, algorithm: str, sampler: str) -> None:
    trials = 0 if algorithm == "hyperband" else 16
    common = {"algorithm": algorithm, "sampler": sampler, "max_trials": trials, "whole": 4, "reduction_factor": 2}
    up, down = (run(brain(**common, **two(s, combine)), costly(s)) for s in (1.0, -1.0))
    assert up.steps == down.steps and [t.values for t in up.trials] == [t.values for t in down.trials]
    best = [brain(**common, **two(s, combine)).best(found.trials).id for s, found in ((1.0, up), (-1.0, down))]
    assert best[0] == best[1]


def test_a_front_keeps_what_it_needs() -> None:
    mind = brain("asha", max_trials=30, whole=4, reduction_factor=2, **two(1.0, "pareto"))
    found = run(mind, costly(1.0)).trials
    front = mind.front(found)
    vectors = [(t.rungs[4].metrics["PQ"], -t.rungs[4].metrics["size_mib"]) for t in front]
    others = [t for t in found if 4 in t.rungs and t not in front]
    assert len(front) > 1 and mind.best(found) == front[0] and vectors[0][0] == max(v[0] for v in vectors)
    for other in others:
        vector = (other.rungs[4].metrics["PQ"], -other.rungs[4].metrics["size_mib"])
        assert any(all(a >= b for a, b in zip(v, vector, strict=True)) and v != vector for v in vectors)
    assert mind.wanted(found, over=True) == {t.id for t in front}
    assert len({t.values["model.one_former.dec_layers"] for t in front}) == len(front) > 2, "sizes are spread"
