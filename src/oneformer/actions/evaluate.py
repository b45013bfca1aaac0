"""A spec with a weight file and annotated images -> scores of all three tasks, metrics.json and report.html."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.actions.around import action
from oneformer.actions.plan import Plan
from oneformer.errors import SpecError, UserError
from oneformer.runs import RunFolder, StatusLog, run_path
from oneformer.runs.atomic import write_json, write_text
from oneformer.spec.tree import to_dict

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap
    from oneformer.data.record import Record
    from oneformer.engines.base import Engine
    from oneformer.metrics.scores import Scores
    from oneformer.predict.ranks import Rank
    from oneformer.report.curves import Points
    from oneformer.spec import DatasetSpec, ExperimentSpec

log = logging.getLogger(__name__)

METRICS, REPORT = "metrics.json", "report.html"


@dataclass(frozen=True)
class Evaluation:
    """The scores, where they were written, and what they were made from."""

    scores: Scores
    folder: Path
    is_thing: dict[str, bool]
    facts: dict[str, str]
    per_class: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The content of metrics.json, the facts, and the paths of the files."""
        files = {"metrics": str(self.folder / METRICS), "report": str(self.folder / REPORT)}
        return {**self.scores.to_dict(), "facts": self.facts, "files": files}

    def table(self) -> str:
        """Headline numbers, the classes, and where the report is."""
        from oneformer.report import tables

        scores = self.scores.to_dict()
        head = "\n".join(f"{name}: {value}" for name, value in self.facts.items())
        classes = tables.per_class(scores, is_thing=self.is_thing) if self.per_class else ""
        parts = (head, tables.summary(scores), tables.by_dataset(scores), classes, f"report: {self.folder / REPORT}")
        return "\n\n".join(part for part in parts if part)


@dataclass(frozen=True)
class Job:
    """What is scored, by what, on which tasks."""

    engine: Engine
    dataset: DatasetSpec
    records: Sequence[Record]
    split: str
    tasks: tuple[str, ...]


@action("evaluate")
def run(spec: ExperimentSpec, *, dry_run: bool = False) -> Evaluation | Plan | None:
    """Score `evaluate.checkpoint` on the test split, or on the validation split when the spec has no test split.

    With several processes all but the first return None.

    Raises:
        UserError: the request cannot be fulfilled: data or weights are missing or broken, or their classes differ.
    """
    from oneformer.data.sources import fetched, planned
    from oneformer.predict.ranks import group, is_first
    from oneformer.predict.setup import check_request, chosen_tasks, open_engine, same_classes, with_engine

    spec = with_engine(spec, "evaluate")
    checkpoint = check_request(spec.evaluate, key="evaluate")
    planned_spec, fetches = planned(spec, "evaluate")
    split = chosen_split(planned_spec.dataset)
    if dry_run:
        return replace(_plan(planned_spec, split), fetches=fetches)
    folder = RunFolder(spec.results_dir, "evaluate", section_dir=spec.evaluate.results_dir)
    first = is_first(spec, "evaluate")
    with StatusLog(folder.status, "evaluate", enabled=first) as status:
        if first:
            folder.write_experiment(to_dict(spec))
        spec = fetched(spec, "evaluate")
        labels, records = read_data(spec.dataset, split, thorough=first)
        with group(spec, "evaluate", status=status) as rank:
            engine = open_engine(spec.evaluate, device=rank.device)
            same_classes(engine.labels, labels, where=str(checkpoint))
            trained = chosen_tasks(spec.evaluate.task, engine, key="evaluate.task")
            job = Job(
                engine=engine,
                dataset=as_trained(spec.dataset, engine),
                records=records,
                split=split,
                tasks=labelled_tasks(trained, records, split=split),
            )
            scores, seconds = score(spec, job, rank)
        if not first:
            return None
        things = dict(zip(labels.names, labels.is_thing, strict=True))
        facts = _facts(spec, job, devices=rank.world_size, seconds=seconds)
        done = Evaluation(scores, folder.path, things, facts, spec.evaluate.iou_per_class)
        page = _page(spec, done, job, experiment=(folder / "experiment.yaml").read_text(encoding="utf-8"))
        write_json(folder / METRICS, scores.to_dict())
        write_text(folder / REPORT, page)
        status.running(f"Evaluated {len(records)} images of dataset.{split}.", kpi=_kpi(done))
    return done


