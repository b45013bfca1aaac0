"""A spec with annotated images -> a trained model: checkpoints, metrics.csv, TensorBoard events and the best score."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.actions.around import action
from oneformer.actions.plan import Plan
from oneformer.errors import OutOfMemory, UserError, UserErrors, WorkError, no_memory
from oneformer.runs import RunFolder, StatusLog, run_path
from oneformer.spec.tree import to_dict

if TYPE_CHECKING:
    from oneformer.actions.train_cluster import OnCluster
    from oneformer.data.labels import LabelMap
    from oneformer.data.record import Record
    from oneformer.spec import ExperimentSpec, TrainSpec
    from oneformer.train.fit import Fitted

log = logging.getLogger(__name__)

FILES = (
    "experiment.yaml",
    "status.json",
    "model_epoch_EEE_step_SSSSS.pth",
    "oneformer_model_latest.pth",
    "oneformer_model_best.pth",
    "metrics.csv",
    "events.out.tfevents.*",
)


@dataclass(frozen=True)
class Trained:
    """What a training reached and where it lies."""

    fitted: Fitted
    folder: Path
    is_thing: dict[str, bool]

    def to_dict(self) -> dict[str, Any]:
        """Best score, checkpoint, metrics of the last validation, length."""
        fitted = self.fitted
        return {
            "checkpoint": str(fitted.checkpoint) if fitted.checkpoint else None,
            "best": {"metric": fitted.metric, "value": fitted.best},
            "metrics": fitted.values,
            "epochs": fitted.epochs,
            "steps": fitted.steps,
            "seconds": round(fitted.seconds, 1),
            "stopped_by": fitted.stopped_by,
            "folder": str(self.folder),
        }

    def table(self) -> str:
        """The best score and its file, then the scores of the last validation."""
        from oneformer.report import tables

        fitted = self.fitted
        ended = f" (ended by {fitted.stopped_by})" if fitted.stopped_by else ""
        took = timedelta(seconds=round(fitted.seconds))
        best = "-" if fitted.best is None else f"{fitted.best:.4g}"
        lines = [
            f"trained: {fitted.epochs} epochs, {fitted.steps} steps, {took}{ended}",
            f"best {fitted.metric}: {best}",
            f"checkpoint: {fitted.checkpoint or 'none, as asked for (train.is_dry_run)'}",
        ]
        scores = fitted.scores.to_dict() if fitted.scores else {}
        parts = ["\n".join(lines)]
        if scores:
            parts += [tables.summary(scores), tables.by_dataset(scores)]
            parts.append(tables.per_class(scores, is_thing=self.is_thing))
        return "\n\n".join(part for part in parts if part)


@dataclass(frozen=True)
class _Data:
    spec: ExperimentSpec
    """With every path on this machine."""
    labels: LabelMap
    train: list[Record]
    val: list[Record]


@dataclass(frozen=True)
class _Start:
    """What a fit goes on from, and what it calls before it joins the other processes."""

    resume: Path | None
    meet: Callable[[], None]


def run(
    spec: ExperimentSpec, *, dry_run: bool = False, advise: bool = True, cluster: str = ""
) -> Trained | OnCluster | Plan:
    """Train on `dataset.train`, score on `dataset.val`.

    Args:
        spec: what is asked for.
        dry_run: tell the files and stop.
        advise: where memory runs out, try what fits.
        cluster: Ray cluster that trains: `auto` or an address; see `actions/train_cluster.py`.

    Raises:
        UserError: the request cannot be fulfilled; everything that can be seen before computing is told at once.
        WorkError: training failed; a checkpoint of the last finished step is kept.
        OutOfMemory: with `advise` it tells which batch or crop fits, which takes up to `train_memory.LIMIT_S`.
        KeyboardInterrupt: the user stopped it; a checkpoint of the last finished step is kept.
    """
    if cluster and not dry_run:
        from oneformer.actions.train_cluster import train_on

        return train_on(cluster, spec)
    return _run(spec, dry_run=dry_run, advise=advise)


@action("train")
def _run(spec: ExperimentSpec, *, dry_run: bool, advise: bool) -> Trained | Plan:
    """Train with the processes of this machine, or as one of a launcher's."""
    path = run_path(spec.results_dir, "train", section_dir=spec.train.results_dir)
    if dry_run:
        return _plan(spec, path)
    from oneformer.train.resume import AUTO, claim_folder

    first = _is_first(spec.train)
    given = spec.train.resume_training_checkpoint_path
    # The others take what rank 0 has chosen; those of a launcher find the same file where they share the folder.
    resume = claim_folder(path, spec.train) if first or given == AUTO else Path(given) if given else None
    folder = RunFolder(spec.results_dir, "train", section_dir=spec.train.results_dir)
    with StatusLog(folder.status, "train", enabled=first) as status:
        data = _checked(spec, thorough=first, fresh=resume is None)
        if first:
            folder.write_experiment(to_dict(spec), seed=spec.train.seed)
        fault = None
        try:
            with _other_ranks(data.spec, resume, status) as meet:
                fitted = _fit(data.spec, data, folder.path, start=_Start(resume, meet), status=status)
        except (RuntimeError, MemoryError, WorkError) as error:
            if not no_memory(error):
                raise
            # Not the error itself: its traceback holds the network and all that a step has allocated.
            fault = OutOfMemory(getattr(error, "what", str(error)), where=getattr(error, "where", ""))
        if fault:
            from oneformer.actions.train_memory import advised

            raise advised(fault, data.spec) if first and advise else fault
    things = dict(zip(data.labels.names, data.labels.is_thing, strict=True))
    return Trained(fitted, folder.path, things)


