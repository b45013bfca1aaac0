"""Our metrics equal other programs': PQ a plain loop and hotcoco, AP pycocotools, mIoU an independent count."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metrics.scenes import IS_THING, NAMES, Scene, only_one_crowd_per_class, random_scene
from oneformer.metrics.ap import KEYS, MaskAP
from oneformer.metrics.miou import IGNORED, ConfusionMatrix
from oneformer.metrics.pq import MapSegments, PanopticQuality
from oneformer.segments.rle import encode
from oneformer.segments.types import EncodedInstances
from oracle.coco_tools import Found, pycoco_six

K = len(NAMES)


def arrays(segments: list) -> MapSegments:
    return MapSegments.of(
        [s.segment_id for s in segments], [s.class_id for s in segments], [s.iscrowd for s in segments]
    )


def ours(scenes: list[Scene]) -> dict:
    quality = PanopticQuality(IS_THING)
    for s in scenes:
        quality.update(
            s.predicted, arrays(s.predicted_segments), truth=s.truth, truth_segments=arrays(s.truth_segments)
        )
    return quality.compute(NAMES)


def plain_pq(scenes: list[Scene], *, last_crowd_only: bool) -> dict:
    """The definition pixel set by pixel set, one pair of segments at a time."""
    tally: dict[int, list[float]] = defaultdict(lambda: [0.0, 0, 0, 0])
    for scene in scenes:
        void = ~np.isin(scene.truth, [s.segment_id for s in scene.truth_segments])
        matched_truth, matched_guess = set(), set()
        for t in scene.truth_segments:
            for p in scene.predicted_segments:
                if t.iscrowd or t.class_id != p.class_id:
                    continue
                a, b = scene.truth == t.segment_id, scene.predicted == p.segment_id
                iou = (a & b).sum() / ((a | b) & ~(b & void)).sum()
                if iou > 0.5:
                    tally[t.class_id][0] += iou
                    tally[t.class_id][1] += 1
                    matched_truth.add(t.segment_id)
                    matched_guess.add(p.segment_id)
        for t in scene.truth_segments:
            tally[t.class_id][3] += t.segment_id not in matched_truth and not t.iscrowd
        for p in scene.predicted_segments:
            crowds = [t.segment_id for t in scene.truth_segments if t.iscrowd and t.class_id == p.class_id]
            excused = void | np.isin(scene.truth, crowds[-1:] if last_crowd_only else crowds)
            area = scene.predicted == p.segment_id
            if p.segment_id not in matched_guess and (area & excused).sum() / area.sum() <= 0.5:
                tally[p.class_id][2] += 1
    result = {}
    for group, wanted in (("all", (True, False)), ("things", (True,)), ("stuff", (False,))):
        rows = []
        for c in range(K):
            iou, tp, fp, fn = tally[c]
            if IS_THING[c] in wanted and tp + fp + fn > 0:
                weight = tp + fp / 2 + fn / 2
                rows.append((iou / weight, iou / tp if tp else 0.0, tp / weight))
        mean = [100 * float(v) for v in np.mean(rows, axis=0)] if rows else [None] * 3
        result[group] = {**dict(zip(("PQ", "SQ", "RQ"), mean, strict=True)), "n": len(rows)}
    return result


def assert_equal_pq(mine: dict, theirs: dict) -> None:
    for group in ("all", "things", "stuff"):
        assert mine[group]["n"] == theirs[group]["n"]
        for key in ("PQ", "SQ", "RQ"):
            expected = theirs[group][key]
            assert mine[group][key] == (expected if expected is None else pytest.approx(expected, abs=1e-9)), (
                group,
                key,
            )


def test_pq_equals_the_definition_as_a_loop_on_images_with_void_and_crowd() -> None:
    for seed in range(6):
        scenes = [random_scene(100 * seed + i) for i in range(10)]
        assert_equal_pq(ours(scenes), plain_pq(scenes, last_crowd_only=False))


def test_pq_differs_from_the_coco_tool_only_where_a_class_has_several_crowd_segments() -> None:
    differing = 0
    for seed in range(60):
        scene = random_scene(seed)
        theirs, mine = plain_pq([scene], last_crowd_only=True), ours([scene])
        crowds = [t.class_id for t in scene.truth_segments if t.iscrowd]
        if len(crowds) == len(set(crowds)):
            assert_equal_pq(mine, theirs)
        else:
            assert_equal_pq(mine, plain_pq([scene], last_crowd_only=False))
            differing += mine["all"]["RQ"] != pytest.approx(theirs["all"]["RQ"], abs=1e-9)
    assert differing > 0
    only = [only_one_crowd_per_class(random_scene(seed)) for seed in range(60)]
    assert_equal_pq(ours(only), plain_pq(only, last_crowd_only=True))


def write_png(path: Path, ids: np.ndarray) -> None:
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(path)


def coco_panoptic_files(folder: Path, scenes: list[Scene]) -> tuple[Path, Path]:
    """The scenes as COCO panoptic files: truth and prediction, each a JSON and a folder of PNG ids."""
    categories = [{"id": c + 1, "name": NAMES[c], "isthing": int(IS_THING[c])} for c in range(K)]
    files = []
    for kind in ("truth", "predicted"):
        (folder / kind).mkdir()
        annotations = []
        for i, scene in enumerate(scenes, start=1):
            ids = getattr(scene, kind)
            write_png(folder / kind / f"{i}.png", ids)
            infos = [
                {
                    "id": s.segment_id, "category_id": s.class_id + 1, "iscrowd": int(s.iscrowd),
                    "area": int((ids == s.segment_id).sum()), "bbox": [0, 0, 1, 1],
                }
                for s in getattr(scene, f"{kind}_segments")
            ]  # fmt: skip
            annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": infos})
        height, width = scenes[0].truth.shape
        images = [
            {"id": i, "file_name": f"{i}.jpg", "width": width, "height": height} for i in range(1, len(scenes) + 1)
        ]
        files.append(folder / f"{kind}.json")
        files[-1].write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return files[0], files[1]


def test_pq_equals_hotcoco(tmp_path: Path) -> None:
    panoptic = pytest.importorskip("hotcoco.panoptic")
    scenes = [only_one_crowd_per_class(random_scene(1000 + i)) for i in range(25)]
    assert any(s.iscrowd for scene in scenes for s in scene.truth_segments)
    assert any((scene.truth == 0).any() for scene in scenes)
    theirs = panoptic.pq_compute(*coco_panoptic_files(tmp_path, scenes))
    mine = ours(scenes)
    for group in ("all", "things", "stuff"):
        other = theirs[group.capitalize()]
        assert mine[group]["n"] == other["n"]
        for key in ("PQ", "SQ", "RQ"):
            assert mine[group][key] == pytest.approx(100 * other[key.lower()], abs=1e-9)
    for c, name in enumerate(NAMES):
        row, other = mine["per_class"][name], theirs["per_class"][c + 1]
        assert [row[key] for key in ("tp", "fp", "fn")] == [other[key] for key in ("tp", "fp", "fn")]


def detections(scene: Scene, rng: np.random.Generator) -> Found:
    """Overlapping scored masks around the true things, some twice, some wrong."""
    found = []
    for t in scene.truth_segments:
        for _ in range(int(rng.integers(0, 3))):
            mask = np.roll(scene.truth == t.segment_id, rng.integers(-2, 3, size=2), axis=(0, 1))
            mask[: rng.integers(1, 20)] &= rng.random() < 0.7
            class_id = t.class_id if rng.random() < 0.9 else int(rng.integers(0, 4))
            if IS_THING[class_id] and mask.any():
                found.append((mask, class_id, float(np.float32(rng.integers(1, 20) / 20))))  # equal scores occur
    return sorted(found, key=lambda item: -item[2])


@pytest.mark.parametrize("size", [(60, 80), (150, 240)])
def test_ap_equals_pycocotools(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    scenes = [random_scene(2000 + i, size=size) for i in range(15)]
    found = [detections(scene, rng) for scene in scenes]
    metric = MaskAP(IS_THING)
    for i, (scene, items) in enumerate(zip(scenes, found, strict=True)):
        instances = EncodedInstances(
            tuple(encode(m) for m, _, _ in items),
            np.array([c for _, c, _ in items], dtype=np.int64),
            np.array([s for _, _, s in items], dtype=np.float32),
            np.zeros((len(items), 4), dtype=np.float32),
        )
        metric.update(f"{i:03d}", instances, truth=scene.truth, truth_segments=arrays(scene.truth_segments))
    mine = metric.compute(NAMES)
    things = [c for c in range(K) if IS_THING[c]]
    assert 1 < mine["AP"] < 99
    for scores, classes in [(mine, things), *[(mine["per_class"][NAMES[c]], [c]) for c in things]]:
        theirs = pycoco_six(scenes, found, is_thing=IS_THING, classes=classes)
        for key, value in zip(KEYS, theirs, strict=True):
            assert scores[key] == (None if value == -1 else pytest.approx(100 * value, abs=1e-9)), (classes, key)


def test_miou_equals_an_independent_count() -> None:
    rng = np.random.default_rng(0)
    confusion = ConfusionMatrix(K)
    hits, union, truth_pixels = np.zeros(K), np.zeros(K), np.zeros(K)
    for _ in range(10):
        truth = rng.choice([IGNORED, 0, 1, 2, 3], size=(30, 40))
        predicted = np.where(rng.random(truth.shape) < 0.7, np.maximum(truth, 0), rng.integers(0, K, truth.shape))
        confusion.update(predicted, truth)
        for c in range(K):
            t, p = truth == c, (predicted == c) & (truth != IGNORED)
            hits[c], union[c], truth_pixels[c] = (
                hits[c] + (t & p).sum(),
                union[c] + (t | p).sum(),
                truth_pixels[c] + t.sum(),
            )
    scores = confusion.compute(NAMES)
    present = truth_pixels > 0
    assert present.tolist() == [True] * 4 + [False]
    iou = hits[present] / union[present]
    assert scores["mIoU"] == pytest.approx(100 * iou.mean(), abs=1e-9)
    assert scores["fwIoU"] == pytest.approx(100 * (iou * truth_pixels[present]).sum() / truth_pixels.sum(), abs=1e-9)
    assert scores["mAcc"] == pytest.approx(100 * (hits[present] / truth_pixels[present]).mean(), abs=1e-9)
    assert scores["pAcc"] == pytest.approx(100 * hits.sum() / truth_pixels.sum(), abs=1e-9)
