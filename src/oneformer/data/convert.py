"""Records of any format -> a COCO panoptic or COCO instances data set; a run that was cut short is gone on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from oneformer.data.annotation import Annotation, read_annotated
from oneformer.data.decode import MAX_MPX
from oneformer.data.files import CELL, open_binary
from oneformer.data.findings import ignore
from oneformer.data.labels import LabelMap
from oneformer.data.parallel import ordered
from oneformer.data.record import Record, SegmentInfo, tasks_of
from oneformer.data.shapes import text_of_mask
from oneformer.data.task import TASKS
from oneformer.errors import DataError, UserError, WorkError
from oneformer.runs.atomic import write_atomic, write_json

PANOPTIC, INSTANCES = "coco_panoptic", "coco_instances"
JOURNAL, ANNOTATIONS, LABEL_MAP = ".convert.jsonl", "annotations.json", "label_map.json"
MAX_SEGMENT_ID = 256**3 - 1
# How files begin -> their ending, for photos without a name.
STARTS = ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"RIFF", ".webp"), (b"GIF8", ".gif"), (b"BM", ".bmp"))
Row = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One record, and the name and id it gets."""

    record: Record
    name: str
    image_id: int | str


@dataclass(frozen=True)
class Writer:
    """Writes one item's photo and mask into the target; returns its entries for the annotation file."""

    target: str
    to: str
    labels: LabelMap
    tasks: tuple[str, ...]
    link: bool = False
    max_mpx: float = MAX_MPX

    def __call__(self, item: Item) -> Row:
        """A row of the journal: `image` and `annotations`, or `fault` when the record cannot be read."""
        try:
            photo, labelled = read_annotated(item.record, max_mpx=self.max_mpx)
            name = self._copy(item)
        except DataError as error:
            return {"fault": error.message}
        image = {"id": item.image_id, "file_name": name, "width": photo.width, "height": photo.height}
        if self.to == INSTANCES:
            return {"image": image, "annotations": self._instances(labelled, item.image_id)}
        mask, segments, lost = self._panoptic(labelled)
        file = f"{Path(name).stem}.png"
        path = Path(self.target) / "panoptic" / file
        write_atomic(path, partial(_save_ids, mask))
        annotation = {"image_id": item.image_id, "file_name": file, "segments_info": segments}
        return {"image": image, "annotations": [annotation], "lost": lost}

    def _copy(self, item: Item) -> str:
        """Copy or link the photo; its name in the target."""
        source, folder = item.record.image_path, Path(self.target) / "images"
        if CELL in source:
            with open_binary(source, what="image file") as file:
                data = file.read()
            name = item.name + next((end for start, end in STARTS if data.startswith(start)), ".png")
            write_atomic(folder / name, lambda out: out.write(data))
            return name
        path = folder / item.name
        if path.exists():
            if path.stat().st_size == Path(source).stat().st_size:
                return item.name
            path.unlink()
        if self.link:
            with suppress(OSError):  # another file system: copy
                path.hardlink_to(source)
                return item.name
        with open_binary(source, what="image file") as file:
            write_atomic(path, partial(shutil.copyfileobj, file))
        return item.name

    def _panoptic(self, labelled: Annotation) -> tuple[np.ndarray, list[Row], int]:
        """Ids (H, W), segments_info, and how many segments others cover completely."""
        from scipy.ndimage import find_objects

        flat = labelled.flat()
        areas = np.bincount(flat.ravel(), minlength=len(labelled.segments) + 1)[1:]
        boxes = find_objects(flat.astype(np.int32), max_label=len(labelled.segments))
        given = [s.segment_id for s in labelled.segments]
        keep_ids = len(set(given)) == len(given) and all(0 < i <= MAX_SEGMENT_ID for i in given)
        table = np.zeros(len(labelled.segments) + 1, np.int32)
        infos: list[Row] = []
        lost = 0
        for place, segment in enumerate(labelled.segments):
            if segment.only_semantic and not segment.iscrowd and self.tasks != ("semantic",):
                continue  # void in panoptic terms
            box = boxes[place]
            if box is None:
                lost += segment.area > 0
                continue
            table[place + 1] = segment.segment_id if keep_ids else place + 1
            infos.append(self._info(segment, int(table[place + 1]), int(areas[place]), box))
        return table.take(flat), infos, lost

    def _info(self, segment: SegmentInfo, segment_id: int, area: int, box: tuple[slice, slice]) -> Row:
        rows, columns = box
        crowd = segment.iscrowd and self.tasks != ("semantic",)
        return {
            "id": segment_id,
            "category_id": self.labels.category_ids[segment.class_id],
            "iscrowd": int(crowd),
            "area": area,
            "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
        }

    def _instances(self, labelled: Annotation, image_id: int | str) -> list[Row]:
        found = []
        height, width = labelled.index.shape
        for place, segment in enumerate(labelled.segments):
            unsure = segment.only_semantic and not segment.iscrowd
            if not self.labels.is_thing[segment.class_id] or unsure or not segment.area:
                continue
            mask = labelled.mask(place)
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            x, y = int(columns[0]), int(rows[0])
            found.append(
                {
                    "image_id": image_id,
                    "category_id": self.labels.category_ids[segment.class_id],
                    "iscrowd": int(segment.iscrowd),
                    "area": segment.area,
                    "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
                    "segmentation": {"size": [height, width], "counts": text_of_mask(mask)},
                }
            )
        return found


