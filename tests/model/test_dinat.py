"""Neighbourhood attention equals the rule written out token by token; DiNAT keeps the released sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.specs import tiny_spec
from oneformer.errors import SpecError
from oneformer.model.backbones import build_backbone, dinat
from oneformer.model.backbones.dinat import SIZES, NeighbourAttention
from oneformer.model.backbones.neighbours import TILE, Tiles, tiles
from oneformer.spec.backbone import BackboneSpec

CPU = torch.device("cpu")
CASES = [  # height, width, kernel, dilation
    (5, 5, 3, 1),
    (7, 11, 7, 1),
    (11, 13, 11, 1),
    (25, 19, 5, 1),
    (9, 12, 3, 2),
    (10, 17, 3, 3),
    (21, 16, 5, 3),
    (22, 23, 7, 3),
    (12, 12, 3, 4),
    (3, 20, 5, 1),  # smaller than the window in one axis
    (4, 6, 7, 1),  # in both
    (6, 9, 3, 4),  # than kernel * dilation
    (2, 3, 5, 7),  # fewer tokens than groups
    (1, 1, 3, 2),
    (8, 9, 1, 2),
]


def neighbours(position: int, length: int, kernel: int, dilation: int) -> list[int]:
    """The positions that one token attends to along one axis, by the words of the papers."""
    group = [p for p in range(length) if p % dilation == position % dilation]
    own = group.index(position)
    start = own - kernel // 2
    start = max(start, 0)
    start = min(start, len(group) - kernel)
    return group[start : start + kernel]


def slow(attn: NeighbourAttention, x: Tensor, kernel: int, dilation: int) -> Tensor:
    """(B, h, w, C) -> (B, h, w, C), one token after the other."""
    height, width, dim = x.shape[1:]
    least = kernel * dilation
    x = F.pad(x, (0, 0, 0, max(0, least - width), 0, max(0, least - height)))
    full = x.shape[1:3]
    qkv = F.linear(x, attn.qkv.weight, attn.qkv.bias).unflatten(3, (3, attn.heads, dim // attn.heads))
    q, k, v = qkv.unbind(3)  # (B, h, w, heads, C/heads)
    rows = []
    for i in range(height):
        for j in range(width):
            down, across = neighbours(i, full[0], kernel, dilation), neighbours(j, full[1], kernel, dilation)
            keys, values = (t[:, down][:, :, across].flatten(1, 2) for t in (k, v))  # (B, k*k, heads, C/heads)
            logits = torch.einsum("bhd,bnhd->bhn", q[:, i, j], keys) * (dim // attn.heads) ** -0.5
            bias = [
                attn.rpb[:, (a - i) // dilation + kernel - 1, (b - j) // dilation + kernel - 1]
                for a in down
                for b in across
            ]
            weights = (logits + torch.stack(bias, dim=1)).softmax(dim=2)
            rows.append(torch.einsum("bhn,bnhd->bhd", weights, values).flatten(1))
    return attn.proj(torch.stack(rows, dim=1).unflatten(1, (height, width)))


def attention(kernel: int, *, dim: int = 8, heads: int = 2) -> NeighbourAttention:
    torch.manual_seed(0)
    attn = NeighbourAttention(dim, heads, kernel)
    for p in attn.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return attn


def layout(x: Tensor, kernel: int, dilation: int) -> Tiles:
    return tiles(x.shape[1], x.shape[2], kernel=kernel, dilation=dilation, device=CPU)


@pytest.mark.parametrize(("height", "width", "kernel", "dilation"), CASES)
def test_attention_and_its_gradients_equal_the_rule_token_by_token(
    height: int, width: int, kernel: int, dilation: int
) -> None:
    attn = attention(kernel).double()
    x, upstream = torch.randn(2, 2, height, width, 8, dtype=torch.float64)
    found = []
    for call in (lambda y: attn(y, layout(y, kernel, dilation)), lambda y: slow(attn, y, kernel, dilation)):
        y = x.clone().requires_grad_()
        attn.zero_grad()
        out = call(y)
        (out * upstream).sum().backward()
        found.append([out.detach(), y.grad, *(p.grad for p in attn.parameters())])
    for fast, exact in zip(*found, strict=True):
        torch.testing.assert_close(fast, exact)


def test_a_token_reads_its_window_and_nothing_else() -> None:
    kernel, dilation, size = 5, 2, 23
    attn, x = attention(kernel), torch.randn(1, size, size, 8, requires_grad=True)
    out = attn(x, layout(x, kernel, dilation))
    for i, j in ((0, 0), (1, 22), (11, 12), (22, 3), (21, 21)):
        (read,) = torch.autograd.grad(out[0, i, j].sum(), x, retain_graph=True)
        rows, columns = neighbours(i, size, kernel, dilation), neighbours(j, size, kernel, dilation)
        seen = torch.zeros(size, size, dtype=torch.bool)
        seen[torch.tensor(rows)[:, None], torch.tensor(columns)] = True
        seen[i, j] = True
        assert torch.equal(read[0].abs().sum(2) > 0, seen)


def test_every_token_asks_once_and_tiles_away_from_the_borders_share_their_bias() -> None:
    where = tiles(4 * TILE + 3, 6 * TILE, kernel=7, dilation=1, device=CPU)
    assert where.queries.flatten()[where.place].tolist() == list(range((4 * TILE + 3) * 6 * TILE))
    assert where.offsets.shape[0] < where.pattern.numel()


def test_work_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    attn, x = attention(7), torch.randn(2, 20, 31, 8)
    where = layout(x, 7, 1)
    with torch.no_grad():
        whole = attn(x, where)
        monkeypatch.setattr(dinat, "LOGITS", 5 * 2 * where.queries.shape[1] * where.keys.shape[1])
        torch.testing.assert_close(attn(x, where), whole)


def test_the_logits_in_memory_stay_below_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 x 128 tokens, kernel 11, 6 heads: the first stage of DiNAT-L at 512 x 512 pixels."""
    attn, x = attention(11, dim=12, heads=6), torch.randn(1, 128, 128, 12)
    sizes: list[int] = []

    def counted(qkv: Tensor, bias: Tensor, queries: Tensor, keys: Tensor, pattern: Tensor) -> Tensor:
        sizes.append(6 * queries.numel() * keys.shape[1])
        return NeighbourAttention.attend(attn, qkv, bias, queries, keys, pattern)

    monkeypatch.setattr(attn, "attend", counted)
    with torch.no_grad():
        attn(x, layout(x, 11, 1))
    assert len(sizes) > 1 and max(sizes) <= dinat.LOGITS
    assert sum(sizes) < 3 * 6 * 128 * 128 * 121  # less than three times the logits that are needed


