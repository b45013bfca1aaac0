"""Task token (B, C) and mask features (B, C, h, w) -> queries (B, Q, C): OneFormer's query initialisation.

Every query starts as the task token; a small transformer lets it look at the whole image; the task token itself becomes
the last query (OneFormer, arXiv:2211.06220, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer.model.layers import MLP, Attention, FeedForward, QueryLayer, as_tokens, full_precision
from oneformer.model.position import sine_axis, sine_position

if TYPE_CHECKING:
    from oneformer.spec.model import ModelSpec


class TaskEmbedding(nn.Module):
    """Token ids of the task sentence, as numbers, -> task token."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        dim = spec.one_former.hidden_dim
        self.mlp = MLP(spec.text_encoder.context_length, dim, dim, num_layers=2)

    def forward(self, task_tokens: Tensor) -> Tensor:
        """(B, T) -> (B, C), always in float32: half precision rounds ids as large as 49406 to others."""
        with full_precision(task_tokens):
            token: Tensor = self.mlp(task_tokens.float())
        return token


class QueryInitialiser(nn.Module):
    """Task token and mask features -> the queries that enter the decoder and the contrastive loss."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        former = spec.one_former
        dim = former.hidden_dim
        self.dim = dim
        self.turns = former.position_turns
        self.start_at_task = former.use_task_norm  # published: queries start at zero when the token is not normalised
        self.input_proj = nn.Conv2d(spec.sem_seg_head.mask_dim, dim, 1)
        nn.init.kaiming_uniform_(self.input_proj.weight, a=1)
        assert self.input_proj.bias is not None
        nn.init.zeros_(self.input_proj.bias)
        self.encoder = nn.ModuleList(MemoryLayer(spec) for _ in range(former.enc_layers))
        self.encoder_norm = nn.LayerNorm(dim) if former.enc_layers and former.pre_norm else None
        self.layers = nn.ModuleList(
            QueryLayer(
                dim,
                former.nheads,
                dim_feedforward=former.dim_feedforward,
                dropout=former.dropout,
                pre_norm=former.pre_norm,
                self_first=True,
            )
            for _ in range(former.class_dec_layers)
        )
        self.norm = nn.LayerNorm(dim)

    def read(self, mask_features: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """Mask features (B, C', h, w) -> keys and values (B, h*w, C) of each layer; no task changes them."""
        pixels = as_tokens(mask_features)  # (B, h*w, C')
        size = (mask_features.shape[2], mask_features.shape[3])
        memory = self.encode(pixels, *size) if self.encoder else None
        attentions = [layer.cross_attn for layer in self.layers if isinstance(layer, QueryLayer)]
        return tuple(self.keys_and_values(attention, pixels, size, memory) for attention in attentions)

    def forward(self, task: Tensor, seen: Sequence[tuple[Tensor, Tensor]], query_embed: Tensor) -> Tensor:
        """task (B, C), what `read` gave, query_embed (Q, C) -> (B, Q, C)."""
        query_pos = query_embed[:-1]  # (Q-1, C)
        x = task[:, None, :].expand(-1, query_pos.shape[0], -1)
        if not self.start_at_task:
            x = torch.zeros_like(x)
        for layer, (k, v) in zip(self.layers, seen, strict=True):
            x = layer(x, query_pos, k, v)
        return torch.cat((self.norm(x), task[:, None, :]), dim=1)  # (B, Q, C)

    def encode(self, pixels: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Self-attention over all pixels (`enc_layers`, published: none) -> memory and its position (B, h*w, C)."""
        position = self.project(pixels)
        position_only = sine_position(height, width, self.dim, device=pixels.device, turns=self.turns)
        memory = position_only.expand(pixels.shape[0], -1, -1)
        for layer in self.encoder:
            memory = layer(memory, position)
        return (memory if self.encoder_norm is None else self.encoder_norm(memory)), position

    def project(self, pixels: Tensor) -> Tensor:
        """(B, h*w, C') -> (B, h*w, C)."""
        return F.linear(pixels, self.input_proj.weight.flatten(1), self.input_proj.bias)

    def keys_and_values(
        self, attn: Attention, pixels: Tensor, size: tuple[int, int], memory: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Projected keys and values (B, h*w, C) of one layer.

        The published network swaps the usual roles: what is read (the value) is the sine encoding alone, and the image
        enters only through the key, as the encoding plus projected mask features. That spares two large products of
        three: the encoding is made of two axes, projected one at a time, and the projection of the mask features is
        multiplied into the key's.
        """
        _, (wk, bk), (wv, bv) = attn.weights()
        if memory is not None:
            tokens, position = memory
            return F.linear(tokens + position, wk, bk), F.linear(tokens, wv, bv)
        weight = self.input_proj.weight.flatten(1)  # (C, C')
        assert self.input_proj.bias is not None
        k = F.linear(pixels, wk @ weight)  # (B, h*w, C)
        k = k + project_position(wk, bk + wk @ self.input_proj.bias, size, turns=self.turns).to(k.dtype)
        v = project_position(wv, bv, size, turns=self.turns).to(k.dtype)
        return k, v.expand(pixels.shape[0], -1, -1)


class MemoryLayer(nn.Module):
    """Self-attention over the memory, then a feed-forward part (DETR's encoder layer)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        former = spec.one_former
        dim = former.hidden_dim
        self.pre_norm = former.pre_norm
        self.attn = Attention(dim, former.nheads, dropout=former.dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, former.dim_feedforward, dropout=former.dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(former.dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        y = self.norm1(x) if self.pre_norm else x
        at = y + position
        x = x + self.dropout(self.attn(at, at, y))
        if self.pre_norm:
            return x + self.dropout(self.ffn(self.norm2(x)))
        x = self.norm1(x)
        return self.norm2(x + self.dropout(self.ffn(x)))


def project_position(weight: Tensor, bias: Tensor, size: tuple[int, int], *, turns: float) -> Tensor:
    """`sine_position(*size) @ weight.T + bias`, (1, h*w, C), from its two axes."""
    half = weight.shape[1] // 2
    y = F.linear(sine_axis(size[0], half, device=weight.device, turns=turns), weight[:, :half], bias)  # (h, C)
    x = F.linear(sine_axis(size[1], half, device=weight.device, turns=turns), weight[:, half:])  # (w, C)
    return (y[:, None] + x).flatten(0, 1).unsqueeze(0)
