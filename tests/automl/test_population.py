"""Populations: the worst go on from the best one's weights, never from a trial that broke, in any order of scores."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl.simulated import PLANE, brain, run
from oneformer.automl.evolve import FACTORS
from oneformer.automl.population import generations, why_not
from oneformer.automl.space import space_of
from oneformer.errors import UserErrors
from oneformer.spec.load import load_spec


def test_generations_are_of_one_length_and_at_most_twenty() -> None:
    assert generations(1, 5) == (1, 2, 3, 4, 5)
    assert generations(3, 10) == (3, 6, 9, 10)
    assert generations(1, 100) == tuple(range(5, 101, 5))
    assert generations(7, 3) == (3,)


def test_the_worst_fifth_takes_over_from_the_best_fifth() -> None:
    """Ten members by hand: their scores are their numbers, so that 0 and 1 go on as 9 and 8 after every generation."""
    found = run(brain("pbt", whole=3), by_place())
    assert len(found.trials) == 10 + 2 * 2 and found.epochs == 30
    second, third = [t for t in found.trials if t.begun == 1], [t for t in found.trials if t.begun == 2]
    assert [(t.bracket, t.origin.trial) for t in second] == [(0, 9), (1, 8)]
    assert len(third) == 2 and {t.source for t in second} == {"pbt"}
    for child in second:
        parent = found.trials[child.origin.trial].values
        for key in ("train.optim.lr", "model.one_former.dropout"):
            factor = child.values[key] / parent[key]
            assert any(factor == pytest.approx(f, rel=1e-3) for f in FACTORS) or child.values[key] in (0.5, 1e-1)


def by_place():
    """A member's score is the number of its place; known by its values, as its children are."""
    seen: dict[str, int] = {}

    def score(values: dict, epochs: int) -> float:
        return float(seen.setdefault(repr(values), len(seen)))

    return score


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-5, 5) | st.sampled_from(["failed", "infeasible"]), min_size=4, max_size=40),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 4),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_what_must_hold_for_any_scores_and_any_order(
    scores: list, size: int, whole: int, workers: int, up: bool, rng: random.Random
) -> None:
    mind = brain("pbt", whole=whole, max_trials=size, sampler="random", maximise=up)
    dealt = iter(range(10**6))
    found = run(
        mind, lambda v, e: scores[next(dealt) % len(scores)],
        workers=workers, seconds=lambda t, e: e * rng.uniform(0.5, 3),
    )  # fmt: skip
    expected, rungs = mind.schedule.expected(), mind.schedule.rungs
    assert found.epochs <= expected.most == size * whole
    for trial in found.trials:
        if not trial.origin:
            continue
        parent = found.trials[trial.origin.trial]
        assert trial.origin.epoch in parent.rungs and parent.bracket != trial.bracket
        assert parent.rungs[trial.origin.epoch].score in scores, "it had a score there"
        here = [t for t in found.trials if trial.origin.epoch in t.rungs]
        beaten = sum(mind.goal.worth(t.rungs[trial.origin.epoch].score) > mind.goal.worth(parent.rungs[trial.origin.epoch].score) for t in here)  # fmt: skip
        assert beaten < max(1, round(0.2 * size)), "only from the best fifth"
    if not any(isinstance(s, str) for s in scores):
        assert found.epochs == size * whole
        assert Counter(e for t in found.trials for e in t.rungs) == dict.fromkeys(rungs, size)


def test_parents_wait_until_their_children_have_begun() -> None:
    """Or the checkpoint that the child needs would be gone."""
    found = run(brain("pbt", whole=4), by_place(), workers=3)
    order = [step for step, _ in found.steps]
    for trial in found.trials:
        if trial.origin:
            at = order.index(trial.id)
            later = [i for i, (n, epoch) in enumerate(found.steps) if n == trial.origin.trial and epoch > trial.begun]
            assert not later or min(later) > at


def test_what_a_training_cannot_change_is_not_searched() -> None:
    assert why_not("model.one_former.hidden_dim") and not why_not("train.optim.lr") and not why_not("dataset.max_scale")
    words = ["preset=swin_t", "automl.algorithm=pbt"]
    assert "train.optim.weight_decay" in space_of(load_spec(None, words, action="a")).own()
    with pytest.raises(UserErrors, match="cannot go on with another value"):
        space_of(load_spec(None, [*words, "automl.parameters=[model.one_former.hidden_dim]"], action="a"))
    assert PLANE.own()


def test_a_population_finds_better_settings() -> None:
    """Settings matter from epoch to epoch: a member gains what its present values are worth."""
    reached: dict[str, float] = {}

    def score(values: dict, epochs: int) -> float:
        gain = 1 - abs(values["model.one_former.dropout"] - 0.4)
        return reached.setdefault(f"{values} {epochs}", gain * epochs)

    found = run(brain("pbt", whole=10, max_trials=10), score).trials
    last = [t.values["model.one_former.dropout"] for t in found if 10 in t.rungs]
    first = [t.values["model.one_former.dropout"] for t in found if not t.origin]
    assert sum(abs(v - 0.4) for v in last) < 0.6 * sum(abs(v - 0.4) for v in first)
