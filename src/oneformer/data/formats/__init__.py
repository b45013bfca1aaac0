"""One split of the spec and the class table -> records, one reader per annotation format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oneformer.data.formats import coco_panoptic
from oneformer.data.labels import LabelMap
from oneformer.data.record import Record

if TYPE_CHECKING:
    from oneformer.spec.data import DatasetSpec

READERS = {"coco_panoptic": coco_panoptic.read}


def read_records(dataset: DatasetSpec, split: str, labels: LabelMap) -> list[Record]:
    """The records of one split ("train", "val" or "test"). Raises SpecError, DataError, UserErrors."""
    read = READERS["coco_panoptic"]
    return read(getattr(dataset, split), labels, contiguous_id=dataset.contiguous_id, key=f"dataset.{split}")
