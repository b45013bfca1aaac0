"""Data sets in any format -> what is wrong with them, what is in them, or the same as COCO files."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from oneformer.actions.plan import Plan
from oneformer.errors import SpecError, UserError
from oneformer.runs import RunFolder, run_path
from oneformer.runs.atomic import write_json, write_text

if TYPE_CHECKING:
    from oneformer.data.convert import Counts
    from oneformer.data.findings import Finding, Findings
    from oneformer.data.tally import Tally
    from oneformer.spec import DatasetSpec, ExperimentSpec

log = logging.getLogger(__name__)

CHECK_FILES = ("check.json", "findings.jsonl", "check.html")
STATS_FILES = ("stats.json", "stats.html")
PREVIEW_FILE = "augment.html"
SHOWN = 3  # findings of one kind in the table


@dataclass(frozen=True)
class Checked:
    """Everything that was found, and where it was written."""

    findings: Findings
    tallies: Mapping[str, Tally]
    folder: Path

    @property
    def exit_code(self) -> int:
        """2 when something has to be mended before a run, else 0."""
        return 2 if self.findings.number("error") else 0

    def to_dict(self) -> dict[str, Any]:
        """Counts, the findings (the first of each kind; `files.findings` has all), the images of each split."""
        files = dict(zip(("summary", "findings", "page"), (str(self.folder / n) for n in CHECK_FILES), strict=True))
        splits = {
            name: {"images": tally.images, "broken": tally.broken, "tasks": list(tally.tasks)}
            for name, tally in self.tallies.items()
        }
        return {**self.findings.to_dict(), "splits": splits, "files": files}

    def table(self) -> str:
        """One block for each kind of finding, errors first, then what was looked at."""
        blocks = [_block(*row) for row in self.findings.rows()]
        splits = [
            f"dataset.{name}: {t.images} images, {t.broken} unusable; labels for {', '.join(t.tasks) or 'nothing'}"
            for name, t in self.tallies.items()
        ]
        errors, warnings = self.findings.number("error"), self.findings.number("warning")
        end = [f"{errors} errors, {warnings} warnings", f"all of them: {self.folder / CHECK_FILES[1]}"]
        if errors or warnings:
            end.append(f"the worst, drawn: {self.folder / CHECK_FILES[2]}")
        return "\n\n".join([*blocks, "\n".join([*splits, *end])])


def _block(severity: str, kind: str, count: int, kept: Sequence[Finding]) -> str:
    """One kind of finding: its name, how often, the first few, and how to mend it."""
    from oneformer.data.findings import KINDS

    told: dict[tuple[str, str], list[str]] = {}  # one message may stand for several ids, which it counts itself
    for finding in kept:
        told.setdefault((finding.file, finding.what), []).append(finding.id)
    shown = list(told.items())[:SHOWN]
    lines = [f"{severity} {kind} ({count}): {KINDS.get(kind, kind)}"]
    for (file, what), ids in shown:
        own = f"{ids[0]}: " if len(ids) == 1 and ids[0] not in what else ""
        lines.append(f"  {file}: {own}{what}")
    if len(told) > SHOWN or count > len(kept):
        lines.append(f"  ... and {count - sum(len(ids) for _, ids in shown)} more")
    hints = list(dict.fromkeys(f.hint for f in kept if f.hint))
    return "\n".join([*lines, *(f"  hint: {hint}" for hint in hints[:2])])


def check(spec: ExperimentSpec, *, dry_run: bool = False) -> Checked | Plan:
    """Read every file of every split and tell what is wrong; the page draws the worst cases.

    Raises:
        UserError: the request itself is wrong; faults of the data are the answer, not an error.
    """
    from oneformer.actions.dataset_pages import check_page
    from oneformer.data.check import check as run_check
    from oneformer.data.findings import Findings
    from oneformer.predict.progress import Progress

    if dry_run:
        return _plan(spec, CHECK_FILES)
    spec = _here(spec)
    folder = RunFolder(spec.results_dir, "dataset")
    with (folder / CHECK_FILES[1]).open("w", encoding="utf-8") as file, Progress("check", 0) as progress:
        findings = Findings(sink=_Lines(file))
        tallies = run_check(spec.dataset, findings=findings, done=progress.add)
    done = Checked(findings, tallies, folder.path)
    write_json(folder / CHECK_FILES[0], done.to_dict())
    labels = next(iter(tallies.values())).labels if tallies else None
    write_text(folder / CHECK_FILES[2], check_page(done, labels, max_mpx=spec.dataset.max_image_mpx))
    return done


class _Lines:
    """Writes each finding as a JSON line."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def __call__(self, finding: Finding) -> None:
        self.file.write(json.dumps(finding.to_dict(), ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Stats:
    """The numbers of each split, and where they were written."""

    tallies: Mapping[str, Tally]
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """The content of stats.json, and the paths of the files."""
        files = dict(zip(("stats", "page"), (str(self.folder / name) for name in STATS_FILES), strict=True))
        return {"splits": {name: tally.to_dict() for name, tally in self.tallies.items()}, "files": files}

    def table(self) -> str:
        """For each split: images, sizes, objects, and a line for each class."""
        blocks = [_split_table(name, tally.to_dict()) for name, tally in self.tallies.items()]
        return "\n\n".join([*blocks, f"with pictures: {self.folder / STATS_FILES[1]}"])


def _split_table(name: str, numbers: dict[str, Any]) -> str:
    from oneformer.report.tables import align, kind, shorten

    def told(values: list[int] | None) -> str:
        return "-" if values is None else " / ".join(map(str, values))

    head = [
        f"dataset.{name}: {numbers['images']} images, {numbers['broken']} unusable",
        f"labels for: {', '.join(numbers['tasks']) or 'nothing'}",
        f"width, height (smallest / median / largest): {told(numbers['width'])}, {told(numbers['height'])}",
        f"objects per image: {told(numbers['objects_per_image'])}",
        f"unlabelled pixels: {100 * (numbers['unlabelled'] or 0):.1f} %",
    ]
    rows = [
        (shorten(n), kind(c["isthing"]), *(str(c[k]) for k in ("images", "objects", "small", "medium", "large")),
         f"{100 * c['share']:.2f}")
        for n, c in numbers["classes"].items()
    ]  # fmt: skip
    columns = ("class", "kind", "images", "objects", "small", "medium", "large", "% of pixels")
    return "\n".join(head) + "\n\n" + align(columns, rows, text_columns=2)


def stats(spec: ExperimentSpec, *, dry_run: bool = False) -> Stats | Plan:
    """Count classes, sizes, areas and objects of every split; the page shows pictures with names on the masks.

    Raises:
        UserError: the data cannot be read; `dataset check` tells all of its faults.
    """
    from oneformer.actions.dataset_pages import stats_page
    from oneformer.data.check import used_splits, walk
    from oneformer.data.findings import Findings
    from oneformer.data.formats import read_records
    from oneformer.data.inspect import Inspector
    from oneformer.data.labels import read_labels
    from oneformer.data.record import RecordTable
    from oneformer.data.tally import Tally
    from oneformer.predict.progress import Progress

    if dry_run:
        return _plan(spec, STATS_FILES)
    spec = _here(spec)
    folder = RunFolder(spec.results_dir, "dataset")
    labels = read_labels(spec.dataset)
    inspect = Inspector(labels.thing_ids, spec.dataset.max_image_mpx)
    splits = {split: RecordTable(read_records(spec.dataset, split, labels)) for split in used_splits(spec.dataset)}
    tallies = {split: Tally(labels, split) for split in splits}
    with Progress("stats", sum(map(len, splits.values()))) as progress:
        for split, records in splits.items():
            walk(records, inspect, tallies[split], findings=Findings(), done=progress.add)
            if tallies[split].broken:
                text = "dataset.%s: %d images cannot be read and are not counted; `oneformer dataset check` tells why"
                log.warning(text, split, tallies[split].broken)
    done = Stats(tallies, folder.path)
    write_json(folder / STATS_FILES[0], done.to_dict()["splits"])
    write_text(folder / STATS_FILES[1], stats_page(done, splits, max_mpx=spec.dataset.max_image_mpx))
    return done


@dataclass(frozen=True)
class Preview:
    """How often each change happens to a training image, and where it is shown."""

    changes: Mapping[str, float | None]
    """Key -> probability; None for what always happens."""
    page: Path

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {"changes": dict(self.changes), "files": {"page": str(self.page)}}

    def table(self) -> str:
        """One line for each change."""
        wide = max(map(len, self.changes))
        lines = [f"{key:<{wide}}  {'always' if p is None else format(p, 'g')}" for key, p in self.changes.items()]
        return "\n".join([*lines, "", f"shown one by one and together: {self.page}"])


def augment_preview(spec: ExperimentSpec, *, dry_run: bool = False) -> Preview | Plan:
    """Show a few training images with each change of `dataset.augmentation` alone and with all of them together.

    Raises:
        UserError: the training data cannot be read; `dataset check` tells all of its faults.
    """
    from oneformer.actions.augment_page import augment_page, changes
    from oneformer.data.formats import read_records
    from oneformer.data.labels import read_labels

    if dry_run:
        return _plan(spec, (PREVIEW_FILE,))
    spec = _here(spec)
    if not spec.dataset.train.annotations:
        raise SpecError("no training images are named", where="dataset.train.annotations")
    labels = read_labels(spec.dataset, splits=("train",))
    records = read_records(spec.dataset, "train", labels)
    page = RunFolder(spec.results_dir, "dataset") / PREVIEW_FILE
    write_text(page, augment_page(spec, labels, records))
    return Preview({change.key: change.prob for change in changes(spec.dataset)}, page)


@dataclass(frozen=True)
class Converted:
    """What was written, and what could not be."""

    counts: Counts
    target: Path
    to: str
    tasks: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 when images were left out, else 0."""
        return 1 if self.counts.faults else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {"target": str(self.target), "format": self.to, "tasks": list(self.tasks), **vars(self.counts)}

    def table(self) -> str:
        """What was written, what was lost, and the lines for a spec."""
        counts = self.counts
        lines = [f"{counts.images} images with {counts.segments} segments as {self.to} in {self.target}"]
        if counts.resumed:
            lines.append(f"{counts.resumed} of them had been done before")
        if counts.hidden:
            lines.append(f"{counts.hidden} segments lie under others completely and were left out")
        if counts.faults:
            lines += [f"{len(counts.faults)} images were left out:", *counts.faults[:5]]
            if len(counts.faults) > 5:
                lines.append(f"... and {len(counts.faults) - 5} more")
        if self.to == "coco_panoptic" and len(self.tasks) < 3:
            lines.append(f"the labels are enough for the {' and '.join(self.tasks)} task only, which the file says")
        keys = {"images": "images", "annotations": "annotations.json"}
        keys |= {"panoptic": "panoptic"} if self.to == "coco_panoptic" else {}
        spec = [f"dataset.train.{key}={self.target / name}" for key, name in keys.items()]
        return "\n".join([*lines, "", *spec, f"dataset.label_map={self.target / 'label_map.json'}"])


def convert(paths: Sequence[str], *, overwrite: bool = False, workers: str | None = None, **options: Any) -> Converted:
    """Turn data sets (SOURCE ... TARGET) into one COCO data set. A run that was cut short is gone on with.

    Options: `to` coco_panoptic or coco_instances; `format`, `images`, `panoptic`, `label_map`, `background` as in a
    spec; `photos` copy or link.

    Raises:
        UserError: the sources cannot be read, or the target holds something else.
    """
    from oneformer.data.convert import Writer, shared_tasks
    from oneformer.data.convert import convert as run_convert
    from oneformer.data.formats import read_records
    from oneformer.data.labels import read_labels
    from oneformer.data.record import RecordTable
    from oneformer.data.sources import fetched
    from oneformer.predict.progress import Progress
    from oneformer.spec import ExperimentSpec

    if len(paths) < 2:
        hint = "oneformer dataset convert SOURCE... TARGET"
        raise UserError("a source and a target are needed", where="oneformer dataset convert", hint=hint)
    target, to = Path(paths[-1]), options.get("to") or "coco_panoptic"
    dataset = fetched(ExperimentSpec(dataset=_sources(paths[:-1], options)), "train").dataset
    sources = list(dataset.train.annotations)
    _prepare(target, sources, overwrite=overwrite)
    labels = read_labels(dataset, splits=("train",))
    records = RecordTable(read_records(dataset, "train", labels))
    tasks = shared_tasks(records, to)
    writer = Writer(str(target), to, labels, tasks, link=options.get("photos") == "link", max_mpx=dataset.max_image_mpx)
    digest = sha256(json.dumps(labels.to_dict(), sort_keys=True).encode()).hexdigest()
    told = {"sources": [str(Path(p).resolve()) for p in sources], "labels": digest}
    told |= {name: options.get(name) or "" for name in ("format", "images", "panoptic", "background")}
    with Progress("convert", len(records)) as progress:
        count = _whole(workers, "--workers") if workers else -1
        counts = run_convert(records, writer, told=told, workers=count, done=progress.add)
    return Converted(counts, target, to, tasks)


def _sources(paths: Sequence[str], options: Mapping[str, Any]) -> DatasetSpec:
    """A dataset section that trains on the sources."""
    from oneformer.data.formats import FORMATS
    from oneformer.spec import DatasetSpec, SplitSpec

    named = {name: options[name] for name in ("format", "images", "panoptic") if options.get(name)}
    if (asked := named.get("format", "auto")) not in (*FORMATS, "auto"):
        raise UserError(f"there is no format {asked}", where="--format", hint=f"formats are {', '.join(FORMATS)}")
    dataset = DatasetSpec(train=SplitSpec(annotations=list(paths), **named))
    return replace(dataset, label_map=options.get("label_map") or "", background=options.get("background") or "")


def _prepare(target: Path, sources: Sequence[str], *, overwrite: bool) -> None:
    """Make room for the target; only files that a conversion writes are ever removed."""
    from oneformer.data.convert import ANNOTATIONS, JOURNAL, LABEL_MAP

    if target.exists() and not target.is_dir():
        raise UserError("the target is a file, not a folder", where=str(target))
    inside = [s for s in sources if target.resolve() in (Path(s).resolve(), *Path(s).resolve().parents)]
    if inside:
        raise UserError("the target holds a source", where=str(target), hint="choose another folder")
    if not overwrite:
        return
    made = (target / ANNOTATIONS, target / JOURNAL)
    if target.is_dir() and not any(path.exists() for path in made) and any(target.iterdir()):
        what = "the folder holds something that no conversion wrote"
        raise UserError(what, where=str(target), hint="choose another folder")
    for name in ("images", "panoptic"):
        shutil.rmtree(target / name, ignore_errors=True)
    for path in (*made, target / LABEL_MAP):
        path.unlink(missing_ok=True)


def _whole(text: str, where: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{text!r} is not a whole number", where=where)
    return int(text)


def _here(spec: ExperimentSpec) -> ExperimentSpec:
    """The spec with all of its data on this machine. Raises UserError."""
    from oneformer.data.sources import fetched, planned

    _need_splits(planned(spec, "dataset")[0].dataset)
    return fetched(spec, "dataset")


def _need_splits(dataset: DatasetSpec) -> None:
    from oneformer.data.check import used_splits

    if not used_splits(dataset):
        hint = "set dataset.train.annotations, or those of dataset.val or dataset.test"
        raise SpecError("no annotations are named", where="dataset.train.annotations", hint=hint)


def _plan(spec: ExperimentSpec, files: Sequence[str]) -> Plan:
    from oneformer.data.check import used_splits
    from oneformer.data.sources import planned

    spec, fetches = planned(spec, "dataset")
    folder = run_path(spec.results_dir, "dataset")
    reads = {"label map": spec.dataset.label_map or "(the annotation files' own)"}
    for split in used_splits(spec.dataset):
        part = getattr(spec.dataset, split)
        reads |= {f"dataset.{split}.{n}": str(getattr(part, n)) for n in ("images", "annotations", "panoptic")}
    return Plan(reads, [str(folder / name) for name in files], fetches)
