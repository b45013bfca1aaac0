"""ASHA and Hyperband against the tables of their papers, and what must hold for any order of scores."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.simulated import Search, brain, run
from oneformer.automl.schedule import rungs_between


def by_number(done: dict[int, float]):
    """A score for each trial in the order of its values' first appearance."""
    seen: dict[str, int] = {}

    def score(values: dict, epochs: int) -> float | str:
        number = seen.setdefault(repr(values), len(seen))
        return done[number % len(done)]

    return score


def reached(found: Search) -> dict[int, int]:
    """Rung -> trials that finished it."""
    return dict(sorted(Counter(epoch for t in found.trials for epoch in t.rungs).items()))


def test_rungs() -> None:
    assert rungs_between(1, 81, 3) == (1, 3, 9, 27, 81)
    assert rungs_between(1, 27, 3) == (1, 3, 9, 27)
    assert rungs_between(1, 50, 3) == (2, 6, 17, 50)
    assert rungs_between(4, 64, 4) == (4, 16, 64)
    assert rungs_between(5, 4, 3) == (4,)


def test_hyperband_has_the_brackets_of_the_paper() -> None:
    """Table 1 of the paper: R = 81, eta = 3; (trials, epochs) from the first to the last bracket."""
    schedule = brain("hyperband", whole=81).schedule
    paper = [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    assert [list(zip(schedule.counts(b), schedule.rungs[b:], strict=True)) for b in range(5)] == paper
    found = run(brain("hyperband", whole=81), lambda values, epochs: -abs(values["train.optim.lr"] - 1e-3))
    for bracket, row in enumerate(paper):
        inside = [t for t in found.trials if t.bracket == bracket]
        assert [sum(epoch in t.rungs for t in inside) for _, epoch in row] == [count for count, _ in row]
    assert found.epochs == schedule.expected().epochs == schedule.expected().most


def test_asha_follows_the_paper_step_by_step() -> None:
    """Algorithm 2 by hand, eta = 3: a promotion as soon as a rung holds three more, from the highest rung first."""
    scores = {0: 1.0, 1: 2.0, 2: 3.0, 3: 9.0, 4: 0.0, 5: 4.0, 6: 5.0, 7: 6.0, 8: 7.0}
    found = run(brain("asha", sampler="random", whole=9, max_trials=9), by_number(scores))
    assert found.steps == [
        (0, 1), (1, 1), (2, 1), (2, 3),
        (3, 1), (3, 3),  # three of four is the best third: trial 3 alone
        (4, 1), (5, 1), (5, 3), (3, 9),
        (6, 1), (6, 3), (7, 1), (7, 3), (8, 1), (8, 3), (8, 9),
    ]  # fmt: skip


def test_a_search_ends_with_one_whole_training() -> None:
    scores = by_number({0: 3.0, 1: 4.0, 2: 2.0, 3: 1.0})
    found = run(brain("asha", sampler="random", whole=27, max_trials=4), scores)
    assert reached(found) == {1: 4, 3: 1, 9: 1, 27: 1}
    assert [t.state for t in found.trials] == ["paused", "done", "paused", "paused"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-5, 5) | st.just("failed"), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(2, 4),
    st.sampled_from(["asha", "hyperband"]),
    st.randoms(use_true_random=False),
)
def test_what_must_hold_for_any_scores_and_any_order(
    scores: list, workers: int, factor: int, algorithm: str, rng: random.Random
) -> None:
    mind = brain(algorithm, sampler="random", whole=16, reduction_factor=factor, max_trials=len(scores))
    expected, rungs = mind.schedule.expected(), mind.schedule.rungs
    found = run(mind, by_number(dict(enumerate(scores))), workers=workers, seconds=lambda t, e: e * rng.uniform(0.5, 3))
    assert len(found.trials) == (len(scores) if algorithm == "asha" else expected.trials)
    assert found.epochs <= expected.most
    assert not [t for t in found.trials if t.state == "failed" and t.epochs == rungs[-1]]
    alive = [t for t in found.trials if t.rungs]
    assert not alive or algorithm == "hyperband" or any(t.epochs == rungs[-1] for t in alive)
    for here, above in itertools.pairwise(rungs):
        for t in found.trials:
            assert above not in t.rungs or here in t.rungs or algorithm == "hyperband", "no rung is skipped"
    if algorithm == "hyperband":
        for bracket, size in enumerate(mind.schedule.brackets()):
            inside = [t for t in found.trials if t.bracket == bracket]
            assert len(inside) == size
            for count, epoch in zip(mind.schedule.counts(bracket), rungs[bracket:], strict=True):
                assert sum(epoch in t.rungs for t in inside) <= count


def test_eight_workers_are_busy_though_some_trials_take_ten_times_as_long() -> None:
    rng = random.Random(3)
    slow = [rng.choice([1, 2, 5, 10]) for _ in range(200)]
    found = run(
        brain("asha", sampler="random", whole=27, max_trials=200), lambda v, e: v["train.optim.lr"],
        workers=8, seconds=lambda t, e: e * slow[t.id],
    )  # fmt: skip
    assert found.busy > 0.9


@pytest.mark.parametrize("algorithm", ["random", "asha", "hyperband"])
def test_a_plan_is_kept(algorithm: str) -> None:
    mind = brain(algorithm, sampler="random", max_trials=30)
    expected = mind.schedule.expected()
    found = run(mind, lambda v, e: v["train.optim.lr"])
    assert len(found.trials) == expected.trials
    assert expected.epochs <= found.epochs <= expected.most or algorithm == "hyperband"
    assert found.epochs <= expected.most
