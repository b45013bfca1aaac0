"""A proposal by TPE after so many trials: processor time of ours beside a study of Optuna's that holds the same trials.

    python benchmarks/proposals.py [--trials 100 300 1000] [--rounds 20]

The keys are those that `specs/nuclei.yaml` searches; scores are random, every seventh trial cannot be computed. Both
propose the same point, which is checked. Least times, for other programs only add to them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from oneformer.automl.models import Models, quiet
from oneformer.automl.space import Space, space_of
from oneformer.automl.trial import Trial
from oneformer.spec.load import load_spec

SPEC = Path(__file__).resolve().parent.parent / "specs" / "nuclei.yaml"
STARTUP = 4  # trials with a score that a model needs; here there are always more


def tried(space: Space, count: int) -> tuple[list[Trial], dict[int, float]]:
    """Trials that have ended, and their scores."""
    rng = np.random.default_rng(count)
    trials = [Trial(n, space.draw(rng.random), "random", state="done") for n in range(count)]
    for trial in trials[3::7]:
        trial.state = "infeasible"
    return trials, {t.id: -1.0 if t.state == "infeasible" else float(rng.random()) for t in trials}


def sides(space: Space, count: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Ours and Optuna's way to the same point."""
    trials, scores = tried(space, count)
    models = Models(space.dimensions, STARTUP, population=10)
    told = [models.told(trial, scores[trial.id]) for trial in trials]

    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=STARTUP, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(told)
    found = {
        "ours": lambda: models.learned("tpe", trials, scores, seed=0),
        "Optuna": lambda: models.point(study.ask(models.space).params, space.dimensions),
    }
    assert found["ours"]() == found["Optuna"](), "both must propose the same"
    return found


def least_ms(job: Callable[[], object], rounds: int) -> float:
    """Processor time."""
    times = []
    for _ in range(rounds):
        began = time.process_time()
        job()
        times.append(time.process_time() - began)
    return 1000 * min(times)


def main() -> None:
    """One line for each number of trials."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--trials", type=int, nargs="+", default=[100, 300, 1000])
    made.add_argument("--rounds", type=int, default=20)
    options = made.parse_args()
    space = space_of(load_spec(SPEC, [], action="train"))
    print(f"{len(space.dimensions)} keys, optuna {optuna.__version__}")
    with quiet():
        for count in options.trials:
            ours, theirs = (least_ms(side, options.rounds) for side in sides(space, count).values())
            print(f"{count:5} trials  ours {ours:.1f} ms  Optuna {theirs:.1f} ms  ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
