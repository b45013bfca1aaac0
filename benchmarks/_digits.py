"""Settings and an epoch -> what a small network reads of scikit-learn's handwritten digits then: real trainings.

300 digits to train on, 700 to choose by; two hidden layers of 48, AdamW, a falling learning rate over the whole
training. A training pauses and goes on as those of `oneformer automl` do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TRAINED, CHOSEN_BY = 300, 700
WIDTH, BATCH, POWER = 48, 32, 0.9


class Training:
    """One setting."""

    def __init__(self, values: dict[str, Any], data: tuple[Tensor, ...], *, seed: int, whole: int) -> None:
        self.images, self.digits, self.val_images, self.val_digits = data
        self.chance = torch.Generator().manual_seed(seed)
        self.whole, self.steps, self.curve = whole, 0, list[float]()
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.first = nn.Linear(64, WIDTH)
            self.rest = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10))
        self.dropout, lr = values["model.one_former.dropout"], values["train.optim.lr"]
        groups = [
            {"params": self.first.parameters(), "lr": lr * values["train.optim.backbone_multiplier"]},
            {"params": self.rest.parameters(), "lr": lr},
        ]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=values["train.optim.weight_decay"])
        self.highest = [group["lr"] for group in self.optimiser.param_groups]

    def best_until(self, epoch: int) -> float:
        """The best accuracy in percent on what is chosen by, after any of the first epochs."""
        while len(self.curve) < epoch:
            self._epoch()
        return max(self.curve[:epoch])

    def _epoch(self) -> None:
        total = self.whole * -(-len(self.images) // BATCH)
        for part in torch.randperm(len(self.images), generator=self.chance).split(BATCH):
            for group, highest in zip(self.optimiser.param_groups, self.highest, strict=True):
                group["lr"] = highest * (1 - self.steps / total) ** POWER
            hidden = self.first(self.images[part]).relu()
            kept = torch.rand(hidden.shape, generator=self.chance) >= self.dropout
            scores = self.rest(hidden * kept / (1 - self.dropout))
            self.optimiser.zero_grad()
            nn.functional.cross_entropy(scores, self.digits[part]).backward()
            self.optimiser.step()
            self.steps += 1
        with torch.no_grad():
            found = self.rest(self.first(self.val_images).relu()).argmax(1)
        self.curve.append(100.0 * float((found == self.val_digits).float().mean()))


class Digits:
    """Each seed is another choice of digits, and other weights to begin with."""

    def __init__(self, seed: int, whole: int) -> None:
        from sklearn.datasets import load_digits

        torch.set_num_threads(1)
        found = load_digits()
        order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(seed))
        images = torch.tensor(found.data, dtype=torch.float32)[order] / 16 - 0.5
        digits = torch.tensor(found.target)[order]
        here, there = slice(0, TRAINED), slice(TRAINED, TRAINED + CHOSEN_BY)
        self.data = (images[here], digits[here], images[there], digits[there])
        self.seed, self.whole = seed, whole
        self.trainings: dict[str, Training] = {}

    def __call__(self, values: dict[str, Any], epoch: int) -> float:
        point = repr(sorted(values.items()))
        if point not in self.trainings:
            self.trainings[point] = Training(values, self.data, seed=self.seed, whole=self.whole)
        return self.trainings[point].best_until(epoch)
