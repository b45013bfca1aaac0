"""Network outputs and the truths of a batch -> scores of all three tasks, each from outputs of its own task token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from oneformer.metrics.ap import MaskAP, mean_best_iou
from oneformer.metrics.miou import IGNORED, ConfusionMatrix
from oneformer.metrics.pq import MapSegments, PanopticQuality, places, runs
from oneformer.metrics.scores import Scores
from oneformer.segments import Outputs, PanopticResult, Rules, Size, encoded_instances, panoptic, semantic_map
from oneformer.segments.rle import Rle, encode
from oneformer.segments.types import TASKS

if TYPE_CHECKING:
    from oneformer.data.batch import Batch
    from oneformer.data.labels import LabelMap
    from oneformer.data.sample import Truth
    from oneformer.spec.model import TestSpec

State = dict[str, Any]
"""Counts as int64 tensors, images as plain lists: can be gathered over ranks or stored with a checkpoint."""


class _Sizes(TypedDict):
    input_size: Size
    size: Size
    original_size: Size


class Evaluator:
    """Scores batch by batch at the photo's own size: semantic outputs by mIoU, panoptic by PQ, instance by mask AP.

    An image is scored on the tasks that its labels are enough for.

    Void pixels of the truth are ignored everywhere. Crowd segments are void for mIoU, and excuse predictions in PQ
    and AP as the COCO tools define it. The result does not depend on the order of the images or on how they are split
    over batches and ranks, to the last bit.

    Args:
        labels: names and thing flags of the classes.
        tasks: which of `TASKS` to score.
        test: thresholds of post-processing (`model.test`).
    """

    def __init__(self, labels: LabelMap, *, tasks: Sequence[str] = TASKS, test: TestSpec) -> None:
        assert set(tasks) <= set(TASKS), f"unknown tasks: {sorted(set(tasks) - set(TASKS))}"
        self.tasks = tuple(task for task in TASKS if task in tasks)
        self.rules = Rules.from_spec(test, labels.is_thing)
        self.names = unique_names(labels.names)
        self.confusion = ConfusionMatrix(len(self.names))
        self.quality = PanopticQuality(labels.is_thing)
        self.precision = MaskAP(labels.is_thing)
        self.image_scores: dict[str, list[tuple[str, float]]] = {task: [] for task in self.tasks}

    def update(self, task: str, outputs: Outputs, batch: Batch, *, only: Iterable[int] | None = None) -> None:
        """Post-processes one batch's outputs, made with the token of `task`, and counts them.

        Args:
            task: one of the tasks given at the start.
            outputs: of all B images of the batch.
            batch: with truths; its `images` tell the padded size.
            only: the places in the batch to count; all of them when None.
        """
        assert task in self.tasks, f"{task} is not among the tasks to score: {self.tasks}"
        assert batch.truths is not None, "a batch without truth cannot be scored"
        assert len(outputs) == len(batch.truths), f"{len(outputs)} outputs for {len(batch.truths)} images"
        input_size = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
        for i in range(len(batch)) if only is None else only:
            truth = batch.truths[i]
            if task not in truth.tasks:
                continue
            height, width = truth.id_map.shape
            sizes = _Sizes(input_size=input_size, size=batch.sizes[i], original_size=(height, width))
            one = (outputs.class_logits[i], outputs.mask_logits[i])
            name = batch.names[i]
            if task == "semantic":
                score = self.confusion.update(semantic_map(*one, **sizes), truth_classes(truth))
            elif task == "panoptic":
                score = self._count_panoptic(panoptic(*one, **sizes, rules=self.rules), truth)
            else:
                found = encoded_instances(*one, **sizes, rules=self.rules)
                key = f"{name}#{batch.image_ids[i]}"
                whole = whole_masks(truth)
                self.precision.update(
                    key, found, truth=truth.id_map, truth_segments=truth_segments(truth), truth_rles=whole
                )
                alone = self.tasks == ("instance",)  # else another task's score orders the images
                score = mean_best_iou(self.precision.images[key]) if alone else None
            if score is not None:
                self.image_scores[task].append((name, score))

    def _count_panoptic(self, found: PanopticResult, truth: Truth) -> float | None:
        predicted = MapSegments.of([s.id for s in found.segments], [s.class_id for s in found.segments])
        return self.quality.update(found.map, predicted, truth=truth.id_map, truth_segments=truth_segments(truth))

    def state(self) -> State:
        """What was counted so far, to be merged elsewhere."""
        return {
            "confusion": torch.from_numpy(self.confusion.counts.copy()),
            "quality": torch.from_numpy(self.quality.counts.copy()),
            "images": dict(self.precision.images),
            "image_scores": {task: [list(item) for item in items] for task, items in self.image_scores.items()},
        }

    def merge(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Replaces what was counted here by the sum of `states`: those of all ranks, this one's own among them."""
        self.reset()
        self.confusion.merge([state["confusion"].cpu().numpy() for state in states])
        self.quality.merge([state["quality"].cpu().numpy() for state in states])
        self.precision.merge([state["images"] for state in states])
        for state in states:
            for task, items in state["image_scores"].items():
                self.image_scores[task].extend((name, score) for name, score in items)

    def reset(self) -> None:
        """Forgets everything counted."""
        self.confusion.counts[:] = 0
        self.quality.counts[:] = 0
        self.precision.images.clear()
        for items in self.image_scores.values():
            items.clear()

    def compute(self) -> Scores:
        """The scores of everything counted so far."""
        return Scores(
            semantic=self.confusion.compute(self.names) if "semantic" in self.tasks else None,
            panoptic=self.quality.compute(self.names) if "panoptic" in self.tasks else None,
            instance=self.precision.compute(self.names) if "instance" in self.tasks else None,
            image_scores={task: sorted(items) for task, items in self.image_scores.items() if items},
        )


def truth_segments(truth: Truth) -> MapSegments:
    """The truth's list of segments as arrays; those that are only semantic and no crowd are void, so left out."""
    items = [s for s in truth.segments if s.iscrowd or not s.only_semantic]
    return MapSegments.of([s.segment_id for s in items], [s.class_id for s in items], [bool(s.iscrowd) for s in items])


def whole_masks(truth: Truth) -> list[Rle] | None:
    """The masks of `truth_segments` where segments overlap and the id map shows only the one on top."""
    if truth.stacked is None:
        return None
    kept = [i for i, s in enumerate(truth.segments) if s.iscrowd or not s.only_semantic]
    return [encode(truth.stacked.mask(i)) for i in kept]


def truth_classes(truth: Truth) -> NDArray[np.int32]:
    """The truth's class id per pixel (H, W), `IGNORED` for void and crowd.

    A crowd segment marks a region where single objects were not outlined; how much of it is the class is unknown,
    unless the segment says that its class is.
    """
    items = truth.segments
    segments = MapSegments.of([s.segment_id for s in items], [s.class_id for s in items])
    unknown = np.array([s.iscrowd and not s.only_semantic for s in items], bool)
    classes = np.where(unknown, IGNORED, segments.class_ids)
    starts, lengths = runs(truth.id_map)
    found = np.concatenate(([IGNORED], classes))[places(truth.id_map.ravel()[starts], segments.ids)]
    return np.repeat(found.astype(np.int32), lengths).reshape(truth.id_map.shape)


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Class names that can be keys: a name that occurs twice gets its class id behind it."""
    counts = Counter(names)
    return tuple(name if counts[name] == 1 else f"{name} ({i})" for i, name in enumerate(names))
