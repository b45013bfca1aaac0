"""PQ, AP and mIoU on real photos with faulty predictions equal COCO's tools and a plain count, over any shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from metrics.photos import HUNDRED, SHIPPED, class_table, photo_scenes, shards
from metrics.scenes import Scene
from oneformer.metrics.ap import KEYS, MaskAP
from oneformer.metrics.miou import IGNORED, ConfusionMatrix
from oneformer.metrics.pq import MapSegments, PanopticQuality
from oneformer.segments.rle import encode_ids
from oneformer.segments.types import EncodedInstances
from oracle.coco_tools import Found, panoptic_tool, pycoco_six

FOLDERS = [
    pytest.param(SHIPPED, id="12 shipped photos"),
    pytest.param(
        HUNDRED,
        id="100 photos",
        marks=[pytest.mark.slow, pytest.mark.skipif(not HUNDRED.is_dir(), reason="the 100 photos are not here")],
    ),
]
EXACT = 1e-9  # percent
on_photos = pytest.mark.parametrize("folder", FOLDERS)
over_shards = pytest.mark.parametrize("count", [1, 2, 3])


@cache
def scenes_of(folder: Path) -> list[Scene]:
    return photo_scenes(folder)


def arrays(segments: list) -> MapSegments:
    return MapSegments.of(
        [s.segment_id for s in segments], [s.class_id for s in segments], [s.iscrowd for s in segments]
    )


@cache
def tool_scores(folder: Path) -> dict[str, dict]:
    return panoptic_tool(scenes_of(folder), class_table(folder)[1])


@on_photos
def test_the_predictions_have_every_kind_of_fault(folder: Path) -> None:
    """What the comparisons below rest on."""
    scenes, found = scenes_of(folder), tool_scores(folder)
    assert all(20 < found[group]["PQ"] < 80 for group in found)
    assert sum(s.iscrowd for scene in scenes for s in scene.truth_segments) >= 3
    assert sum((scene.truth == 0).mean() for scene in scenes) / len(scenes) > 0.01
    twice = [
        c for scene in scenes for c in Counter(s.class_id for s in scene.truth_segments if s.iscrowd).values() if c > 1
    ]
    assert not twice, "two crowds of a class are where we and the tool differ on purpose"


@on_photos
@over_shards
def test_pq_equals_the_coco_tool(folder: Path, count: int) -> None:
    names, is_thing, _ = class_table(folder)
    ranks = []
    for shard in shards(scenes_of(folder), count):
        quality = PanopticQuality(is_thing)
        for _, s in shard:
            guess, true = arrays(s.predicted_segments), arrays(s.truth_segments)
            quality.update(s.predicted, guess, truth=s.truth, truth_segments=true)
        ranks.append(quality)
    whole = PanopticQuality(is_thing)
    whole.merge([rank.counts for rank in ranks])
    mine, theirs = whole.compute(names), tool_scores(folder)
    for group in ("all", "things", "stuff"):
        assert mine[group]["n"] == theirs[group]["n"]
        for key in ("PQ", "SQ", "RQ"):
            assert mine[group][key] == pytest.approx(theirs[group][key], abs=EXACT), (group, key)


def detections(scene: Scene, is_thing: Sequence[bool], rng: np.random.Generator) -> Found:
    """The predicted things with coarse scores, so that ties occur; some a second time, a little moved."""
    found: Found = []
    for s in scene.predicted_segments:
        if is_thing[s.class_id]:
            mask = scene.predicted == s.segment_id
            found.append((mask, s.class_id, float(np.float32(rng.integers(1, 20) / 20))))
            if rng.random() < 0.3:
                moved = np.roll(mask, rng.integers(-6, 7, size=2), axis=(0, 1))
                found.append((moved, s.class_id, float(np.float32(rng.integers(1, 20) / 20))))
    return sorted(found, key=lambda item: -item[2])


def as_instances(found: Found) -> EncodedInstances:
    return EncodedInstances(
        tuple(encode_ids(mask.astype(np.int32), [1])[0] for mask, _, _ in found),
        np.array([c for _, c, _ in found], dtype=np.int64),
        np.array([s for _, _, s in found], dtype=np.float32),
        np.zeros((len(found), 4), dtype=np.float32),
    )


@cache
def found_in(folder: Path) -> list[Found]:
    rng = np.random.default_rng(2)
    return [detections(s, class_table(folder)[1], rng) for s in scenes_of(folder)]


@cache
def coco_numbers(folder: Path) -> list[float]:
    is_thing = class_table(folder)[1]
    things = [c for c, thing in enumerate(is_thing) if thing]
    return pycoco_six(scenes_of(folder), found_in(folder), is_thing=is_thing, classes=things)


@on_photos
@over_shards
def test_ap_equals_pycocotools_with_crowds(folder: Path, count: int) -> None:
    names, is_thing, _ = class_table(folder)
    ranks = []
    for shard in shards(scenes_of(folder), count):
        metric = MaskAP(is_thing)
        for i, s in shard:
            found = as_instances(found_in(folder)[i])
            metric.update(f"{i:03d}", found, truth=s.truth, truth_segments=arrays(s.truth_segments))
        ranks.append(metric)
    whole = MaskAP(is_thing)
    whole.merge([rank.images for rank in reversed(ranks)])
    mine = whole.compute(names)
    assert 5 < mine["AP"] < 95
    for key, value in zip(KEYS, coco_numbers(folder), strict=True):
        assert mine[key] == (None if value == -1 else pytest.approx(100 * value, abs=EXACT)), key


def class_maps(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true class of each pixel; what nobody labelled, and crowds, are ignored, an empty guess is class 0."""
    predicted, true = np.zeros(scene.truth.shape, np.int32), np.full(scene.truth.shape, IGNORED, np.int32)
    for s in scene.predicted_segments:
        predicted[scene.predicted == s.segment_id] = s.class_id
    for s in scene.truth_segments:
        if not s.iscrowd:
            true[scene.truth == s.segment_id] = s.class_id
    return predicted, true


