"""Targets per task, normalising and the sizes of evaluation images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from oneformer.data.labels import LabelMap
from oneformer.data.record import SegmentInfo
from oneformer.data.sample import BACKGROUND, VOID, Target, make_target, normalize, prepare_image

LABELS = LabelMap(("disk", "sky", "box"), (True, False, True), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), (1, 2, 3))
# Two boxes, two pieces of sky, a disk, a crowd of disks; one more disk has no pixel left.
SEGMENTS = tuple(
    SegmentInfo(10 + i, class_id, crowd, 1)
    for i, (class_id, crowd) in enumerate(
        [(2, False), (1, False), (0, False), (2, False), (1, False), (0, True), (0, False)]
    )
)
INDEX = np.array([[0, 1, 2, 3], [4, 5, 6, 0]], np.int16)


def objects(task: str) -> tuple[list[int], list[list[int]]]:
    """The classes and, for each, the places in INDEX that its mask covers."""
    target = make_target(INDEX, SEGMENTS, LABELS, task=task)
    assert target.masks.dtype == torch.bool and target.labels.dtype == torch.int64
    places = torch.from_numpy(INDEX.astype(np.int64))
    return target.labels.tolist(), [places[mask].tolist() for mask in target.masks]


def test_semantic_targets_have_one_mask_per_class() -> None:
    assert objects("semantic") == ([0, 1, 2], [[3], [2, 5], [1, 4]])


def test_instance_targets_are_things_only() -> None:
    assert objects("instance") == ([0, 2, 2], [[3], [1], [4]])


def test_panoptic_targets_have_every_thing_and_merged_stuff() -> None:
    assert objects("panoptic") == ([0, 1, 2, 2], [[3], [2, 5], [1], [4]])


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_void_is_what_is_unlabelled_or_crowd_and_nothing_else(task: str) -> None:
    target = make_target(INDEX, SEGMENTS, LABELS, task=task)
    assert target.void.tolist() == [[True, False, False, False], [False, False, True, True]]


def test_stuff_is_background_for_instances() -> None:
    target = make_target(INDEX, SEGMENTS, LABELS, task="instance")
    assert target.object_map is not None
    assert target.object_map.tolist() == [[VOID, 1, BACKGROUND, 0], [2, BACKGROUND, VOID, VOID]]


def test_a_photo_without_objects_gives_an_empty_target() -> None:
    target = make_target(np.zeros((4, 5), np.int16), (), LABELS, task="panoptic")
    assert target.labels.shape == (0,) and target.masks.shape == (0, 4, 5) and target.void.all()


def test_300_objects_keep_their_own_masks() -> None:
    segments = tuple(SegmentInfo(i + 1, 0, False, 1) for i in range(300))
    index = np.arange(301, dtype=np.int16)[None]
    target = make_target(index, segments, LABELS, task="instance")
    assert len(target.labels) == 300 and target.masks.sum(dim=1).eq(1).sum() == 300


@pytest.mark.parametrize("made_from", ["map", "masks"])
def test_padding_is_void_and_belongs_to_no_mask(made_from: str) -> None:
    target = make_target(INDEX, SEGMENTS, LABELS, task="panoptic")
    if made_from == "masks":
        target = Target(target.labels, target.masks, target.void)
    padded = target.padded(3, 6)
    assert padded.masks.shape == (4, 3, 6) and padded.void.shape == (3, 6)
    assert padded.void[2].all() and padded.void[:, 4:].all()
    assert torch.equal(padded.masks[:, :2, :4], target.masks) and padded.masks.sum() == target.masks.sum()
    assert torch.equal(padded.to("cpu").masks, padded.masks)


def test_pixels_are_normalised_per_channel() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[..., 1] = 200
    image = normalize(pixels, mean=[10, 20, 30], std=[2, 4, 5])
    assert image.shape == (3, 2, 3) and image.dtype == torch.float32 and image.is_contiguous()
    assert image[:, 0, 0].tolist() == [-5.0, 45.0, -6.0]


def test_evaluation_images_are_resized_by_the_published_rule() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    image, size = prepare_image(pixels, min_size=80, max_size=133, mean=[0, 0, 0], std=[1, 1, 1])
    assert size == (80, 107) and image.shape == (3, 80, 107)
    expected = np.asarray(Image.fromarray(pixels).resize((107, 80), Image.Resampling.BILINEAR))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected.astype(np.float32))


def test_an_image_of_the_right_size_is_not_touched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 100, 3)).astype(np.uint8)
    image, size = prepare_image(pixels, min_size=80, max_size=133, mean=[0, 0, 0], std=[1, 1, 1])
    assert size == (80, 100) and np.array_equal(image.permute(1, 2, 0).numpy(), pixels.astype(np.float32))


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
@pytest.mark.parametrize("rest", [VOID, BACKGROUND])
@pytest.mark.parametrize("stacked", [False, True])
def test_the_number_beyond_all_segments_is_void_whatever_the_rest_is(task: str, rest: int, stacked: bool) -> None:
    """What turning and erasing leave without a photo."""
    regions = np.eye(len(SEGMENTS) + 1, len(SEGMENTS), -1, dtype=bool) if stacked else None
    hidden = INDEX.copy()
    hidden[0, 1] = len(SEGMENTS) + 1
    target = make_target(hidden, SEGMENTS, LABELS, task=task, regions=regions, rest=rest)
    assert target.void[0, 1] and target.void[0, 0] == (rest == VOID)
    assert not target.masks[:, 0, 1].any() and target.masks.flatten(1).any(dim=1).all()
