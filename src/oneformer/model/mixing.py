"""Queries, keys and values of all heads -> values mixed by attention, by whichever computation is the fastest there.

Torch's fused attention serves GPUs, graphs and float32. In bfloat16 on a CPU plain products are faster, both ways
(docs/decisions/0007-speed-on-a-cpu.md): few queries look at many keys here, or few tokens of a window at one another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

NEAR = 1 << 16
"""Attention logits of one head that stay in the caches together with those of the other heads."""


def mix(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """Scaled dot-product attention, (B, heads, Q, d) with keys and values (B, heads, N, d) -> (B, heads, Q, d).

    Args:
        q, k, v: queries, keys and values.
        mask: broadcastable to (B, heads, Q, N); boolean, true where to attend, or added to the logits.
        dropout: probability with which an attention weight is dropped.
        scale: of the logits, by default d ** -0.5.
    """
    if not slow_when_fused(q, mask):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    bias = as_bias(mask, q.dtype) if mask is not None and mask.dtype == torch.bool else mask
    learns = bias is not None and bias.requires_grad
    if q.shape[2] * k.shape[2] >= NEAR and not dropout and not learns:
        if bias is not None:
            bias = bias.expand(*q.shape[:2], -1, -1)
        mixed: Tensor = HeadByHead.apply(q, k, v, bias)
        return mixed
    logits = q @ k.transpose(-2, -1)  # (B, heads, Q, N)
    if bias is not None:
        logits = logits.add_(bias)
    return F.dropout(logits.softmax(-1), dropout) @ v


def slow_when_fused(q: Tensor, mask: Tensor | None) -> bool:
    """Whether torch's fused attention is slower here than plain products.

    On a CPU that is so in bfloat16, 1.4 to 3 times, and when a mask learns (Swin's bias), for which it has no backward
    pass. A graph that is exported or compiled holds the fused one.
    """
    if q.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return q.dtype == torch.bfloat16 or (torch.is_grad_enabled() and mask is not None and mask.requires_grad)


def as_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask that is true where to attend -> what is added to the logits."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf)


class HeadByHead(torch.autograd.Function):
    """Attention whose logits are those of one head at a time, and are computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Scaled q (B, heads, Q, d), k and v (B, heads, N, d), bias (B, heads, Q, N) -> (B, heads, Q, d)."""
        ctx.save_for_backward(q, k, v, bias)
        mixed = empty_like_tokens(q)
        for one in heads(q):
            mixed[one] = weights(q[one], k[one], None if bias is None else bias[one]) @ v[one]
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient (B, heads, Q, d) -> those of q, k and v."""
        q, k, v, bias = ctx.saved_tensors
        grad_q, grad_k, grad_v = (empty_like_tokens(x) for x in (q, k, v))
        for one in heads(q):
            shares = weights(q[one], k[one], None if bias is None else bias[one])  # (Q, N)
            grad_v[one] = shares.t() @ grad[one]
            slopes = (grad[one] @ v[one].t()).mul_(shares)
            slopes.addcmul_(shares, slopes.sum(-1, keepdim=True), value=-1)
            grad_q[one] = slopes @ k[one]
            grad_k[one] = slopes.t() @ q[one]
        return grad_q, grad_k, grad_v, None


def heads(q: Tensor) -> Iterator[tuple[int, int]]:
    """Image and number of each head of (B, heads, Q, d)."""
    return itertools.product(range(q.shape[0]), range(q.shape[1]))


def weights(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """Attention weights of one head, (Q, N)."""
    logits = q @ k.t()
    return (logits if bias is None else logits.add_(bias)).softmax(-1)


def empty_like_tokens(x: Tensor) -> Tensor:
    """Room for (B, heads, N, d) that lies in memory as tokens (B, N, heads*d)."""
    return x.new_empty(x.shape[0], x.shape[2], x.shape[1], x.shape[3]).transpose(1, 2)
