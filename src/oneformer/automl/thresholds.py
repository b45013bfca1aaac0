"""A function that scores thresholds of post-processing -> thresholds that suit a network better, kept in a file.

No training is needed for them, so that they are no part of a search. They are chosen by some images and told by others:
what only looks better on those that it was chosen by is not handed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer.runs.atomic import write_json
from oneformer.spec.model import TestSpec
from oneformer.spec.tree import with_value

FILE = "thresholds.json"
ROUNDS = 2
CHOSEN, TOLD = 0, 1
"""The halves of the images: those that thresholds are chosen by, and those that tell what they are worth."""


def _steps(first: float, last: float) -> tuple[float, ...]:
    return tuple(round(first + 0.05 * i, 2) for i in range(round((last - first) / 0.05) + 1))


# Threshold -> the task whose score it changes (both: none of the two may lose), and the values that are tried.
TRIED: dict[str, tuple[tuple[str, ...], tuple[float | int, ...]]] = {
    "object_mask_threshold": (("panoptic",), _steps(0.1, 0.9)),
    "overlap_threshold": (("panoptic",), _steps(0.1, 0.95)),
    "mask_threshold": (("panoptic", "instance"), _steps(0.3, 0.7)),
    "test_topk_per_image": (("instance",), (50, 100, 150, 250)),
}
Scored = Callable[[TestSpec, tuple[str, ...], int], Mapping[str, float]]
"""(thresholds, tasks, half) -> task -> its score; more is better."""


@dataclass(frozen=True)
class Tuned:
    """What was found."""

    own: TestSpec
    found: TestSpec
    before: tuple[Mapping[str, float], Mapping[str, float]]
    """Scores by task under `own`: of the half that was chosen by, and of the other."""
    after: tuple[Mapping[str, float], Mapping[str, float]]
    tried: int

    @property
    def changed(self) -> dict[str, float | int]:
        """The thresholds that are others than the spec's own, under their keys."""
        pairs = {name: (getattr(self.own, name), getattr(self.found, name)) for name in TRIED}
        return {f"model.test.{name}": new for name, (old, new) in pairs.items() if new != old}

    @property
    def kept(self) -> bool:
        """Whether they hold on images that they were not chosen by: no score is lower there, and one higher."""
        gains = [self.after[TOLD][task] - self.before[TOLD][task] for task in self.before[TOLD]]
        return min(gains, default=0.0) >= 0 and max(gains, default=0.0) > 0


def tuned(own: TestSpec, tasks: tuple[str, ...], scored: Scored) -> Tuned:
    """One threshold after the other, twice: a value takes the place of the one before where a score of the half that
    is chosen by gets higher and none gets lower.

    Args:
        own: the thresholds to begin with.
        tasks: `panoptic`, `instance` or both: what is scored.
        scored: scores thresholds.
    """
    best, tried, known = own, 0, dict(scored(own, tasks, CHOSEN))
    for _ in range(ROUNDS):
        for name, (moved, values) in TRIED.items():
            mine = tuple(task for task in moved if task in tasks)
            if not mine:
                continue
            for value in values:
                candidate = with_value(best, name, value)
                if candidate == best:
                    continue
                now, tried = scored(candidate, mine, CHOSEN), tried + 1
                gains = [now[task] - known[task] for task in mine]
                if min(gains) >= 0 and max(gains) > 0:
                    best, known = candidate, known | dict(now)
    before, after = (tuple(scored(test, tasks, half) for half in (CHOSEN, TOLD)) for test in (own, best))
    return Tuned(own, best, (before[0], before[1]), (after[0], after[1]), tried)


def write(folder: Path, found: Tuned, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what was found with the facts that it belongs to (`digest` of the checkpoint); gives what was written."""
    told = {
        **facts,
        "own": {f"model.test.{name}": getattr(found.own, name) for name in TRIED},
        "found": found.changed,
        "handed_over": found.kept and bool(found.changed),
        "before": {"chosen_by": dict(found.before[CHOSEN]), "told_by": dict(found.before[TOLD])},
        "after": {"chosen_by": dict(found.after[CHOSEN]), "told_by": dict(found.after[TOLD])},
        "tried": found.tried,
    }
    write_json(folder / FILE, told)
    return told


def read(folder: Path, digest: str) -> dict[str, Any]:
    """What was found for the checkpoint of this digest; empty where nothing was."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return dict(told) if told.get("digest") == digest else {}


def thresholds_of(folder: Path, digest: str) -> dict[str, float | int]:
    """The keys to set for the checkpoint of this digest; empty where nothing better was found."""
    told = read(folder, digest)
    return dict(told["found"]) if told.get("handed_over") else {}
