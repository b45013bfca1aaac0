"""Overlapping masks in one map: exact, through regions, targets, crops, losses and average precision."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from loss.batches import as_masks
from oneformer.data.annotation import Annotation, Layers, topmost
from oneformer.data.labels import LabelMap
from oneformer.data.record import Record, SegmentInfo, Source
from oneformer.data.sample import BACKGROUND, VOID, Truth, make_target
from oneformer.data.shapes import Outlines, mask_of_runs, runs_of_text, shape_mask, text_of_mask
from oneformer.errors import DataError
from oneformer.loss.points import draw_points, read_target
from oneformer.metrics.ap import MaskAP, mean_best_iou
from oneformer.metrics.evaluator import truth_segments, whole_masks
from oneformer.segments.rle import encode
from oneformer.segments.types import EncodedInstances

LABELS = LabelMap(("cell", "back", "dot"), (True, False, True), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), (1, 2, 3))
SIZE = (17, 23)


def random_masks(seed: int, count: int) -> list[np.ndarray]:
    """Rectangles that overlap a lot; one in eight is empty."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        mask = np.zeros(SIZE, bool)
        if rng.random() > 0.125:
            y, x = rng.integers(0, 12), rng.integers(0, 16)
            mask[y : y + rng.integers(2, 9), x : x + rng.integers(2, 12)] = True
        masks.append(mask)
    return masks


def layered(masks: list[np.ndarray], classes: list[int], *, crowd: tuple[int, ...] = ()) -> Annotation:
    layers = Layers(SIZE)
    for mask in masks:
        layers.add(mask)
    return layers.finish([SegmentInfo(10 + i, c, i in crowd, 0) for i, c in enumerate(classes)])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 9))
def test_every_mask_comes_back_whole(seed: int, count: int) -> None:
    masks = random_masks(seed, count)
    found = layered(masks, [0] * count)
    on_top = np.zeros(SIZE, int)
    for place, mask in enumerate(masks):
        assert np.array_equal(found.mask(place), mask) and found.segments[place].area == mask.sum()
        on_top[mask] = place + 1
    assert np.array_equal(found.flat(), on_top)
    assert np.array_equal(found.id_map(), np.where(on_top > 0, on_top + 9, 0))
    overlapping = bool((np.sum(masks, axis=0) > 1).any()) if masks else False
    assert (found.regions is not None) == overlapping
    assert found.index.dtype == np.int16


def test_the_rest_gets_a_segment_of_its_own() -> None:
    masks = random_masks(3, 4)
    layers = Layers(SIZE)
    for mask in masks:
        layers.add(mask)
    found = layers.finish([SegmentInfo(1 + i, 0, False, 0) for i in range(4)], rest=1)
    free = ~np.any(masks, axis=0)
    assert found.segments[-1] == SegmentInfo(5, 1, False, int(free.sum()))
    assert np.array_equal(found.mask(4), free) and (found.flat() > 0).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), rest=st.sampled_from([VOID, BACKGROUND]))
def test_an_instance_target_has_the_whole_masks(seed: int, rest: int) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, 6).tolist()
    masks = random_masks(seed, 6)
    crowd = (0,) if LABELS.is_thing[classes[0]] else ()
    found = layered(masks, classes, crowd=crowd)
    cut = np.s_[2:14, 3:20]  # as a crop does
    target = make_target(found.index[cut], found.segments, LABELS, task="instance", regions=found.regions, rest=rest)
    things = [i for i in range(6) if LABELS.is_thing[classes[i]] and i not in crowd and masks[i][cut].any()]
    things.sort(key=lambda i: classes[i])
    assert target.labels.tolist() == [classes[i] for i in things]
    for mask, place in zip(target.masks.numpy(), things, strict=True):
        assert np.array_equal(mask, masks[place][cut])
    known = np.any([masks[i][cut] for i in range(6) if i not in crowd], axis=0)
    crowded = np.any([masks[i][cut] for i in crowd], axis=0) if crowd else np.zeros_like(known)
    free = ~known & ~crowded
    assert np.array_equal(target.void.numpy(), (crowded & ~known) | (free if rest == VOID else np.zeros_like(known)))


@pytest.mark.parametrize("task", ["semantic", "panoptic"])
def test_other_tasks_see_what_lies_on_top(task: str) -> None:
    masks, classes = random_masks(5, 5), [1, 0, 2, 0, 2]
    found = layered(masks, classes)
    flat = make_target(found.flat(), found.segments, LABELS, task=task)
    target = make_target(found.index, found.segments, LABELS, task=task, regions=found.regions)
    assert torch.equal(flat.masks, target.masks) and torch.equal(flat.labels, target.labels)
    assert target.object_map is not None and target.masks.sum(dim=0).max() <= 1


