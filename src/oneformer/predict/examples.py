"""Scores per image and the records -> photo, truth and prediction side by side for the best and the worst images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oneformer.data.annotation import read_annotated
from oneformer.data.sample import Truth
from oneformer.predict.predictor import Predictor
from oneformer.predict.result import Parts
from oneformer.report import draw
from oneformer.report.html import Case
from oneformer.report.place import page_font_px
from oneformer.segments.rle import decode

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap
    from oneformer.data.record import Record
    from oneformer.metrics.scores import Scores

RANKED_BY = {
    "panoptic": "panoptic quality (PQ)",
    "semantic": "mean IoU",
    "instance": "mean of the best IoU that each true object reaches",
}
DRAWN_SCORE = 0.5  # instances below it would hide the others
LARGEST, SMALLEST = 720, 480  # long side of a picture in pixels; smaller photos are enlarged in whole steps


def ranking_task(scores: Scores) -> str:
    """The task whose image scores order the images: panoptic, else semantic, else instance; empty without any."""
    return next((task for task in RANKED_BY if scores.image_scores.get(task)), "")


def best_and_worst(scores: Scores, count: int) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """At most `count` images (name, score), half of them the best, best first, half the worst, worst first."""
    ranked = scores.worst_first(ranking_task(scores))[: None if count > 0 else 0]
    count = min(count, len(ranked))
    worst = ranked[: (count + 1) // 2]
    return list(reversed(ranked[len(ranked) - count // 2 :])), worst


def cases(
    predictor: Predictor, records: Sequence[Record], chosen: Sequence[tuple[str, float]], *, task: str, max_mpx: float
) -> list[Case]:
    """Predict the chosen images again, with the token of `task`, and draw them beside their truth."""
    by_name = {Path(r.image_path).name: r for r in reversed(records)}
    made = []
    for name, score in chosen:
        record = by_name[name]
        photo, labelled = read_annotated(record, max_mpx=max_mpx)
        pixels = np.asarray(photo)
        parts = predictor.segment([pixels], (task,))[0]
        pictures = _pictures(pixels, Truth.of(labelled, record.source.tasks), parts, predictor.labels)
        made.append(Case(name, score, *pictures))
    return made


def _pictures(
    photo: NDArray[np.uint8], truth: Truth, parts: Parts, labels: LabelMap
) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Photo, truth and prediction, scaled before they are drawn, so that labels and contours keep their size."""
    height, width = picture_size(photo.shape[0], photo.shape[1])
    small = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC))
    look = draw.Look(size_px=page_font_px(width), min_score=DRAWN_SCORE)
    true_ids, segments = _resized(truth.id_map, height, width), truth.segments
    if parts.panoptic is not None:
        classes = {s.segment_id: -1 if s.iscrowd else s.class_id for s in segments}
        true = draw.panoptic(small, true_ids, classes, labels, look=look)
        guess_ids = _resized(parts.panoptic.map, height, width)
        guess = draw.panoptic(small, guess_ids, {s.id: s.class_id for s in parts.panoptic.segments}, labels, look=look)
    elif parts.instance is not None:
        true = draw.instances(small, *_true_things(truth, (height, width), labels), labels, look=look)
        found = parts.instance
        masks = [_resized(decode(rle), height, width) > 0 for rle in found.rles]
        scores = found.scores.tolist()
        guess = draw.instances(small, masks, found.class_ids.tolist(), labels, scores=scores, look=look)
    else:
        assert parts.semantic is not None
        true_map = np.full(true_ids.shape, -1, np.int32)
        for segment in segments:
            if not segment.iscrowd or segment.only_semantic:
                true_map[true_ids == segment.segment_id] = segment.class_id
        true = draw.semantic(small, true_map, labels, look=look)
        guess = draw.semantic(small, _resized(parts.semantic, height, width), labels, look=look)
    return Image.fromarray(small), true.image, guess.image


def _true_things(truth: Truth, size: tuple[int, int], labels: LabelMap) -> tuple[list[NDArray[np.bool_]], list[int]]:
    """Masks at another size and classes of the true objects, whole where they overlap."""
    masks, classes = [], []
    for place, segment in enumerate(truth.segments):
        if labels.is_thing[segment.class_id] and not segment.iscrowd and not segment.only_semantic:
            whole = truth.stacked.mask(place) if truth.stacked else truth.id_map == segment.segment_id
            masks.append(_resized(whole, *size) > 0)
            classes.append(segment.class_id)
    return masks, classes


def picture_size(height: int, width: int) -> tuple[int, int]:
    """The size a photo is shown at: long side at most LARGEST; small ones are enlarged to at least SMALLEST."""
    longest = max(height, width)
    if longest >= SMALLEST:
        scale = min(1.0, LARGEST / longest)
        return max(1, round(height * scale)), max(1, round(width * scale))
    times = -(-SMALLEST // longest)
    return height * times, width * times


def _resized(ids: NDArray[Any], height: int, width: int) -> NDArray[np.int32]:
    """A map of ids at another size, nearest pixel, centres aligned."""
    rows = ((np.arange(height) + 0.5) * ids.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * ids.shape[1] / width).astype(int)
    return np.asarray(ids[rows[:, None], columns[None]], np.int32)
