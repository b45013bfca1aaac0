"""One map (B, C, h, w) at stride 16 -> maps at 4, 8, 16 and 32: the simple feature pyramid of plain transformers.

ViTDet (arXiv:2203.16527, section 3) without the convolutions behind each map, which the pixel decoder has itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from oneformer.model.backbones.common import MapNorm

PATCH = 16  # pixels of the image for which each token stands
EPS = 1e-6


class Pyramid(nn.Module):
    """The wanted maps. Two steps finer at a quarter of the channels, one step at half of them, one step coarser."""

    def __init__(self, dim: int, names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)
        if "res2" in self.names:
            self.res2 = nn.Sequential(*finer(dim), *finer(dim // 2))
        if "res3" in self.names:
            self.res3 = nn.Sequential(*finer(dim))
        if "res5" in self.names:
            self.res5 = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        widths = {"res2": dim // 4, "res3": dim // 2, "res4": dim, "res5": dim}
        self.channels = {name: widths[name] for name in self.names}
        self.strides = {name: 2 ** int(name[-1]) for name in self.names}

    def forward(self, x: Tensor, height: int, width: int) -> dict[str, Tensor]:
        """The map (B, C, h, w) of an image of `height` x `width` pixels -> {name: map}, sizes rounded up."""
        maps = {name: x if name == "res4" else self.get_submodule(name)(x) for name in self.names}
        return {
            name: y[:, :, : -(-height // self.strides[name]), : -(-width // self.strides[name])]
            for name, y in maps.items()
        }


def finer(dim: int) -> list[nn.Module]:
    """Twice the rows and columns, half the channels."""
    return [nn.ConvTranspose2d(dim, dim // 2, 2, stride=2), MapNorm(dim // 2, eps=EPS), nn.GELU()]
