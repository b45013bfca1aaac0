"""Tokens (B, N, C) -> tokens (B, N, C): the small parts that the rooms of the network share."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from oneformer.model.mixing import mix


def as_tokens(x: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h*w, C).

    Channels are moved last before rows are joined: maps lie that way in memory, here and in engines that run an
    exported graph, so that nothing is copied.
    """
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h*w, C) -> (B, C, h, w), channels last in memory."""
    return tokens.unflatten(1, size).permute(0, 3, 1, 2)


class MLP(nn.Module):
    """`num_layers` linear layers with ReLU between them; the last one maps to `out_dim`. Zero layers pass tokens on."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int, *, num_layers: int) -> None:
        super().__init__()
        dims = [in_dim, *[hidden_dim] * (num_layers - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(dims) if num_layers)

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x) if i == 0 else layer(x.relu())
        return x


class Attention(nn.Module):
    """Multi-head attention without attention weights as output, so that fused kernels serve it."""

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        assert dim % heads == 0, f"{dim} channels do not divide into {heads} heads"
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.qkv.weight)  # over the fused matrix, as in DETR's attention
        nn.init.zeros_(self.qkv.bias)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def weights(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(weight (C, C), bias (C,)) of the query, key and value projections, as views."""
        w, b = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        return (w[0], b[0]), (w[1], b[1]), (w[2], b[2])

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Query (B, Q, C), key and value (B, N, C) -> (B, Q, C); mask (B or 1, 1, Q, N) is true where to attend."""
        wq, wk, wv = self.weights()
        k, v = F.linear(key, *wk), F.linear(value, *wv)  # (B, N, C)
        return self.attend(F.linear(query, *wq), k, v, mask=mask, causal=causal)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Projected q (B, Q, C), k and v (B, N, C) -> mixed and projected out (B, Q, C)."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, N, C/heads)
        if causal:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        mixed = mix(q, k, v, mask=mask, dropout=self.dropout if self.training else 0.0)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, Q, C)


class FeedForward(nn.Module):
    """Linear, ReLU, dropout, linear."""

    def __init__(self, dim: int, hidden_dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.linear1(x)
        hidden = hidden.relu() if hidden.requires_grad else hidden.relu_()  # in place on a view, autograd would copy
        return self.linear2(self.dropout(hidden))


class QueryLayer(nn.Module):
    """Queries look at memory, at one another, and think: cross-attention, self-attention, feed-forward.

    The published decoder looks at memory first; the query initialiser (DETR's decoder layer) at one another first.
    """

    def __init__(
        self, dim: int, heads: int, *, dim_feedforward: int, dropout: float, pre_norm: bool, self_first: bool
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_first = self_first
        self.cross_attn = Attention(dim, heads, dropout=dropout)
        self.cross_norm = nn.LayerNorm(dim)
        self.self_attn = Attention(dim, heads, dropout=dropout)
        self.self_norm = nn.LayerNorm(dim)
        self.ffn = FeedForward(dim, dim_feedforward, dropout=dropout)
        self.ffn_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, query_pos: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, Q, C), query_pos (Q, C), k and v (B, N, C) already projected by `cross_attn` -> (B, Q, C)."""
        if self.self_first:
            x = self._look_around(x, query_pos)
        x = self._residual(x, self.cross_norm, lambda y: self._look_at_memory(y + query_pos, k, v, mask))
        if not self.self_first:
            x = self._look_around(x, query_pos)
        return self._residual(x, self.ffn_norm, self.ffn)

    def _look_around(self, x: Tensor, query_pos: Tensor) -> Tensor:
        def attend(y: Tensor) -> Tensor:
            at = y + query_pos
            return self.self_attn(at, at, y)

        return self._residual(x, self.self_norm, attend)

    def _look_at_memory(self, query: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        q = F.linear(query, *self.cross_attn.weights()[0])
        return self.cross_attn.attend(q, k, v, mask=mask)

    def _residual(self, x: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return x + self.dropout(branch(norm(x)))
        return norm(x + self.dropout(branch(x)))


class DropPath(nn.Module):
    """Skips the branch for a whole image with probability `rate` in training (stochastic depth, arXiv:1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * (kept / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def recompute(module: Callable[..., Tensor], *args: Any, on: bool) -> Tensor:
    """`module(*args)`; when `on` and gradients are wanted, its activations are computed again in the backward pass."""
    if on and torch.is_grad_enabled():

        def contexts() -> tuple[contextlib.AbstractContextManager[None], StatisticsKept]:
            return contextlib.nullcontext(), StatisticsKept(module)  # of the first time, and of the second

        out: Tensor = checkpoint(module, *args, use_reentrant=False, context_fn=contexts)
        return out
    return module(*args)


class StatisticsKept:
    """While entered, batch normalisations use an image's statistics without adding them to those they keep.

    It may be entered again, as each backward pass through the same graph does.
    """

    def __init__(self, module: Callable[..., Tensor]) -> None:
        modules = module.modules() if isinstance(module, nn.Module) else ()
        self.norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.before: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        counts = (norm.num_batches_tracked for norm in self.norms)
        self.before = [
            (norm.momentum, None if count is None else count.clone())
            for norm, count in zip(self.norms, counts, strict=True)
        ]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, batches) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


@contextlib.contextmanager
def full_precision(x: Tensor) -> Iterator[None]:
    """Float32 inside an autocast region; leaves no trace in an exported graph when there is none."""
    if not torch.is_autocast_enabled(x.device.type):
        yield
        return
    with torch.autocast(x.device.type, enabled=False):
        yield


def freeze(module: nn.Module) -> None:
    """No gradients for the module and no changing statistics or dropout: it stays in evaluation mode."""
    module.requires_grad_(False)
    module.eval()
