"""Epochs until a search has what random search with whole trainings has at its end: real trainings on the nuclei.

Both begin with a spec whose learning rate is a hundred times too low, and may look for it over four decades: what one
searches for who does not know it yet. Trainings are those of `oneformer automl`, parts and pauses included; each is
kept in a folder, so that the script goes on where it was cut off, and a setting that comes up again is not trained
again. Epochs are counted as if it were.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from automl.simulated import Search, run
from oneformer.automl.brain import Brain, brain_of
from oneformer.automl.objective import Goal
from oneformer.automl.study import study_of
from oneformer.automl.trial import Trial
from oneformer.automl.worker import SPEC, trained
from oneformer.spec.load import load_spec
from oneformer.spec.write import changed_from_default, to_yaml
from search import at_epoch, reached

ROOT = Path(__file__).resolve().parents[1]
METRIC, WHOLE, TOO_LOW, IMAGES = "mIoU", 9, 1e-5, 10
WORDS = (
    "train.max_minutes=0", f"train.num_epochs={WHOLE}", "train.iters_per_epoch=20", "train.validation_interval=1",
    "train.precision=fp32", "train.num_threads=1", "train.optim.warmup_iters=20", f"train.optim.lr={TOO_LOW}",
    "dataset.augmentation.train_crop_size=[128,128]", "dataset.augmentation.test_min_size=128",
    "dataset.augmentation.test_max_size=128", "dataset.train.num_workers=0", "dataset.val.num_workers=0",
    "model.one_former.num_object_queries=40", "model.test.test_topk_per_image=40",
    "model.one_former.train_num_points=1024", f"automl.metric={METRIC}",
    "automl.ranges.train.optim.lr={valid_min: 1.0e-6, valid_max: 1.0e-2}",
)  # fmt: skip
METHODS: dict[str, tuple[str, ...]] = {
    "random, whole trainings": ("automl.algorithm=random",),
    "ASHA, TPE, from 3 epochs": ("automl.algorithm=asha", "automl.min_epochs=3"),
    "ASHA, TPE, from 1 epoch": ("automl.algorithm=asha", "automl.min_epochs=1"),
}
Curve = list[tuple[int, float]]


class Nuclei:
    """Scores of real trainings; each seed begins with other weights, and draws other settings."""

    def __init__(self, seed: int, folder: Path) -> None:
        few = folder / "val.json"
        few.parent.mkdir(parents=True, exist_ok=True)
        told = json.loads((ROOT / "samples/nuclei/val/annotations.json").read_text(encoding="utf-8"))
        told["images"] = sorted(told["images"], key=lambda image: image["id"])[:IMAGES]
        kept = {image["id"] for image in told["images"]}
        told["annotations"] = [found for found in told["annotations"] if found["image_id"] in kept]
        few.write_text(json.dumps(told), encoding="utf-8")
        own = (f"train.seed={seed}", f"automl.seed={seed}", f"dataset.val.annotations={few}", f"results_dir={folder}")
        self.words = (*WORDS, *own)
        self.study, self.folder = study_of(self.spec()), folder / f"seed{seed}"

    def spec(self, *more: str) -> Any:
        """What the search is told."""
        return load_spec(ROOT / "specs/nuclei.yaml", [*self.words, *more], action="automl run")

    def __call__(self, values: dict[str, Any], epoch: int) -> float:
        """The best score within the first epochs; it trains on from where it was, if it has to."""
        point = hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:16]
        folder = self.folder / point
        told = folder / f"after{epoch}.json"
        if not told.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            spec = self.study.trial_spec(Trial(0, values, "own"))
            spec.results_dir = str(folder)
            (folder / SPEC).write_text(to_yaml(spec, keys=changed_from_default(spec), comments=False))
            found = trained(folder, self.study.epoch_for(epoch))
            told.write_text(json.dumps({"score": found["result"]["best"]["value"], "curve": found["curve"]}))
        return float(json.loads(told.read_text(encoding="utf-8"))["score"])


def mind(problem: Nuclei, method: tuple[str, ...], budget: int) -> Brain:
    """The brain of `oneformer automl` with as many trials as its plan fits into the budget."""
    found = None
    for trials in range(1, budget + 1):
        automl = problem.spec(*method, f"automl.max_trials={trials}").automl
        more = brain_of(automl, problem.study.space, goal=Goal(METRIC, maximise=True), whole=WHOLE)
        if more.schedule.expected().epochs > budget:
            break
        found = more
    assert found
    return found


def searched(problem: Nuclei, method: tuple[str, ...], budget: int, target: float) -> tuple[Curve, Search]:
    """(epochs spent, best score of a whole training) until the target is reached or the budget spent."""
    brain = mind(problem, method, budget)

    def over(found: Search) -> bool:
        return found.epochs >= budget or at_epoch(brain.curve(found.trials), budget) >= target

    found = run(brain, problem, stop=over)
    return brain.curve(found.trials), found


def main() -> None:
    """Print what each seed gave, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--whole-trainings", type=int, default=6, help="budget of random search")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "search_nuclei")
    asked = parser.parse_args()
    budget = asked.whole_trainings * WHOLE
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    for seed in asked.seeds:
        problem, target = Nuclei(seed, asked.folder), math.inf
        for name, method in METHODS.items():
            curve, found = searched(problem, method, budget, target)
            if target == math.inf:
                target = at_epoch(curve, budget)
            times[name].append(reached(curve, target))
            best = max(found.trials, key=lambda t: max((s.score for e, s in t.rungs.items() if e == WHOLE), default=0))
            print(
                f"seed {seed}, {name}: {len(found.trials)} trials, {found.epochs} epochs; "
                f"{', '.join(f'{score:.2f} at {at}' for at, score in curve)}; target {target:.2f} after "
                f"{times[name][-1]:.0f}; best lr {best.values['train.optim.lr']:.2e} ({best.source})",
                flush=True,
            )
    print(f"\n| method | epochs to random search's end, seeds {asked.seeds} | median | reached |\n|---|---|---|---|")
    for name, found_times in times.items():
        there = sum(map(math.isfinite, found_times))
        shown = ", ".join(f"{t:.0f}" if math.isfinite(t) else f"not in {budget}" for t in found_times)
        print(f"| {name} | {shown} | {statistics.median(found_times):.0f} | {there}/{len(found_times)} |")


if __name__ == "__main__":
    main()
