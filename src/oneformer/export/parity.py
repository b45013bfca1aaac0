"""A network and its exported file on the same images -> how far their outputs, segments and scores differ."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer.data.batch import Batch
from oneformer.engines.base import Engine
from oneformer.engines.graph import GraphEngine
from oneformer.engines.torch import TorchEngine
from oneformer.export.decisions import Decisions, Teller, following
from oneformer.export.images import Images
from oneformer.metrics.evaluator import Evaluator
from oneformer.metrics.pq import MapSegments, match
from oneformer.segments import Outputs, PanopticResult, Rules, Size, panoptic, semantic_map

TOLERANCE = 1e-3  # of a logit in float32: an exported graph adds in another order, and nothing else
SAME_PIXELS = 0.99  # with rounded products: pixels that keep their class, and segments that find their partner
SAME_SEGMENTS = 0.95
MATCHES = 1  # column of `match`: true segments that found a partner


class Sizes(TypedDict):
    """The way from a mask back to the photo, each (height, width)."""

    input_size: Size
    size: Size
    original_size: Size


@dataclass
class Difference:
    """One output over all images and tasks: the largest and the mean difference, and the largest value it had."""

    largest: float = 0.0
    total: float = 0.0
    count: int = 0
    scale: float = 0.0

    def add(self, reference: Tensor, other: Tensor) -> None:
        """Count one pair of outputs; values that are no numbers count as infinitely far."""
        apart = (other - reference).abs().nan_to_num(nan=float("inf"))
        self.largest = max(self.largest, float(apart.max()))
        self.total += float(apart.sum(dtype=torch.float64))
        self.count += apart.numel()
        self.scale = max(self.scale, float(reference.abs().max()))

    def join(self, more: Difference) -> None:
        """Count what another one counted."""
        self.largest, self.scale = max(self.largest, more.largest), max(self.scale, more.scale)
        self.total += more.total
        self.count += more.count

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return {"largest": self.largest, "mean": self.total / max(1, self.count), "largest_value": self.scale}


def both_outputs() -> dict[str, Difference]:
    """A difference for each output."""
    return {"pred_logits": Difference(), "pred_masks": Difference()}


def count(found: dict[str, Difference], mine: Outputs, yours: Outputs) -> None:
    """Add the outputs of one image and task; the exported file may resize masks itself."""
    masks = mine.mask_logits
    if masks.shape != yours.mask_logits.shape:
        masks = F.interpolate(masks, size=yours.mask_logits.shape[2:], mode="bilinear", align_corners=False)
    found["pred_logits"].add(mine.class_logits, yours.class_logits)
    found["pred_masks"].add(masks, yours.mask_logits)


@dataclass
class Settled:
    """The images and tasks that differed by too much, once more with the file's decisions in both networks."""

    reference: TorchEngine
    teller: Teller
    runs: int = 0
    decisions: Decisions = field(default_factory=Decisions)
    outputs: dict[str, Difference] = field(default_factory=both_outputs)
    """Between the networks, both with the file's decisions."""
    itself: dict[str, Difference] = field(default_factory=both_outputs)
    """Between the file and the same file made to tell its decisions: the same, or they are not its own."""

    @classmethod
    def between(cls, reference: Engine, other: Engine) -> Settled | None:
        """None where the file's decisions cannot be known."""
        if not isinstance(reference, TorchEngine) or not isinstance(other, GraphEngine):
            return None
        try:
            return cls(reference, Teller(other))
        except LookupError:
            return None

    def add(self, images: Tensor, task: str, yours: Outputs) -> None:
        """Run one image and task again; `yours` is what the file gave."""
        told = self.teller(images, task)
        with following(self.reference.model.decoder, told.closed) as decisions:
            mine = self.reference.outputs(images, [task])[task].to("cpu")
        self.runs += 1
        self.decisions.join(decisions)
        count(self.outputs, mine, told.outputs)
        count(self.itself, yours, told.outputs)

    @property
    def faults(self) -> list[str]:
        """Why different decisions do not explain the difference; empty when they do."""
        found = []
        for name, difference in self.outputs.items():
            if not difference.largest <= TOLERANCE:
                found.append(f"{name} differ by up to {difference.largest:.3g} where queries look at the same places")
            if not self.itself[name].largest <= TOLERANCE:
                found.append(
                    f"{name} change by up to {self.itself[name].largest:.3g} when the file tells its decisions"
                )
        if self.decisions.farthest > TOLERANCE:
            found.append(f"places are closed or open otherwise at mask logits of up to {self.decisions.farthest:.3g}")
        return found

    def told(self) -> str:
        """What was found, for people."""
        places = self.decisions
        apart = ", ".join(f"{name} {difference.largest:.2e}" for name, difference in self.outputs.items())
        return (
            f"{places.differ} of {places.places} places were closed or open otherwise, at mask logits of at most "
            f"{places.farthest:.2e};\nwith the same places in both the largest differences are {apart}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "runs": self.runs,
            "places": self.decisions.places,
            "decided_otherwise": self.decisions.differ,
            "largest_mask_there": self.decisions.farthest,
            "outputs": {name: difference.to_dict() for name, difference in self.outputs.items()},
        }


