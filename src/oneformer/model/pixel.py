"""Backbone maps -> mask features at 1/4 (B, C, h, w) and memory maps at 1/32, 1/16, 1/8: the pixel decoder.

Deformable attention refines the coarse maps together, a top-down path carries the result to the finest one
(Mask2Former, arXiv:2112.01527, section 3.2.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.errors import SpecError
from oneformer.model.backbones.common import Backbone
from oneformer.model.deform import DeformableAttention, token_centers
from oneformer.model.layers import FeedForward, recompute
from oneformer.model.position import sine_position

if TYPE_CHECKING:
    from oneformer.spec.model import ModelSpec

MOST_GROUPS = 32  # groups of the published group normalisation; fewer only for widths it does not divide


class Features(NamedTuple):
    """What is computed once for an image, whatever the task."""

    mask_features: Tensor  # (B, C, h, w)
    memory: tuple[Tensor, ...]  # coarsest first, each (B, C, h_l, w_l)


class PixelDecoder(nn.Module):
    """Maps of the backbone -> `Features`."""

    def __init__(self, spec: ModelSpec, backbone: Backbone) -> None:
        super().__init__()
        head, former = spec.sem_seg_head, spec.one_former
        dim = head.convs_dim
        check_dims(spec)
        self.coarse, self.fine = choose_maps(spec, backbone)
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(backbone.channels[name], dim, 1), group_norm(dim)) for name in self.coarse
        )
        self.level_embed = nn.Parameter(torch.empty(len(self.coarse), dim))
        self.layers = nn.ModuleList(
            EncoderLayer(spec, levels=len(self.coarse)) for _ in range(head.transformer_enc_layers)
        )
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(backbone.channels[name], dim, 1, bias=False), group_norm(dim)) for name in self.fine
        )
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, bias=False), group_norm(dim), nn.ReLU()) for _ in self.fine
        )
        self.mask_features = nn.Conv2d(dim, head.mask_dim, 1)
        self.mask_position = MaskPosition(head.mask_dim, turns=former.position_turns) if head.mask_position else None
        self.memory_levels = former.num_feature_levels
        self.turns = former.position_turns
        self.activation_checkpointing = False
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier for the encoder's projections, Kaiming-uniform (a=1) for the top-down path (Mask2Former's code)."""
        nn.init.normal_(self.level_embed)
        for module in self.input_proj.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(zero_bias(module))
        for part in (self.lateral, self.smooth, self.mask_features):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_uniform_(module.weight, a=1)
        nn.init.zeros_(zero_bias(self.mask_features))

    def forward(self, maps: dict[str, Tensor]) -> Features:
        """{name: (B, C, h, w)} -> mask features and memory."""
        coarse = [project(maps[name]) for name, project in zip(self.coarse, self.input_proj, strict=True)]
        sizes = [(x.shape[2], x.shape[3]) for x in coarse]
        tokens = torch.cat([x.flatten(2).transpose(1, 2) for x in coarse], dim=1)  # (B, S, C)
        position = torch.cat([self.position(i, *size, tokens) for i, size in enumerate(sizes)])  # (S, C)
        centers = token_centers(sizes, device=tokens.device)
        for layer in self.layers:
            tokens = recompute(
                layer, tokens, position, centers, sizes, on=self.activation_checkpointing and self.training
            )
        parts = tokens.split([h * w for h, w in sizes], dim=1)
        memory = [
            x.transpose(1, 2).unflatten(2, size) for x, size in zip(parts, sizes, strict=True)
        ]  # (B, C, h_l, w_l)
        x = memory[-1]
        for name, lateral, smooth in zip(self.fine, self.lateral, self.smooth, strict=True):
            x = lateral(maps[name]) + F.interpolate(x, size=maps[name].shape[2:], mode="bilinear", align_corners=False)
            x = smooth(x)
        mask_features = self.mask_features(x)
        if self.mask_position is not None:
            mask_features = self.mask_position(mask_features)
        return Features(mask_features, tuple(memory[: self.memory_levels]))

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
        x = self.norm1(x + self.dropout(self.attn(x + position, x, centers, sizes)))
        return self.norm2(x + self.dropout(self.ffn(x)))


class MaskPosition(nn.Module):
    """Adds a sine position encoding to the mask features, so that a query can point at one of many alike objects.

    One learned factor per channel, 1 at the start: the encoding is then as large as the features themselves.
    """

    def __init__(self, dim: int, *, turns: float) -> None:
        super().__init__()
        self.turns = turns
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, mask_features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        dim, height, width = mask_features.shape[1:]
        position = sine_position(height, width, dim, device=mask_features.device, turns=self.turns)  # (h*w, C)
        return mask_features + (position * self.scale).t().unflatten(1, (height, width))


def choose_maps(spec: ModelSpec, backbone: Backbone) -> tuple[list[str], list[str]]:
    """Names of the maps that deformable attention refines, coarsest first, and of those the top-down path adds."""
    head = spec.sem_seg_head
    wanted = head.deformable_transformer_encoder_in_features
    where = "model.sem_seg_head.deformable_transformer_encoder_in_features"
    missing = [name for name in wanted if name not in backbone.strides]
    if missing:
        have = ", ".join(backbone.strides) or "none"
        raise SpecError(f"the backbone gives no map {missing[0]!r}", where=where, hint=f"its maps are {have}")
    coarse = sorted(wanted, key=lambda name: -backbone.strides[name])
    if len(coarse) < spec.one_former.num_feature_levels:
        raise SpecError(
            f"the query decoder visits {spec.one_former.num_feature_levels} maps, {len(coarse)} are listed", where=where
        )
    finest = backbone.strides[coarse[-1]]
    between = [name for name, stride in backbone.strides.items() if head.common_stride <= stride < finest]
    fine = sorted(between, key=lambda name: -backbone.strides[name])
    reached = backbone.strides[fine[-1]] if fine else finest
    if reached != head.common_stride:
        raise SpecError(
            f"no map of the backbone has a stride of {head.common_stride} pixels",
            where="model.sem_seg_head.common_stride",
            hint=f"the strides at hand are {', '.join(str(s) for s in backbone.strides.values())}",
        )
    return coarse, fine


def check_dims(spec: ModelSpec) -> None:
    """Widths that heads or position encodings cannot divide are the user's to change, with the key named."""
    heads = spec.one_former.nheads
    for key, dim in (
        ("sem_seg_head.convs_dim", spec.sem_seg_head.convs_dim),
        ("one_former.hidden_dim", spec.one_former.hidden_dim),
    ):
        if dim % heads or dim % 4:
            raise SpecError(
                f"{dim} channels do not divide into {heads} heads and into sine and cosine of two axes",
                where=f"model.{key}",
                hint=f"take a multiple of {math.lcm(heads, 4)}",
            )
    if spec.sem_seg_head.mask_position and spec.sem_seg_head.mask_dim % 4:
        raise SpecError("mask_position needs a multiple of 4 mask channels", where="model.sem_seg_head.mask_dim")


def group_norm(dim: int) -> nn.GroupNorm:
    """Group normalisation in 32 groups, or the most that divide `dim`."""
    return nn.GroupNorm(math.gcd(MOST_GROUPS, dim), dim)


def zero_bias(conv: nn.Conv2d) -> Tensor:
    """The bias of a convolution that has one."""
    assert conv.bias is not None
    return conv.bias
