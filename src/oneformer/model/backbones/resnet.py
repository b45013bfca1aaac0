"""Images (B, 3, H, W) -> four maps: ResNet-50 or 101, with the stride in the 3x3 convolution unless told otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.errors import SpecError
from oneformer.model.backbones.common import MAPS, Backbone
from oneformer.model.layers import recompute

if TYPE_CHECKING:
    from oneformer.spec.backbone import BackboneSpec, ResNetSpec

DEPTHS: dict[int, tuple[int, int, int, int]] = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}  # arXiv:1512.03385, table 1
EXPANSION = 4
EPS = 1e-5  # of both normalisations: nn.BatchNorm2d's own


def build_resnet(spec: BackboneSpec) -> Backbone:
    """The residual network of `model.backbone.resnet`."""
    if spec.resnet.depth not in DEPTHS:
        raise SpecError(
            f"there is no ResNet-{spec.resnet.depth} here",
            where="model.backbone.resnet.depth",
            hint=f"choose one of {', '.join(map(str, DEPTHS))}",
        )
    return ResNet(spec.resnet, freeze_at=spec.freeze_at)


class ResNet(Backbone):
    """Bottleneck residual network; parameter names are those of torchvision's weights."""

    def __init__(self, spec: ResNetSpec, *, freeze_at: int = 0) -> None:
        super().__init__(out_features=spec.out_features, where="model.backbone.resnet.out_features")
        self.use_checkpoint = spec.use_checkpoint
        self.stride_in_1x1 = spec.stride_in_1x1
        frozen = spec.norm == "frozen"
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = batch_norm(64, frozen=frozen)
        dim = 64
        for i, depth in enumerate(DEPTHS[spec.depth]):
            width, stride = 64 * 2**i, 1 if i == 0 else 2
            strides = (stride, 1) if spec.stride_in_1x1 else (1, stride)
            blocks = [Bottleneck(dim, width, strides=strides, frozen=frozen)]
            dim = width * EXPANSION
            blocks += [Bottleneck(dim, width, strides=(1, 1), frozen=frozen) for _ in range(depth - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            if MAPS[i] in self.out_features:
                self.channels[MAPS[i]], self.strides[MAPS[i]] = dim, 4 * 2**i
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.freeze_stages([[self.conv1, self.bn1], *([self.stage(i)] for i in range(4))], freeze_at)

    def stage(self, index: int) -> nn.Sequential:
        """Stage 0..3."""
        stage = self.get_submodule(f"layer{index + 1}")
        assert isinstance(stage, nn.Sequential)
        return stage

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.bn1(self.conv1(images)).relu_()  # (B, 64, H/2, W/2)
        x = F.max_pool2d(x, 3, stride=2, padding=1)  # (B, 64, H/4, W/4)
        maps = {}
        for i, name in enumerate(MAPS):
            for block in self.stage(i):
                x = recompute(block, x, on=self.use_checkpoint and self.training)
            if name in self.out_features:
                maps[name] = x
        return maps


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the first two have a stride each."""

    def __init__(self, in_dim: int, width: int, *, strides: tuple[int, int], frozen: bool) -> None:
        super().__init__()
        out_dim, stride = width * EXPANSION, strides[0] * strides[1]
        self.conv1 = nn.Conv2d(in_dim, width, 1, stride=strides[0], bias=False)
        self.bn1 = batch_norm(width, frozen=frozen)
        self.conv2 = nn.Conv2d(width, width, 3, stride=strides[1], padding=1, bias=False)
        self.bn2 = batch_norm(width, frozen=frozen)
        self.conv3 = nn.Conv2d(width, out_dim, 1, bias=False)
        self.bn3 = batch_norm(out_dim, frozen=frozen)
        self.downsample = (
            nn.Sequential(nn.Conv2d(in_dim, out_dim, 1, stride=stride, bias=False), batch_norm(out_dim, frozen=frozen))
            if stride != 1 or in_dim != out_dim
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu_()
        x = self.bn2(self.conv2(x)).relu_()
        return (self.bn3(self.conv3(x)) + shortcut).relu_()


class FrozenBatchNorm(nn.Module):
    """Batch normalisation as the fixed scale and shift that its pretrained statistics amount to."""

    def __init__(self, channels: int, *, eps: float = EPS) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.weight, Tensor) and isinstance(self.bias, Tensor)
        assert isinstance(self.running_mean, Tensor) and isinstance(self.running_var, Tensor)
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None].to(x.dtype) + shift[:, None, None].to(x.dtype)


def batch_norm(channels: int, *, frozen: bool, eps: float = EPS, momentum: float = 0.1) -> nn.Module:
    """Frozen or learning batch normalisation, of equal parameter names; `momentum` is the weight of a new batch."""
    return FrozenBatchNorm(channels, eps=eps) if frozen else nn.BatchNorm2d(channels, eps=eps, momentum=momentum)
