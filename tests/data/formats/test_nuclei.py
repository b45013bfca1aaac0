"""The shipped nuclei, written as one picture for each nucleus, give the truth and the scores of the COCO files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from oneformer.data.annotation import read_annotated
from oneformer.data.decode import read_panoptic
from oneformer.data.formats import read_records
from oneformer.data.formats.folders import natural
from oneformer.data.labels import LabelMap, read_labels
from oneformer.data.loader import eval_loader
from oneformer.data.record import Record
from oneformer.data.sample import make_target
from oneformer.metrics.evaluator import Evaluator
from oneformer.segments.types import Outputs
from oneformer.spec.data import DatasetSpec
from oneformer.spec.model import ModelSpec
from tiny_formats import save_png

VAL = Path(__file__).resolve().parents[3] / "samples" / "nuclei" / "val"
PHOTOS = 6


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetSpec, DatasetSpec]:
    """The same photos as COCO panoptic, and as the 2018 Data Science Bowl ships them."""
    root = tmp_path_factory.mktemp("nuclei")
    content = json.loads((VAL / "annotations.json").read_text())
    chosen = sorted(content["annotations"], key=lambda a: natural(Path(a["file_name"]).stem))[:PHOTOS]
    names = {image["id"]: image["file_name"] for image in content["images"]}
    for annotation in chosen:
        name = names[annotation["image_id"]]
        folder = root / "stage1_train" / Path(name).stem
        (folder / "images").mkdir(parents=True)
        (folder / "images" / name).write_bytes((VAL / "images" / name).read_bytes())
        ids = read_panoptic(VAL / "panoptic" / annotation["file_name"])
        for segment in annotation["segments_info"]:
            if segment["category_id"] == 1:
                mask = (ids == segment["id"]).astype(np.uint8) * 255
                save_png(mask, folder / "masks" / f"{segment['id']:05d}.png")
    kept = {a["image_id"] for a in chosen}
    images = sorted((i for i in content["images"] if i["id"] in kept), key=lambda i: i["file_name"])
    (root / "annotations.json").write_text(json.dumps({**content, "images": images, "annotations": chosen}))
    coco = DatasetSpec(label_map=str(VAL / "label_map.json"))
    coco.val.images, coco.val.panoptic = str(VAL / "images"), str(VAL / "panoptic")
    coco.val.annotations = str(root / "annotations.json")
    bowl = DatasetSpec(label_map=str(VAL / "label_map.json"), background="background")
    bowl.val.annotations = str(root / "stage1_train")
    for spec in (coco, bowl):
        spec.val.num_workers, spec.augmentation.test_min_size, spec.val.batch_size = 0, 64, 3
    return coco, bowl


def read(spec: DatasetSpec) -> tuple[LabelMap, list[Record]]:
    labels = read_labels(spec)
    return labels, read_records(spec, "val", labels)


def test_targets_are_equal_in_every_task(both: tuple[DatasetSpec, DatasetSpec]) -> None:
    (labels, coco), (own, bowl) = map(read, both)
    assert labels == own and [r.source.format for r in (coco[0], bowl[0])] == ["coco_panoptic", "object_masks"]
    for mine, theirs in zip(bowl, coco, strict=True):
        a, b = read_annotated(mine)[1], read_annotated(theirs)[1]
        for task in ("semantic", "instance", "panoptic"):
            one, other = (make_target(x.flat(), x.segments, labels, task=task) for x in (a, b))
            assert torch.equal(one.labels, other.labels) and torch.equal(one.void, other.void)
            keys = [sorted(m.numpy().tobytes() for m in t.masks) for t in (one, other)]
            assert keys[0] == keys[1]


def test_scores_are_equal(both: tuple[DatasetSpec, DatasetSpec]) -> None:
    scores = []
    for spec in both:
        labels, records = read(spec)
        model = ModelSpec()
        model.test.object_mask_threshold = model.test.overlap_threshold = 0.1
        evaluator = Evaluator(labels, test=model.test)
        torch.manual_seed(0)
        for batch in eval_loader(spec, records, split="val", model=model):
            h, w = batch.images.shape[-2] // 4, batch.images.shape[-1] // 4
            for task in ("semantic", "instance", "panoptic"):
                smooth = torch.nn.functional.interpolate(torch.randn(len(batch), 12, 4, 4), (h, w), mode="bilinear")
                evaluator.update(task, Outputs(3 * torch.randn(len(batch), 12, 3), 9 * smooth), batch)
        scores.append(evaluator.compute())
    assert scores[0] == scores[1]
    assert scores[0].panoptic is not None and scores[0].panoptic["all"]["PQ"] is not None
    assert scores[0].instance is not None and scores[0].instance["AP"] is not None
