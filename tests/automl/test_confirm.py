"""Fresh seeds decide between the best: what was lucky once is not crowned."""

from __future__ import annotations

import statistics
import zlib
from typing import Any

import numpy as np
import pytest

from automl.simulated import Search, brain, run
from oneformer.automl.confirm import Confirmed
from oneformer.automl.forecast import Hopeless, forecast
from oneformer.automl.trial import Rung, Trial


def noisy(seed: int, spread: float) -> Any:
    """Best at no dropout; every training has luck of its own."""
    rng = np.random.default_rng(seed)

    def score(values: dict[str, Any], epochs: int) -> float:
        return 50 - 20 * values["model.one_former.dropout"] + float(rng.normal(0, spread))

    return score


def test_finalists_are_trained_again_and_their_fresh_scores_decide() -> None:
    mind = brain("random", max_trials=10, whole=3, finalists=3, fresh_seeds=2)
    assert isinstance(mind.schedule, Confirmed) and mind.schedule.expected().jobs == 16
    found = run(mind, noisy(1, 4.0))
    again = [t for t in found.trials if t.again]
    first = sorted((t for t in found.trials if not t.again), key=lambda t: -t.rungs[3].score)
    named = {t.id for t in first[:3]} | {0}
    assert {t.origin.trial for t in again} == named and len(again) == 2 * len(named)
    assert all(t.source == "again" and t.values == found.trials[t.origin.trial].values for t in again)
    verdicts = mind.verdicts(found.trials)
    means = {v.trial.id: statistics.fmean(v.scores) for v in verdicts}
    for number in named:
        assert means[number] == statistics.fmean(t.rungs[3].score for t in again if t.origin.trial == number)
    assert mind.best(found.trials).id == max(means, key=lambda n: means[n]) == verdicts[0].trial.id
    assert len(found.trials) <= mind.schedule.expected().most


def test_a_finalist_that_breaks_when_it_is_trained_again_comes_last() -> None:
    mind = brain("random", max_trials=4, whole=1, finalists=2, fresh_seeds=2)
    found = run(mind, noisy(3, 0.0))
    for trial in found.trials:
        if trial.again and trial.origin.trial == mind.best(found.trials).id and trial.origin.seed == 2:
            trial.rungs.clear()
            trial.state = "failed"
            break
    verdicts = mind.verdicts(found.trials)
    assert verdicts[-1].broken == 1 and verdicts[0].broken == 0 and mind.best(found.trials) == verdicts[0].trial


def test_a_reported_score_is_not_a_lucky_one() -> None:
    """Over 20 searches: the winner's own score lies high by its luck, the mean of its fresh seeds does not."""
    lucky, honest = [], []
    for seed in range(20):
        mind = brain("random", max_trials=16, whole=1, finalists=3, fresh_seeds=3, seed=seed)
        found: Search = run(mind, noisy(100 + seed, 2.0))
        first = max((t for t in found.trials if not t.again), key=lambda t: t.rungs[1].score)
        lucky.append(first.rungs[1].score - (50 - 20 * first.values["model.one_former.dropout"]))
        best = mind.verdicts(found.trials)[0]
        honest.append(best.mean - (50 - 20 * best.trial.values["model.one_former.dropout"]))
    assert statistics.fmean(lucky) > 1.5
    assert statistics.fmean(honest) < statistics.fmean(lucky) / 2
    assert statistics.fmean(honest) < 2.0, "goal G8: at most one standard deviation"


def test_more_trials_later_start_before_more_repetitions() -> None:
    few = brain("random", max_trials=4, whole=1, finalists=1, fresh_seeds=1)
    found = run(few, noisy(1, 1.0)).trials
    more = brain("random", max_trials=6, whole=1, finalists=1, fresh_seeds=1).schedule.next(found)
    assert more is not None and more.trial is None and more.origin is None


def test_a_power_law_is_found_again() -> None:
    curve = {epoch: 60 - 40 * epoch**-0.7 for epoch in (1, 2, 3, 5, 8)}
    value, error = forecast(curve, 27)
    assert value == pytest.approx(60 - 40 * 27**-0.7, abs=0.01) and error < 0.01
    assert forecast({1: 1.0, 2: 2.0}, 27) is None


def test_what_cannot_reach_the_best_is_given_up_and_stays_so() -> None:
    def trial(number: int, end: float, epochs: int) -> Trial:
        curve = {e: end - 20 * e**-0.7 for e in range(1, epochs + 1)}
        return Trial(
            number,
            {},
            "random",
            0,
            None,
            "paused",
            rungs={epochs: Rung(epochs, max(curve.values()), 1.0, 1)},
            curve=curve,
        )

    best, good, bad = trial(0, 60.0, 27), trial(1, 58.0, 9), trial(2, 40.0, 9)
    for sign in (1.0, -1.0):
        given_up = Hopeless(27, 0.1, lambda score, s=sign: s * score)
        mirrored = [
            Trial(t.id, {}, "random", 0, None, "paused", curve={e: sign * s for e, s in t.curve.items()},
                  rungs={e: Rung(e, sign * r.score, 1.0, 1) for e, r in t.rungs.items()})
            for t in (best, good, bad)
        ]  # fmt: skip
        assert not given_up(mirrored[2], mirrored[1:]), "nothing has reached the end yet"
        assert given_up(mirrored[2], mirrored) and not given_up(mirrored[1], mirrored)
        assert not Hopeless(27, 1.0, given_up.worth)(mirrored[2], mirrored)


def test_hyperband_with_a_forecast_trains_less_and_finds_the_same() -> None:
    def score(values: dict[str, Any], epochs: int) -> float:
        luck = zlib.crc32(repr(sorted(values.items())).encode()) % 100 / 100
        return 60 * (1 - values["model.one_former.dropout"]) * (1 - 0.8 * epochs**-0.7) + luck

    plain, stopped = (run(brain(name, whole=27), score, curve=score) for name in ("hyperband", "hyperband_es"))
    assert stopped.epochs < plain.epochs
    ends = [max(t.rungs[27].score for t in found.trials if 27 in t.rungs) for found in (plain, stopped)]
    assert ends[1] > 0.98 * ends[0]
