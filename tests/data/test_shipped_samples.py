"""The images that ship with the project: sound, small, licensed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oneformer.data.check import check_pixels
from oneformer.data.formats import read_records
from oneformer.data.labels import read_labels
from oneformer.spec.data import DatasetSpec

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
FREE_TO_CHANGE = {4, 5, 7, 8}  # COCO's numbers of BY, BY-SA, no known restrictions, US government work


@pytest.mark.parametrize(
    ("folder", "images", "classes"), [("nuclei/train", 160, 2), ("nuclei/val", 40, 2), ("photos", 12, 133)]
)
def test_every_file_decodes_and_fits_its_annotation(folder: str, images: int, classes: int) -> None:
    root = SAMPLES / folder
    dataset = DatasetSpec(label_map=str(root / "label_map.json"))
    dataset.train.images, dataset.train.panoptic = str(root / "images"), str(root / "panoptic")
    dataset.train.annotations = str(root / "annotations.json")
    labels = read_labels(dataset)
    records = read_records(dataset, "train", labels)
    assert (len(records), labels.num_classes) == (images, classes)
    assert {len(list((root / part).iterdir())) for part in ("images", "panoptic")} == {images}, "no file is left over"
    assert check_pixels(records, limit=images) == []


def test_every_photo_may_be_shipped_resized_and_names_its_source() -> None:
    content = json.loads((SAMPLES / "photos" / "annotations.json").read_text())
    readme = (SAMPLES / "README.md").read_text()
    for image in content["images"]:
        assert image["license"] in FREE_TO_CHANGE and image["flickr_url"] in readme and image["file_name"] in readme
        assert "resized" in image["changes"] and max(image["width"], image["height"]) <= 480


def test_the_samples_stay_under_10_mb() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 10e6
