"""Tokens (B, P+N, C), the first P without a place in the image -> the same: the blocks of a plain vision transformer.

Parameter names are those of DINOv2. Attention is over the whole image or, block by block, within windows (ViTDet,
arXiv:2203.16527, section 3); queries and keys may be turned by their position (RoPE, as in DINOv3, arXiv:2508.10104).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.model.backbones.common import Mlp, Scale
from oneformer.model.backbones.windows import windows
from oneformer.model.layers import DropPath, recompute

ROPE_BASE = 100.0  # DINOv3's release
WHOLE = 4  # blocks that attend to the whole image when the others have windows: the last of each quarter (ViTDet)


@dataclass(frozen=True)
class BlockSizes:
    """What the blocks of one transformer have in common."""

    dim: int
    heads: int
    hidden: int
    gated: bool = False
    layer_scale: float | None = None
    mlp_norm: bool = False
    eps: float = 1e-6


@dataclass(frozen=True)
class Layout:
    """Where the tokens of one image stand.

    Attributes:
        prefix: tokens without a place, before the others.
        turn: cosine and sine (N, C/heads) by which queries and keys are turned, or None.
        order: (windows*W,) the token at each place of each window, N for no token; None attends to the whole image.
        place: (N,) the place of each token in that order.
        count: number of windows.
        hidden: (windows, W) which places hold no token, or None when windows fit the map.
    """

    prefix: int
    turn: tuple[Tensor, Tensor] | None = None
    order: Tensor | None = None
    place: Tensor | None = None
    count: int = 0
    hidden: Tensor | None = None

    def whole(self) -> Layout:
        """The same without windows."""
        return Layout(self.prefix, self.turn)


def layout(
    height: int,
    width: int,
    *,
    prefix: int,
    window: int | None,
    device: torch.device,
    turn: tuple[Tensor, Tensor] | None = None,
) -> Layout:
    """The layout of a map of `height` x `width` tokens behind `prefix` others, in windows of that side or whole."""
    if window is None:
        return Layout(prefix, turn)
    cut = windows(height, width, window, shift=0, device=device)
    hidden = (cut.order == height * width).view(cut.count, -1) if cut.padded else None
    return Layout(prefix, turn, cut.order, cut.place, cut.count, hidden)


def rope(height: int, width: int, dim: int, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine (h*w, dim) of the angles by which DINOv3 turns the tokens of a map.

    Centres of the patches run from -1 to 1 over each axis; `dim` / 4 wavelengths for rows, then as many for columns.
    """
    rows = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height * 2 - 1
    columns = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width * 2 - 1
    rates = ROPE_BASE ** -(torch.arange(dim // 4, device=device, dtype=torch.float32) * 4 / dim) * 2 * math.pi
    down = (rows[:, None] * rates)[:, None].expand(-1, width, -1)
    across = (columns[:, None] * rates)[None].expand(height, -1, -1)
    angles = torch.cat((down, across), dim=2).flatten(0, 1).repeat(1, 2)  # (h*w, dim)
    return angles.cos(), angles.sin()


def turned(x: Tensor, turn: tuple[Tensor, Tensor], prefix: int) -> Tensor:
    """(B, heads, P+N, C/heads): all but the first P tokens, each pair of halves turned by its angle."""
    cos, sin = (t.to(x.dtype) for t in turn)
    fixed, x = x[:, :, :prefix], x[:, :, prefix:]
    a, b = x.chunk(2, dim=3)
    return torch.cat((fixed, x * cos + torch.cat((-b, a), dim=3) * sin), dim=2)


class Blocks(nn.ModuleList):
    """The blocks in order; with windows, the last of each quarter attends to the whole image."""

    def __init__(self, sizes: BlockSizes, rates: Sequence[float]) -> None:
        super().__init__(Block(sizes, drop_path=rate) for rate in rates)

    def forward(self, x: Tensor, where: Layout, *, use_checkpoint: bool) -> Tensor:
        period, whole = max(len(self) // WHOLE, 1), where.whole()
        for i, block in enumerate(self):
            last = i % period == period - 1 or i == len(self) - 1
            x = recompute(block, x, whole if last else where, on=use_checkpoint)
        return x


class Block(nn.Module):
    """Attention, then a feed-forward part, each on a residual path."""

    def __init__(self, sizes: BlockSizes, *, drop_path: float) -> None:
        super().__init__()
        scale = sizes.layer_scale
        self.norm1 = nn.LayerNorm(sizes.dim, eps=sizes.eps)
        self.attn = Attention(sizes.dim, sizes.heads)
        self.ls1 = Scale(sizes.dim, scale) if scale else nn.Identity()
        self.norm2 = nn.LayerNorm(sizes.dim, eps=sizes.eps)
        self.mlp = feed_forward(sizes)
        self.ls2 = Scale(sizes.dim, scale) if scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, where: Layout) -> Tensor:
        """(B, P+N, C) -> (B, P+N, C); in windows the first P tokens rest."""
        prefix, x = (x[:, :0], x) if where.order is None else (x[:, : where.prefix], x[:, where.prefix :])
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), where)))
        x = x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))
        return x if where.order is None else torch.cat((prefix, x), dim=1)


class Attention(nn.Module):
    """Multi-head attention over all tokens, or among those of each window."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, where: Layout) -> Tensor:
        """(B, P+N, C) -> (B, P+N, C); in windows (B, N, C) -> (B, N, C)."""
        q, k, v = (
            self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        )  # (B, heads, N, C/heads)
        if where.turn is not None:
            prefix = where.prefix if where.order is None else 0
            q, k = turned(q, where.turn, prefix), turned(k, where.turn, prefix)
        mixed = F.scaled_dot_product_attention(q, k, v) if where.order is None else in_windows(q, k, v, where)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


def in_windows(q: Tensor, k: Tensor, v: Tensor, where: Layout) -> Tensor:
    """Attention among the tokens of each window, (B, heads, N, C/heads) -> the same."""
    heads, mask = q.shape[1], None
    assert where.order is not None and where.place is not None
    if where.hidden is not None:  # an own place for what is no token
        q, k, v = (F.pad(x, (0, 0, 0, 1)) for x in (q, k, v))
        mask = ~where.hidden.repeat(heads, 1)[None, :, None]  # (1, heads*windows, 1, W)
    q, k, v = (x.index_select(2, where.order).unflatten(2, (where.count, -1)).flatten(1, 2) for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # (B, heads*windows, W, C/heads)
    return mixed.unflatten(1, (heads, where.count)).flatten(2, 3).index_select(2, where.place)


def feed_forward(sizes: BlockSizes) -> nn.Module:
    """The second part of a block."""
    if sizes.gated:
        return GatedMlp(sizes.dim, sizes.hidden)
    return NormedMlp(sizes.dim, sizes.hidden, eps=sizes.eps) if sizes.mlp_norm else Mlp(sizes.dim, sizes.hidden)


class NormedMlp(Mlp):
    """Linear, GELU, layer normalisation, linear: the feed-forward part of the first C-RADIO."""

    def __init__(self, dim: int, hidden_dim: int, *, eps: float) -> None:
        super().__init__(dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.norm(F.gelu(self.fc1(x))))
        return out


class GatedMlp(nn.Module):
    """A linear layer times the SiLU of another, then a third (SwiGLU, arXiv:2002.05202)."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(dim, 2 * hidden_dim)
        self.w3 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        out: Tensor = self.w3(F.silu(gate) * value)
        return out
