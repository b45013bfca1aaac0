"""One process of a training that a launcher started, with the same random points for every image.

`python rank_run.py FOLDER [--float64] [override ...]` trains and leaves loss and gradients of each step in
`FOLDER/steps.pt`. With `--float64` all numbers are in double precision, which tells rounding from a difference.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from oneformer.actions.train import run
from oneformer.data.batch import Batch, Parcel
from oneformer.loss import total
from oneformer.loss.points import Points, draw_points
from oneformer.spec.load import load_spec
from oneformer.train.module import TrainingModule
from oneformer.train.shares import whole


def same_points(void: Any, **settings: Any) -> Points:
    """Our own draw from the same seed for every image, whichever process has it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return draw_points(void, **settings)


@contextmanager
def double_precision() -> Iterator[None]:
    """Network, images and all that is computed from them in float64."""
    unpack, prepare, step = Parcel.to, TrainingModule.configure_model, TrainingModule.training_step

    def doubled(self: Parcel, *args: Any, **more: Any) -> Batch:
        batch = unpack(self, *args, **more)
        batch.images, batch.task_tokens = batch.images.double(), batch.task_tokens.double()
        return batch

    def prepared(self: TrainingModule) -> None:
        self.double()
        prepare(self)

    def stepped(self: TrainingModule, *args: Any) -> torch.Tensor:
        torch.set_default_dtype(torch.float64)
        try:
            return step(self, *args)
        finally:
            torch.set_default_dtype(torch.float32)

    with (
        mock.patch.object(Parcel, "to", doubled),
        mock.patch.object(TrainingModule, "configure_model", prepared),
        mock.patch.object(TrainingModule, "training_step", stepped),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield


def main(folder: Path, words: list[str]) -> None:
    """Train, with loss and gradients noted before these are clipped."""
    clip, steps = TrainingModule.configure_gradient_clipping, []
    double = "--float64" in words

    def noted(self: TrainingModule, *args: Any, **more: Any) -> None:
        gradients = {n: p.grad.detach().clone() for n, p in self.named_parameters() if p.grad is not None}
        clip(self, *args, **more)
        assert self.grad_norm is not None
        step = {"loss": float(self.losses["loss"]), "norm": float(self.grad_norm)}
        steps.append({**step, "gradients": whole(gradients, keep=True)})

    with (
        mock.patch.object(total, "draw_points", same_points),
        mock.patch.object(TrainingModule, "configure_gradient_clipping", noted),
        double_precision() if double else nullcontext(),
    ):
        run(load_spec(None, [word for word in words if word != "--float64"], action="train"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(steps, folder / "steps.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
