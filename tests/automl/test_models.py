"""Trials lent to Optuna, translated once: what is proposed is what Optuna proposes from a study of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from automl.simulated import PLANE
from oneformer.automl.trial import Trial

optuna = pytest.importorskip("optuna")


def tried(count: int) -> tuple[list[Trial], dict[int, float]]:
    """Trials and their values: every seventh cannot be computed, the last two are under way."""
    rng = np.random.default_rng(count)
    trials = [Trial(n, PLANE.draw(rng.random), "random") for n in range(count)]
    for trial in trials[3::7]:
        trial.state = "infeasible"
    return trials, {t.id: -1.0 if t.state == "infeasible" else float(rng.random()) for t in trials[:-2]}


def by_optuna(models: Any, trials: list[Trial], values: dict[int, float], seed: int) -> dict[str, Any]:
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=models.startup, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([models.told(t, values.get(t.id)) for t in trials])
    return models.point(study.ask(models.space), PLANE.dimensions)


@pytest.mark.parametrize("count", [12, 40, 150])
def test_tpe_proposes_what_it_does_in_a_study_of_its_own(count: int) -> None:
    from oneformer.automl.models import Models

    models, (trials, values) = Models(PLANE.dimensions, 4, 10), tried(count)
    for seed in range(5):
        found = models.learned("tpe", trials, values, seed=seed)
        assert found == by_optuna(models, trials, values, seed)
        trials.append(Trial(len(trials), found, "tpe"))  # what was kept of the others holds for one more, and a score
        values[trials[-2].id] = 0.5 + seed


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
