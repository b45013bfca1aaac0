"""The state of a fit -> checkpoint files by epoch or step, the best one, and the last one when the fit breaks off."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from typing_extensions import override

from oneformer.errors import WorkError
from oneformer.train.best import Best
from oneformer.train.checkpoint import BEST, LATEST, checkpoint_name, prune, publish, write_checkpoint
from oneformer.train.ema import EmaCallback
from oneformer.train.pace import Clock, Interrupted
from oneformer.train.sharded import is_split
from oneformer.train.shares import whole

if TYPE_CHECKING:
    from oneformer.spec.train import TrainSpec

log = logging.getLogger(__name__)


@dataclass
class Place:
    """Where the training stands after an optimiser step."""

    epoch: int
    """Index of the epoch, from 0."""
    batches: int
    """Batches of that epoch that are done; 0 in a finished epoch's successor."""
    step: int
    """Optimiser steps of the whole training."""


@dataclass(frozen=True)
class Card:
    """What every checkpoint of a run says about itself, in plain types and without paths."""

    model: dict[str, Any]
    """What a reader needs: format, version, labels, model spec, normalisation and sizes."""
    training: dict[str, Any]
    """What a resume needs beside weights and optimiser: seed, settings, batch size, processes, images."""


class Saver(pl.Callback):
    """Writes checkpoints.

    What is written always belongs to the end of an optimiser step: that is the only moment that a run can go on from
    exactly. A snapshot of the loops is taken there, because Lightning's own counters are between two states elsewhere
    (in validation, in an exception).
    """

    def __init__(self, folder: Path, train: TrainSpec, *, card: Card, clock: Clock, best: Best) -> None:
        self.folder = folder
        self.train = train
        self.card = card
        self.clock = clock
        self.best = best
        self.ema: EmaCallback | None = None
        self.place: Place | None = None
        self._loops: dict[str, Any] = {}
        self._saved_step = -1
        self._step = 0
        self._improved = False
        self._refused = False

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Nothing is new until the first step."""
        self._step = self._saved_step = trainer.global_step

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the state after each optimiser step; save when a step checkpoint is due within the epoch."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self.place = Place(trainer.current_epoch, batch_idx + 1, self._step)
        self._loops = trainer.fit_loop.state_dict()
        if self._step_due() and not trainer.is_last_batch:
            self._save(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Is this the best so far? Within an epoch it is saved at once; at its end together with the rest."""
        self._improved |= self.best.improved_by(pl_module.values, trainer.global_step)
        if self._improved and not trainer.is_last_batch and not trainer.should_stop:
            self._save_best(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save when an epoch checkpoint is due, when this was the last epoch, and when the model is the best so far."""
        if self.place is None:
            return
        complete = trainer.is_last_batch
        if complete:
            self._loops = trainer.fit_loop.state_dict()
            self.place = Place(self.place.epoch, 0, self.place.step)
            if self.best.metric == "train_loss":
                self._improved |= self.best.improved_by(pl_module.values, self.place.step)
        by_epoch = self.train.checkpoint_interval_unit == "epoch"
        due = (
            by_epoch and complete and (self.place.epoch + 1) % self.train.checkpoint_interval == 0
        ) or self._step_due()
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if due or last:
            self._save(trainer, pl_module)
        if self._improved:
            self._save_best(trainer, pl_module)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Keep the last finished step, unless it is kept already, a step may be torn, or the disk has just refused."""
        done = self.place is None or self.place.step == self._saved_step
        if done or self._refused or isinstance(exception, KeyboardInterrupt):
            return
        if is_split(pl_module.model) and not isinstance(exception, Interrupted):
            log.warning(
                "the steps since the last checkpoint are lost: with fsdp no process alone has the whole network"
            )
            return
        try:
            self._save(trainer, pl_module)
        except WorkError as error:
            log.warning("%s", error)

    def _step_due(self) -> bool:
        by_step = self.train.checkpoint_interval_unit == "step"
        return by_step and self._step % self.train.checkpoint_interval == 0

    def _save(self, trainer: pl.Trainer, pl_module: Any) -> None:
        assert self.place is not None
        path = self.folder / checkpoint_name(self.place.epoch, self.place.step)
        if self.place.step != self._saved_step:
            self._write(trainer, pl_module, path)
            if trainer.is_global_zero:
                publish(path, LATEST, as_link=True)
                prune(path, self.train.keep_checkpoints)
        self._saved_step = self.place.step

    def _save_best(self, trainer: pl.Trainer, pl_module: Any) -> None:
        assert self.place is not None
        self._improved = False
        numbered = self.folder / checkpoint_name(self.place.epoch, self.place.step)
        kept = self._saved_step == self.place.step and (is_split(pl_module.model) or numbered.is_file())
        if not kept:
            self._write(trainer, pl_module, self.folder / BEST)
        elif trainer.is_global_zero:
            publish(numbered, BEST, as_link=False)

    def _write(self, trainer: pl.Trainer, pl_module: Any, path: Path) -> None:
        """Written by the first process; where the network is split over several, all of them have to be here."""
        first, parts = trainer.is_global_zero, is_split(pl_module.model)
        if not (first or parts):
            return
        content = self._content(trainer, pl_module)
        if parts:
            content = whole(content, keep=first)
        if first:
            self._refused = True
            write_checkpoint(content, path)
            self._refused = False

    def _content(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        """The checkpoint: Lightning's keys, ours under `oneformer`, the averaged weights under `ema_state_dict`."""
        assert self.place is not None
        values = {name: float(value) for name, value in pl_module.values.items()}
        training = {
            **self.card.training,
            "place": asdict(self.place),
            "elapsed_s": self.clock.elapsed_s,
            "best": {"metric": self.best.metric, "value": self.best.value, "step": self.best.step},
            "epoch_losses": pl_module.epoch_losses(),
        }
        content: dict[str, Any] = {
            "epoch": self.place.epoch,
            "global_step": self.place.step,
            "pytorch-lightning_version": pl.__version__,
            "tao_model": "oneformer",
            "oneformer": {
                **self.card.model,
                "epoch": self.place.epoch,
                "step": self.place.step,
                "metrics": values,
                "training": training,
            },
            "state_dict": pl_module.state_dict(),
            "optimizer_states": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "lr_schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            "loops": {"fit_loop": self._loops},
            "callbacks": {},
        }
        scaler = trainer.precision_plugin.state_dict()
        if scaler:
            content[type(trainer.precision_plugin).__qualname__] = scaler
        if self.ema is not None:
            content.update(self.ema.content())
        return content
