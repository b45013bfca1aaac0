"""Trials lent to Optuna, translated once: what is proposed is what Optuna proposes from a study of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from automl.simulated import PLANE
from oneformer.automl.space import Space
from oneformer.automl.trial import Trial

optuna = pytest.importorskip("optuna")


NO_WHOLE_NUMBERS = Space(tuple(d for d in PLANE.dimensions if d.kind != "int"), {})
SPACES = {"plane": PLANE, "no whole numbers": NO_WHOLE_NUMBERS, "choices": Space(PLANE.dimensions[3:], {})}


def tried(count: int, space: Space = PLANE) -> tuple[list[Trial], dict[int, float]]:
    """Trials and their values: every seventh cannot be computed, the last two are under way."""
    rng = np.random.default_rng(count)
    trials = [Trial(n, space.draw(rng.random), "random") for n in range(count)]
    for trial in trials[3::7]:
        trial.state = "infeasible"
    return trials, {t.id: -1.0 if t.state == "infeasible" else float(rng.random()) for t in trials[:-2]}


def by_optuna(models: Any, trials: list[Trial], values: dict[int, float], seed: int) -> dict[str, Any]:
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=models.startup, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([models.told(t, values.get(t.id)) for t in trials])
    return models.point(study.ask(models.space).params, models.dimensions)


@pytest.mark.parametrize("count", [12, 40, 150, 400])
@pytest.mark.parametrize("name", SPACES)
def test_tpe_proposes_what_it_does_in_a_study_of_its_own(name: str, count: int) -> None:
    from oneformer.automl.models import Models

    space = SPACES[name]
    models, (trials, values) = Models(space.dimensions, 4, 10), tried(count, space)
    for seed in range(5):
        found = models.learned("tpe", trials, values, seed=seed)
        assert found == by_optuna(models, trials, values, seed)
        trials.append(Trial(len(trials), found, "tpe"))  # what was kept of the others holds for one more, and a score
        values[trials[-2].id] = 0.5 + seed


@pytest.mark.parametrize("value", [0.5, None])
def test_tpe_does_the_same_with_equal_scores_and_with_nothing_that_can_be_computed(value: float | None) -> None:
    from oneformer.automl.models import Models

    models, (trials, values) = Models(PLANE.dimensions, 4, 10), tried(60)
    for trial in trials[:-2]:
        trial.state = trial.state if value else "infeasible"
        values[trial.id] = value or -1.0
    for seed in range(5):
        assert models.learned("tpe", trials, values, seed=seed) == by_optuna(models, trials, values, seed)


@pytest.mark.parametrize("reach", [1.0, 0.3, 1e-3])
def test_densities_are_optunas_where_trials_lie_outside_the_ranges_too(reach: float) -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator

    from oneformer.automl.tpe import DENSITY, _Density

    space = {
        "rate": FloatDistribution(1e-3, 1e-3 * 1e3**reach, log=True),
        "size": FloatDistribution(1e6 * (1 - reach), 1e6),
        "kind": CategoricalDistribution([0, 1, 2]),
        "layers": IntDistribution(1, 2 + int(20 * reach)),
        "batch": IntDistribution(1, 2 + int(500 * reach), log=True),
    }
    rng = np.random.default_rng(0)
    seen = {"rate": 1e-3 * 1e3 ** rng.random(200), "size": 1e6 * rng.random(200), "kind": rng.integers(3, size=200)}
    seen |= {"layers": rng.integers(1, 23, size=200), "batch": rng.integers(1, 503, size=200)}
    ours, theirs = (kind(seen, space, DENSITY) for kind in (_Density, _ParzenEstimator))
    drawn = theirs.sample(np.random.RandomState(1), 50)
    assert np.allclose(ours.log_pdf(drawn), theirs.log_pdf(drawn), rtol=0, atol=1e-6)


def test_a_trial_is_translated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from oneformer.automl.models import Models

    models, (trials, values) = Models(PLANE.dimensions, 4, 10), tried(100)
    models.learned("tpe", trials, values, seed=1)
    translated = []
    kind = optuna.distributions.FloatDistribution
    before = kind.to_internal_repr
    monkeypatch.setattr(kind, "to_internal_repr", lambda self, v: translated.append(v) or before(self, v))
    models.learned("tpe", trials, values, seed=2)
    assert len(translated) < 10, "Optuna translates trials again, which takes a third of the time of a proposal"
