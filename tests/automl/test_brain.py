"""Proposals and decisions: the same after a restart, mirrored for a mirrored objective, and never led by failures."""

from __future__ import annotations

import math
import zlib
from copy import deepcopy
from typing import Any

import pytest

from automl.simulated import PLANE, brain, run
from oneformer.automl.brain import ALGORITHMS
from oneformer.automl.propose import ADVISED
from oneformer.automl.space import Space
from oneformer.automl.trial import Rung, Trial

BRACKETS = ("hyperband", "hyperband_es", "bohb", "dehb")
SHORT = {"random": 12, "bayesian": 6, "bfbo": 6, "asha": 18, "pbt": 6, **dict.fromkeys(BRACKETS, 0)}
WHOLE = dict.fromkeys(BRACKETS, 4)  # small brackets
SAMPLERS = ("tpe", "cmaes", "nsga2", "de", "qmc")
# Without another name of one of them, and without those that ask a language model (test_advise.py).
OWN = [name for name in ALGORITHMS if name != "bfbo" and name not in ADVISED]


def quality(values: dict[str, Any], epochs: int) -> float:
    """Best at lr 1e-3 and no dropout; longer is better."""
    distance = abs(math.log10(values["train.optim.lr"]) + 3) + values["model.one_former.dropout"]
    return -distance - 1 / epochs + 0.01 * (values["train.optim.lr_scheduler"] == "cosine")


def failing(rate: float, sign: float = 1.0) -> Any:
    """The quality, or a failure for a fixed share of all points."""

    def score(values: dict[str, Any], epochs: int) -> float | str:
        dice = zlib.crc32(repr(sorted(values.items())).encode()) % 1000 / 1000
        if dice < rate:
            return ("failed", "infeasible")[int(dice * 1000) % 2]
        return sign * quality(values, epochs)

    return score


def mind(algorithm: str, **more: Any) -> Any:
    more = {"max_trials": SHORT[algorithm], "whole": WHOLE.get(algorithm, 9), "reduction_factor": 2, **more}
    return brain(algorithm, **more)


def sampling(sampler: str, **more: Any) -> Any:
    return brain("asha", sampler=sampler, max_trials=14, whole=4, reduction_factor=2, **more)


RATES = [(name, rate) for name in OWN for rate in ((0.0,) if name == "bayesian" else (0.0, 0.5, 0.9))]


@pytest.mark.parametrize(("algorithm", "rate"), [*RATES, pytest.param("bayesian", 0.5, marks=pytest.mark.slow)])
def test_a_mirrored_objective_gives_mirrored_decisions(algorithm: str, rate: float) -> None:
    up = run(mind(algorithm, maximise=True), failing(rate))
    down = run(mind(algorithm, maximise=False), failing(rate, -1.0))
    assert up.steps == down.steps
    assert [(t.values, t.origin) for t in up.trials] == [(t.values, t.origin) for t in down.trials]
    assert not any(t.broken and t.epochs == up.trials[0].epochs == 9 for t in up.trials)
    assert not any(up.trials[t.origin.trial].broken for t in up.trials if t.origin)
    broken = {t.id for t in up.trials if t.broken}
    for number in broken:
        assert sum(trial == number for trial, _ in up.steps) == len(up.trials[number].rungs) + 1, "it never runs again"


@pytest.mark.parametrize("rate", [0.0, 0.5])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_is_mirrored_too(sampler: str, rate: float) -> None:
    up, down = (run(sampling(sampler, maximise=s > 0), failing(rate, s)) for s in (1.0, -1.0))
    assert up.steps == down.steps and [t.values for t in up.trials] == [t.values for t in down.trials]
    assert rate or up.trials[-1].source == sampler


