"""Images (B, 3, H, W) -> four maps: the C-RADIO vision transformer (arXiv:2412.07679) under TAO's keys.

Parameter names are those of the release. Positions are a table far larger than most images, scaled to the longer side
and cropped. Differences from TAO: there is a map at stride 4 as well, images of any size are taken, and positions are
neither dropped nor shaken in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.errors import SpecError
from oneformer.model.backbones.common import Backbone, init_linear, pad_to_multiple
from oneformer.model.backbones.pyramid import PATCH, Pyramid
from oneformer.model.backbones.transformer import Blocks, BlockSizes, layout
from oneformer.model.backbones.vit import quarters
from oneformer.model.layers import as_map, as_tokens

if TYPE_CHECKING:
    from oneformer.spec.backbone import BackboneSpec, RadioSpec


@dataclass(frozen=True)
class Variant:
    """Sizes of one released network."""

    dim: int
    depth: int
    heads: int
    layer_scale: float | None = None
    mlp_norm: bool = False


# model.backbone.radio.backbone: sizes (TAO's table of C-RADIO networks)
VARIANTS: dict[str, Variant] = {
    "vit_base_patch16_224": Variant(768, 12, 12),
    "vit_large_patch16_224": Variant(1024, 24, 16),
    "vit_huge_patch16_224": Variant(1280, 32, 16),
    "vit_huge_patch16_224_mlpnorm": Variant(1280, 32, 16, mlp_norm=True),
    "vit_large_patch16_reg4_dinov2": Variant(1024, 24, 16, layer_scale=1e-5),
}
MLP_RATIO = 4


def build_radio(spec: BackboneSpec) -> Backbone:
    """The network of `model.backbone.radio`."""
    if spec.radio.backbone not in VARIANTS:
        raise SpecError(
            f"there is no C-RADIO network {spec.radio.backbone!r} here",
            where="model.backbone.radio.backbone",
            hint=f"choose one of {', '.join(VARIANTS)}",
        )
    return Radio(spec.radio, VARIANTS[spec.radio.backbone], freeze_at=spec.freeze_at)


class Radio(Backbone):
    """Patches with positions, blocks and the pyramid; the release has no last normalisation."""

    def __init__(self, spec: RadioSpec, variant: Variant, *, freeze_at: int = 0) -> None:
        super().__init__(out_features=spec.out_features, where="model.backbone.radio.out_features")
        self.use_checkpoint, self.window = spec.use_checkpoint, spec.window_size
        self.patch_generator = PatchGenerator(spec, variant.dim)
        sizes = BlockSizes(
            variant.dim,
            variant.heads,
            variant.dim * MLP_RATIO,
            layer_scale=variant.layer_scale,
            mlp_norm=variant.mlp_norm,
        )
        self.blocks = Blocks(sizes, [0.0] * variant.depth)
        self.pyramid = Pyramid(variant.dim, self.out_features)
        self.channels, self.strides = self.pyramid.channels, self.pyramid.strides
        self.apply(init_linear)
        self.freeze_stages([[self.patch_generator], *quarters(self.blocks)], freeze_at)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x, height, width = self.patch_generator(images)  # (B, P+h*w, C)
        prefix = x.shape[1] - height * width
        where = layout(height, width, prefix=prefix, window=self.window, device=x.device)
        x = self.blocks(x, where, use_checkpoint=self.use_checkpoint and self.training)
        x = as_map(x[:, prefix:], (height, width))
        maps: dict[str, Tensor] = self.pyramid(x, *images.shape[2:])
        return maps


class PatchGenerator(nn.Module):
    """Images -> summary tokens, registers and patches with their positions."""

    def __init__(self, spec: RadioSpec, dim: int) -> None:
        super().__init__()
        self.side = max(1, round(spec.cpe_max_size / PATCH))
        self.scaled = any(length != self.side * PATCH for length in spec.resolution)
        self.embedder = nn.Linear(3 * PATCH * PATCH, dim, bias=False)
        self.pos_embed = nn.Parameter(torch.randn(1, self.side**2, dim) * dim**-0.5)
        self.cls_token = Tokens(spec.num_teacher, spec.register_multiple, dim)

    def forward(self, images: Tensor) -> tuple[Tensor, int, int]:
        """(B, 3, H, W) -> (B, P+h*w, C), h, w."""
        images = pad_to_multiple(images, PATCH)
        height, width = images.shape[2] // PATCH, images.shape[3] // PATCH
        patches = images.unflatten(3, (width, PATCH)).unflatten(2, (height, PATCH)).permute(0, 2, 4, 1, 3, 5)
        patches = self.embedder(patches.flatten(3).flatten(1, 2))  # (B, h*w, C)
        tokens = self.cls_token.token.expand(images.shape[0], -1, -1)
        return torch.cat((tokens, patches + self.positions(height, width)), dim=1), height, width

    def positions(self, height: int, width: int) -> Tensor:
        """The table scaled to the longer side of the map, or as it is, and cropped to the map, (1, h*w, C)."""
        table = as_map(self.pos_embed, (self.side, self.side))
        if self.scaled and (height, width) != (self.side, self.side):
            longer = max(height, width)
            table = F.interpolate(table.float(), size=(longer, longer), mode="bilinear", align_corners=True)
        table = table[:, :, :height, :width]
        if table.shape[2:] != (height, width):  # the image is larger than the table
            table = F.interpolate(table.float(), size=(height, width), mode="bilinear", align_corners=True)
        return as_tokens(table).to(self.pos_embed.dtype)


class Tokens(nn.Module):
    """One summary token for each teacher and the registers behind them.

    A number of teachers that is a multiple already is followed by a whole multiple of registers, as in the release.
    """

    def __init__(self, teachers: int, multiple: int, dim: int) -> None:
        super().__init__()
        registers = multiple - teachers % multiple if multiple else 0
        self.token = nn.Parameter(torch.randn(teachers + registers, dim) * dim**-0.5)
