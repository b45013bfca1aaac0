"""The synthetic data set of the tests has what the tests rely on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from oneformer.data.decode import read_panoptic
from tiny import CATEGORIES, write_tiny_dataset


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    first, second = (write_tiny_dataset(tmp_path / name, images=3, seed=7) for name in ("a", "b"))
    for path in sorted(first.folder.rglob("*.*")):
        assert path.read_bytes() == (second.folder / path.relative_to(first.folder)).read_bytes()


def test_crowd_and_void_can_be_left_out(tmp_path: Path) -> None:
    for crowd, void in ((True, True), (False, False)):
        data = write_tiny_dataset(tmp_path / str(crowd), size=(40, 50), crowd=crowd, void=void)
        annotations = json.loads(data.annotations.read_text())["annotations"]
        masks = [read_panoptic(data.panoptic / a["file_name"]) for a in annotations]
        assert {m.shape for m in masks} == {(40, 50)}
        assert any((m == 0).any() for m in masks) is void
        assert any(s["iscrowd"] for a in annotations for s in a["segments_info"]) is crowd
        used = {s["category_id"] for a in annotations for s in a["segments_info"]}
        assert used == {c["id"] for c in CATEGORIES}
        for mask, annotation in zip(masks, annotations, strict=True):
            assert {s["id"] for s in annotation["segments_info"]} == set(np.unique(mask).tolist()) - {0}
