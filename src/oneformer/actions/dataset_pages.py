"""What a check or a count of a data set found -> a page with its worst cases, or with pictures and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from oneformer.data.annotation import Annotation, read_annotated
from oneformer.data.decode import open_image, read_panoptic
from oneformer.errors import DataError
from oneformer.predict.examples import picture_size
from oneformer.report import draw
from oneformer.report.place import page_font_px
from oneformer.report.sheet import Pictures, Sheet, Table, render

if TYPE_CHECKING:
    from oneformer.actions.dataset import Checked, Stats
    from oneformer.data.findings import Finding
    from oneformer.data.labels import LabelMap
    from oneformer.data.record import Record
    from oneformer.data.tally import Tally

DRAWN = 24  # photos on the page of a check
SHOWN = 12  # photos of each split on the page of numbers
Drawn = list[tuple[str, Image.Image]]


def check_page(done: Checked, labels: LabelMap | None, *, max_mpx: float) -> str:
    """The page of `dataset check`: every kind of finding, and photos that have them."""
    findings = done.findings
    rows = [(s, kind, count, kept[0].what if kept else "") for s, kind, count, kept in findings.rows()]
    cases = [case for _, kind, *_ in findings.rows() for case in findings.cases.get(kind, ())]
    pictures = [_case(finding, record, labels, max_mpx) for finding, record in cases[:DRAWN]] if labels else []
    facts = [
        ("errors", str(findings.number("error"))),
        ("warnings", str(findings.number("warning"))),
        *((f"dataset.{name}", f"{tally.images} images") for name, tally in done.tallies.items()),
    ]
    return render(
        Sheet(
            over="OneFormer dataset check",
            title="Nothing is wrong with the data" if not rows else "What is wrong with the data",
            facts=facts,
            tables=[Table("Findings", ("severity", "kind", "count", "first of them"), rows)],
            heading="Worst cases",
            note="At most three photos for each kind of finding. A click enlarges.",
            pictures=pictures,
        )
    )


def _case(finding: Finding, record: Record, labels: LabelMap, max_mpx: float) -> Pictures:
    mark = f"{finding.severity}: {finding.kind}"
    told = f"{finding.what}. {finding.hint[:1].upper()}{finding.hint[1:]}".strip()
    return Pictures(_name(record), mark, _views(record, labels, max_mpx), told)


def _name(record: Record) -> str:
    return f"{Path(record.image_path).name} (image id {record.image_id})"


def _views(record: Record, labels: LabelMap, max_mpx: float) -> Drawn:
    """The photo, and the photo with its labels, as far as the files can be read."""
    try:
        photo = np.asarray(open_image(record.image_path, max_mpx=max_mpx))
    except DataError:
        return []
    views: Drawn = [("photo", _small(photo))]
    try:
        _, labelled = read_annotated(record, max_mpx=max_mpx)
        views.append(("labels", drawn(photo, labelled, labels)))
    except DataError:
        if record.source.format == "coco_panoptic":
            views += _strange_ids(photo, record, labels, max_mpx)
    return views


def drawn(photo: NDArray[np.uint8], labelled: Annotation, labels: LabelMap) -> Image.Image:
    """A photo with its masks in colour and names on them, at the size of a page."""
    small = np.asarray(_small(photo))
    ids = _resized(labelled.id_map(), small.shape[0], small.shape[1])
    classes = {s.segment_id: -1 if s.iscrowd else s.class_id for s in labelled.segments}
    return _named(small, ids, classes, labels)


def _strange_ids(photo: NDArray[np.uint8], record: Record, labels: LabelMap, max_mpx: float) -> Drawn:
    """The mask as it is, ids that the annotation does not list in grey; nothing when it does not fit the photo."""
    try:
        ids = read_panoptic(record.label_path, max_mpx=max_mpx)
    except DataError:
        return []
    if ids.shape != photo.shape[:2]:
        return []
    small = np.asarray(_small(photo))
    ids = _resized(ids, small.shape[0], small.shape[1])
    listed = {s.segment_id: s.class_id for s in record.segments}
    strange = {i: -1 for i in np.unique(ids).tolist() if i and i not in listed}
    caption = "labels; grey: ids that are not listed" if strange else "labels"
    return [(caption, _named(small, ids, strange | listed, labels))]


def _named(small: NDArray[np.uint8], ids: NDArray[np.int32], classes: dict[int, int], labels: LabelMap) -> Image.Image:
    """A photo at the size of a page with its segments, in letters that can be read there."""
    return draw.panoptic(small, ids, classes, labels, look=draw.Look(size_px=page_font_px(small.shape[1]))).image


def _small(photo: NDArray[np.uint8]) -> Image.Image:
    height, width = picture_size(photo.shape[0], photo.shape[1])
    return Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC)


def _resized(ids: NDArray[np.integer], height: int, width: int) -> NDArray[np.int32]:
    """A map of ids at another size, nearest pixel, centres aligned."""
    rows = ((np.arange(height) + 0.5) * ids.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * ids.shape[1] / width).astype(int)
    return np.asarray(ids[rows[:, None], columns[None]], np.int32)


def stats_page(done: Stats, splits: Mapping[str, Sequence[Record]], *, max_mpx: float) -> str:
    """The page of `dataset stats`: numbers of each split, and some of its photos with names on the masks."""
    pictures = []
    for name, records in splits.items():
        labels = done.tallies[name].labels
        for record in _spread(records, SHOWN):
            views = _views(record, labels, max_mpx)
            pictures.append(Pictures(_name(record), f"dataset.{name}", views))
    facts = [(f"dataset.{name}", f"{tally.images} images") for name, tally in done.tallies.items()]
    title = "What is in the data"
    tables = [table for name, tally in done.tallies.items() for table in _tables(name, tally)]
    return render(Sheet("OneFormer dataset stats", title, facts, tables, pictures=pictures))


def _spread(records: Sequence[Record], most: int) -> list[Record]:
    """At most so many records, evenly over all."""
    count = min(most, len(records))
    return [records[place * len(records) // count] for place in range(count)]


def _tables(name: str, tally: Tally) -> list[Table]:
    numbers = tally.to_dict()
    rows = [("width", numbers["width"]), ("height", numbers["height"]), ("objects", numbers["objects_per_image"])]
    sides = [(what, *values) for what, values in rows if values is not None]
    classes = [
        (n, "thing" if c["isthing"] else "stuff", c["images"], c["objects"], c["small"], c["medium"], c["large"],
         100 * c["share"])
        for n, c in numbers["classes"].items()
    ]  # fmt: skip
    columns = ("class", "kind", "images", "objects", "small", "medium", "large", "% of pixels")
    note = (
        f"{100 * (numbers['unlabelled'] or 0):.1f} % of the pixels have no label. Small, medium and large are COCO's."
    )
    return [
        Table(f"dataset.{name}: photos", ("", "smallest", "median", "largest"), sides),
        Table(f"dataset.{name}: classes", columns, classes, note, tally.labels.colors),
    ]
