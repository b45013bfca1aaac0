"""Backbone maps -> mask features at 1/4 (B, C, h, w) and memory maps at 1/32, 1/16, 1/8, by deformable attention.

Deformable attention refines the coarse maps together, a top-down path carries the result to the finest one
(Mask2Former, arXiv:2112.01527, section 3.2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.errors import SpecError
from oneformer.model.backbones.common import Backbone
from oneformer.model.deform import DeformableAttention, token_centers
from oneformer.model.layers import FeedForward, as_map, as_tokens, recompute
from oneformer.model.pixel.common import (
    Features,
    PixelDecoder,
    check_dims,
    check_given,
    check_levels,
    group_norm,
    init_convs,
    lateral_conv,
    smooth_conv,
    taken_maps,
)
from oneformer.model.position import sine_position

if TYPE_CHECKING:
    from oneformer.spec.model import ModelSpec


class DeformablePixelDecoder(PixelDecoder):
    """`MSDeformAttnPixelDecoder`: deformable attention over the coarse maps, lateral connections to the finer ones."""

    def __init__(self, spec: ModelSpec, backbone: Backbone) -> None:
        super().__init__(spec)
        head = spec.sem_seg_head
        dim, norm = head.convs_dim, head.norm
        check_dims(spec)
        self.coarse, self.fine = choose_maps(spec, backbone)
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(backbone.channels[name], dim, 1), group_norm(dim)) for name in self.coarse
        )
        self.level_embed = nn.Parameter(torch.empty(len(self.coarse), dim))
        self.layers = nn.ModuleList(
            EncoderLayer(spec, levels=len(self.coarse)) for _ in range(head.transformer_enc_layers)
        )
        self.lateral = nn.ModuleList(lateral_conv(backbone.channels[name], dim, norm=norm) for name in self.fine)
        self.smooth = nn.ModuleList(smooth_conv(dim, dim, norm=norm) for _ in self.fine)
        self.add_mask_head(spec, kernel=1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier for the encoder's projections, Kaiming-uniform (a=1) for the top-down path (Mask2Former's code)."""
        nn.init.normal_(self.level_embed)
        for module in self.input_proj.modules():
            if isinstance(module, nn.Conv2d):
                assert module.bias is not None
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        init_convs(self.lateral, self.smooth, self.mask_features)

    def forward(self, maps: dict[str, Tensor]) -> Features:
        """{name: (B, C, h, w)} -> mask features and memory."""
        coarse = [project(maps[name]) for name, project in zip(self.coarse, self.input_proj, strict=True)]
        sizes = [(x.shape[2], x.shape[3]) for x in coarse]
        tokens = torch.cat([as_tokens(x) for x in coarse], dim=1)  # (B, S, C)
        position = torch.cat([self.position(i, *size, tokens) for i, size in enumerate(sizes)])  # (S, C)
        centers = token_centers(sizes, device=tokens.device)
        for layer in self.layers:
            tokens = recompute(
                layer, tokens, position, centers, sizes, on=self.activation_checkpointing and self.training
            )
        parts = tokens.split([h * w for h, w in sizes], dim=1)
        memory = [as_map(x, size) for x, size in zip(parts, sizes, strict=True)]  # (B, C, h_l, w_l)
        x = memory[-1]
        for name, lateral, smooth in zip(self.fine, self.lateral, self.smooth, strict=True):
            x = lateral(maps[name]) + F.interpolate(x, size=maps[name].shape[2:], mode="bilinear", align_corners=False)
            x = smooth(x)
        return self.finish(x, memory)

    def position(self, level: int, height: int, width: int, like: Tensor) -> Tensor:
        """Sine encoding plus the level's own vector, (h*w, C)."""
        return (
            sine_position(height, width, like.shape[2], device=like.device, turns=self.turns) + self.level_embed[level]
        )


class EncoderLayer(nn.Module):
    """Deformable self-attention over all levels, then a feed-forward part, normalised after each."""

    def __init__(self, spec: ModelSpec, *, levels: int) -> None:
        super().__init__()
        head, former = spec.sem_seg_head, spec.one_former
        dim = head.convs_dim
        self.attn = DeformableAttention(dim, heads=former.nheads, levels=levels, points=head.num_points)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, head.dim_feedforward, dropout=former.dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(former.dropout)

    def forward(self, x: Tensor, position: Tensor, centers: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """(B, S, C) -> (B, S, C); the places to look at depend on position, what is read there does not."""
        x = x + self.dropout(self.attn(x + position, x, centers, sizes))
        # Hidden tokens are four times as wide, of all levels: computed again, they cost little time for much memory.
        return self.norm2(recompute(self.think, x, on=self.training))

    def think(self, x: Tensor) -> Tensor:
        """What follows attention, up to the last norm."""
        x = self.norm1(x)
        return x + self.dropout(self.ffn(x))


def choose_maps(spec: ModelSpec, backbone: Backbone) -> tuple[list[str], list[str]]:
    """Names of the maps that deformable attention refines, coarsest first, and of those the top-down path adds."""
    wanted = spec.sem_seg_head.deformable_transformer_encoder_in_features
    where = "model.sem_seg_head.deformable_transformer_encoder_in_features"
    check_given(wanted, backbone, where=where)
    check_levels(wanted, spec, where=where)
    coarse = sorted(wanted, key=lambda name: -backbone.strides[name])
    taken = taken_maps(spec, backbone)
    left_out = [name for name in coarse if name not in taken]
    if left_out:
        raise SpecError(
            f"deformable attention refines {left_out[0]}, which is not among the maps of the pixel decoder",
            where=where,
            hint=f"its maps are {', '.join(taken)}, by model.sem_seg_head.in_features and common_stride",
        )
    finest = backbone.strides[coarse[-1]]
    return coarse, [name for name in taken if backbone.strides[name] < finest]
