"""A dataset section -> findings: all of them, or quickly those that a bounded number of files shows before a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from oneformer.data.decode import MAX_MPX
from oneformer.data.files import examples
from oneformer.data.findings import ERROR, KEPT, KINDS, WARNING, Findings, ignore
from oneformer.data.formats import iter_records, log_warnings
from oneformer.data.inspect import Inspector
from oneformer.data.labels import SPLITS, LabelMap, collect_labels
from oneformer.data.parallel import ordered
from oneformer.data.record import Record, tasks_of
from oneformer.data.tally import Tally
from oneformer.data.task import TASKS
from oneformer.errors import DataError, UserError

if TYPE_CHECKING:
    from oneformer.spec.data import DatasetSpec

log = logging.getLogger(__name__)

QUICK_FILES = 32  # records decoded of each split before a run
QUICK_HASHED = 512  # records in all up to which the photos of all splits are compared by content before a run


def used_splits(dataset: DatasetSpec) -> tuple[str, ...]:
    """The splits that name annotations."""
    return tuple(split for split in SPLITS if getattr(dataset, split).annotations)


def check(
    dataset: DatasetSpec,
    *,
    findings: Findings,
    workers: int = -1,
    done: Callable[[int], object] = ignore,
) -> dict[str, Tally]:
    """Read every file of every split that is named and note what is wrong; the numbers of each split.

    Records are taken one by one and let go of. Nothing is raised for faults of the data. `done` is told how many
    records were looked at.
    """
    errors: list[UserError] = []
    labels = collect_labels(dataset, errors=errors, used=False)
    findings.add_all(errors)
    tallies: dict[str, Tally] = {}
    if labels is None:
        return tallies
    findings.add_all(labels.matched_by_name(), severity=WARNING)
    inspect = Inspector(labels.thing_ids, dataset.max_image_mpx, hashed=True)
    for split in used_splits(dataset):
        found: tuple[list[UserError], list[DataError]] = ([], [])
        records = iter_records(dataset, split, labels, errors=found[0], warnings=found[1])
        tally = tallies[split] = Tally(labels, split)
        try:
            walk(records, inspect, tally, findings=findings, workers=workers, done=done)
        except UserError as error:
            found[0].extend(getattr(error, "errors", [error]))
        findings.add_all(found[0], split=split)
        findings.add_all(found[1], severity=WARNING, split=split)
        _note_whole(tally, findings)
    _note_shared(dataset, labels, tallies, findings)
    return tallies


def walk(
    records: Iterable[Record],
    inspect: Inspector,
    tally: Tally,
    *,
    findings: Findings,
    workers: int = -1,
    done: Callable[[int], object] = ignore,
) -> None:
    """Inspect records one by one: count them in `tally`, note their faults."""
    tasks: set[str] = set(tally.tasks)
    for record, seen in ordered(inspect, records, workers=workers):
        tasks.update(record.source.tasks)
        tally.add(seen)
        if seen.fault is not None:
            findings.add(seen.fault, split=tally.split, record=record)
            tally.told.update(segment.class_id for segment in record.segments)
        for warning in seen.warnings:
            findings.add(warning, severity=WARNING, split=tally.split, record=record)
        done(1)
    tally.tasks = tuple(task for task in TASKS if task in tasks)


def _note_whole(tally: Tally, findings: Findings) -> None:
    """What shows only when all records of a split are counted."""
    key = f"dataset.{tally.split}.annotations"
    read = tally.images - tally.broken
    if not read:
        return
    if not tally.classes:
        hint = "nothing can be learned from it: is this the right folder of labels?"
        findings.add(
            DataError("no photo has a labelled pixel", where=key, hint=hint, kind="all_void"), split=tally.split
        )
        return
    if absent := tally.absent():
        findings.add(absent_classes(absent, key), severity=WARNING, split=tally.split)


def absent_classes(names: Sequence[str], where: str) -> DataError:
    """The finding that classes of the label map never occur."""
    hint = "they cannot be learned or scored here: correct the label map, or add photos of them"
    what = f"classes of the label map never occur: {examples(names)}"
    return DataError(what, where=where, hint=hint, kind="absent_class", items=list(names))


def _note_shared(dataset: DatasetSpec, labels: LabelMap, tallies: Mapping[str, Tally], findings: Findings) -> None:
    """Photos that are in two splits, or in one twice, by the hash of their bytes."""
    hashes = {split: np.frombuffer(tally.digests, np.uint64) for split, tally in tallies.items() if tally.images}
    for split, own in hashes.items():
        values, first, counts = np.unique(own, return_index=True, return_counts=True)
        again = first[(counts > 1) & (values > 0)]
        for record in _picked(dataset, split, labels, again):
            findings.add(_twice(record, split), severity=WARNING, split=split, record=record)
    for one, other in combinations(hashes, 2):
        values, _, places = np.intersect1d(hashes[one], hashes[other], return_indices=True)
        for record in _picked(dataset, other, labels, places[values > 0]):
            findings.add(_leaked(record, one, other), severity=WARNING, split=other, record=record)


def _picked(dataset: DatasetSpec, split: str, labels: LabelMap, places: np.ndarray) -> Iterable[Record]:
    """The records at some places of a split, read once more; no more than are kept."""
    wanted = set(np.sort(places)[:KEPT].tolist())
    if not wanted:
        return
    last = max(wanted)
    for place, record in enumerate(iter_records(dataset, split, labels, errors=[], warnings=[])):
        if place in wanted:
            yield record
        if place >= last:
            return


def _leaked(record: Record, one: str, other: str) -> DataError:
    hint = "scores on photos that were learned from say nothing: take them out of one split"
    what = f"the photo is in dataset.{one} and in dataset.{other}"
    return DataError(what, where=record.image_path, hint=hint, kind="leak", items=[str(record.image_id)])


def _twice(record: Record, split: str) -> DataError:
    hint = "keep one of them"
    what = f"the photo is in dataset.{split} more than once"
    return DataError(what, where=record.image_path, hint=hint, kind="duplicate_photo", items=[str(record.image_id)])


def check_pixels(records: Sequence[Record], *, limit: int = QUICK_FILES, max_mpx: float = MAX_MPX) -> list[UserError]:
    """Decode at most `limit` records, spread evenly; one DataError for each that is broken or contradicts itself."""
    inspect = Inspector((), max_mpx)
    return [seen.fault for seen in map(inspect, _some(records, limit)) if seen.fault is not None]


def _some(records: Sequence[Record], limit: int) -> list[Record]:
    """At most so many records, spread evenly."""
    count = min(limit, len(records))
    return [records[place * len(records) // count] for place in range(count)]


def read_checked(
    dataset: DatasetSpec, splits: Sequence[str], *, thorough: bool, errors: list[UserError]
) -> tuple[LabelMap | None, dict[str, list[Record]]]:
    """Classes and records of some splits before a run; every fault of theirs is added to `errors`.

    When `thorough`, a bounded number of files is decoded too. What can be lived with is logged.
    """
    labels = collect_labels(dataset, splits=splits, errors=errors, used=False)
    records: dict[str, list[Record]] = {split: [] for split in splits}
    if labels is None:
        return None, records
    log_warnings(labels.matched_by_name())
    for split in splits:
        warnings: list[DataError] = []
        try:
            records[split] = list(iter_records(dataset, split, labels, errors=errors, warnings=warnings))
        except UserError as error:
            errors += getattr(error, "errors", [error])
        log_warnings(warnings)
    if thorough:
        errors += quick_check(dataset, records, labels)
    return labels, records


def quick_check(dataset: DatasetSpec, records: Mapping[str, Sequence[Record]], labels: LabelMap) -> list[UserError]:
    """The check before a run: a bounded number of records of each split is decoded.

    Errors are returned; what can be lived with is logged, one line for each kind.
    """
    findings = Findings()
    errors: list[UserError] = []
    hashed = len(records) > 1 and sum(map(len, records.values())) <= QUICK_HASHED
    inspect = Inspector(labels.thing_ids, dataset.max_image_mpx)
    for split, own in records.items():
        tally = Tally(labels, split)
        for record in _some(own, QUICK_FILES):
            seen = inspect(record)
            tally.add(seen)
            if seen.fault is not None:
                errors.append(seen.fault)
                tally.told.update(segment.class_id for segment in record.segments)
            for warning in seen.warnings:
                findings.add(warning, severity=WARNING, split=split)
        if len(own) <= QUICK_FILES:
            _note_whole(tally, findings)
        if own and len(tasks_of(own)) < len(TASKS):
            log.info("dataset.%s has labels for the %s task only", split, " and ".join(tasks_of(own)))
    for one, other in combinations(records, 2):
        _note_same_photos(records, one, other, hashed=hashed, findings=findings)
    errors += [
        DataError(f.what, where=f.file, hint=f.hint, kind=f.kind)
        for s, _, _, kept in findings.rows() for f in kept if s == ERROR
    ]  # fmt: skip
    for severity, kind, count, kept in findings.rows():
        if severity == WARNING:
            text = "%s (%d): %s; `oneformer dataset check` tells all"
            places = {f.file for f in kept}
            named = [f.id if f.id and len(places) == 1 else f"{f.file} {f.id}".strip() for f in kept]
            log.warning(text, KINDS.get(kind, kind), count, examples(named))
    return errors


def _note_same_photos(
    records: Mapping[str, Sequence[Record]], one: str, other: str, *, hashed: bool, findings: Findings
) -> None:
    """Photos of two splits that are one file or, when `hashed`, have the same content."""
    from oneformer.data.inspect import photo_digest

    def mark(record: Record) -> object:
        try:
            return photo_digest(record.image_path) if hashed else record.image_path
        except DataError:  # told where the record is decoded
            return record

    known = {mark(record) for record in records[one]}
    for record in records[other]:
        if mark(record) in known:
            findings.add(_leaked(record, one, other), severity=WARNING, split=other)