@dataclass
class Parity:
    """What was compared and how it came out."""

    reference: str
    other: str
    images: str
    exact: bool
    """Whether both compute in float32, so that nothing but the order of sums may differ."""
    outputs: dict[str, Difference] = field(default_factory=both_outputs)
    settled: Settled | None = None
    """Of float32 files that differ by more than rounding and can tell their decisions."""
    pixels: int = 0
    pixels_same: int = 0
    segments: int = 0
    segments_same: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """For one image and all tasks, by engine."""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """Percent by engine and name (mIoU, PQ, AP); empty without annotations."""

    @property
    def semantic_agreement(self) -> float:
        """Share of pixels with the same class."""
        return self.pixels_same / self.pixels if self.pixels else 1.0

    @property
    def panoptic_agreement(self) -> float:
        """Share of the reference's segments with a partner of the same class that covers the same area (IoU > 0.5)."""
        return self.segments_same / self.segments if self.segments else 1.0

    @property
    def faults(self) -> list[str]:
        """Why the file does not compute the same, in words; empty when it does."""
        found = []
        if not all(np.isfinite(d.largest) for d in self.outputs.values()):
            found.append("some outputs are no numbers")
        if self.exact:
            apart = [
                f"{name} differ by up to {difference.largest:.3g}, allowed is {TOLERANCE:g}"
                for name, difference in self.outputs.items()
                if not difference.largest <= TOLERANCE
            ]
            if found or self.settled is None:
                return found + apart
            return apart + self.settled.faults if self.settled.faults else []
        for what, share, least in (
            ("pixels with the same class", self.semantic_agreement, SAME_PIXELS),
            ("segments with a partner", self.panoptic_agreement, SAME_SEGMENTS),
        ):
            if share < least:
                found.append(f"{what}: {share:.2%}, needed are {least:.0%}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """The content of parity.json."""
        first, second = self.scores.get(self.reference, {}), self.scores.get(self.other, {})
        return {
            "passed": not self.faults,
            "faults": self.faults,
            "reference": self.reference,
            "exported": self.other,
            "images": self.images,
            "tolerance": TOLERANCE if self.exact else None,
            "outputs": {name: difference.to_dict() for name, difference in self.outputs.items()},
            "same_decisions": self.settled.to_dict() if self.settled else None,
            "semantic": {"pixels": self.pixels, "same": self.semantic_agreement},
            "panoptic": {"segments": self.segments, "same": self.panoptic_agreement},
            "scores": {
                name: {"reference": first[name], "exported": second[name], "difference": second[name] - first[name]}
                for name in first
                if name in second
            },
            "seconds_per_image": {"reference": self.seconds[self.reference], "exported": self.seconds[self.other]}
            if self.seconds
            else {},
        }


def compare(reference: Engine, other: Engine, images: Images, *, tasks: Sequence[str], exact: bool) -> Parity:
    """Run both on every image and task.

    Args:
        reference: what is right.
        other: the exported file; its masks may be larger than the reference's (`embed_preprocess`).
        images: batches of one size for both.
        tasks: those the network was trained for.
        exact: whether weights and products of both are float32.
    """
    rules = Rules.from_spec(reference.info.test, reference.labels.is_thing)
    found = Parity(str(reference), str(other), images.source, exact)
    judges = [Evaluator(reference.labels, tasks=tasks, test=reference.info.test) for _ in range(2)]
    times: dict[str, list[float]] = {found.reference: [], found.other: []}
    for batch in images.batches:
        mine, yours = (
            timed(engine, batch, tasks, times[name])
            for engine, name in ((reference, found.reference), (other, found.other))
        )
        for task in tasks:
            far = add(found, mine[task], yours[task], task, batch=batch, rules=rules)
            if far and exact:
                found.settled = found.settled or Settled.between(reference, other)
                if found.settled:
                    found.settled.add(batch.images, task, yours[task])
            for judge, outputs in zip(judges, (mine, yours), strict=True):
                if images.scored:
                    judge.update(task, outputs[task], batch)
    # The first call also sets the engine up.
    found.seconds = {name: min(taken[1:] or taken) for name, taken in times.items()}
    if images.scored:
        names = (found.reference, found.other)
        found.scores = {n: headline(judge) for n, judge in zip(names, judges, strict=True)}
    return found


def timed(engine: Engine, batch: Batch, tasks: Sequence[str], taken: list[float]) -> dict[str, Outputs]:
    """The outputs of all tasks on the CPU, the seconds they took added to `taken`."""
    start = time.perf_counter()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # GPU convolutions would keep ten bits of float32
        found = {task: outputs.to("cpu") for task, outputs in engine.outputs(batch.images, tasks).items()}
    taken.append(time.perf_counter() - start)
    return found


def add(found: Parity, mine: Outputs, yours: Outputs, task: str, *, batch: Batch, rules: Rules) -> bool:
    """Count the outputs of one image and task, and what becomes of them. Returns whether they differ by too much."""
    here = both_outputs()
    count(here, mine, yours)
    for name, difference in here.items():
        found.outputs[name].join(difference)
    height, width = batch.images.shape[-2:]
    sizes = Sizes(input_size=(int(height), int(width)), size=batch.sizes[0], original_size=batch.original_sizes[0])
    both = [(o.class_logits[0], o.mask_logits[0].nan_to_num()) for o in (mine, yours)]
    if task == "semantic":
        first, second = (semantic_map(*one, **sizes) for one in both)
        found.pixels += first.size
        found.pixels_same += int(np.count_nonzero(first == second))
    if task == "panoptic":
        true, guess = (panoptic(*one, **sizes, rules=rules) for one in both)
        counts = match(guess.map, _arrays(guess), true.map, _arrays(true), num_classes=len(rules.is_thing))
        found.segments += len(true.segments)
        found.segments_same += int(counts[:, MATCHES].sum())
    return any(not difference.largest <= TOLERANCE for difference in here.values())


def _arrays(found: PanopticResult) -> MapSegments:
    return MapSegments.of([s.id for s in found.segments], [s.class_id for s in found.segments])


def headline(judge: Evaluator) -> dict[str, float]:
    """mIoU, PQ and AP in percent, those that could be scored."""
    scores = judge.compute().kpi()
    return {name: scores[name] for name in ("mIoU", "PQ", "AP") if name in scores}
