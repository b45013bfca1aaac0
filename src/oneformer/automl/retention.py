"""Trials and a limit on disk space -> which checkpoints make room for others, and whether the limit can hold at all.

What must be there always fits: the trainings that run, and the best trial so far. The trials that wait for a promotion
are kept as far as there is room, the most promising first; one that has made room starts from the beginning when it is
promoted after all, and gets the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oneformer.automl.objective import Ranks
from oneformer.automl.schedule import Expected, best_first
from oneformer.automl.trial import Trial
from oneformer.errors import SpecError
from oneformer.spec import AutomlSpec, ExperimentSpec

MIB = 2**20
RESTING = 2  # files of a trial that waits: its latest state and its best
RUNNING = 4  # and of one that trains: the state before and the one being written, the best before and the one now
_TENSOR, _FILE = 1024, 2**16  # bytes of a checkpoint around each tensor, and around all of them


@dataclass(frozen=True)
class Need:
    """Disk space of a search, in bytes."""

    file: int
    """Of one checkpoint."""
    peak: int
    """At most, without a limit."""
    least: int
    """What a limit has to leave."""
    kept: int
    """At the end; of a Pareto front for each of its trials."""


def need_of(spec: ExperimentSpec, expected: Expected, *, whole_only: bool) -> Need:
    """The space that a search takes; `whole_only`: no trial ever waits for a promotion."""
    automl, file = spec.automl, checkpoint_bytes(spec)
    at_once = min(automl.max_concurrent, expected.trials)
    crowned = _crowned(automl, expected.trials)
    if automl.algorithm == "pbt":  # all of them go on, and each may be gone on from
        waiting = least = RESTING * min(automl.max_trials or expected.trials, expected.trials) + RESTING * crowned
    else:
        waiting = RESTING * (crowned if whole_only else expected.trials)
        least = RESTING * crowned
    end = RESTING * (1 if automl.combine == "pareto" else automl.finalists + 1)
    return Need(file, file * (RUNNING * at_once + waiting), file * (RUNNING * at_once + least), end * file)


def _crowned(automl: AutomlSpec, trials: int) -> int:
    """Trials at most whose checkpoints may be handed over."""
    if automl.combine == "pareto":
        return trials
    return 1 + (automl.finalists + 1 if automl.finalists else 0)


def checkpoint_bytes(spec: ExperimentSpec) -> int:
    """A checkpoint at most: weights, AdamW's two averages of each, and averaged weights where there are some."""
    import torch

    from oneformer.model.oneformer import build_model

    with torch.device("meta"):
        model = build_model(spec.model)
    weights = [p.numel() for p in model.parameters()]
    others = [b.numel() for b in model.buffers()]
    averaged = 1 + spec.train.ema.enabled
    numbers = (averaged + 2) * sum(weights) + averaged * sum(others)
    tensors = (averaged + 3) * len(weights) + averaged * len(others)
    return 4 * numbers + _TENSOR * tensors + _FILE


def check(automl: AutomlSpec, need: Need) -> None:
    """Raises SpecError when the limit cannot hold, with the figure that would."""
    if automl.max_disk_mib and automl.max_disk_mib * MIB < need.least:
        least = math.ceil(need.least / MIB)
        raise SpecError(
            f"the search needs {least} MiB for the checkpoints that it cannot do without, the limit is "
            f"{automl.max_disk_mib} MiB",
            where="automl.max_disk_mib",
            hint=f"automl.max_disk_mib={least}, or fewer at a time (automl.max_concurrent)",
        )


def used(paths: Iterable[Path]) -> dict[Path, int]:
    """Files -> their bytes; a second name of the same content counts nothing."""
    seen: set[tuple[int, int]] = set()
    found = {}
    for path in paths:
        try:
            told = path.lstat()
        except FileNotFoundError:
            continue
        found[path] = 0 if (told.st_dev, told.st_ino) in seen else told.st_size
        seen.add((told.st_dev, told.st_ino))
    return found


def making_room(
    trials: Sequence[Trial], sizes: Mapping[int, int], *, keep: Collection[int], ranks: Ranks, room: int
) -> list[Trial]:
    """The trials whose checkpoints go so that the others take at most `room` bytes, the least promising first.

    Args:
        trials: all of them.
        sizes: number of a trial that does not run -> bytes of its checkpoints.
        keep: numbers of those that stay in any case.
        ranks: how good trials are that have reached the same rung.
        room: in bytes.
    """
    over = sum(sizes.values()) - room
    found = []
    for trial in sorted((t for t in trials if t.id in sizes and t.id not in keep), key=_promise(trials, ranks)):
        if over <= 0:
            break
        found.append(trial)
        over -= sizes[trial.id]
    return found


def _promise(trials: Sequence[Trial], ranks: Ranks) -> Callable[[Trial], tuple[float, int]]:
    """Sorts trials by the epochs that would be lost with them, times the share of their rung that they are above."""
    above: dict[tuple[int, int], dict[int, float]] = {}
    for bracket, epoch in {(t.bracket, t.epochs) for t in trials if t.rungs}:
        here = best_first([t for t in trials if t.bracket == bracket], epoch, ranks)
        above[bracket, epoch] = {t.id: 1 - place / len(here) for place, t in enumerate(here)}

    def key(trial: Trial) -> tuple[float, int]:
        share = above.get((trial.bracket, trial.epochs), {}).get(trial.id, math.inf)  # one at no rung goes on next
        return share * max(trial.epochs, 1), -trial.id

    return key
