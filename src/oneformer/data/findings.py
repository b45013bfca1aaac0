"""Faults of a data set -> findings: counted, a bounded number kept, each handed on as it is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from oneformer.errors import DataError, UserError

if TYPE_CHECKING:
    from oneformer.data.record import Record

ERROR, WARNING = "error", "warning"
KEPT = 200  # findings of one kind that are kept, however many there are
CASES = 3  # findings of one kind that keep their record, to be drawn

KINDS = {
    "spec": "a key of the spec is wrong",
    "label_map": "the label map is wrong or contradicts the annotations",
    "label_gap": "class ids have gaps although they are used as they are",
    "thing_stuff": "things and stuff are mixed up",
    "annotation": "an entry of an annotation file is malformed",
    "duplicate_id": "an id is used twice",
    "unknown_image": "an annotation belongs to no image",
    "unknown_category": "labels use a class that the label map does not have",
    "broken_shape": "an object's outline cannot be drawn",
    "missing_file": "a file is not there",
    "wrong_level": "files lie one folder higher or deeper than the spec says",
    "unreadable_file": "a file is broken, too large or of an unknown format",
    "wrong_encoding": "a picture holds colours or numbers that are no labels",
    "size_mismatch": "photo, labels and annotation differ in size",
    "unlisted_id": "a mask has ids that the annotation does not list",
    "empty_segment": "an annotation lists segments without a pixel",
    "wrong_area": "an area in the annotation is not that of the mask",
    "overlap": "masks overlap where each pixel belongs to one",
    "duplicate_object": "two objects have the same mask",
    "all_void": "a photo has no labelled pixel",
    "leak": "a photo is in two splits",
    "duplicate_photo": "a photo is in a split twice",
    "absent_class": "a class never occurs",
    "unlabelled_image": "a photo has no labels and is left out",
    "unused_file": "a file is not named by the annotations",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: how grave, its name in KINDS, the file and the id that carry it, what it is, and how to mend it."""

    severity: str
    kind: str
    file: str
    id: str
    what: str
    hint: str
    split: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain types, for JSON."""
        return asdict(self)


# How to mend what a message does not say itself.
REMEDIES = {
    "spec": "see oneformer explain KEY",
    "label_map": "make the label map and the annotations say the same, or leave dataset.label_map empty",
    "duplicate_id": "give each its own id, or remove one of them",
    "unknown_image": "add the image to the list of images, or remove the annotation",
    "unknown_category": "add it to the label map, or take its segments out of the annotations",
    "missing_file": "copy the file to its place, or take it out of the annotations",
    "unreadable_file": "copy or download the file again, or take it out of the annotations",
    "wrong_encoding": "save the labels as the format asks for",
    "unlabelled_image": "label it, or take it out of the list of images",
    "unused_file": "add it to the annotations, or leave it: it is not read",
    "annotation": "correct the entry in the annotation file",
}


def ignore(_: object) -> None:
    """For callbacks that nobody needs."""


class Findings:
    """Everything that was found.

    Args:
        sink: is handed every finding, also those that are not kept.
    """

    def __init__(self, sink: Callable[[Finding], object] = ignore) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.kept: dict[tuple[str, str], list[Finding]] = {}
        self.cases: dict[str, list[tuple[Finding, Record]]] = {}
        self._sink = sink

    def add(self, error: UserError, *, severity: str = ERROR, split: str = "", record: Record | None = None) -> None:
        """Note a fault; one that stands for several becomes several findings."""
        kind, items = (error.kind, error.items) if isinstance(error, DataError) else ("spec", ())
        whole = str(record.image_id) if record is not None else ""
        for item in items or (whole,):
            finding = Finding(
                severity, kind, error.where, item, error.what, error.hint or REMEDIES.get(kind, ""), split
            )
            self.counts[severity, kind] += 1
            kept = self.kept.setdefault((severity, kind), [])
            if len(kept) < KEPT:
                kept.append(finding)
            self._sink(finding)
        cases = self.cases.setdefault(kind, [])
        if record is not None and len(cases) < CASES:
            cases.append((finding, record))

    def add_all(self, errors: Iterable[UserError], *, severity: str = ERROR, split: str = "") -> None:
        """Note several."""
        for error in errors:
            self.add(error, severity=severity, split=split)

    def number(self, severity: str) -> int:
        """How many findings of one severity there are."""
        return sum(count for (s, _), count in self.counts.items() if s == severity)

    def rows(self) -> list[tuple[str, str, int, list[Finding]]]:
        """(severity, kind, count, the findings that were kept), errors first, in the order of KINDS."""
        order = {kind: place for place, kind in enumerate(KINDS)}
        keys = sorted(self.counts, key=lambda key: (key[0] != ERROR, order.get(key[1], len(order))))
        return [(s, kind, self.counts[s, kind], self.kept[s, kind]) for s, kind in keys]

    def to_dict(self) -> dict[str, Any]:
        """Counts by severity and kind, and the findings that were kept."""
        return {
            "errors": self.number(ERROR),
            "warnings": self.number(WARNING),
            "kinds": [
                {"severity": s, "kind": kind, "meaning": KINDS.get(kind, ""), "count": count}
                for s, kind, count, _ in self.rows()
            ],
            "findings": [f.to_dict() for *_, kept in self.rows() for f in kept],
        }
