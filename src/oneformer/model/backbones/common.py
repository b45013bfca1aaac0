"""What every backbone promises: images (B, 3, H, W) -> named maps with known channels and strides."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from oneformer.errors import SpecError
from oneformer.model.layers import freeze

MAPS = ("res2", "res3", "res4", "res5")


class Backbone(nn.Module):
    """Base of the backbones.

    `forward` takes normalised images (B, 3, H, W) of any size and returns {name: (B, C, h, w)}, finest map first.

    Attributes:
        channels: channels of each map that `forward` returns, by name.
        strides: input pixels per pixel of each map, by name.
        frozen: modules that take no part in training; they also stay in evaluation mode.
    """

    def __init__(self, *, out_features: Sequence[str], where: str) -> None:
        super().__init__()
        unknown = [name for name in out_features if name not in MAPS]
        if unknown:
            raise SpecError(
                f"there is no map named {unknown[0]!r}", where=where, hint=f"the maps are {', '.join(MAPS)}"
            )
        self.out_features = [name for name in MAPS if name in out_features]
        self.channels: dict[str, int] = {}
        self.strides: dict[str, int] = {}
        self.frozen: list[nn.Module] = []
        self.use_checkpoint = False

    def freeze_stages(self, stages: Sequence[Sequence[nn.Module]], freeze_at: int) -> None:
        """Fix the first `freeze_at` entries of `stages`, the stem being the first."""
        self.frozen = [module for stage in stages[:freeze_at] for module in stage]
        for module in self.frozen:
            freeze(module)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self