def chosen_split(dataset: DatasetSpec) -> str:
    """`test`, or `val` where no test annotations are named. Raises SpecError when there are neither."""
    for split in ("test", "val"):
        if getattr(dataset, split).annotations:
            return split
    raise SpecError(
        "there is nothing to evaluate on",
        where="dataset.test.annotations",
        hint="set dataset.test.images, dataset.test.panoptic and dataset.test.annotations (or those of dataset.val)",
    )


def read_data(dataset: DatasetSpec, split: str, *, thorough: bool) -> tuple[LabelMap, list[Record]]:
    """Classes and records of the split; when `thorough`, a few files are opened as a check. Raises UserErrors."""
    from oneformer.data.check import read_checked
    from oneformer.data.files import raise_all

    errors: list[UserError] = []
    labels, records = read_checked(dataset, (split,), thorough=thorough, errors=errors)
    raise_all(errors)
    assert labels is not None
    return labels, records[split]


def labelled_tasks(tasks: tuple[str, ...], records: Sequence[Record], *, split: str) -> tuple[str, ...]:
    """Those of the tasks that the labels are enough for; says which are not. Raises SpecError when none is left."""
    from oneformer.data.record import tasks_of

    found = tasks_of(records)
    kept = tuple(task for task in tasks if task in found)
    named = " and ".join(found)
    if not kept:
        what = f"the data has labels for the {named} task only, so {' and '.join(tasks)} cannot be scored"
        raise SpecError(what, where=f"dataset.{split}", hint="evaluate.task=all scores what can be scored")
    if kept != tasks:
        left_out = " and ".join(task for task in tasks if task not in kept)
        log.warning("dataset.%s has labels for the %s task only: %s is not scored", split, named, left_out)
    return kept


def as_trained(dataset: DatasetSpec, engine: Engine) -> DatasetSpec:
    """The data set with the weights' own normalisation, no other gives their scores; says so when the spec differs."""
    mean, std = list(engine.info.pixel_mean), list(engine.info.pixel_std)
    if (list(dataset.pixel_mean), list(dataset.pixel_std)) != (mean, std):
        log.warning("images are normalised as in training (mean %s, deviation %s), not as the spec says", mean, std)
    sizes, fixed = dataset.augmentation, engine.info.input_size
    if fixed:
        log.warning("the graph's size is fixed: images are fitted into %d x %d pixels (width x height)", *fixed[::-1])
    elif (sizes.test_min_size, sizes.test_max_size) != (engine.info.test_min_size, engine.info.test_max_size):
        log.warning(
            "images are scaled to %d-%d pixels as the spec says; the checkpoint's own sizes are %d-%d",
            sizes.test_min_size, sizes.test_max_size, engine.info.test_min_size, engine.info.test_max_size,
        )  # fmt: skip
    return replace(dataset, pixel_mean=mean, pixel_std=std)


def score(spec: ExperimentSpec, job: Job, rank: Rank) -> tuple[Scores, float]:
    """All images through the network, features once per image, each task with its own token -> scores and seconds.

    Each process takes its share of the images; the scores are those of all of them, on the first process.
    """
    from oneformer.data.loader import eval_loader, share
    from oneformer.metrics.apart import ApartEvaluator
    from oneformer.predict.progress import Progress

    engine, tasks = job.engine, job.tasks
    part = getattr(job.dataset, job.split)
    if spec.evaluate.batch_size > 0:
        part = replace(part, batch_size=spec.evaluate.batch_size)
    loader = eval_loader(
        replace(job.dataset, **{job.split: part}),
        job.records,
        split=job.split,
        model=engine.info.model,
        fit=engine.info.input_size,
        ranks=(rank.number, rank.world_size),
    )
    sets = [record.source.name for record in job.records]
    evaluator = ApartEvaluator(engine.labels, tasks=tasks, test=spec.model.test, sets=sets)
    evaluator.start(rank.number, rank.world_size, batch_size=part.batch_size)
    mine = share(job.records, batch_size=part.batch_size, rank=rank.number, world_size=rank.world_size)
    with Progress("evaluate", len(mine), quiet=not rank.first) as progress:
        for batch in loader:
            outputs = engine.outputs(batch.images, tasks)
            for task in tasks:
                evaluator.update(task, outputs[task], batch)
            progress.add(len(batch))
        states = rank.gather(evaluator.state())
        if rank.first:
            evaluator.merge(states)
        return evaluator.compute(), progress.seconds


