"""Images (B, 3, H, W) -> four maps, each through a LayerNorm of its own: the neighbourhood attention transformer DiNAT.

Each token attends to a window of tokens around it, in every other block to one whose tokens lie far apart
(arXiv:2209.15001). Parameter names are those of the released weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.errors import SpecError
from oneformer.model.backbones.common import INIT_STD, MAPS, Backbone, Mlp, check_heads, drop_path_rates, init_linear
from oneformer.model.backbones.neighbours import Tiles, tiles
from oneformer.model.layers import DropPath, recompute

if TYPE_CHECKING:
    from oneformer.spec.backbone import BackboneSpec, DinatSpec

# name: embed_dim, depths, num_heads, mlp_ratio of the released ImageNet weights (DiNAT's code), of kernel 7 or 11
SIZES: dict[str, tuple[int, tuple[int, ...], tuple[int, ...], float]] = {
    "DiNAT-Mini": (64, (3, 4, 6, 5), (2, 4, 8, 16), 3.0),
    "DiNAT-T": (64, (3, 4, 18, 5), (2, 4, 8, 16), 3.0),
    "DiNAT-S": (96, (3, 4, 18, 5), (3, 6, 12, 24), 2.0),
    "DiNAT-B": (128, (3, 4, 18, 5), (4, 8, 16, 32), 2.0),
    "DiNAT-L": (192, (3, 4, 18, 5), (6, 12, 24, 48), 2.0),
}
BLOCKED = -1e4  # added to the logits of pairs that are no neighbours; their weight is exactly 0 in float32 and below
# Logits that are in memory at one time for one image, all heads together: 32 MiB in float32. Four times as many took
# twice the time on the CPU.
LOGITS = 2**23


def build_dinat(spec: BackboneSpec) -> Backbone:
    """The neighbourhood attention transformer of `model.backbone.dinat`."""
    dinat, where = spec.dinat, "model.backbone.dinat"
    check_heads([dinat.embed_dim * 2**i for i in range(4)], dinat.num_heads, where=f"{where}.num_heads")
    if dinat.embed_dim % 2:
        raise SpecError("the first of the two stem convolutions has half the channels", where=f"{where}.embed_dim")
    if dinat.kernel_size % 2 == 0:
        raise SpecError("a neighbourhood has its token in the middle: its side is odd", where=f"{where}.kernel_size")
    if dinat.dilations is not None and [len(stage) for stage in dinat.dilations] != dinat.depths:
        raise SpecError(
            "there has to be one dilation for each block, stage by stage",
            where=f"{where}.dilations",
            hint=f"the stages have {', '.join(map(str, dinat.depths))} blocks",
        )
    return Dinat(dinat, freeze_at=spec.freeze_at)


class Dinat(Backbone):
    """Four stages of neighbourhood attention; tokens stay in rows and columns, (B, h, w, C)."""

    def __init__(self, spec: DinatSpec, *, freeze_at: int = 0) -> None:
        super().__init__(out_features=spec.out_features, where="model.backbone.dinat.out_features")
        self.use_checkpoint = spec.use_checkpoint
        self.patch_embed = PatchEmbed(spec.embed_dim)
        self.levels = nn.ModuleList(Stage(spec, i) for i in range(len(spec.depths)))
        for i, name in enumerate(MAPS):
            if name in self.out_features:
                self.channels[name], self.strides[name] = spec.embed_dim * 2**i, 4 * 2**i
                self.add_module(f"norm{i}", nn.LayerNorm(self.channels[name]))
        self.apply(init_linear)
        self.freeze_stages([[self.patch_embed], *([stage] for stage in self.levels)], freeze_at)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = self.patch_embed(images)  # (B, h, w, C)
        maps = {}
        for i, (name, stage) in enumerate(zip(MAPS, self.levels, strict=True)):
            assert isinstance(stage, Stage)
            x = stage(x, use_checkpoint=self.use_checkpoint and self.training)
            if name in self.out_features:
                maps[name] = self.get_submodule(f"norm{i}")(x).permute(0, 3, 1, 2)  # (B, C, h, w), channels last
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps


class PatchEmbed(nn.Module):
    """Two strided convolutions with nothing between them: images -> a quarter of the rows and columns, rounded up."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(3, dim // 2, 3, stride=2, padding=1), nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        x: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))  # (B, h, w, C)
        return x


