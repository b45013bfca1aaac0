"""Images (B, 3, H, W) -> four maps, each through a LayerNorm of its own: the Swin transformer (arXiv:2103.14030)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.model.backbones.common import (
    INIT_STD,
    MAPS,
    Backbone,
    Mlp,
    check_heads,
    drop_path_rates,
    init_linear,
    pad_to_multiple,
)
from oneformer.model.backbones.windows import Windows, relative_index, windows
from oneformer.model.layers import DropPath, as_map, as_tokens, recompute
from oneformer.model.mixing import mix

if TYPE_CHECKING:
    from oneformer.spec.backbone import BackboneSpec, SwinSpec

# name: embed_dim, depths, num_heads, window_size of the released ImageNet weights (Swin paper, section 3.3)
SIZES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...], int]] = {
    "Swin-T": (96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "Swin-S": (96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "Swin-B": (128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
    "Swin-L": (192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
}


def build_swin(spec: BackboneSpec) -> Backbone:
    """The Swin transformer of `model.backbone.swin`."""
    swin = spec.swin
    widths = [swin.embed_dim * 2**i for i in range(len(swin.num_heads))]
    check_heads(widths, swin.num_heads, where="model.backbone.swin.num_heads")
    return Swin(swin, freeze_at=spec.freeze_at)


class Swin(Backbone):
    """Four stages of windowed attention; parameter names are those of the released ImageNet weights."""

    def __init__(self, spec: SwinSpec, *, freeze_at: int = 0) -> None:
        super().__init__(out_features=spec.out_features, where="model.backbone.swin.out_features")
        self.use_checkpoint = spec.use_checkpoint
        self.patch_embed = PatchEmbed(spec.patch_size, spec.embed_dim, norm=spec.patch_norm)
        if spec.ape:
            side = spec.pretrain_img_size // spec.patch_size
            self.absolute_pos_embed = nn.Parameter(torch.empty(1, spec.embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=INIT_STD)
        self.ape = spec.ape
        self.pos_drop = nn.Dropout(spec.drop_rate)
        count = len(spec.depths)
        self.layers = nn.ModuleList(Stage(spec, i) for i in range(count))
        for i, name in enumerate(MAPS[:count]):
            if name in self.out_features:
                self.channels[name] = spec.embed_dim * 2**i
                self.strides[name] = spec.patch_size * 2**i
                self.add_module(f"norm{i}", nn.LayerNorm(self.channels[name]))
        self.apply(init_linear)
        self.freeze_stages([[self.patch_embed, self.pos_drop], *([stage] for stage in self.layers)], freeze_at)
        if self.ape and freeze_at:
            self.absolute_pos_embed.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x, height, width = self.patch_embed(images)  # (B, h*w, C)
        if self.ape:
            table = F.interpolate(self.absolute_pos_embed, size=(height, width), mode="bicubic")
            x = x + as_tokens(table)
        x = self.pos_drop(x)
        maps = {}
        for i, stage in enumerate(self.layers):
            assert isinstance(stage, Stage)
            x = stage(x, height, width, use_checkpoint=self.use_checkpoint and self.training)
            name = MAPS[i]
            if name in self.out_features:
                normed = self.get_submodule(f"norm{i}")(x)
                maps[name] = as_map(normed, (height, width))
            if stage.downsample is not None:
                x = stage.downsample(x, height, width)
                height, width = (height + 1) // 2, (width + 1) // 2
        return maps


class PatchEmbed(nn.Module):
    """Images -> one token per patch; the image is padded at the bottom and right to whole patches."""

    def __init__(self, patch_size: int, dim: int, *, norm: bool) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, int, int]:
        x = self.proj(pad_to_multiple(images, self.patch_size))  # (B, C, h, w)
        height, width = x.shape[2:]
        return self.norm(as_tokens(x)), height, width


class Stage(nn.Module):
    """Blocks at one resolution, then the halving of it."""

    def __init__(self, spec: SwinSpec, index: int) -> None:
        super().__init__()
        dim, heads = spec.embed_dim * 2**index, spec.num_heads[index]
        rates = drop_path_rates(spec.drop_path_rate, spec.depths)[index]
        sizes = BlockSizes(dim, heads, spec)
        self.window = spec.window_size
        self.blocks = nn.ModuleList(Block(sizes, shifted=i % 2 == 1, drop_path=rate) for i, rate in enumerate(rates))
        self.downsample = PatchMerging(dim) if index + 1 < len(spec.depths) else None

    def forward(self, x: Tensor, height: int, width: int, *, use_checkpoint: bool = False) -> Tensor:
        """(B, h*w, C) -> (B, h*w, C) before the halving."""
        plain = windows(height, width, self.window, shift=0, device=x.device)
        shifted = windows(height, width, self.window, shift=self.window // 2, device=x.device)
        for block in self.blocks:
            x = recompute(block, x, shifted if block.shifted else plain, on=use_checkpoint)
        return x


@dataclass(frozen=True)
class BlockSizes:
    """What the blocks of one stage have in common."""

    dim: int
    heads: int
    spec: SwinSpec


class Block(nn.Module):
    """Attention within windows, then a feed-forward part, each on a residual path."""

    def __init__(self, sizes: BlockSizes, *, shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(sizes.dim)
        self.attn = WindowAttention(sizes)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(sizes.dim)
        self.mlp = Mlp(sizes.dim, int(sizes.dim * sizes.spec.mlp_ratio), dropout=sizes.spec.drop_rate)

    def forward(self, x: Tensor, where: Windows) -> Tensor:
        # Normalised tokens are computed again in the backward pass: they cost little time and much memory.
        qkv = recompute(lambda x: self.attn.project(self.norm1(x), where), x, on=self.training)
        x = x + self.drop_path(self.attn(qkv, where))
        hidden = recompute(lambda x: self.mlp.fc1(self.norm2(x)), x, on=self.training)
        return x + self.drop_path(recompute(self.mlp.shrink, hidden, on=self.training))


class WindowAttention(nn.Module):
    """Multi-head attention among the tokens of each window, with a learned bias per relative position."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        spec = sizes.spec
        self.heads = sizes.heads
        self.scale = spec.qk_scale
        self.dropout = spec.attn_drop_rate
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * spec.window_size - 1) ** 2, sizes.heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=INIT_STD)
        self.register_buffer("relative_index", relative_index(spec.window_size), persistent=False)
        self.qkv = nn.Linear(sizes.dim, 3 * sizes.dim, bias=spec.qkv_bias)
        self.proj = nn.Linear(sizes.dim, sizes.dim)
        self.proj_drop = nn.Dropout(spec.drop_rate)

    def project(self, x: Tensor, where: Windows) -> Tensor:
        """(B, h*w, C) -> queries, keys and values (B, windows*N, 3C).

        Tokens are projected before they are laid out in windows: fewer products where windows overhang the map, and one
        gather instead of pad, roll and transpose.
        """
        if where.padded:  # overhanging cells are zero tokens: they attend with the bias of the projection
            x = F.pad(x, (0, 0, 0, 1))
        qkv: Tensor = self.qkv(x).index_select(1, where.order)
        return qkv

    def forward(self, qkv: Tensor, where: Windows) -> Tensor:
        """What `project` gave -> (B, h*w, C)."""
        batch, dim = qkv.shape[0], qkv.shape[2] // 3
        q, k, v = qkv.view(batch * where.count, -1, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        bias = self.bias(where, batch, q.dtype)
        mixed = mix(q, k, v, mask=bias, dropout=dropout, scale=self.scale)  # (B*windows, heads, N, C/heads)
        mixed = mixed.transpose(1, 2).reshape(batch, -1, dim).index_select(1, where.place)  # (B, h*w, C)
        return self.proj_drop(self.proj(mixed))

    def bias(self, where: Windows, batch: int, dtype: torch.dtype) -> Tensor:
        """Relative position bias, and -100 between the regions that a shift has brought into one window."""
        assert isinstance(self.relative_index, Tensor)
        side = self.relative_index.shape[0]
        bias = self.relative_position_bias_table.t().index_select(1, self.relative_index.flatten()).to(dtype)
        bias = bias.unflatten(1, (side, side)).unsqueeze(0)  # (1, heads, N, N)
        if where.apart is None:
            return bias
        bias = bias + where.apart[:, None].to(dtype)  # (windows, heads, N, N)
        return bias.expand(batch, *bias.shape).flatten(0, 1)  # (B*windows, heads, N, N)


class PatchMerging(nn.Module):
    """Four neighbouring tokens -> one with twice the channels; odd maps are padded by a zero row or column."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        x = x.unflatten(1, (height, width))
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        # neighbours in the order of the released weights: top left, bottom left, top right, bottom right
        x = torch.cat(
            (x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]), dim=3
        )  # (B, h/2, w/2, 4C)
        return self.reduction(self.norm(x.flatten(1, 2)))  # (B, h/2*w/2, 2C)
