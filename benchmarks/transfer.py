"""Fine-tuning on 80 photos from ImageNet weights and from random ones, under one budget -> scores on 20 other photos.

    python benchmarks/transfer.py ../shared/data/coco_panoptic_100 --weights efficientnet-lite0-57934424.pth
    python benchmarks/transfer.py ../shared/data/coco_panoptic_100 --weights ResNet50 --backbone resnet50

PHOTOS is a folder of COCO panoptic data (images/, panoptic/, annotations.json). 80 photos are too few to tell 133
classes apart, so the 27 groups that COCO sorts them into are learned. Both arms see the same photos in the same order
for the same number of steps; the network around the backbone is the preset `nano`. Each arm has what suits it:
pretrained statistics stay frozen and the backbone learns at a tenth of the rate, random weights learn their own
statistics at the full rate. Class-agnostic PQ counts how well segments are found, whatever they are called.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _measure import hardware, today, versions
from oneformer import load
from oneformer.actions import train
from oneformer.data.annotation import read_annotated
from oneformer.data.formats import read_records
from oneformer.data.labels import LabelMap, read_labels
from oneformer.data.record import Record, SegmentInfo
from oneformer.data.sample import Truth
from oneformer.metrics.evaluator import truth_classes, truth_segments
from oneformer.metrics.miou import ConfusionMatrix
from oneformer.metrics.pq import MapSegments, PanopticQuality
from oneformer.model.weights.keras import is_keras
from oneformer.runs.atomic import write_json, write_text
from oneformer.spec import DatasetSpec, ExperimentSpec
from oneformer.spec.data import SplitSpec
from oneformer.spec.load import load_spec

HELD_OUT = 20  # of the hundred photos
BATCH, EPOCH = 4, 20  # photos in a step, steps in an epoch
SIDE = 192  # pixels of the training crop and of the shorter side in scoring


@dataclass(frozen=True)
class Arm:
    """One of the two trainings: what it is called in the table, and what it sets."""

    name: str
    weights: str
    settings: dict[str, Any]


def grouped(photos: Path, folder: Path, *, seed: int) -> None:
    """Write train.json and val.json: the annotations with COCO's groups as classes, split at random."""
    content = json.loads((photos / "annotations.json").read_text(encoding="utf-8"))
    groups = sorted({(-c["isthing"], c["supercategory"]) for c in content["categories"]})
    number = {name: i + 1 for i, (_, name) in enumerate(groups)}
    group_of = {c["id"]: number[c["supercategory"]] for c in content["categories"]}
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            segment["category_id"] = group_of[segment["category_id"]]
    categories = [{"id": number[name], "name": name, "isthing": -minus} for minus, name in groups]
    ids = sorted(image["id"] for image in content["images"])
    held_out = set(random.Random(seed).sample(ids, HELD_OUT))
    for name, inside in (("train", False), ("val", True)):
        part = {
            "images": [i for i in content["images"] if (i["id"] in held_out) == inside],
            "annotations": [a for a in content["annotations"] if (a["image_id"] in held_out) == inside],
            "categories": categories,
        }
        write_json(folder / f"{name}.json", part)


def split_of(options: argparse.Namespace, name: str) -> dict[str, str]:
    """Where the photos and annotations of a split lie."""
    photos = options.photos.resolve()
    folders = {"images": str(photos / "images"), "panoptic": str(photos / "panoptic")}
    return {**folders, "annotations": str(options.out / f"{name}.json")}


