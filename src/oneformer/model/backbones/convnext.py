"""Images (B, 3, H, W) -> four maps, each through a LayerNorm of its own: ConvNeXt (arXiv:2201.03545)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.model.backbones.common import INIT_STD, MAPS, Backbone, MapNorm, drop_path_rates, pad_to_multiple
from oneformer.model.layers import DropPath, recompute

if TYPE_CHECKING:
    from oneformer.spec.backbone import BackboneSpec, ConvNextSpec

# name: embed_dim, depths of the released ImageNet weights (ConvNeXt paper, section 3)
SIZES: dict[str, tuple[int, tuple[int, ...]]] = {
    "ConvNeXt-T": (96, (3, 3, 9, 3)),
    "ConvNeXt-S": (96, (3, 3, 27, 3)),
    "ConvNeXt-B": (128, (3, 3, 27, 3)),
    "ConvNeXt-L": (192, (3, 3, 27, 3)),
    "ConvNeXt-XL": (256, (3, 3, 27, 3)),
}
EPS = 1e-6  # of every normalisation, the released code


def build_convnext(spec: BackboneSpec) -> Backbone:
    """The network of `model.backbone.convnext`."""
    return ConvNext(spec.convnext, freeze_at=spec.freeze_at)


class ConvNext(Backbone):
    """Four stages of large depthwise convolutions; parameter names are those of the released ImageNet weights."""

    def __init__(self, spec: ConvNextSpec, *, freeze_at: int = 0) -> None:
        super().__init__(out_features=spec.out_features, where="model.backbone.convnext.out_features")
        self.use_checkpoint = spec.use_checkpoint
        dims = [spec.embed_dim * 2**i for i in range(len(spec.depths))]
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), MapNorm(dims[0], eps=EPS))]
        )
        for before, dim in pairwise(dims):
            self.downsample_layers.append(nn.Sequential(MapNorm(before, eps=EPS), nn.Conv2d(before, dim, 2, stride=2)))
        rates = drop_path_rates(spec.drop_path_rate, spec.depths)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim, layer_scale=spec.layer_scale, drop_path=rate) for rate in stage))
            for dim, stage in zip(dims, rates, strict=True)
        )
        for i, name in enumerate(MAPS):
            if name in self.out_features:
                self.channels[name], self.strides[name] = dims[i], 4 * 2**i
                self.add_module(f"norm{i}", MapNorm(dims[i], eps=EPS))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        stem, *halvings = self.downsample_layers
        stages = [[stage] for stage in self.stages]
        for stage, halving in zip(stages[1:], halvings, strict=True):
            stage.append(halving)
        self.freeze_stages([[stem], *stages], freeze_at)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x, maps = images, {}
        for i, (name, halve, stage) in enumerate(zip(MAPS, self.downsample_layers, self.stages, strict=True)):
            x = downsampled(x, halve)
            assert isinstance(stage, nn.Sequential)
            for block in stage:
                x = recompute(block, x, on=self.use_checkpoint and self.training)
            if name in self.out_features:
                maps[name] = self.get_submodule(f"norm{i}")(x)
        return maps


def downsampled(x: Tensor, layers: nn.Module) -> Tensor:
    """A strided convolution and its normalisation; what does not fill a whole step is filled up with zeros."""
    assert isinstance(layers, nn.Sequential)
    for layer in layers:
        x = layer(pad_to_multiple(x, layer.stride[0]) if isinstance(layer, nn.Conv2d) else x)
    return x


class Block(nn.Module):
    """Depthwise 7x7 convolution, then a feed-forward part for each pixel, on a residual path."""

    def __init__(self, dim: int, *, layer_scale: float | None, drop_path: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale)) if layer_scale else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        y = self.dwconv(x).permute(0, 2, 3, 1)  # (B, h, w, C)
        y = self.pwconv2(F.gelu(self.pwconv1(self.norm(y))))
        if self.gamma is not None:
            y = y * self.gamma
        return x + self.drop_path(y.permute(0, 3, 1, 2))
