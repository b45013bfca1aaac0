"""Distinct texts (U, T) of a batch -> text vectors (B, Q, C) for the contrastive loss; used in training only.

A CLIP text transformer (Radford et al., 2021), a projection to the width of the queries, and learned vectors that fill
the places no text describes (OneFormer, arXiv:2211.06220, section 3.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from oneformer.errors import SpecError
from oneformer.model.layers import MLP, Attention

if TYPE_CHECKING:
    from oneformer.spec.model import ModelSpec

HEAD_WIDTH = 64  # channels per head in CLIP's text transformer


class TextBranch(nn.Module):
    """Token ids -> one vector per query."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        text, dim = spec.text_encoder, spec.one_former.hidden_dim
        check_sizes(spec)
        self.token_embedding = nn.Embedding(text.vocab_size, text.width)
        self.positional_embedding = nn.Parameter(torch.empty(text.context_length, text.width))
        heads = max(1, text.width // HEAD_WIDTH)
        self.layers = nn.ModuleList(TextLayer(text.width, heads) for _ in range(text.num_layers))
        self.norm = nn.LayerNorm(text.width)
        self.projector = MLP(text.width, dim, dim, num_layers=text.proj_num_layers)
        self.prompt_ctx = nn.Embedding(text.n_ctx, dim)
        self.reset_parameters(text.width, text.num_layers)

    def reset_parameters(self, width: int, num_layers: int) -> None:
        """CLIP's initialisation."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        for layer in self.layers:
            assert isinstance(layer, TextLayer)
            nn.init.normal_(layer.attn.qkv.weight, std=width**-0.5)
            nn.init.normal_(layer.attn.out.weight, std=width**-0.5 * (2 * num_layers) ** -0.5)
            nn.init.normal_(layer.fc1.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(layer.fc2.weight, std=width**-0.5 * (2 * num_layers) ** -0.5)

    def forward(self, text_tokens: Tensor, text_index: Tensor) -> Tensor:
        """Tokens (U, T) int64, index (B, Q-n_ctx) of each query's text -> (B, Q, C), learned vectors last."""
        vectors = self.encode(text_tokens)[text_index]  # (B, Q-n_ctx, C)
        prompts = self.prompt_ctx.weight.to(vectors.dtype).expand(text_index.shape[0], -1, -1)
        return torch.cat((vectors, prompts), dim=1)

    def encode(self, text_tokens: Tensor) -> Tensor:
        """(U, T) -> (U, C): the feature at each text's end token, which has the largest id."""
        end = text_tokens.argmax(dim=1)  # (U,)
        text_tokens = text_tokens[:, : int(end.max()) + 1]  # what follows the last end token is never looked at
        x = self.token_embedding(text_tokens) + self.positional_embedding[: text_tokens.shape[1]]  # (U, T, C)
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x[torch.arange(x.shape[0], device=x.device), end])  # (U, C)
        projected: Tensor = self.projector(x)
        return projected


class TextLayer(nn.Module):
    """Causal self-attention, then a feed-forward part, normalised before each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(U, T, C) -> (U, T, C)."""
        y = self.norm1(x)
        x = x + self.attn(y, y, y, causal=True)
        y = self.fc1(self.norm2(x))
        return x + self.fc2(y * torch.sigmoid(1.702 * y))  # CLIP's approximation of GELU


def check_sizes(spec: ModelSpec) -> None:
    """Widths and counts that cannot meet, each with its key."""
    text, former = spec.text_encoder, spec.one_former
    heads = max(1, text.width // HEAD_WIDTH)
    if text.width % heads:
        raise SpecError(
            f"{text.width} channels do not divide into {heads} heads",
            where="model.text_encoder.width",
            hint=f"take a multiple of {HEAD_WIDTH}",
        )
    if text.proj_num_layers == 0 and text.width != former.hidden_dim:
        raise SpecError(
            f"without a projection the text width must equal model.one_former.hidden_dim, {former.hidden_dim}",
            where="model.text_encoder.width",
            hint="or set model.text_encoder.proj_num_layers=2",
        )
    if text.n_ctx >= former.num_object_queries:
        raise SpecError(
            f"{text.n_ctx} learned texts leave none of the {former.num_object_queries} queries a text of its own",
            where="model.text_encoder.n_ctx",
            hint="take fewer than model.one_former.num_object_queries",
        )