def _save_ids(ids: np.ndarray, file: IO[bytes]) -> None:
    quads = np.ascontiguousarray(ids.astype("<u4")).view(np.uint8).reshape(*ids.shape, 4)
    Image.fromarray(np.ascontiguousarray(quads[..., :3])).save(file, "PNG")


@dataclass
class Counts:
    """What a conversion did."""

    images: int = 0
    segments: int = 0
    resumed: int = 0
    """Images that an earlier run had finished."""
    hidden: int = 0
    """Segments that others cover completely, which one map of ids cannot keep."""
    faults: list[str] = field(default_factory=list)


def convert(
    records: Sequence[Record],
    writer: Writer,
    *,
    told: Row,
    workers: int = -1,
    done: Callable[[int], object] = ignore,
) -> Counts:
    """Convert all records into `writer.target`.

    Each finished image is noted in a journal, so that another run with the same settings (`told`) goes on. The
    annotation file appears at the end, whole. Raises UserError when the folder holds something else.
    """
    target = Path(writer.target)
    if (target / ANNOTATIONS).exists():
        hint = "choose another folder, or replace it with --overwrite"
        raise UserError("the folder holds a data set already", where=str(target), hint=hint)
    for folder in ("images", "panoptic") if writer.to == PANOPTIC else ("images",):
        try:
            (target / folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WorkError(f"the folder cannot be made: {error.strerror}", where=str(target)) from error
    counts = Counts()
    journal = target / JOURNAL
    counts.resumed = _begin(journal, {**told, "images": len(records), "to": writer.to})
    done(counts.resumed)
    with journal.open("a", encoding="utf-8") as file:
        for _, row in ordered(writer, _items(records, start=counts.resumed), workers=workers):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            done(1)
    _assemble(journal, target, writer, counts)
    journal.unlink()
    return counts


def _begin(journal: Path, told: Row) -> int:
    """Start the journal, or check that it belongs to the same conversion; how many images are done."""
    head = json.dumps(told, sort_keys=True)
    if not journal.exists():
        write_atomic(journal, lambda file: file.write(f"{head}\n".encode()))
        return 0
    whole = journal.read_bytes()
    end = whole.rfind(b"\n") + 1
    if whole[: whole.find(b"\n")].decode("utf-8", "replace") != head:
        hint = "give the same sources and options as before, choose another folder, or start anew with --overwrite"
        raise UserError("another conversion was begun in this folder", where=str(journal.parent), hint=hint)
    with journal.open("r+b") as file:
        file.truncate(end)  # a killed run may have left half a line
    return whole[:end].count(b"\n") - 1


def _items(records: Sequence[Record], *, start: int) -> Iterator[Item]:
    """The records from `start` on with names that no other has, and ids; all alike whatever was done before."""
    ids = [record.image_id for record in records]
    keep = all(isinstance(i, int) for i in ids) and len(set(ids)) == len(ids)
    taken: set[str] = set()
    for place, record in enumerate(records):
        stem, suffix = _named(record.image_path)
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}_{number}", number + 1
        taken.add(name.casefold())
        if place >= start:
            yield Item(record, name + suffix, record.image_id if keep else place + 1)


