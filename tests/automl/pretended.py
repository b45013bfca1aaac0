"""A place to train where a training lasts as many looks at it as it has epochs, and scores what a function says."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from oneformer.automl.worker import OUTCOME, SPEC
from oneformer.spec import ExperimentSpec
from oneformer.spec.load import load_spec


def quality(spec: ExperimentSpec, epoch: int) -> float:
    """Best at a learning rate of 2e-4 and little weight decay; in percent, rising with the epochs."""
    away = abs(math.log10(spec.train.optim.lr / 2e-4)) + abs(math.log10(spec.train.optim.weight_decay / 0.01)) / 4
    return 80 - 20 * away - 30 / epoch


@dataclass
class Pretended:
    """The place.

    Args:
        score: of a spec after some epochs.
        faults: number of a trial -> how often its process is ended from outside before it gets through.
        kinds: number of a trial -> the kind of outcome that it ends with.
        stop_after: trainings after which the process of the search is interrupted.
    """

    score: Callable[[ExperimentSpec, int], float] = quality
    faults: dict[int, int] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    stop_after: int = 10**9
    started: list[tuple[int, int]] = field(default_factory=list)
    now: int = 0
    most: int = 0
    metrics: set[str] = field(default_factory=set)
    more: Callable[[ExperimentSpec], dict[str, float]] = lambda spec: {}
    """What is measured beside the score."""
    padding: int = 0
    """Bytes of a checkpoint, beyond the few that say whose it is."""
    look: Callable[[], object] = lambda: None
    """Called before each training and at its end."""
    there: dict[int, dict[str, str]] = field(default_factory=dict)
    """Number of a trial -> its files before its first start: name -> content."""

    def start(self, folder: Path, epoch: int) -> Running:
        number = int(folder.name)
        self.look()
        if len(self.started) >= self.stop_after:
            raise KeyboardInterrupt
        self.started.append((number, epoch))
        self.now += 1
        self.most = max(self.most, self.now)
        spec = load_spec(folder / SPEC, action="train")
        assert not (folder / OUTCOME).exists()
        self.there.setdefault(number, {p.name: p.read_text() for p in sorted(folder.glob("train/*.pth"))})
        return Running(self, folder, spec, epoch or spec.train.num_epochs)


@dataclass
class Running:
    place: Pretended
    folder: Path
    spec: ExperimentSpec
    epoch: int
    looks: int = 0
    gone: bool = False

    def over(self) -> bool:
        self.looks += 1
        if self.looks >= 2 and not self.gone:
            self._end()
        return self.gone

    def stop(self) -> None:
        if not self.gone:
            self.gone, self.place.now = True, self.place.now - 1

    def _end(self) -> None:
        self.stop()
        number, place = int(self.folder.name), self.place
        if place.faults.get(number, 0) > 0:
            place.faults[number] -= 1
            return
        rung = 0 if self.epoch == self.spec.train.num_epochs else self.epoch
        outcome: dict = {"kind": place.kinds.get(number, "done"), "reason": "it was told to", "epoch": rung}
        if outcome["kind"] == "done":
            train = self.folder / "train"
            train.mkdir(exist_ok=True)
            (train / "oneformer_model_best.pth").unlink(missing_ok=True)  # it may be a second name of another's
            padding = " " * place.padding
            (train / "oneformer_model_best.pth").write_text(f"{number} {self.epoch}{padding}")
            before = list(train.glob("model_epoch_*.pth"))
            newest = train / f"model_epoch_{self.epoch - 1:03d}_step_00001.pth"
            newest.write_text(f"state {number} {self.epoch}{padding}")
            place.look()
            for path in before:
                path.unlink()
            metric = self.spec.train.best_metric if self.spec.train.best_metric != "auto" else "PQ"
            place.metrics.add(metric)
            score = place.score(self.spec, self.epoch)
            outcome |= {
                "result": {
                    "best": {"metric": metric, "value": score},
                    "metrics": {metric: score, **place.more(self.spec)},
                },
                "curve": {self.epoch: score},
                "seconds": 1.0,
            }
        (self.folder / OUTCOME).write_text(json.dumps(outcome))


def files(folder: Path) -> Counter:
    """Number of a trial -> its checkpoint files."""
    return Counter(path.relative_to(folder / "trials").parts[0] for path in folder.glob("trials/**/*.pth"))
