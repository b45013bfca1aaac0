"""Backbone maps -> mask features and memory maps by a feature pyramid of plain convolutions.

The two pixel decoders that MaskFormer (arXiv:2107.06278) began with and Mask2Former's code keeps: a pyramid from the
coarsest map down (Lin et al., arXiv:1612.03144), the second one with attention on the coarsest map first. Cheaper than
deformable attention, and less accurate (Mask2Former, arXiv:2112.01527, section 4.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.model.backbones.common import Backbone
from oneformer.model.layers import Attention, FeedForward, as_map, as_tokens, recompute
from oneformer.model.pixel.common import (
    IN_FEATURES,
    Features,
    PixelDecoder,
    check_dims,
    check_given,
    check_levels,
    init_convs,
    lateral_conv,
    smooth_conv,
    taken_maps,
)
from oneformer.model.position import sine_position

if TYPE_CHECKING:
    from oneformer.spec.model import ModelSpec


class FpnPixelDecoder(PixelDecoder):
    """`BasePixelDecoder`, and with `attend` `TransformerEncoderPixelDecoder`.

    From the coarsest map down: the map so far, enlarged to the next one's size by repeating pixels, plus that map
    through a 1x1 convolution; then a 3x3 convolution. The first `num_feature_levels` results are the memory, the last
    one becomes the mask features by a 3x3 convolution.
    """

    def __init__(self, spec: ModelSpec, backbone: Backbone, *, attend: bool = False) -> None:
        super().__init__(spec)
        check_dims(spec)
        check_given(spec.sem_seg_head.in_features, backbone, where=IN_FEATURES)
        self.names = taken_maps(spec, backbone)
        check_levels(self.names, spec, where=IN_FEATURES)
        dim, norm = spec.sem_seg_head.convs_dim, spec.sem_seg_head.norm
        coarsest, *finer = (backbone.channels[name] for name in self.names)
        self.encoder = CoarseEncoder(spec, coarsest) if attend else None
        self.lateral = nn.ModuleList(lateral_conv(channels, dim, norm=norm) for channels in finer)
        self.smooth = nn.ModuleList(
            smooth_conv(channels, dim, norm=norm) for channels in (dim if attend else coarsest, *[dim] * len(finer))
        )
        self.add_mask_head(spec, kernel=3)
        init_convs(self.lateral, self.smooth, self.mask_features)

    def forward(self, maps: dict[str, Tensor]) -> Features:
        """{name: (B, C, h, w)} -> mask features and memory."""
        x = maps[self.names[0]]
        if self.encoder is not None:
            x = self.encoder(x, checkpointing=self.activation_checkpointing and self.training)
        x = self.smooth[0](x)
        memory = [x]
        for name, lateral, smooth in zip(self.names[1:], self.lateral, self.smooth[1:], strict=True):
            x = smooth(lateral(maps[name]) + F.interpolate(x, size=maps[name].shape[2:], mode="nearest"))
            memory.append(x)
        return self.finish(x, memory)


class CoarseEncoder(nn.Module):
    """Self-attention over the coarsest map (DETR's encoder, arXiv:2005.12872, section 3.2)."""

    def __init__(self, spec: ModelSpec, channels: int) -> None:
        super().__init__()
        dim, former = spec.sem_seg_head.convs_dim, spec.one_former
        self.turns = former.position_turns
        self.input_proj = nn.Conv2d(channels, dim, 1)
        self.layers = nn.ModuleList(CoarseLayer(spec) for _ in range(spec.sem_seg_head.transformer_enc_layers))
        self.norm = nn.LayerNorm(dim) if former.pre_norm else nn.Identity()
        init_convs(self.input_proj)

    def forward(self, x: Tensor, *, checkpointing: bool) -> Tensor:
        """(B, C', h, w) -> (B, C, h, w)."""
        height, width = x.shape[2:]
        tokens = as_tokens(self.input_proj(x))  # (B, h*w, C)
        position = sine_position(height, width, tokens.shape[2], device=tokens.device, turns=self.turns)
        for layer in self.layers:
            tokens = recompute(layer, tokens, position, on=checkpointing)
        refined: Tensor = self.norm(tokens)
        return as_map(refined, (height, width))


class CoarseLayer(nn.Module):
    """Self-attention and a feed-forward part; position enters queries and keys only."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        head, former = spec.sem_seg_head, spec.one_former
        self.pre_norm = former.pre_norm
        self.attn = Attention(head.convs_dim, former.nheads, dropout=former.dropout)
        self.norm1 = nn.LayerNorm(head.convs_dim)
        self.ffn = FeedForward(head.convs_dim, head.dim_feedforward, dropout=former.dropout)
        self.norm2 = nn.LayerNorm(head.convs_dim)
        self.dropout = nn.Dropout(former.dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """Tokens (B, N, C) and their places (N, C) -> (B, N, C)."""
        if self.pre_norm:
            x = x + self.dropout(self.look_around(self.norm1(x), position))
            return x + self.dropout(self.ffn(self.norm2(x)))
        x = self.norm1(x + self.dropout(self.look_around(x, position)))
        out: Tensor = self.norm2(x + self.dropout(self.ffn(x)))
        return out

    def look_around(self, x: Tensor, position: Tensor) -> Tensor:
        """Each token's mixture of all tokens, (B, N, C)."""
        at = x + position
        mixed: Tensor = self.attn(at, at, x)
        return mixed
