"""Shared parts against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from oneformer.model.layers import (
    MLP,
    Attention,
    DropPath,
    QueryLayer,
    freeze,
    full_precision,
    recompute,
)


def test_attention_equals_torchs_multi_head_attention() -> None:
    ours, theirs = Attention(24, 3).eval(), nn.MultiheadAttention(24, 3, batch_first=True).eval()
    nn.init.normal_(ours.qkv.bias)
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    query, key, value = torch.randn(2, 5, 24), torch.randn(2, 7, 24), torch.randn(2, 7, 24)
    allowed = torch.rand(2, 1, 5, 7) > 0.4
    allowed[..., 0] = True
    want = theirs(query, key, value, attn_mask=~allowed[:, 0].repeat_interleave(3, 0), need_weights=False)[0]
    torch.testing.assert_close(ours(query, key, value, mask=allowed), want)


def test_attention_starts_as_torchs_multi_head_attention_does() -> None:
    """Xavier over the fused matrix: its bound is sqrt(6 / (3C + C)), not that of three separate ones."""
    bound = (6 / (4 * 64)) ** 0.5
    widest = Attention(64, 4).qkv.weight.abs().max()
    assert 0.95 * bound < widest <= bound


def test_causal_attention_sees_only_what_came_before() -> None:
    attention, x = Attention(16, 2).eval(), torch.randn(1, 6, 16)
    changed = x.clone()
    changed[:, 4:] += 1
    before, after = attention(x, x, x, causal=True), attention(changed, changed, changed, causal=True)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_an_mlp_of_no_layers_passes_tokens_on(layers: int) -> None:
    x = torch.randn(2, 8)
    assert MLP(8, 16, 4, num_layers=layers)(x).shape == (2, 8 if layers == 0 else 4)
    assert layers or torch.equal(MLP(8, 16, 4, num_layers=0)(x), x)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("self_first", [False, True])
def test_a_query_layer_normalises_where_it_is_told(pre_norm: bool, self_first: bool) -> None:
    layer = QueryLayer(16, 2, dim_feedforward=32, dropout=0.0, pre_norm=pre_norm, self_first=self_first)
    x, memory = torch.randn(1, 4, 16), torch.randn(1, 9, 16)
    out = layer(x, torch.randn(4, 16), memory, memory)
    normalised = torch.allclose(out.std(-1, unbiased=False), torch.ones(1, 4), atol=1e-3)
    assert normalised != pre_norm


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    out = drop(x)
    per_image = out.flatten(1)
    assert ((per_image == 0).all(1) | (per_image == 1 / 0.75).all(1)).all()
    assert abs(out.mean() - 1) < 0.05
    assert torch.equal(drop.eval()(x), x)


def test_recomputing_gives_the_same_gradients() -> None:
    layer, x = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 1)), torch.randn(3, 4, requires_grad=True)
    gradients = [torch.autograd.grad(recompute(layer, x, on=on).sum(), x)[0] for on in (False, True)]
    assert torch.equal(*gradients)


def test_recomputing_counts_a_batch_once_in_what_batch_normalisation_keeps() -> None:
    kept = []
    x = torch.randn(2, 3, 5, 5)
    for on in (False, True):
        torch.manual_seed(0)
        block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        loss = recompute(block, x, on=on).sum()
        loss.backward(retain_graph=True)
        loss.backward()  # computes them a third time
        norm = block[1]
        assert isinstance(norm, nn.BatchNorm2d) and norm.momentum == 0.1
        kept.append([norm.running_mean, norm.running_var, norm.num_batches_tracked])
    assert int(kept[0][2]) == 1  # type: ignore[arg-type]
    for once, again in zip(*kept, strict=True):
        assert torch.equal(once, again)  # type: ignore[arg-type]


def test_full_precision_switches_autocast_off_inside() -> None:
    x, layer = torch.randn(2, 4), nn.Linear(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        with full_precision(x):
            assert layer(x).dtype == torch.float32


def test_freezing_stops_gradients_and_dropout() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    freeze(module)
    assert not any(p.requires_grad for p in module.parameters())
    assert not module[1].training
