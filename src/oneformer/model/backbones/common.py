"""What every backbone promises: images (B, 3, H, W) -> named maps with known channels and strides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.errors import SpecError
from oneformer.model.layers import freeze, recompute

MAPS = ("res2", "res3", "res4", "res5")
INIT_STD = 0.02  # truncated normal, released code of Swin, ConvNeXt, DiNAT and DINOv2


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


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, dim: int, hidden_dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        # The activation costs little time and, of all that training keeps, the most memory: it is computed again.
        return recompute(self.shrink, self.fc1(x), on=self.training)

    def shrink(self, hidden: Tensor) -> Tensor:
        """(..., hidden_dim) before its activation -> (..., dim)."""
        return self.dropout(self.fc2(self.dropout(F.gelu(hidden))))


class MapNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map (B, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Scale(nn.Module):
    """A learned factor per channel, small at the start: the branch grows in (layer scale, arXiv:2103.17239)."""

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def pad_to_multiple(x: Tensor, side: int) -> Tensor:
    """Zeros at the bottom and right until height and width are multiples of `side`."""
    down, right = -x.shape[2] % side, -x.shape[3] % side
    return F.pad(x, (0, right, 0, down)) if down or right else x


def drop_path_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Rates of stochastic depth for each block, stage by stage: rising from 0 at the first block to `last`."""
    rates = torch.linspace(0, last, sum(depths), device="cpu").tolist()
    return [rates[sum(depths[:i]) : sum(depths[: i + 1])] for i in range(len(depths))]


def check_heads(widths: Sequence[int], heads: Sequence[int], *, where: str) -> None:
    """Raises SpecError when the channels of a stage do not divide into its heads."""
    for i, (width, count) in enumerate(zip(widths, heads, strict=True)):
        if width % count:
            raise SpecError(f"stage {i + 1} has {width} channels, which do not divide into {count} heads", where=where)


def init_linear(module: nn.Module) -> None:
    """Truncated normal weights and zero biases for linear layers; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