def _kpi(done: Evaluation) -> dict[str, float]:
    kpi = done.scores.kpi("test_")
    return kpi if done.per_class else {k: v for k, v in kpi.items() if not k.startswith("test_IoU_")}


def _facts(spec: ExperimentSpec, job: Job, *, devices: int, seconds: float) -> dict[str, str]:
    names = getattr(spec.dataset, job.split).names
    named = names if isinstance(names, str) else ", ".join(names)
    engine, info, images = job.engine, job.engine.info, len(job.records)
    times = f"{devices} x " if devices > 1 else ""
    return {
        "checkpoint": Path(spec.evaluate.checkpoint).name,
        "trained": f"epoch {info.epoch}, step {info.step}",
        "data": f"dataset.{job.split}{f' ({named})' if named else ''}: {images} images",
        "classes": f"{len(engine.labels.thing_ids)} thing, {len(engine.labels.stuff_ids)} stuff",
        "tasks": ", ".join(job.tasks),
        "device": f"{times}{engine.device}, {engine.precision}",
        "time": f"{seconds:.1f} s, {images / max(seconds, 1e-9):.2f} images/s",
    }


def _page(spec: ExperimentSpec, done: Evaluation, job: Job, *, experiment: str) -> str:
    from oneformer.data.sizes import Sizes
    from oneformer.predict.examples import RANKED_BY, best_and_worst, cases, ranking_task
    from oneformer.predict.predictor import Predictor
    from oneformer.report.html import Page, render
    from oneformer.runs.folder import versions
    from oneformer.segments import Rules

    task = ranking_task(done.scores)
    best, worst = best_and_worst(done.scores, spec.evaluate.report_images)
    labels, augmentation, max_mpx = job.engine.labels, job.dataset.augmentation, job.dataset.max_image_mpx
    sizes = Sizes(augmentation.test_min_size, augmentation.test_max_size)
    predictor = Predictor(job.engine, rules=Rules.from_spec(spec.model.test, labels.is_thing), sizes=sizes)
    page = Page(
        title=f"{done.facts['checkpoint']} on {done.facts['data'].partition(':')[0]}",
        facts=list(done.facts.items()),
        scores=done.scores.to_dict(),
        classes={n: (t, c) for n, t, c in zip(labels.names, labels.is_thing, labels.colors, strict=True)},
        series=training_curves(Path(spec.evaluate.checkpoint)),
        best=cases(predictor, job.records, best, task=task, max_mpx=max_mpx),
        worst=cases(predictor, job.records, worst, task=task, max_mpx=max_mpx),
        score_name=RANKED_BY.get(task, ""),
        spec=experiment,
        versions=versions(),
    )
    return render(page)


def training_curves(checkpoint: Path) -> dict[str, Points]:
    """The curves of the training that wrote the checkpoint, when its metrics.csv lies beside it."""
    from oneformer.report.curves import read_series

    for folder in (checkpoint.parent, checkpoint.resolve().parent):
        path = folder / "metrics.csv"
        if path.is_file():
            try:
                return read_series(path)
            except (OSError, ValueError) as error:
                log.warning("%s cannot be read, the report has no curves: %s", path, error)
    return {}


def _plan(spec: ExperimentSpec, split: str) -> Plan:
    part = getattr(spec.dataset, split)
    folder = run_path(spec.results_dir, "evaluate", section_dir=spec.evaluate.results_dir)
    reads = {
        "checkpoint": spec.evaluate.checkpoint,
        "label map": spec.dataset.label_map or "(the annotation files' own)",
    }
    reads |= {f"dataset.{split}.{name}": str(getattr(part, name)) for name in ("images", "panoptic", "annotations")}
    return Plan(reads, [str(folder / name) for name in ("experiment.yaml", "status.json", METRICS, REPORT)])


if __name__ == "__main__":
    from oneformer.actions.plan import run_as_rank

    run_as_rank(run)
