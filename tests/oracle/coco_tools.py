"""Scenes -> the numbers of COCO's own tools: pycocotools for AP, and panopticapi's PQ written from its definition."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import pytest

from metrics.scenes import Scene

Found = list[tuple[np.ndarray, int, float]]
"""Detections of one image: mask (H, W), class and score."""

PAIR = 2**32  # more than any segment id


def pycoco_six(
    scenes: Sequence[Scene], found: Sequence[Found], *, is_thing: Sequence[bool], classes: list[int]
) -> list[float]:
    """AP AP50 AP75 APs APm APl over `classes`, 0..1, -1 where there is nothing to score."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    mask_tools = pytest.importorskip("pycocotools.mask")

    def runs(mask: np.ndarray) -> dict:
        return mask_tools.encode(np.asfortranarray(mask.astype(np.uint8)))

    annotations = [
        {"image_id": i, "category_id": t.class_id, "iscrowd": int(t.iscrowd), "bbox": [0, 0, 1, 1],
         "area": int((scene.truth == t.segment_id).sum()), "segmentation": runs(scene.truth == t.segment_id)}
        for i, scene in enumerate(scenes) for t in scene.truth_segments if is_thing[t.class_id]
    ]  # fmt: skip
    detections = [
        {"image_id": i, "category_id": c, "score": s, "segmentation": runs(m)}
        for i, items in enumerate(found)
        for m, c, s in items
    ]
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": i, "height": s.truth.shape[0], "width": s.truth.shape[1]} for i, s in enumerate(scenes)],
        "categories": [{"id": c, "name": str(c)} for c, thing in enumerate(is_thing) if thing],
        "annotations": [{**a, "id": n} for n, a in enumerate(annotations, start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(detections), "segm")
        evaluation.params.catIds = classes
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(v) for v in evaluation.stats[:6]]


def panoptic_tool(scenes: Sequence[Scene], is_thing: Sequence[bool]) -> dict[str, dict]:
    """PQ, SQ, RQ and the number of classes of `all`, `things` and `stuff`, percent, as panopticapi defines them.

    Written from the definition: pairs of one class with IoU above a half match, void pixels of the truth taken out of
    the union and crowds kept out; an unmatched truth that is no crowd is a miss; an unmatched prediction is a false
    alarm unless more than half of it lies on void or on the crowd of its class. The tool keeps one crowd per class.
    """
    rows = np.zeros((len(is_thing), 4))  # summed IoU, matches, false alarms, misses
    for scene in scenes:
        rows += tool_counts(scene, len(is_thing))
    found: dict[str, dict] = {}
    for group, wanted in (("all", (True, False)), ("things", (True,)), ("stuff", (False,))):
        each = [
            (iou / (tp + fp / 2 + fn / 2), iou / tp if tp else 0.0, tp / (tp + fp / 2 + fn / 2))
            for thing, (iou, tp, fp, fn) in zip(is_thing, rows, strict=True)
            if thing in wanted and tp + fp + fn > 0
        ]
        means = [100 * sum(column) / len(each) for column in zip(*each, strict=True)] if each else [None] * 3
        found[group] = {**dict(zip(("PQ", "SQ", "RQ"), means, strict=True)), "n": len(each)}
    return found


def tool_counts(scene: Scene, classes: int) -> np.ndarray:
    """One image -> summed IoU, matches, false alarms, misses of each class, (K, 4)."""
    both = scene.truth.astype(np.int64) * PAIR + scene.predicted
    shared = {divmod(int(pair), PAIR): int(n) for pair, n in zip(*np.unique(both, return_counts=True), strict=True)}
    true_area = {t: sum(n for (a, _), n in shared.items() if a == t) for t, _ in shared}
    guess_area = {p: sum(n for (_, b), n in shared.items() if b == p) for _, p in shared}
    true = {s.segment_id: s for s in scene.truth_segments}
    guess = {s.segment_id: s for s in scene.predicted_segments}
    rows, matched = np.zeros((classes, 4)), set()
    for (t, p), n in shared.items():
        if t not in true or p not in guess or true[t].iscrowd or true[t].class_id != guess[p].class_id:
            continue
        iou = n / (true_area[t] + guess_area[p] - n - shared.get((0, p), 0))
        if iou > 0.5:
            rows[true[t].class_id, :2] += (iou, 1)
            matched |= {("truth", t), ("guess", p)}
    crowd = {s.class_id: s.segment_id for s in scene.truth_segments if s.iscrowd}  # the last one of a class stays
    for t, info in true.items():
        rows[info.class_id, 3] += ("truth", t) not in matched and not info.iscrowd
    for p, info in guess.items():
        if ("guess", p) not in matched:
            excused = shared.get((0, p), 0) + shared.get((crowd.get(info.class_id, -1), p), 0)
            rows[info.class_id, 2] += excused / guess_area[p] <= 0.5
    return rows
