"""One batch -> its loss; one validation batch -> scores of each task. All around the steps is done by callbacks."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from oneformer.data.batch import Batch
from oneformer.errors import WorkError
from oneformer.train.clip import clip_gradients
from oneformer.train.freeze import rest
from oneformer.train.optim import build_optimizer, group_table, renew
from oneformer.train.pace import Clock
from oneformer.train.schedule import Schedule
from oneformer.train.scoring import Scoring
from oneformer.train.sharded import is_split, put_together, split, take_apart

if TYPE_CHECKING:
    from oneformer.loss.total import Criterion
    from oneformer.model.oneformer import OneFormer
    from oneformer.spec.train import TrainSpec


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Horizon:
    """How long the training is."""

    total_steps: int
    """Optimiser steps in all."""
    steps_per_epoch: int
    """Optimiser steps of one epoch."""


class TrainingModule(pl.LightningModule):
    """The network with its criterion, as Lightning trains it. State-dict keys begin with `model.` and `criterion.`."""

    model: OneFormer
    criterion: Criterion

    def __init__(
        self,
        model: OneFormer,
        criterion: Criterion,
        train: TrainSpec,
        *,
        horizon: Horizon,
        clock: Clock,
        scoring: Scoring | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion
        self.settings = train
        self.horizon = horizon
        self.clock = clock
        self.scoring = scoring
        self.with_texts = True
        self.stage = "training"
        self.losses: dict[str, Tensor] = {}
        self.grad_norm: Tensor | None = None
        self.step_lrs: dict[str, float] = {}
        self.values: dict[str, float] = {}
        self._loss_sum: Tensor | float = 0.0
        self._loss_count = 0

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The weighted loss of one batch (0-d). Raises WorkError naming the images when it is not finite."""
        assert batch.targets is not None
        self.stage = "training"
        features = self.model.features(batch.images)
        decoded = self.model.decode(features, batch.task_tokens)
        texts = None
        if self.with_texts and batch.text_tokens is not None and batch.text_index is not None:
            texts = self.model.encode_texts(batch.text_tokens, batch.text_index)  # (B, Q, C)
        losses = self.criterion(decoded, batch.targets, texts)
        self.criterion.raise_if_not_finite(losses, batch.names)
        self.losses = {name: value.detach() for name, value in losses.items()}
        self._loss_sum = self._loss_sum + self.losses["loss"].double()
        self._loss_count += 1
        loss: Tensor = losses["loss"]
        return loss

    @override
    def configure_model(self) -> None:
        """With `fsdp`, split what is trained over the processes."""
        mesh = self.device_mesh
        if mesh is not None and not is_split(self.model):
            split(self.model, self.criterion, mesh["data_parallel"])

    @override
    def on_train_start(self) -> None:
        """After a resume the optimiser holds the settings it was saved with; those of the spec count."""
        renew(self.trainer.optimizers[0], self.settings.optim)

    @override
    def on_validation_start(self) -> None:
        """The processes may have different numbers of batches to score, so none may wait for another in between."""
        put_together(self.model)

    @override
    def on_validation_end(self) -> None:
        """Train on as before."""
        take_apart(self.model)

    @override
    def on_validation_epoch_start(self) -> None:
        """A fresh count."""
        assert self.scoring is not None
        self.scoring.start()

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch for every task."""
        assert self.scoring is not None
        self.stage = "validation"
        self.scoring.count(self.model, batch)

    @override
    def on_validation_epoch_end(self) -> None:
        """Scores over all ranks."""
        assert self.scoring is not None
        self.values.update(self.scoring.finish())

    @override
    def configure_optimizers(self) -> Any:
        """AdamW and the schedule, which steps with it."""
        # A gradient scaler unscales before clipping; the fused step would unscale a second time.
        fused = getattr(self.trainer.precision_plugin, "scaler", None) is None
        optimizer = build_optimizer(self.settings.optim, self.model, self.criterion, fused=fused)
        schedule = Schedule(
            optimizer,
            self.settings.optim,
            total_steps=self.horizon.total_steps,
            steps_per_epoch=self.horizon.steps_per_epoch,
            time_used=self.clock.used,
        )
        log.debug("%s", group_table(optimizer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @override
    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Clip once per optimiser step, after unscaling. Raises WorkError when a gradient is not finite."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.grad_norm = clip_gradients(parameters, self.settings)
        self.step_lrs = {group["name"]: float(group["lr"]) for group in optimizer.param_groups}
        # With a scaler such a step is left out and the scale lowered: that is how fp16 works.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if not scaled and not torch.isfinite(self.grad_norm):
            raise WorkError(
                "a gradient is not finite although the loss is",
                where=f"optimiser step {self.trainer.global_step + 1}",
                hint="lower train.optim.lr, or train with train.precision=fp32",
            )

    @override
    def train(self, mode: bool = True) -> TrainingModule:
        """Training mode for all but the frozen parts, whose dropout and statistics rest."""
        super().train(mode)
        rest(self.model)
        return self

    def epoch_losses(self) -> dict[str, float]:
        """Sum and number of this rank's losses since the epoch began, as a checkpoint keeps them."""
        return {"sum": float(self._loss_sum), "count": self._loss_count}

    def take_losses(self, start: dict[str, float] | None = None) -> tuple[float, int]:
        """Sum and number of this epoch's losses, and begin anew (from `start` after a resume)."""
        taken = float(self._loss_sum), self._loss_count
        self._loss_sum, self._loss_count = (start["sum"], int(start["count"])) if start else (0.0, 0)
        return taken