@pytest.mark.parametrize("dilation", [1, 3])
def test_natten_agrees_where_it_applies(dilation: int) -> None:
    """natten has no bias and no maps smaller than kernel * dilation."""
    natten = pytest.importorskip("natten")
    attn = attention(5, dim=32, heads=2)
    attn.rpb.data.zero_()
    x = torch.randn(1, 19, 23, 32)
    with torch.no_grad():
        q, k, v = attn.qkv(x).unflatten(3, (3, 2, 16)).unbind(3)
        mixed = natten.functional.na2d(q, k, v, kernel_size=5, dilation=dilation, backend="flex-fna")
        torch.testing.assert_close(attn(x, layout(x, 5, dilation)), attn.proj(mixed.flatten(3)), atol=1e-5, rtol=1e-5)


def spec(**changes: Any) -> BackboneSpec:
    found = tiny_spec("D2DiNAT").backbone
    for key, value in changes.items():
        setattr(found.dinat, key, value)
    return found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_heads": [1, 3, 4, 8]}, "stage 2 has 32 channels"),
        ({"kernel_size": 4}, "odd"),
        ({"dilations": [[1], [1], [1], [1]]}, "one dilation for each block"),
        ({"embed_dim": 9, "num_heads": [1, 1, 1, 1]}, "half the channels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said) as error:
        build_backbone(spec(**changes))
    assert error.value.where.startswith("model.backbone.dinat.")


def test_the_large_network_has_the_published_size_and_names() -> None:
    """oneformer-model.md 5.1: DiNAT-L of kernel 11."""
    dim, depths, heads, ratio = SIZES["DiNAT-L"]
    with torch.device("meta"):
        large = build_backbone(
            spec(
                embed_dim=dim,
                depths=list(depths),
                num_heads=list(heads),
                mlp_ratio=ratio,
                kernel_size=11,
                dilations=None,
            )
        )
    assert sum(p.numel() for p in large.parameters()) == 199_609_938
    names = set(large.state_dict())
    assert {"patch_embed.proj.0.weight", "patch_embed.proj.1.bias", "patch_embed.norm.weight"} <= names
    assert {
        f"levels.2.blocks.17.{n}" for n in ("attn.qkv.bias", "attn.rpb", "attn.proj.weight", "mlp.fc2.bias")
    } <= names
    assert {"levels.0.downsample.reduction.weight", "levels.0.downsample.norm.bias", "norm0.weight"} <= names
    assert large.state_dict()["levels.3.blocks.4.attn.rpb"].shape == (48, 21, 21)
