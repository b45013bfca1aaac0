"""Weights after each optimiser step -> their exponential moving average, used for scoring and in checkpoints."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from typing_extensions import override

from oneformer.train.shares import local, share_of, with_share


class Average:
    """The moving average of a network's floating-point parameters and buffers, in float32 on the network's device.

    Of parameters that are split over processes each process averages its own shares.

    Early on the decay is min(decay, (1 + n) / (10 + n)) for update n, the warm-up of TensorFlow's
    ExponentialMovingAverage: otherwise the random start would stay in the average for the whole of a short training.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.model = model
        self.shadow = {name: local(value.detach()).float().clone() for name, value in _values(model).items()}
        self.swapped = False

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights by one step."""
        assert not self.swapped
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        values = _values(self.model)
        torch._foreach_lerp_(list(self.shadow.values()), [local(values[n]).float() for n in self.shadow], 1.0 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the network's weights and the average; a second call puts them back."""
        for name, value in _values(self.model).items():
            share = local(value.detach())
            kept = share.clone()
            share.copy_(self.shadow[name])
            self.shadow[name].copy_(kept)
        self.swapped = not self.swapped

    def state_dict(self) -> dict[str, Tensor]:
        """All entries of the network's own state dict, averaged ones in place of the floating-point ones."""
        assert not self.swapped
        return {
            name: with_share(value, self.shadow[name].to(value.dtype)) if name in self.shadow else value.detach()
            for name, value in self.model.state_dict().items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor], updates: int) -> None:
        """Go on from a saved average after `updates` updates."""
        values = _values(self.model)
        for name, value in self.shadow.items():
            value.copy_(local(share_of(state[name], values[name])))
        self.updates = updates


def _values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict(keep_vars=True).items() if value.is_floating_point()}


class EmaCallback(pl.Callback):
    """Keeps the average during a fit; validation sees the averaged weights, training never does."""

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: Average | None = None
        self._step = 0
        self._saved: dict[str, Any] | None = None

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the average in a checkpoint; one without an average starts from its weights."""
        self._saved = checkpoint if "ema_state_dict" in checkpoint else None

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Start from the weights as they are, pretrained or restored; by now they lie on their device."""
        self.average = Average(pl_module.model, self.decay)
        if self._saved is not None:
            state = {name.removeprefix("model."): value for name, value in self._saved["ema_state_dict"].items()}
            self.average.load_state_dict(state, self._saved["ema_updates"])
            self._saved = None
        self._step = trainer.global_step

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Update once per optimiser step, not per batch."""
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            assert self.average is not None
            self.average.update()

    @override
    def on_validation_start(self, *_: Any) -> None:
        """Score the average."""
        if self.average is not None:
            self.average.swap()

    @override
    def on_validation_end(self, *_: Any) -> None:
        """Train on with the trained weights."""
        self._put_back()

    @override
    def on_exception(self, *_: Any) -> None:
        """A failure while scoring must not leave the average in the place of the weights."""
        self._put_back()

    def _put_back(self) -> None:
        if self.average is not None and self.average.swapped:
            self.average.swap()

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds of the average: `ema_state_dict`, named like `state_dict`, and the updates so far."""
        assert self.average is not None
        state = self.average.state_dict()
        return {
            "ema_state_dict": {f"model.{name}": value for name, value in state.items()},
            "ema_updates": self.average.updates,
        }
