"""Network, criterion, records and settings -> a fitted network in checkpoint files, and what was reached."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from oneformer import __version__
from oneformer.data.labels import LabelMap
from oneformer.data.record import Record, tasks_of
from oneformer.data.task import TASKS, allowed_tasks
from oneformer.errors import no_memory
from oneformer.spec.tree import to_dict
from oneformer.train.batchnorm import share_statistics
from oneformer.train.best import Best, resolve_metric
from oneformer.train.checkpoint import BEST, find_checkpoints
from oneformer.train.datamodule import DataModule
from oneformer.train.devices import Devices, choose_devices, this_rank
from oneformer.train.ema import EmaCallback
from oneformer.train.freeze import freeze
from oneformer.train.memory import ran_out
from oneformer.train.module import Horizon, TrainingModule
from oneformer.train.pace import Clock, Interrupted, Pace, stop_requests
from oneformer.train.precision import BF16, bf16_is_fast, lightning_precision
from oneformer.train.progress import Progress
from oneformer.train.quiet import quiet
from oneformer.train.records import CSV_NAME, MetricsCsv, Sink, TensorBoard, open_wandb
from oneformer.train.resume import Restored, clear_folder, load_training, settings_of, told
from oneformer.train.saver import Card, Saver
from oneformer.train.scoring import Scoring

if TYPE_CHECKING:
    from oneformer.loss.total import Criterion
    from oneformer.metrics.scores import Scores
    from oneformer.model.oneformer import OneFormer
    from oneformer.runs.status import StatusLog
    from oneformer.spec.data import DatasetSpec
    from oneformer.spec.model import ModelSpec
    from oneformer.spec.run import WandbSpec
    from oneformer.spec.train import TrainSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """Everything a fit is told; `folder` takes the checkpoints, the records and nothing else."""

    train: TrainSpec
    dataset: DatasetSpec
    model_spec: ModelSpec
    wandb: WandbSpec
    labels: LabelMap
    train_records: Sequence[Record]
    val_records: Sequence[Record]
    folder: Path
    rehearse: int = 0
    """Batches of a run that keeps nothing; 0 for a real one."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """What validation scores: tasks that are switched on, have a probability, and labels that are enough."""
        allowed = allowed_tasks(self.model_spec.task_toggling)
        labelled = tasks_of(self.val_records)
        return tuple(t for t in TASKS if t in allowed and t in labelled and self.dataset.task_prob_val.get(t, 0.0) > 0)

    @property
    def dry(self) -> bool:
        """Whether nothing is kept."""
        return self.train.is_dry_run or self.rehearse > 0


@dataclass(frozen=True)
class Fitted:
    """What a fit has reached."""

    checkpoint: Path | None
    """The best checkpoint, else the last; None after a dry run."""
    metric: str
    best: float | None
    values: dict[str, float]
    """Numbers of the last epoch by kpi name."""
    scores: Scores | None
    """The last validation in full."""
    epochs: int
    steps: int
    seconds: float
    stopped_by: str
    """Why it ended before the last epoch: "time", "steps", "stop_at_epoch", or nothing."""


@dataclass
class _Parts:
    """The pieces of one fit, put together by `fit`."""

    devices: Devices
    data: DataModule
    horizon: Horizon
    clock: Clock
    best: Best
    card: Card
    batches: int


def fit(
    job: Job,
    model: OneFormer,
    criterion: Criterion,
    *,
    status: StatusLog,
    resume: Path | None = None,
    meet: Callable[[], None] = lambda: None,
) -> Fitted:
    """Train `model` in place; `meet` is called when this rank is about to join the others.

    Raises:
        UserError: devices, precision, frozen parts, metric or checkpoint do not go together with the spec.
        WorkError: a loss is no number, or the disk is full; the last finished step is saved.
        OutOfMemory: a step or a validation needs more memory than there is.
        KeyboardInterrupt: the user asked to stop; the last finished step is saved.
    """
    parts = _plan(job, model)
    state = load_training(resume, card=parts.card.model, training=parts.card.training) if resume else None
    if state is not None and resume is not None:
        log.info("%s", told(state, resume))
        if _finished(state, parts.horizon, job.train.stop_at_epoch or job.train.num_epochs):
            log.info("this training has already reached its end; train.num_epochs sets how long it is")
            return _as_saved(job, state)
    elif not job.dry and _first():
        clear_folder(job.folder)
    scoring = _scoring(job)
    module = TrainingModule(model, criterion, job.train, horizon=parts.horizon, clock=parts.clock, scoring=scoring)
    _describe(job, parts, model)
    module.with_texts = _texts_matter(job, criterion, parts.devices.world_size)
    with stop_requests() as request, _arithmetic(job.train), quiet():
        ends = {"last_step": parts.horizon.total_steps, "last_epoch": job.train.stop_at_epoch}
        pace = Pace(parts.clock, request, data=parts.data, seed=job.train.seed, **ends)
        callbacks = _callbacks(job, parts, status, pace=pace, state=state)
        trainer = _trainer(job, parts, callbacks, plugins=[Restored(state)], unused=not module.with_texts)
        del state  # as large as the network and its optimiser together
        meet()
        try:
            trainer.fit(module, datamodule=parts.data, ckpt_path=str(resume) if resume else None)
        except (Interrupted, SIGTERMException):  # the latter is Lightning's, when a signal comes before `Pace` listens
            raise KeyboardInterrupt(
                f"stopped after step {trainer.global_step}; train.resume_training_checkpoint_path=auto goes on"
            ) from None
        except (RuntimeError, MemoryError) as error:
            if no_memory(error):
                raise ran_out(error, trainer, module) from None
            raise
        except SystemExit as end:  # Lightning's answer to a second Ctrl-C
            if isinstance(end.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt("stopped at once; the step under way is lost") from None
            raise
    return _reached(job, parts, trainer, module, pace=pace)


def _first() -> bool:
    return this_rank() == 0


def _plan(job: Job, model: OneFormer) -> _Parts:
    devices = choose_devices(job.train)
    if freeze(model, job.train.freeze):
        log.info("frozen: %s", ", ".join(job.train.freeze))
    if devices.world_size > 1:
        share_statistics(model, gpu=devices.accelerator == "gpu")
    model.set_activation_checkpointing(job.train.activation_checkpointing)
    data = DataModule(
        job.dataset,
        job.labels,
        train=job.train_records,
        val=job.val_records,
        model=job.model_spec,
        seed=job.train.seed,
    )
    batches = data.batches_per_epoch(devices.world_size)
    if job.train.iters_per_epoch:
        batches = min(batches, job.train.iters_per_epoch)
    epochs = job.train.num_epochs
    if job.dry:
        batches = min(batches, max(1, job.rehearse))
        epochs = -(-max(1, job.rehearse) // batches)
    per_epoch = -(-batches // job.train.accumulate_grad_batches)
    total = min(epochs * per_epoch, job.train.optim.max_iter or epochs * per_epoch)
    return _Parts(
        devices=devices,
        data=data,
        horizon=Horizon(total, per_epoch),
        clock=Clock(job.train.max_minutes),
        best=Best(resolve_metric(job.train.best_metric, job.tasks)),
        card=_card(job, devices.world_size),
        batches=batches,
    )


def _describe(job: Job, parts: _Parts, model: OneFormer) -> None:
    count = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    log.info(
        "%.1f M parameters (%.1f M trained), %d training, %d validation images, %d steps an epoch, %d in all, %d x %s",
        count / 1e6, trained / 1e6, len(job.train_records), len(job.val_records), parts.horizon.steps_per_epoch,
        parts.horizon.total_steps, parts.devices.world_size, parts.devices.accelerator,
    )  # fmt: skip
    device = parts.devices.device
    if lightning_precision(job.train.precision, device) == BF16 and not bf16_is_fast(device):
        log.warning("this device has no fast bf16 arithmetic: bf16 may be many times slower here than fp32")


def _card(job: Job, world_size: int) -> Card:
    augmentation = job.dataset.augmentation
    model = {
        "format": 1,
        "version": __version__,
        "labels": job.labels.to_dict(),
        "model": to_dict(job.model_spec),
        "dataset": {
            "pixel_mean": list(job.dataset.pixel_mean),
            "pixel_std": list(job.dataset.pixel_std),
            "test_min_size": augmentation.test_min_size,
            "test_max_size": augmentation.test_max_size,
            "task_seq_len": job.dataset.task_seq_len,
        },
    }
    batching = {
        "dataset.train images": len(job.train_records),
        "dataset.train.batch_size": job.dataset.train.batch_size,
        "train.accumulate_grad_batches": job.train.accumulate_grad_batches,
        "train.num_gpus x num_nodes": world_size,
    }
    return Card(model, {"seed": job.train.seed, "settings": settings_of(job.train, job.dataset), "batching": batching})


def _scoring(job: Job) -> Scoring | None:
    if not job.tasks:
        return None
    sets = [record.source.name for record in job.val_records]
    spec = job.model_spec
    return Scoring(
        job.labels,
        tasks=job.tasks,
        test=spec.test,
        text=spec.text_encoder,
        sets=sets,
        batch_size=job.dataset.val.batch_size,
    )


def _texts_matter(job: Job, criterion: Criterion, world_size: int) -> bool:
    """Whether the contrastive loss can be anything but 0; if not, the texts need not be encoded."""
    images = job.dataset.train.batch_size * world_size
    matter = criterion.contrastive_active(images)
    if not matter and criterion.contrastive_weight > 0:
        log.warning(
            "one image per step has no other image to be told apart from: the contrastive loss is exactly 0 and the "
            "text branch does not learn (dataset.train.batch_size=2 or more changes that)"
        )
    return matter


def _callbacks(
    job: Job, parts: _Parts, status: StatusLog, *, pace: Pace, state: dict[str, Any] | None
) -> list[pl.Callback]:
    """In this order: the average is put back before anything is saved; Pace may raise, after all have seen a step."""
    train = job.train
    ema = EmaCallback(train.ema.decay) if train.ema.enabled else None
    saver = Saver(job.folder, train, card=parts.card, clock=parts.clock, best=parts.best)
    saver.ema = ema
    after = state["oneformer"]["step"] if state else None
    sinks = _sinks(job, after_step=after)
    progress = Progress(
        sinks, status, interval=train.log_interval, total_steps=parts.horizon.total_steps, clock=parts.clock
    )
    if state is not None:
        _restore(parts, ema, progress, state)
    keeping = [] if job.dry else [saver]
    return [*([ema] if ema else []), progress, *keeping, pace]


def _sinks(job: Job, *, after_step: int | None) -> list[Sink]:
    if job.dry or not _first():
        return []
    sinks: list[Sink] = [
        MetricsCsv(job.folder / CSV_NAME, after_step=after_step),
        TensorBoard(job.folder, after_step=after_step),
    ]
    tracker = open_wandb(job.wandb, job.folder)
    return [*sinks, tracker] if tracker else sinks


def _restore(parts: _Parts, ema: EmaCallback | None, progress: Progress, state: dict[str, Any]) -> None:
    """Everything but weights, optimiser, schedule and loops, which Lightning restores."""
    training = state["oneformer"]["training"]
    parts.clock.before_s = training["elapsed_s"]
    if training["best"]["metric"] == parts.best.metric:
        parts.best.value, parts.best.step = training["best"]["value"], training["best"]["step"]
    else:
        log.warning("the best checkpoint is now chosen by %s, anew from here", parts.best.metric)
    place = training["place"]
    if place["batches"]:
        progress.resumed_losses = training["epoch_losses"]
        batching = parts.card.training["batching"]
        images = batching["dataset.train.batch_size"] * batching["train.num_gpus x num_nodes"]
        parts.data.resume_at = {"epoch": place["epoch"], "done": place["batches"] * images}
    if ema is not None:
        if "ema_state_dict" not in state:
            log.warning("the checkpoint has no average of the weights; it starts from the weights as they are")
        ema.restore(state)


@contextmanager
def _arithmetic(train: TrainSpec) -> Iterator[None]:
    """Threads and GPU kernels as the spec asks, and as before afterwards."""
    threads = torch.get_num_threads()
    if train.num_threads:
        torch.set_num_threads(train.num_threads)
    flags = {"benchmark": train.cudnn.benchmark, "deterministic": train.cudnn.deterministic}
    try:
        with torch.backends.cudnn.flags(enabled=True, **flags):
            yield
    finally:
        torch.set_num_threads(threads)


def _trainer(job: Job, parts: _Parts, callbacks: list[pl.Callback], *, plugins: list[Any], unused: bool) -> pl.Trainer:
    train = job.train
    within = train.val_check_interval < 1.0
    dry = job.dry
    return pl.Trainer(
        **parts.devices.trainer_arguments(train.distributed_strategy, unused=unused),
        precision=lightning_precision(train.precision, parts.devices.device),  # type: ignore[arg-type]
        max_epochs=-(-max(1, job.rehearse) // parts.batches) if dry else train.num_epochs,
        limit_train_batches=parts.batches,
        limit_val_batches=(1 if dry else 1.0) if job.tasks else 0,
        check_val_every_n_epoch=1 if within or dry else train.validation_interval,
        val_check_interval=train.val_check_interval if within and not dry else 1.0,
        accumulate_grad_batches=train.accumulate_grad_batches,
        callbacks=callbacks,
        plugins=plugins,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=job.folder,
    )


def _finished(state: dict[str, Any], horizon: Horizon, epochs: int) -> bool:
    place = state["oneformer"]["training"]["place"]
    return place["step"] >= horizon.total_steps or (not place["batches"] and place["epoch"] + 1 >= epochs)


def _as_saved(job: Job, state: dict[str, Any]) -> Fitted:
    saved = state["oneformer"]
    best = saved["training"]["best"]
    return Fitted(
        checkpoint=_best_file(job),
        metric=best["metric"],
        best=best["value"],
        values=saved["metrics"],
        scores=None,
        epochs=saved["epoch"] + 1,
        steps=saved["step"],
        seconds=saved["training"]["elapsed_s"],
        stopped_by="",
    )


def _reached(job: Job, parts: _Parts, trainer: pl.Trainer, module: TrainingModule, *, pace: Pace) -> Fitted:
    kept = [*find_checkpoints(job.folder)[-1:], *([job.folder / BEST] if (job.folder / BEST).is_file() else [])]
    return Fitted(
        checkpoint=kept[-1] if kept and not job.dry else None,
        metric=parts.best.metric,
        best=parts.best.value,
        values=dict(module.values),
        scores=module.scoring.scores if module.scoring else None,
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        seconds=parts.clock.elapsed_s,
        stopped_by="" if pace.stopped_by == "steps" and not job.train.optim.max_iter else pace.stopped_by,
    )


def _best_file(job: Job) -> Path | None:
    path = job.folder / BEST
    return path if path.is_file() else None