def test_a_stacked_target_travels_and_is_padded_like_masks() -> None:
    found = layered(random_masks(7, 6), [0, 2, 0, 2, 0, 2])
    target = make_target(found.index, found.segments, LABELS, task="instance", regions=found.regions)
    assert target.object_map is None and "masks" not in vars(target), "no stack before it is asked for"
    padded, plain = target.to("cpu").padded(32, 32), as_masks(target).padded(32, 32)
    assert torch.equal(padded.masks, plain.masks) and torch.equal(padded.void, plain.void)


def test_losses_see_the_same_points_of_map_and_masks() -> None:
    found = layered(random_masks(11, 6), [0, 2, 0, 2, 0, 2])
    target = make_target(found.index, found.segments, LABELS, task="instance", regions=found.regions).padded(32, 32)
    torch.manual_seed(0)
    points = draw_points(target.void, count=40, oversample=3.0, importance=0.75)
    mine, theirs = (read_target(t, points, size=(8, 8)) for t in (target, as_masks(target)))
    assert torch.equal(mine.values, theirs.values) and mine.known is not None and theirs.known is not None
    assert torch.equal(mine.known, theirs.known)


def test_average_precision_counts_whole_masks_as_pycocotools_does() -> None:
    masks, classes = random_masks(21, 7), [0, 2, 0, 2, 0, 0, 2]
    found = layered(masks, classes, crowd=(1,))
    truth = Truth.of(found, ("instance",))
    assert truth.stacked is not None
    rng = np.random.default_rng(0)
    guesses = [np.roll(masks[i], rng.integers(-2, 3, 2), axis=(0, 1)) for i in range(7)]
    scores = rng.random(7)
    rles = [encode(mask) for mask in guesses]
    boxes = np.zeros((7, 4), np.float32)
    things = EncodedInstances(scores=scores.astype(np.float32), class_ids=np.array(classes), boxes=boxes, rles=rles)
    ap = MaskAP(LABELS.is_thing)
    whole = whole_masks(truth)
    ap.update("a", things, truth=truth.id_map, truth_segments=truth_segments(truth), truth_rles=whole)
    mine = ap.compute(LABELS.names)

    def rle(mask: np.ndarray) -> dict[str, object]:
        return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))

    kept = [i for i in range(7) if masks[i].any()]
    coco = COCO()
    coco.dataset = {
        "info": {}, "images": [{"id": 1, "height": SIZE[0], "width": SIZE[1]}], "categories": [{"id": 0}, {"id": 2}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": classes[i], "iscrowd": int(i == 1), "area": int(masks[i].sum()),
             "segmentation": rle(masks[i])} for i in kept
        ],
    }  # fmt: skip
    coco.createIndex()
    results = [
        {
            "image_id": 1,
            "category_id": classes[i],
            "score": float(np.float32(scores[i])),
            "segmentation": rle(guesses[i]),
        }
        for i in range(7)
    ]
    theirs = COCOeval(coco, coco.loadRes(results), "segm")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    assert mine["AP"] == pytest.approx(100 * theirs.stats[0], abs=1e-9)
    best = mean_best_iou(ap.images["a"])
    ious = []
    for i in kept:
        if i != 1:
            own = [rle(guesses[j]) for j in range(7) if classes[j] == classes[i]]
            ious.append(coco_mask.iou(own, [rle(masks[i])], [0]).max())
    assert best == pytest.approx(100 * float(np.mean(ious)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_run_lengths_are_read_as_pycocotools_writes_them(seed: int) -> None:
    mask = np.random.default_rng(seed).random(SIZE) < 0.3
    text = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert text_of_mask(mask) == text
    assert np.array_equal(mask_of_runs(runs_of_text(text), SIZE), mask)
    assert np.array_equal(shape_mask({"size": list(SIZE), "counts": text}, SIZE), mask)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(points=st.lists(st.floats(-5, 28), min_size=6, max_size=14).filter(lambda p: len(p) % 2 == 0))
def test_polygons_cover_the_pixels_that_pycocotools_says(points: list[float]) -> None:
    true = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([points], *SIZE))).astype(bool)
    assert np.array_equal(shape_mask([points], SIZE), true)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=20))
def test_made_up_run_lengths_are_refused_and_never_trusted(text: str) -> None:
    try:
        mask = shape_mask({"size": list(SIZE), "counts": text}, SIZE)
    except ValueError:
        return
    assert mask.shape == SIZE and text_of_mask(mask)


def test_a_shape_that_does_not_fit_is_a_data_error_that_names_the_object() -> None:
    shape = json.dumps({"size": [4, 4], "counts": [16]})
    record = Record(5, "a.png", "x.json", 0, 0, (SegmentInfo(3, 0, False, 0),), Source("x", Outlines((0,))), (shape,))
    with pytest.raises(DataError, match=r"4 x 4, the photo 23 x 17 \(object 3 of image id 5\)") as caught:
        record.source.decoder(record, SIZE, max_mpx=1)
    assert caught.value.kind == "broken_shape"


def test_topmost_of_nothing_is_nothing() -> None:
    assert topmost(np.zeros((1, 0), bool)).tolist() == [0]
