"""Predicted instances and true panoptic maps -> COCO mask AP of the things (AP AP50 AP75 APs APm APl and per class).

Truth is every thing segment of the panoptic truth with its own pixels; crowd segments excuse detections as COCO does.
Masks are kept run-length encoded, a few hundred bytes each. The numbers are COCO's: IoU 0.50 to 0.95 in steps of
0.05, 101 recall points, the 100 best detections of a class in an image, areas below 32^2, to 96^2 and above; a class
counts where it occurs in the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oneformer.metrics.miou import PERCENT
from oneformer.metrics.pq import MapSegments
from oneformer.segments.rle import Rle, area, encode_ids
from oneformer.segments.types import EncodedInstances

KEYS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
AREA_ALL, AREA_SMALL, AREA_MEDIUM, AREA_LARGE = range(4)
IOU_50, IOU_75 = 0, 5  # places of these thresholds among COCO's ten

ImageEntry = dict[str, Any]
"""One image, plain: `size` [H, W]; per segment `truth` [class, crowd, area, runs] or `found` [class, score, runs]."""


class MaskAP:
    """Streaming COCO mask AP; scores are percent, None where no class was to be scored.

    State: one `ImageEntry` per image key. An image that arrives twice (from two ranks) counts once.
    """

    def __init__(self, is_thing: Sequence[bool]) -> None:
        self.things = [i for i, thing in enumerate(is_thing) if thing]
        self.images: dict[str, ImageEntry] = {}

    def update(
        self,
        key: str,
        found: EncodedInstances,
        *,
        truth: NDArray[np.integer],
        truth_segments: MapSegments,
        truth_rles: Sequence[Rle] | None = None,
    ) -> None:
        """Adds one image.

        Args:
            key: unique name of the image; images are evaluated in the order of their keys, whatever order they came in.
            found: its instances.
            truth: its segment ids (H, W).
            truth_segments: what the ids are; stuff is left out.
            truth_rles: the segments' whole masks, where they overlap and the map shows only the one on top.
        """
        chosen = np.isin(truth_segments.class_ids, self.things)
        class_ids, crowd = truth_segments.class_ids[chosen].tolist(), truth_segments.iscrowd[chosen].tolist()
        if truth_rles is None:
            rles = encode_ids(truth, truth_segments.ids[chosen].tolist())
        else:
            rles = [rle for rle, thing in zip(truth_rles, chosen, strict=True) if thing]
        true = [
            [class_id, int(iscrowd), area(rle), rle["counts"]]
            for class_id, iscrowd, rle in zip(class_ids, crowd, rles, strict=True)
        ]
        predicted = [
            [int(class_id), float(score), rle["counts"]]
            for class_id, score, rle in zip(found.class_ids, found.scores, found.rles, strict=True)
        ]
        entry = {"size": list(truth.shape), "truth": [t for t in true if t[2] > 0], "found": predicted}
        self.images[key] = entry

    def merge(self, images: Sequence[Mapping[str, ImageEntry]]) -> None:
        """Adds the images of other ranks."""
        for other in images:
            self.images.update(other)

    def compute(self, names: Sequence[str]) -> dict[str, Any]:
        """The six COCO numbers and `per_class{name: the same, n: true instances}` of the thing classes; percent."""
        precision = self._precision()  # (10, 101, things, 4)
        counts = dict.fromkeys(self.things, 0)
        for entry in self.images.values():
            for class_id, iscrowd, *_ in entry["truth"]:
                counts[class_id] += not iscrowd
        per_class = {
            names[class_id]: {**_six(precision[:, :, i : i + 1]), "n": counts[class_id]}
            for i, class_id in enumerate(self.things)
        }
        return {**_six(precision), "per_class": per_class}

    def _precision(self) -> NDArray[np.float64]:
        """COCO's precision table (10 IoUs, 101 recalls, things, 4 areas), -1 where there is no truth."""
        entries = [(i, self.images[key]) for i, key in enumerate(sorted(self.images), start=1)]
        true = [
            {
                "image_id": i,
                "category_id": class_id,
                "iscrowd": iscrowd,
                "area": pixels,
                "segmentation": _rle(entry, runs),
            }
            for i, entry in entries
            for class_id, iscrowd, pixels, runs in entry["truth"]
        ]
        if not true:
            return np.full((10, 101, len(self.things), 4), -1.0)
        found = [
            {"image_id": i, "category_id": class_id, "score": score, "segmentation": _rle(entry, runs)}
            for i, entry in entries
            for class_id, score, runs in entry["found"]
        ]
        from faster_coco_eval import COCO, COCOeval_faster

        annotations = [{**t, "id": i} for i, t in enumerate(true, start=1)]
        sizes = [{"id": i, "height": entry["size"][0], "width": entry["size"][1]} for i, entry in entries]
        coco = COCO({"images": sizes, "categories": [{"id": c} for c in self.things], "annotations": annotations})
        evaluation = COCOeval_faster(coco, coco.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        table: NDArray[np.float64] = evaluation.eval["precision"][..., -1]  # the largest number of detections, 100
        return table


def mean_best_iou(entry: ImageEntry) -> float | None:
    """Mean, over the true objects of one image, of the best IoU of a prediction of their class, in percent.

    A score of single images, to order them by; None without objects. Average precision needs a whole set.
    """
    from faster_coco_eval.core import mask as coco

    best: list[float] = []
    for class_id in sorted({t[0] for t in entry["truth"]}):
        true = [_bytes(entry, runs) for c, crowd, _, runs in entry["truth"] if c == class_id and not crowd]
        found = [_bytes(entry, runs) for c, _, runs in entry["found"] if c == class_id]
        if true:
            shared = np.asarray(coco.iou(found, true, [0] * len(true))) if found else np.zeros((1, len(true)))
            best += shared.max(axis=0).tolist()
    return float(np.mean(best)) * PERCENT if best else None


def _bytes(entry: ImageEntry, runs: str) -> dict[str, Any]:
    return {"size": entry["size"], "counts": runs.encode("ascii")}


def _rle(entry: ImageEntry, runs: str) -> Rle:
    return {"size": entry["size"], "counts": runs}


def _six(precision: NDArray[np.float64]) -> dict[str, float | None]:
    """A precision table (10, 101, classes, 4) -> COCO's six means in percent."""
    parts = (
        precision[..., AREA_ALL],
        precision[IOU_50, ..., AREA_ALL],
        precision[IOU_75, ..., AREA_ALL],
        precision[..., AREA_SMALL],
        precision[..., AREA_MEDIUM],
        precision[..., AREA_LARGE],
    )
    values: list[float | None] = []
    for part in parts:
        known = part[part > -1]
        values.append(float(known.mean()) * PERCENT if known.size else None)
    return dict(zip(KEYS, values, strict=True))
