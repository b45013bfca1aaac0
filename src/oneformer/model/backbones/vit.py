"""Images (B, 3, H, W) -> four maps: a plain vision transformer (DINOv2, arXiv:2304.07193; DINOv3, arXiv:2508.10104)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.errors import SpecError
from oneformer.model.backbones.common import INIT_STD, Backbone, drop_path_rates, init_linear, pad_to_multiple
from oneformer.model.backbones.pyramid import PATCH, Pyramid
from oneformer.model.backbones.transformer import Blocks, BlockSizes, layout, rope
from oneformer.model.layers import as_map, as_tokens

if TYPE_CHECKING:
    from oneformer.spec.backbone import BackboneSpec, VitSpec

# name: embed_dim, depth, num_heads, mlp_ratio, gated_mlp of the released weights (DINOv2's and DINOv3's code)
SIZES: dict[str, tuple[int, int, int, float, bool]] = {
    "ViT-S": (384, 12, 6, 4.0, False),
    "ViT-B": (768, 12, 12, 4.0, False),
    "ViT-L": (1024, 24, 16, 4.0, False),
    "ViT-g": (1536, 40, 24, 4.0, True),  # DINOv2
    "ViT-H+": (1280, 32, 20, 6.0, True),  # DINOv3
    "ViT-7B": (4096, 40, 32, 3.0, True),  # DINOv3
}
EPS = {"learned": 1e-6, "rope": 1e-5}  # of the normalisations: DINOv2's release, DINOv3's
GATED_MULTIPLE = 8  # hidden widths of gated parts are rounded up to this (DINOv2's release)
QUARTERS = 4


def build_vit(spec: BackboneSpec) -> Backbone:
    """The transformer of `model.backbone.vit`."""
    vit, where = spec.vit, "model.backbone.vit"
    if vit.embed_dim % vit.num_heads:
        raise SpecError(
            f"{vit.embed_dim} channels do not divide into {vit.num_heads} heads", where=f"{where}.num_heads"
        )
    if vit.embed_dim % 4:
        raise SpecError("the finest map has a quarter of the channels", where=f"{where}.embed_dim")
    if vit.position == "rope" and vit.embed_dim // vit.num_heads % 4:
        raise SpecError(
            f"heads of {vit.embed_dim // vit.num_heads} channels cannot be turned: position rope needs a multiple of 4",
            where=f"{where}.num_heads",
        )
    return Vit(vit, freeze_at=spec.freeze_at)


class Vit(Backbone):
    """Patches, blocks, a last normalisation and the pyramid; parameter names are those of DINOv2's release."""

    def __init__(self, spec: VitSpec, *, freeze_at: int = 0) -> None:
        super().__init__(out_features=spec.out_features, where="model.backbone.vit.out_features")
        self.use_checkpoint = spec.use_checkpoint
        self.window, self.head_dim = spec.window_size, spec.embed_dim // spec.num_heads
        dim = spec.embed_dim
        self.patch_embed = PatchEmbed(spec.patch_size, dim)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed: nn.Parameter | None = None
        if spec.position == "learned":
            side = spec.pretrain_img_size // spec.patch_size
            self.pos_embed = nn.Parameter(torch.empty(1, 1 + side * side, dim))  # the first is the class token's
        self.register_tokens = nn.Parameter(torch.empty(1, spec.register_tokens, dim)) if spec.register_tokens else None
        hidden = int(dim * spec.mlp_ratio)
        if spec.gated_mlp:
            hidden = -(-int(hidden * 2 / 3) // GATED_MULTIPLE) * GATED_MULTIPLE
        eps = EPS[spec.position]
        sizes = BlockSizes(dim, spec.num_heads, hidden, spec.gated_mlp, spec.layer_scale, eps=eps)
        self.blocks = Blocks(sizes, drop_path_rates(spec.drop_path_rate, [spec.depth])[0])
        self.norm = nn.LayerNorm(dim, eps=eps)
        self.pyramid = Pyramid(dim, self.out_features)
        self.channels, self.strides = self.pyramid.channels, self.pyramid.strides
        self.apply(init_linear)
        tokens = [p for p in (self.cls_token, self.pos_embed, self.register_tokens) if p is not None]
        for token in tokens:
            nn.init.trunc_normal_(token, std=INIT_STD)
        self.freeze_stages([[self.patch_embed], *quarters(self.blocks)], freeze_at)
        if freeze_at:
            for token in tokens:
                token.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.patch_embed(images)  # (B, C, h, w)
        height, width = x.shape[2:]
        x = self.with_tokens(x)  # (B, P+h*w, C)
        prefix = x.shape[1] - height * width
        turn = rope(height, width, self.head_dim, device=x.device) if self.pos_embed is None else None
        where = layout(height, width, prefix=prefix, window=self.window, device=x.device, turn=turn)
        x = self.blocks(x, where, use_checkpoint=self.use_checkpoint and self.training)
        x = as_map(self.norm(x[:, prefix:]), (height, width))
        maps: dict[str, Tensor] = self.pyramid(x, *images.shape[2:])
        return maps

    def with_tokens(self, x: Tensor) -> Tensor:
        """Patches (B, C, h, w) -> class token, registers and patches with their positions (B, P+h*w, C)."""
        cls: Tensor = self.cls_token
        patches = as_tokens(x)
        if self.pos_embed is not None:
            cls = cls + self.pos_embed[:, :1]
            patches = patches + self.positions(x.shape[2], x.shape[3])
        tokens = [cls] if self.register_tokens is None else [cls, self.register_tokens]
        return torch.cat([*(t.expand(x.shape[0], -1, -1) for t in tokens), patches], dim=1)

    def positions(self, height: int, width: int) -> Tensor:
        """The learned table for a map of `height` x `width`, (1, h*w, C).

        DINOv2 shrinks it with antialiasing for the weights with registers only.
        """
        assert self.pos_embed is not None
        table: Tensor = self.pos_embed[:, 1:]
        side = round(table.shape[1] ** 0.5)
        if (height, width) == (side, side):
            return table
        table = as_map(table.float(), (side, side))
        smooth = self.register_tokens is not None
        table = F.interpolate(table, size=(height, width), mode="bicubic", antialias=smooth)
        return as_tokens(table).to(self.pos_embed.dtype)


class PatchEmbed(nn.Module):
    """Images -> one vector for each 16 x 16 pixels; images are scaled where the weights know smaller patches."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, H/16, W/16), rounded up."""
        images = pad_to_multiple(images, PATCH)
        if self.patch_size != PATCH:
            size = [side // PATCH * self.patch_size for side in images.shape[2:]]
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        x: Tensor = self.proj(images)
        return x


def quarters(blocks: Blocks) -> list[list[nn.Module]]:
    """The blocks in four parts of about equal length, for freezing."""
    ends = [len(blocks) * i // QUARTERS for i in range(QUARTERS + 1)]
    return [list(blocks)[a:b] for a, b in pairwise(ends)]
