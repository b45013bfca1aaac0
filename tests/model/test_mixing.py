"""Attention by plain products is the fused one, in value and gradients; graphs and float32 have the fused one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from oneformer.model.mixing import HeadByHead, as_bias, mix, slow_when_fused

MANY = 2000  # keys, so that heads are taken one by one


def problem(dtype: torch.dtype, keys: int, kind: str) -> tuple[list[torch.Tensor], torch.Tensor | None]:
    """Queries, keys and values, with a bias that learns as the fourth; and the mask."""
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, n, 8).to(dtype).requires_grad_() for n in (40, keys, keys)]
    if kind == "boolean":
        mask = torch.rand(2, 1, 40, keys) > 0.5
        mask[..., 0] = True
        return inputs, mask
    if kind == "learned":
        inputs.append(torch.randn(1, 3, 40, keys).to(dtype).requires_grad_())
        return inputs, inputs[3]
    return inputs, None


@pytest.mark.parametrize("keys", [7, MANY], ids=["all heads at once", "head by head"])
@pytest.mark.parametrize(
    ("dtype", "kind", "tolerance"),
    [
        (torch.float32, "learned", 1e-5),
        (torch.bfloat16, "learned", 0.03),
        (torch.bfloat16, "boolean", 0.03),
        (torch.bfloat16, "none", 0.03),
    ],
)
def test_attention_by_plain_products_equals_the_fused_one_in_value_and_gradients(
    dtype: torch.dtype, kind: str, tolerance: float, keys: int
) -> None:
    """The fused one is asked in float32."""
    inputs, mask = problem(dtype, keys, kind)
    assert slow_when_fused(inputs[0], mask)
    got = mix(*inputs[:3], mask=mask, scale=0.5)
    wide = [x.detach().float().requires_grad_() for x in inputs]
    want = nn.functional.scaled_dot_product_attention(
        *wide[:3], attn_mask=wide[3] if kind == "learned" else mask, scale=0.5
    )
    seed = torch.linspace(-1, 1, want.numel()).view_as(want)
    found = [got, *torch.autograd.grad(got, inputs, seed.to(dtype))]
    for ours, theirs in zip(found, [want, *torch.autograd.grad(want, wide, seed)], strict=True):
        assert ours.dtype == dtype
        assert (ours.float() - theirs).abs().max() < tolerance * theirs.abs().max()
    with torch.no_grad():
        again = mix(*inputs[:3], mask=mask, scale=0.5)
    assert (again.float() - want).abs().max() < tolerance * want.abs().max()


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradients_head_by_head_are_right(masked: bool) -> None:
    q, k, v = (torch.randn(2, 2, n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5, 5))
    bias = as_bias(torch.rand(2, 2, 4, 5) > 0.3, torch.float64) if masked else None
    if bias is not None:
        bias[..., 0] = 0
    assert torch.autograd.gradcheck(lambda *x: HeadByHead.apply(*x, bias), (q, k, v))


def test_no_logits_are_kept_for_the_backward_pass_head_by_head() -> None:
    (q, k, v), _ = problem(torch.bfloat16, MANY, "none")
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        mix(q, k, v, mask=None)
    assert max(x.numel() for x in kept) == k.numel()


def test_dropped_weights_take_the_way_that_drops() -> None:
    (q, k, v), _ = problem(torch.bfloat16, MANY, "none")
    assert not torch.equal(mix(q, k, v, mask=None, dropout=0.5), mix(q, k, v, mask=None, dropout=0.5))


def test_attention_is_the_fused_one_in_float32_and_in_graphs() -> None:
    q = torch.randn(1, 2, 5, 8)
    assert not slow_when_fused(q, torch.ones(5, 5, dtype=torch.bool))
    with torch.no_grad():
        assert not slow_when_fused(q, torch.zeros(5, 5, requires_grad=True))

        class Mix(nn.Module):
            def forward(self, q: torch.Tensor) -> torch.Tensor:
                return mix(q, q, q, mask=None)

        graph = torch.export.export(Mix(), (q.bfloat16(),)).graph
    assert any("scaled_dot_product" in str(node.target) for node in graph.nodes)