def rehearse(spec: ExperimentSpec, batches: int) -> None:
    """Train on a few batches, score one where `dataset.val` names images, and keep nothing. Raises what `run` does."""
    import tempfile

    data = _checked(spec, thorough=False, fresh=False)
    with tempfile.TemporaryDirectory() as name:
        status = StatusLog(Path(name) / "status.json", "train", enabled=False)
        start = _Start(None, lambda: None)
        _fit(data.spec, data, Path(name), start=start, status=status, rehearse=batches)


def _checked(spec: ExperimentSpec, *, thorough: bool, fresh: bool) -> _Data:
    """Classes and records; every fault of data, devices and weights that shows before computing is raised at once."""
    from oneformer.data.check import read_checked
    from oneformer.data.files import raise_all
    from oneformer.data.labels import check_num_classes
    from oneformer.data.sources import fetched, planned
    from oneformer.model.weights.backbone import locate
    from oneformer.model.weights.pretrained import check_whole
    from oneformer.train.devices import choose_devices
    from oneformer.train.precision import lightning_precision

    errors: list[UserError] = []
    devices = _tried(errors, lambda: choose_devices(spec.train))
    if devices:
        _tried(errors, lambda: lightning_precision(spec.train.precision, devices.device))
    if fresh and spec.train.pretrained_model:
        _tried(errors, partial(check_whole, Path(spec.train.pretrained_model)))
    if fresh and spec.train.pretrained_backbone:
        _tried(errors, partial(locate, spec.train.pretrained_backbone))
    if errors and planned(spec, "train")[1]:  # nothing is fetched for a request that is wrong anyway
        raise_all(errors)
    here = _tried(errors, partial(fetched, spec, "train"))
    if here is None:  # there is no data to check
        raise_all(errors)
    spec = here
    splits = [s for s in ("train", "val") if s == "train" or getattr(spec.dataset, s).annotations]
    labels, records = read_checked(spec.dataset, splits, thorough=thorough, errors=errors)
    if labels:
        head = spec.model.sem_seg_head
        head.num_classes = head.num_classes or labels.num_classes
        _tried(errors, lambda: check_num_classes(labels, head.num_classes))
        _tried(errors, lambda: _keep_to_labels(spec, records["train"]))
    raise_all(errors)
    assert labels is not None
    val = records.get("val", [])
    if not val:
        log.warning("dataset.val names no annotations: nothing is scored while training")
    return _Data(spec, labels, records["train"], val)


