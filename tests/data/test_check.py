"""The quick look at pixels before a run: every fault found, a bounded number of files decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from oneformer.data.check import check_pixels
from oneformer.data.decode import read_panoptic
from oneformer.data.formats import read_records
from oneformer.data.labels import read_labels
from oneformer.spec.data import DatasetSpec
from tiny import TinyDataset, ids_to_rgb


def test_a_sound_data_set_has_no_faults(dataset: DatasetSpec) -> None:
    assert check_pixels(read_records(dataset, "train", read_labels(dataset))) == []


def test_each_broken_photo_gives_one_message_that_names_it(
    broken: TinyDataset, section: Callable[[TinyDataset], DatasetSpec]
) -> None:
    dataset = section(broken)
    records = read_records(dataset, "train", read_labels(dataset))
    Image.new("RGB", (10, 10)).save(records[0].image_path)
    ids = read_panoptic(records[1].label_path)
    ids[0, :5] = 999
    Image.fromarray(ids_to_rgb(ids)).save(records[1].label_path)
    ids = read_panoptic(records[2].label_path)
    gone = records[2].segments[0].segment_id
    Image.fromarray(ids_to_rgb(np.where(ids == gone, 0, ids))).save(records[2].label_path)
    Path(records[3].label_path).write_bytes(b"\x89PNG\r\n\x1a\n")
    messages = [fault.message for fault in check_pixels(records)]
    assert len(messages) == 4 and all(f"scene_00{i}.png" in message for i, message in enumerate(messages))
    assert "the photo is 10 x 10" in messages[0] and "does not list: 999" in messages[1]
    assert f"without a pixel in the mask: {gone}" in messages[2] and "mask file is broken" in messages[3]
    assert len(check_pixels(records, limit=2)) == 2
