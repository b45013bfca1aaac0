"""A COCO panoptic folder -> scenes: the truth of each photo and a prediction that is the truth with faults.

Read with PIL and json alone, so that the data room's reader cannot hide a fault from the metrics' tests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from metrics.scenes import Info, Scene

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "samples" / "photos"
HUNDRED = ROOT.parent / "shared" / "data" / "coco_panoptic_100"


def class_table(folder: Path) -> tuple[tuple[str, ...], tuple[bool, ...], dict[int, int]]:
    """Names, thing flags, and category id -> class id."""
    categories = json.loads((folder / "annotations.json").read_text())["categories"]
    names = tuple(c["name"] for c in categories)
    return names, tuple(bool(c["isthing"]) for c in categories), {c["id"]: i for i, c in enumerate(categories)}


def photo_scenes(folder: Path, *, seed: int = 0) -> list[Scene]:
    """Every photo of the folder, each with a prediction that shares most of its segments with the truth."""
    content = json.loads((folder / "annotations.json").read_text())
    _, is_thing, class_of = class_table(folder)
    rng = np.random.default_rng(seed)
    scenes = []
    for annotation in content["annotations"]:
        rgb = np.asarray(Image.open(folder / "panoptic" / annotation["file_name"]).convert("RGB")).astype(np.int64)
        ids = (rgb @ np.array([1, 256, 65536])).astype(np.int32)
        infos = [
            Info(s["id"], class_of[s["category_id"]], bool(s["iscrowd"]), s["area"])
            for s in annotation["segments_info"]
        ]
        scenes.append(perturbed(ids, infos, is_thing, rng))
    return scenes


def perturbed(truth: np.ndarray, infos: list[Info], is_thing: Sequence[bool], rng: np.random.Generator) -> Scene:
    """The truth, some more of its things marked as crowd, and a prediction: shifted, merged, split, relabelled, dropped.

    At most one crowd of a class in an image, where the COCO tool's bookkeeping is its definition.
    """
    crowded = {i.class_id for i in infos if i.iscrowd}
    for info in infos:
        if is_thing[info.class_id] and info.class_id not in crowded and rng.random() < 0.08:
            info.iscrowd = True
            crowded.add(info.class_id)
    predicted = np.roll(truth, rng.integers(-4, 5, size=2), axis=(0, 1))
    classes = {i.segment_id: i.class_id for i in infos}
    for segment_id in [i.segment_id for i in infos]:
        where = predicted == segment_id
        if not where.any():
            continue
        fault = rng.choice(["none", "shift", "merge", "split", "relabel", "drop", "spill"], p=FAULTS)
        if fault == "shift":
            moved = np.roll(where, rng.integers(-20, 21, size=2), axis=(0, 1))
            predicted[where] = 0
            predicted[moved] = segment_id
        elif fault == "merge":
            predicted[where] = rng.choice(list(classes))
        elif fault == "split":
            rows, columns = np.nonzero(where)
            new = max(classes) + 1
            classes[new] = classes[segment_id]
            half = columns > np.quantile(columns, rng.uniform(0.1, 0.9))
            predicted[rows[half], columns[half]] = new
        elif fault == "relabel":
            classes[segment_id] = int(rng.integers(0, len(is_thing)))
        elif fault == "drop":
            predicted[where] = 0
        elif fault == "spill":  # over a part of what nobody labelled
            void = (truth == 0) & (rng.random(truth.shape[1]) < 0.7)
            predicted[void] = segment_id
    invent(truth, infos, predicted, classes, rng)
    left = set(np.unique(predicted).tolist()) - {0}
    return Scene(truth, infos, predicted, [Info(i, c) for i, c in classes.items() if i in left])


def invent(
    truth: np.ndarray, infos: list[Info], predicted: np.ndarray, classes: dict[int, int], rng: np.random.Generator
) -> None:
    """Paints some boxes around void and crowds: alarms that are excused when more than half of them lies there."""
    crowds = {i.segment_id: i.class_id for i in infos if i.iscrowd}
    for around in [0] * 4 + list(crowds) * 4:
        places = np.argwhere(truth == around)
        if len(places):
            y, x = places[rng.integers(len(places))]
            height, width = rng.integers(4, 60, size=2)
            new = max(classes) + 1
            classes[new] = crowds[around] if around else int(rng.choice(list(classes.values())))
            predicted[max(0, y - height // 2) : y + height // 2, max(0, x - width // 2) : x + width // 2] = new


FAULTS = (0.45, 0.1, 0.08, 0.12, 0.1, 0.05, 0.1)


def shards(scenes: Sequence[Scene], count: int) -> list[list[tuple[int, Scene]]]:
    """The scenes with their numbers, dealt out like cards."""
    return [list(enumerate(scenes))[i::count] for i in range(count)]
