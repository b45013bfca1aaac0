"""One process of a training that a launcher started, with the same random points for every image.

`python rank_run.py FOLDER [override ...]` trains and leaves loss and gradients of each step in `FOLDER/steps.pt`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from oneformer.actions.train import run
from oneformer.loss import total
from oneformer.loss.points import Points, draw_points
from oneformer.spec.load import load_spec
from oneformer.train.module import TrainingModule


def same_points(void: Any, **settings: Any) -> Points:
    """Our own draw from the same seed for every image, whichever process has it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return draw_points(void, **settings)


def main(folder: Path, words: list[str]) -> None:
    """Train, with loss and gradients noted before these are clipped."""
    clip, steps = TrainingModule.configure_gradient_clipping, []

    def noted(self: TrainingModule, *args: Any, **more: Any) -> None:
        gradients = {n: p.grad.detach().clone() for n, p in self.named_parameters() if p.grad is not None}
        steps.append({"loss": float(self.losses["loss"]), "gradients": gradients})
        clip(self, *args, **more)

    with (
        mock.patch.object(total, "draw_points", same_points),
        mock.patch.object(TrainingModule, "configure_gradient_clipping", noted),
    ):
        run(load_spec(None, words, action="train"))
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(steps, folder / "steps.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