def _keep_to_labels(spec: ExperimentSpec, records: list[Record]) -> None:
    """Switch the tasks off that no training image has labels for: the checkpoint tells what the model can do."""
    from oneformer.data.record import tasks_of
    from oneformer.data.task import TASKS, allowed_tasks, probabilities_by_labels

    if not records:
        return
    toggling, labelled = spec.model.task_toggling, tasks_of(records)
    kinds = dict.fromkeys(record.source.tasks for record in records)
    probabilities_by_labels(spec.dataset.task_prob_train, allowed_tasks(toggling), kinds)
    without = [task for task in TASKS if task not in labelled and getattr(toggling, f"{task}_on")]
    for task in without:
        setattr(toggling, f"{task}_on", False)
    if without:
        names = " and ".join(without)
        which = f"{names} task: it is" if len(without) == 1 else f"{names} tasks: they are"
        log.warning("dataset.train has no labels for the %s switched off (model.task_toggling)", which)


def _tried(errors: list[UserError], work: Callable[[], Any]) -> Any:
    """The result of `work`, or None with its faults added to `errors`."""
    try:
        return work()
    except UserErrors as several:
        errors.extend(several.errors)
    except UserError as error:
        errors.append(error)
    return None


def _fit(
    spec: ExperimentSpec, data: _Data, folder: Path, *, start: _Start, status: StatusLog, rehearse: int = 0
) -> Fitted:
    from oneformer.loss.total import Criterion
    from oneformer.model.oneformer import build_model
    from oneformer.runs.seed import seed_everything
    from oneformer.train.fit import Job, fit

    seed_everything(spec.train.seed)
    model = build_model(spec.model)
    criterion = Criterion(spec.model)
    if start.resume is None:
        _load_pretrained(spec, model, data.labels)
    job = Job(
        train=spec.train,
        dataset=spec.dataset,
        model_spec=spec.model,
        wandb=spec.wandb,
        labels=data.labels,
        train_records=data.train,
        val_records=data.val,
        folder=folder,
        rehearse=rehearse,
    )
    return fit(job, model, criterion, status=status, resume=start.resume, meet=start.meet)


def _load_pretrained(spec: ExperimentSpec, model: Any, labels: LabelMap) -> None:
    """Weights to start from, and a report of what fitted."""
    from oneformer.model.weights.backbone import load_backbone
    from oneformer.model.weights.pixels import chosen
    from oneformer.model.weights.pretrained import load_pretrained

    if path := spec.train.pretrained_model:
        log.info("train.pretrained_model=%s: %s", path, load_pretrained(model, Path(path), labels).table())
    if path := spec.train.pretrained_backbone:
        pixels = chosen(spec.dataset.pixel_mean, spec.dataset.pixel_std)
        log.info("train.pretrained_backbone=%s: %s", path, load_backbone(model, path, pixels=pixels).table())


def _is_first(train: TrainSpec) -> bool:
    """Whether this process is the one that writes and tells; what is wrong with the devices is told with the rest."""
    from oneformer.train.devices import choose_devices

    try:
        return choose_devices(train).world.first
    except UserError:
        return True


def _other_ranks(
    spec: ExperimentSpec, resume: Path | None, status: StatusLog
) -> AbstractContextManager[Callable[[], None]]:
    """The other processes of this machine, each running this file with the same spec."""
    from oneformer.train.devices import choose_devices
    from oneformer.train.launch import ranks

    told = to_dict(spec)
    told["train"]["resume_training_checkpoint_path"] = str(resume.resolve()) if resume else ""
    command = [sys.executable, "-m", "oneformer.actions.train"]
    return ranks(command, choose_devices(spec.train).world, message=json.dumps(told), status=status)


def _plan(spec: ExperimentSpec, folder: Path) -> Plan:
    from oneformer.data.sources import planned

    spec, fetches = planned(spec, "train")
    reads = {"label map": spec.dataset.label_map or "(the annotation files' own)"}
    for split in ("train", "val"):
        part = getattr(spec.dataset, split)
        reads |= {f"dataset.{split}.{n}": str(getattr(part, n)) for n in ("images", "panoptic", "annotations")}
    for key in ("resume_training_checkpoint_path", "pretrained_model", "pretrained_backbone"):
        if getattr(spec.train, key):
            reads[f"train.{key}"] = getattr(spec.train, key)
    return Plan(reads, [str(folder / name) for name in FILES], fetches)


if __name__ == "__main__":
    from oneformer.actions.plan import run_as_rank

    run_as_rank(run)