@pytest.mark.parametrize("algorithm", OWN)
def test_a_search_that_was_cut_proposes_what_an_unbroken_one_does(algorithm: str) -> None:
    """At every step a new brain is asked, which knows nothing but the trials."""
    whole = run(mind(algorithm, seed=5), quality)
    trials: list[Trial] = []
    steps = []
    while step := mind(algorithm, seed=5).schedule.next(deepcopy(trials)):
        number = step.trial.id if step.trial else len(trials)
        if step.trial is None:
            proposal = mind(algorithm, seed=5).proposal(deepcopy(trials), step)
            trials.append(Trial(number, dict(proposal.values), proposal.source, step.bracket, step.origin))
        trial = trials[number]
        steps.append((number, step.epoch))
        trial.curve[step.epoch] = quality(trial.values, step.epoch)
        trial.rungs[step.epoch] = Rung(step.epoch, trial.curve[step.epoch], 1.0, len(steps))
        trial.state = "done" if step.epoch == WHOLE.get(algorithm, 9) else "paused"
    assert steps == whole.steps
    assert [t.values for t in trials] == [t.values for t in whole.trials]


def test_bfbo_is_another_name_of_bayesian() -> None:
    assert ALGORITHMS["bfbo"] == ALGORITHMS["bayesian"]


def test_the_first_trial_is_the_spec_itself_and_others_differ_by_seed() -> None:
    one, other = (run(mind("random", seed=seed), quality).trials for seed in (1, 2))
    assert one[0].values == other[0].values == PLANE.own()
    assert one[0].source == "own" and one[1].values != other[1].values
    assert len({repr(t.values) for t in one}) == len(one)


@pytest.mark.parametrize(
    ("algorithm", "model"), [pytest.param("bayesian", "gp", marks=pytest.mark.slow), ("asha", "tpe")]
)
def test_models_learn(algorithm: str, model: str) -> None:
    """The last proposals of a sampler that learns are better than spread points, in either direction."""
    count = {"max_trials": 22, "whole": 4}
    for sign in (1.0, -1.0):
        found = run(mind(algorithm, maximise=sign > 0, **count), lambda v, e, s=sign: s * quality(v, e))
        sources = [t.source for t in found.trials]
        assert sources[0] == "own" and set(sources[1:4]) == {"qmc"} and sources[-1] == model
        spread = [quality(t.values, 9) for t in found.trials if t.source == "qmc"]
        late = [quality(t.values, 9) for t in found.trials[-6:]]
        assert sum(late) / len(late) > sum(spread) / len(spread)


def test_points_are_spread_evenly() -> None:
    found = run(mind("random", sampler="qmc", max_trials=65), quality).trials[1:]
    places = [math.log10(t.values["train.optim.lr"]) for t in found]
    assert all(15 <= sum(low <= p < low + 1 for p in places) <= 17 for low in (-5, -4, -3, -2))
    assert {t.values["train.optim.lr_scheduler"] for t in found} == {"cosine", "Warmuppoly", "constant"}


def test_a_model_turns_away_from_what_cannot_be_computed() -> None:
    """Nothing with more than 6 layers fits into memory."""

    def score(values: dict[str, Any], epochs: int) -> float | str:
        return "infeasible" if values["model.one_former.dec_layers"] > 6 else quality(values, epochs)

    found = run(brain("random", sampler="tpe", max_trials=30, whole=1), score).trials
    late = [t.values["model.one_former.dec_layers"] > 6 for t in found[-12:]]
    assert sum(late) <= 3, "of twelve; by chance it were five"


def test_the_best_is_looked_for_where_training_was_whole() -> None:
    found = run(mind("asha"), lambda v, e: quality(v, e) - e)  # the longer the worse
    best = mind("asha").best(found.trials)
    assert best is not None and best.epochs == 9
    assert mind("asha").best([]) is None
    curve = mind("asha").curve(found.trials)
    assert curve[-1][1] == best.rungs[9].score and curve[-1][0] <= found.epochs


def test_a_space_of_few_points_is_exhausted_without_an_error() -> None:
    small = Space((PLANE.dimensions[3],), {})
    found = run(brain("random", space=small, max_trials=8, whole=1), lambda v, e: 1.0)
    assert {t.values["train.optim.lr_scheduler"] for t in found.trials[:6]} == {"cosine", "Warmuppoly", "constant"}