def _named(path: str) -> tuple[str, str]:
    """(stem, ending) of the photo's file in the target."""
    if CELL in path:
        table, _, row = path.rsplit(CELL, 2)
        return f"{Path(table).stem}_{int(row):07d}", ""  # the ending is that of the bytes
    return Path(path).stem, Path(path).suffix


def _rows(journal: Path) -> Iterator[Row]:
    with journal.open(encoding="utf-8") as file:
        next(file)
        for line in file:
            yield json.loads(line)


def _assemble(journal: Path, target: Path, writer: Writer, counts: Counts) -> None:
    """The annotation file and the label map, from the journal, one line in memory at a time."""
    kept = writer.labels.thing_ids if writer.to == INSTANCES else range(writer.labels.num_classes)
    categories = [
        {
            "id": writer.labels.category_ids[i],
            "name": writer.labels.names[i],
            "isthing": int(writer.labels.is_thing[i]),
            "color": list(writer.labels.colors[i]),
        }
        for i in kept
    ]
    info: Row = {"description": "made by oneformer dataset convert"}
    if writer.to == PANOPTIC and writer.tasks != TASKS:
        info["tasks"] = list(writer.tasks)

    def fill(file: IO[bytes]) -> None:
        def put(text: str) -> None:
            file.write(text.encode("utf-8"))

        put(f'{{"info": {json.dumps(info)}, "categories": {json.dumps(categories, ensure_ascii=False)},\n"images": [')
        for row in _rows(journal):
            if "fault" in row:
                counts.faults.append(row["fault"])
                continue
            put(("" if counts.images == 0 else ",") + "\n" + json.dumps(row["image"], ensure_ascii=False))
            counts.images += 1
        put('\n],\n"annotations": [')
        number = 0
        for row in _rows(journal):
            counts.hidden += row.get("lost", 0)
            for annotation in row.get("annotations", ()):
                own = {"id": number + 1, **annotation} if writer.to == INSTANCES else annotation
                put(("" if number == 0 else ",") + "\n" + json.dumps(own, ensure_ascii=False))
                number += 1
                counts.segments += len(annotation.get("segments_info", (None,)))
        put("\n]}\n")

    write_atomic(target / ANNOTATIONS, fill)
    write_json(target / LABEL_MAP, categories)


def shared_tasks(records: Sequence[Record], to: str) -> tuple[str, ...]:
    """The tasks that the labels of all records are enough for. Raises UserError when they differ or do not fit."""
    kinds = dict.fromkeys(record.source.tasks for record in records)
    if to == INSTANCES:
        for tasks in kinds:
            if "instance" not in tasks:
                hint = f"the labels are enough for the {' and '.join(tasks)} task only; convert to {PANOPTIC}"
                raise UserError("the sources have no single objects", where=f"--to {to}", hint=hint)
        return ("instance",)
    if len(kinds) > 1:
        told = "; ".join(", ".join(tasks) for tasks in kinds)
        hint = "convert the sources one by one"
        raise UserError(f"the sources have labels for different tasks: {told}", where="SOURCE", hint=hint)
    return tasks_of(records)
