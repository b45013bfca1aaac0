"""Random panoptic truths with void and crowd, and predictions that are the truth with faults."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

IS_THING = (True, False, True, False, True)
NAMES = ("cell", "back ground", "dot", "sky", "never seen")


@dataclass
class Info:
    """As the data room's SegmentInfo."""

    segment_id: int
    class_id: int
    iscrowd: bool = False
    area: int = 0
    only_semantic: bool = False


@dataclass
class Scene:
    """A truth and a prediction of one image: id maps and their segments."""

    truth: np.ndarray
    truth_segments: list[Info]
    predicted: np.ndarray
    predicted_segments: list[Info] = field(default_factory=list)


def random_map(
    rng: np.random.Generator, size: tuple[int, int], count: int, *, crowds: bool
) -> tuple[np.ndarray, list[Info]]:
    """`count` overlapping rectangles painted on void; ids are sparse, as colours of a PNG are."""
    id_map = np.zeros(size, dtype=np.int32)
    segments = []
    for segment_id in rng.choice(2**24 - 1, size=count, replace=False) + 1:
        y, x = rng.integers(0, size[0] - 4), rng.integers(0, size[1] - 4)
        h, w = rng.integers(3, size[0] // 2), rng.integers(3, size[1] // 2)
        id_map[y : y + h, x : x + w] = segment_id
        class_id = int(rng.integers(0, 4))  # class 4 never occurs
        crowd = crowds and IS_THING[class_id] and rng.random() < 0.3
        segments.append(Info(int(segment_id), class_id, bool(crowd)))
    return id_map, [s for s in segments if (id_map == s.segment_id).any()]


def random_scene(seed: int, *, size: tuple[int, int] = (60, 80), crowds: bool = True) -> Scene:
    """A prediction that shares most segments with the truth: shifted, reclassed, dropped, invented."""
    rng = np.random.default_rng(seed)
    truth, truth_segments = random_map(rng, size, int(rng.integers(1, 12)), crowds=crowds)
    predicted = np.roll(truth, rng.integers(-2, 3, size=2), axis=(0, 1))
    invented, invented_segments = random_map(rng, size, int(rng.integers(0, 4)), crowds=False)
    predicted = np.where(invented > 0, invented, predicted)
    found = [Info(s.segment_id, s.class_id) for s in truth_segments] + invented_segments
    for info in found:
        if rng.random() < 0.15:
            info.class_id = int(rng.integers(0, 4))
        if rng.random() < 0.1:
            predicted[predicted == info.segment_id] = 0
    present = set(np.unique(predicted).tolist())
    return Scene(truth, truth_segments, predicted.astype(np.int32), [s for s in found if s.segment_id in present])


def only_one_crowd_per_class(scene: Scene) -> Scene:
    """Where the COCO tool's bookkeeping of crowds (the last of each class) cannot matter."""
    seen: set[int] = set()
    for info in scene.truth_segments:
        if info.iscrowd and info.class_id in seen:
            info.iscrowd = False
        elif info.iscrowd:
            seen.add(info.class_id)
    return scene