def spec_of(arm: Arm, options: argparse.Namespace) -> ExperimentSpec:
    """The spec of one arm, written beside its results."""
    section = "resnet" if options.backbone == "resnet50" else options.backbone
    content = {
        "preset": "nano",
        "results_dir": str(options.out / arm.name),
        "model": {
            "backbone": {"name": options.backbone, section: arm.settings},
            "one_former": {"num_object_queries": 60, "train_num_points": 2048},
            "test": {"object_mask_threshold": 0.05},  # a short training is never sure of a class, but finds segments
        },
        "dataset": {
            "train": {**split_of(options, "train"), "batch_size": BATCH, "num_workers": 1},
            "min_scale": 0.7,
            "max_scale": 1.5,
            "augmentation": {"train_crop_size": [SIDE, SIDE], "test_min_size": SIDE, "test_max_size": 2 * SIDE},
        },
        "train": {
            "seed": options.seed,
            "pretrained_backbone": arm.weights,
            "num_epochs": -(-options.steps // EPOCH),
            "checkpoint_interval": -(-options.steps // EPOCH),
            "overwrite": True,
            "optim": {"backbone_multiplier": 0.1 if arm.weights else 1.0, "max_iter": options.steps},
        },
    }
    path = write_text(options.out / f"{arm.name}.yaml", json.dumps(content, indent=2))  # JSON is YAML
    return load_spec(path, action="train")


def scores(checkpoint: Path, records: list[Record]) -> dict[str, float]:
    """mIoU, PQ and class-agnostic PQ in percent, at the photos' own size."""
    predictor = load(checkpoint)
    labels = predictor.labels
    confusion, quality, alike = (
        ConfusionMatrix(labels.num_classes),
        PanopticQuality(labels.is_thing),
        PanopticQuality([0]),
    )
    for record in records:
        photo, annotation = read_annotated(record)
        truth = merged(Truth.of(annotation, record.source.tasks), labels)
        result = predictor.predict(photo, task=("semantic", "panoptic"))
        confusion.update(result.semantic_map, truth_classes(truth))
        found = result.parts.panoptic.segments
        guess = MapSegments.of([s.id for s in found], [s.class_id for s in found])
        for pq, named in ((quality, True), (alike, False)):
            pq.update(
                result.panoptic_map,
                guess if named else nameless(guess),
                truth=truth.id_map,
                truth_segments=truth_segments(truth) if named else nameless(truth_segments(truth)),
            )
    return {
        "mIoU": confusion.compute(labels.names)["mIoU"],
        "PQ": quality.compute(labels.names)["all"]["PQ"],
        "class-agnostic PQ": alike.compute(["segment"])["all"]["PQ"],
    }


def merged(truth: Truth, labels: LabelMap) -> Truth:
    """Stuff of one group is one segment, as in the prediction: grass and road are both ground."""
    kept: dict[int, SegmentInfo] = {}
    ids = {0: 0}
    for segment in truth.segments:
        key = segment.segment_id if labels.is_thing[segment.class_id] or segment.iscrowd else -1 - segment.class_id
        ids[segment.segment_id] = kept.setdefault(key, segment).segment_id
    found, places = np.unique(truth.id_map, return_inverse=True)
    id_map = np.array([ids.get(int(i), 0) for i in found], dtype=truth.id_map.dtype)[places]
    return Truth(id_map.reshape(truth.id_map.shape), tuple(kept.values()))


def nameless(segments: MapSegments) -> MapSegments:
    """The same segments, all of one class."""
    return MapSegments(segments.ids, np.zeros_like(segments.class_ids), segments.iscrowd)


def main() -> None:
    """Train and score both arms, print the table."""
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    grouped(options.photos, options.out, seed=options.seed)
    pretrained: dict[str, Any] = {"norm": "frozen"}
    if options.backbone == "resnet50":
        pretrained["stride_in_1x1"] = is_keras(options.weights)
    arms = [Arm("random", "", {"norm": "batch"}), Arm("pretrained", str(options.weights), pretrained)]
    held_out = SplitSpec(**split_of(options, "val"))
    labels = read_labels(DatasetSpec(val=held_out), splits=("val",))
    records = read_records(DatasetSpec(val=held_out), "val", labels)
    for arm in arms:
        if options.arm not in (None, arm.name):
            continue
        spec, load_average, start = spec_of(arm, options), os.getloadavg()[0], time.perf_counter()
        done = train.run(spec)
        minutes = (time.perf_counter() - start) / 60
        latest = done.folder / "oneformer_model_latest.pth"
        row = {"arm": arm.name, **scores(latest, records), "minutes": minutes, "load": load_average}
        write_json(options.out / f"{arm.name}.json", row)
    found = [options.out / f"{arm.name}.json" for arm in arms]
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in found if path.exists()]
    print(f"{hardware()}; {versions()}; {today()}; {options.backbone}, {options.steps} steps of {BATCH} photos")
    print("\n".join(table(rows)))


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table."""
    heads = list(rows[0])
    body = [[row[h] if isinstance(row[h], str) else f"{row[h]:.1f}" for h in heads] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *body)]


def arguments() -> argparse.Namespace:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("photos", type=Path, help="folder of the hundred photos and their annotations")
    made.add_argument("--weights", type=Path, required=True, help="the pretrained backbone, a file or a folder")
    made.add_argument("--backbone", choices=["efficientnet_lite", "resnet50"], default="efficientnet_lite")
    made.add_argument(
        "--arm", choices=["random", "pretrained"], help="only this one; the table shows the other's last run"
    )
    made.add_argument("--steps", type=int, default=1000, help="optimiser steps of each arm")
    made.add_argument("--seed", type=int, default=0, help="of the split and of both trainings")
    made.add_argument("--out", type=Path, default=Path("results/transfer"), help="folder of the results")
    return made.parse_args()


if __name__ == "__main__":
    main()
