"""One split of the spec and the class table -> records, one reader per annotation format."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from oneformer.data.files import Faults, examples, raise_all
from oneformer.data.formats import (
    ade20k,
    cityscapes,
    coco_instances,
    coco_panoptic,
    labelme,
    mapillary,
    object_masks,
    parquet,
    semantic_png,
    yolo_seg,
)
from oneformer.data.formats.part import Part, split_parts
from oneformer.data.record import Record, Source
from oneformer.errors import DataError, SpecError, UserError

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap
    from oneformer.spec.data import DatasetSpec


class Format(Protocol):
    """What the module of a format has."""

    def categories(self, part: Part, /) -> tuple[list[Any] | None, set[int]]:
        """The classes that the files themselves tell ({id, name, isthing, color}), None when they tell none, and the
        ids that are used, as far as that can be seen without opening a picture. Raises UserError."""

    def read(self, part: Part, labels: LabelMap, faults: Faults) -> Iterator[Record]:
        """The records without fault, one by one; what is wrong is added to `faults`. Raises UserError."""


FORMATS: dict[str, Format] = {
    "coco_panoptic": coco_panoptic,
    "coco_instances": coco_instances,
    "semantic_png": semantic_png,
    "ade20k": ade20k,
    "cityscapes": cityscapes,
    "mapillary": mapillary,
    "object_masks": object_masks,
    "labelme": labelme,
    "yolo_seg": yolo_seg,
    "parquet": parquet,
}
# Told by `dataset check`; a run that trains on a part of a folder's files need not hear of the others.
QUIET = ("unused_file",)


def read_records(dataset: DatasetSpec, split: str, labels: LabelMap) -> list[Record]:
    """The records of one split ("train", "val" or "test"), in file order.

    What can be lived with is logged. Raises SpecError, DataError or UserErrors (all faults of all files together).
    """
    errors: list[UserError] = []
    warnings: list[DataError] = []
    records = list(iter_records(dataset, split, labels, errors=errors, warnings=warnings))
    log_warnings(warnings)
    raise_all(errors)
    return records


def _named(records: Iterator[Record], name: str) -> Iterator[Record]:
    """The records of a data set that has a name, which their source tells."""
    if not name:
        yield from records
        return
    sources: dict[Source, Source] = {}
    for record in records:
        if record.source not in sources:
            sources[record.source] = replace(record.source, name=name)
        yield replace(record, source=sources[record.source])


def log_warnings(warnings: Iterable[DataError]) -> None:
    """Log what can be lived with."""
    for warning in warnings:
        if warning.kind not in QUIET:
            logging.getLogger(__name__).warning("%s", warning.message)


def iter_records(
    dataset: DatasetSpec, split: str, labels: LabelMap, *, errors: list[UserError], warnings: list[DataError]
) -> Iterator[Record]:
    """The records of one split, one by one; faults are added to `errors` and `warnings` as they are found."""
    key = f"dataset.{split}"
    parts = split_parts(dataset, split)
    if not parts:
        errors += [
            SpecError("no path is given", where=f"{key}.{name}", hint=f"set {key}.{name}")
            for name in ("images", "annotations", "panoptic")
            if not getattr(getattr(dataset, split), name)
        ]
        return
    count, before = 0, len(errors)
    for part in parts:
        faults = Faults(part.annotations)
        try:
            for record in _named(FORMATS[part.format].read(part, labels.seen_by(part), faults), part.name):
                count += 1
                yield record
        except UserError as error:
            errors += getattr(error, "errors", [error])
        errors += faults.errors()
        warnings += faults.warnings()
    if not count and len(errors) == before:
        files = examples(part.annotations for part in parts)
        hint = f"set {key}.annotations to a file with annotations"
        errors.append(DataError("there is not one annotated image", where=files, hint=hint))