def counted(maps: list[tuple[np.ndarray, np.ndarray]], classes: int) -> dict[str, float]:
    """mIoU, fwIoU, mAcc and pAcc in percent from one confusion matrix, class by class."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    for predicted, true in maps:
        known = true != IGNORED
        np.add.at(matrix, (true[known], predicted[known]), 1)
    iou, accuracy, weight = [], [], []
    for c in range(classes):
        if matrix[c].sum():
            iou.append(matrix[c, c] / (matrix[c].sum() + matrix[:, c].sum() - matrix[c, c]))
            accuracy.append(matrix[c, c] / matrix[c].sum())
            weight.append(matrix[c].sum() / matrix.sum())
    right = matrix.trace() / matrix.sum()
    means = (np.mean(iou), np.dot(iou, weight), np.mean(accuracy), right)
    return dict(zip(("mIoU", "fwIoU", "mAcc", "pAcc"), (100 * float(v) for v in means), strict=True))


def merged_confusion(maps: list[tuple[np.ndarray, np.ndarray]], classes: int, count: int) -> dict:
    ranks = [ConfusionMatrix(classes) for _ in range(count)]
    for i, (predicted, true) in enumerate(maps):
        ranks[i % count].update(predicted, true)
    whole = ConfusionMatrix(classes)
    whole.merge([rank.counts for rank in ranks])
    return whole.compute([str(c) for c in range(classes)])


@on_photos
@over_shards
def test_miou_equals_a_plain_confusion_matrix(folder: Path, count: int) -> None:
    classes = len(class_table(folder)[0])
    maps = [class_maps(s) for s in scenes_of(folder)]
    mine, plain = merged_confusion(maps, classes, count), counted(maps, classes)
    assert 5 < plain["mIoU"] < 95
    for key, value in plain.items():
        assert mine[key] == pytest.approx(value, abs=EXACT), key


def test_miou_on_1_to_150_classes_equals_a_plain_confusion_matrix() -> None:
    rng = np.random.default_rng(0)
    for classes in range(1, 151):
        present = rng.choice(classes, size=max(1, int(classes * 0.8)), replace=False)
        maps = []
        for _ in range(4):
            true = rng.choice([IGNORED, *present], size=(12, 17))
            guess = np.where(rng.random(true.shape) < 0.6, np.maximum(true, 0), rng.integers(0, classes, true.shape))
            maps.append((guess, true))
        plain = counted(maps, classes)
        for count in (1, 2, 3):
            mine = merged_confusion(maps, classes, count)
            for key, value in plain.items():
                assert mine[key] == pytest.approx(value, abs=EXACT), (classes, count, key)