class Downsample(nn.Module):
    """Half the rows and columns, rounded up, and twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, 3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, h/2, w/2, 2C)
        out: Tensor = self.norm(x)
        return out


class Stage(nn.Module):
    """Blocks at one resolution, then the halving of it."""

    def __init__(self, spec: DinatSpec, index: int) -> None:
        super().__init__()
        rates = drop_path_rates(spec.drop_path_rate, spec.depths)[index]
        dilations = spec.dilations[index] if spec.dilations is not None else [1] * spec.depths[index]
        sizes = BlockSizes(spec.embed_dim * 2**index, spec.num_heads[index], spec)
        self.kernel = spec.kernel_size
        self.blocks = nn.ModuleList(
            Block(sizes, dilation=d, drop_path=rate) for d, rate in zip(dilations, rates, strict=True)
        )
        self.downsample = Downsample(sizes.dim) if index + 1 < len(spec.depths) else None

    def forward(self, x: Tensor, *, use_checkpoint: bool = False) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C) before the halving."""
        where: dict[int, Tiles] = {}
        for block in self.blocks:
            assert isinstance(block, Block)
            if block.dilation not in where:
                where[block.dilation] = tiles(
                    x.shape[1], x.shape[2], kernel=self.kernel, dilation=block.dilation, device=x.device
                )
            x = recompute(block, x, where[block.dilation], on=use_checkpoint)
        return x


@dataclass(frozen=True)
class BlockSizes:
    """What the blocks of one stage have in common."""

    dim: int
    heads: int
    spec: DinatSpec


class Block(nn.Module):
    """Attention to the neighbourhood, then a feed-forward part, each on a residual path."""

    def __init__(self, sizes: BlockSizes, *, dilation: int, drop_path: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm1 = nn.LayerNorm(sizes.dim)
        self.attn = NeighbourAttention(sizes.dim, sizes.heads, sizes.spec.kernel_size)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(sizes.dim)
        self.mlp = Mlp(sizes.dim, int(sizes.dim * sizes.spec.mlp_ratio))
        scale = sizes.spec.layer_scale
        self.gamma1 = nn.Parameter(torch.full((sizes.dim,), scale)) if scale else None
        self.gamma2 = nn.Parameter(torch.full((sizes.dim,), scale)) if scale else None

    def forward(self, x: Tensor, where: Tiles) -> Tensor:
        x = x + self.drop_path(scaled(self.attn(self.norm1(x), where), self.gamma1))
        return x + self.drop_path(scaled(self.mlp(self.norm2(x)), self.gamma2))


def scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    """The branch of a block times its learned factor, if it has one."""
    return x if gamma is None else x * gamma


class NeighbourAttention(nn.Module):
    """Multi-head attention of each token to its neighbourhood, with a learned bias per relative position.

    Neighbouring tokens ask together (`Tiles`): one dense product over all keys that a tile spans, with the pairs
    blocked that are no neighbours. That is about three times the products that are needed, but in matrices; a loop over
    the 121 places of an 11x11 window would read every key 121 times.
    """

    def __init__(self, dim: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.rpb = nn.Parameter(torch.empty(heads, 2 * kernel - 1, 2 * kernel - 1))
        nn.init.trunc_normal_(self.rpb, std=INIT_STD)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, where: Tiles) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C)."""
        height, width = x.shape[1:3]
        x = x.flatten(1, 2)
        if where.padded:  # a zero token attends with the bias of the projection
            x = F.pad(x, (0, 0, 0, 1))
        qkv = self.qkv(x)  # (B, h*w, 3C)
        bias = F.pad(self.rpb.flatten(1), (0, 1), value=BLOCKED).to(qkv.dtype)
        bias = bias.index_select(1, where.offsets.flatten()).unflatten(1, where.offsets.shape)
        most = max(1, LOGITS // (self.heads * where.queries.shape[1] * where.keys.shape[1]))
        # What a tile reads overlaps with its neighbours' and is several times the map: it is gathered again in the
        # backward pass instead of being kept.
        mixed = [recompute(self.attend, qkv, bias, *part, on=self.training) for part in where.parts(most)]
        x = (torch.cat(mixed, dim=1) if len(mixed) > 1 else mixed[0]).index_select(1, where.place)  # (B, h*w, C)
        out: Tensor = self.proj(x).unflatten(1, (height, width))
        return out

    def attend(self, qkv: Tensor, bias: Tensor, queries: Tensor, keys: Tensor, pattern: Tensor) -> Tensor:
        """Projected tokens (B, h*w, 3C), bias (heads, patterns, Q, K) and some tiles -> (B, tiles*Q, C)."""
        batch, count, dim = qkv.shape[0], queries.shape[0], qkv.shape[2] // 3
        q = qkv[..., :dim].index_select(1, queries.flatten()).view(batch, count, -1, self.heads, dim // self.heads)
        kv = qkv[..., dim:].index_select(1, keys.flatten()).view(batch, count, -1, 2, self.heads, dim // self.heads)
        q = q.permute(0, 3, 1, 2, 4).flatten(1, 2)  # (B, heads*tiles, Q, C/heads)
        k, v = kv.permute(3, 0, 4, 1, 2, 5).flatten(2, 3).unbind(0)  # (B, heads*tiles, K, C/heads)
        mask = bias.index_select(1, pattern).flatten(0, 1).unsqueeze(0)  # (1, heads*tiles, Q, K)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return mixed.unflatten(1, (self.heads, count)).permute(0, 2, 3, 1, 4).reshape(batch, -1, dim)
