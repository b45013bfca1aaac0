"""Plain transformers: positions, windows, tokens and pyramid of `vit` and C-RADIO."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.specs import tiny_spec
from oneformer.errors import SpecError
from oneformer.model.backbones import build_backbone
from oneformer.model.backbones.common import Backbone
from oneformer.model.backbones.radio import VARIANTS
from oneformer.model.backbones.transformer import Attention, layout, rope, turned
from oneformer.model.backbones.vit import SIZES, PatchEmbed
from oneformer.spec.train import OptimSpec
from oneformer.train.optim import parameter_groups

CPU = torch.device("cpu")


def built(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    spec = tiny_spec(name).backbone
    section = spec.vit if name == "vit" else spec.radio
    for key, value in changes.items():
        setattr(section, key, value)
    return build_backbone(spec).eval()


def test_rope_depends_on_the_distance_of_two_tokens_only() -> None:
    """Centres lie 2 / 8 apart over an axis of 8, whatever token one starts from."""
    turn = rope(8, 8, 16, device=CPU)
    q, k = torch.randn(2, 1, 1, 1, 16).expand(2, 1, 1, 64, 16)
    logits = (turned(q, turn, 0) @ turned(k, turn, 0).transpose(2, 3)).view(8, 8, 8, 8)
    torch.testing.assert_close(logits[1, 2, 3, 5], logits[4, 1, 6, 4])
    assert not torch.isclose(logits[1, 2, 3, 5], logits[3, 5, 1, 2])


def test_rope_turns_each_pair_by_its_angle() -> None:
    cos, sin = rope(4, 6, 8, device=CPU)
    row, column = 2, 5
    y, x = (row + 0.5) / 4 * 2 - 1, (column + 0.5) / 6 * 2 - 1
    angles = [2 * math.pi * at / 100 ** (i / 2) for at in (y, x) for i in (0, 1)]
    torch.testing.assert_close(cos[row * 6 + column], torch.tensor([math.cos(a) for a in angles * 2]))
    torch.testing.assert_close(sin[row * 6 + column], torch.tensor([math.sin(a) for a in angles * 2]))


@pytest.mark.parametrize("turns", [False, True])
def test_a_window_is_attention_to_the_tokens_of_the_window(turns: bool) -> None:
    """7 x 5 tokens in windows of 3: whole windows, and such that reach over the end."""
    torch.manual_seed(0)
    attn, x = Attention(16, 2), torch.randn(2, 35, 16)
    turn = rope(7, 5, 8, device=CPU) if turns else None
    with torch.no_grad():
        found = attn(x, layout(7, 5, prefix=0, window=3, device=CPU, turn=turn)).view(2, 7, 5, 16)
        for top in (0, 3, 6):
            for left in (0, 3):
                index = torch.arange(35).view(7, 5)[top : top + 3, left : left + 3].flatten()
                own = None if turn is None else (turn[0][index], turn[1][index])
                want = attn(x[:, index], layout(1, len(index), prefix=0, window=None, device=CPU, turn=own))
                torch.testing.assert_close(found[:, top : top + 3, left : left + 3].flatten(1, 2), want)


@pytest.mark.parametrize("name", ["vit", "D2RADIO"])
def test_with_windows_the_last_block_of_each_quarter_sees_everything(name: str) -> None:
    backbone = built(name, window_size=2)
    seen: list[bool] = []
    for block in backbone.blocks:
        block.attn.register_forward_pre_hook(lambda _, args: seen.append(args[1].order is None))
    backbone(torch.randn(1, 3, 64, 64))
    assert seen == [False, True] * 4


def test_patches_of_14_pixels_keep_the_strides_of_16() -> None:
    embed = PatchEmbed(14, 4)
    images = torch.randn(1, 3, 50, 70)
    padded = F.interpolate(F.pad(images, (0, 10, 0, 14)), size=(4 * 14, 5 * 14), mode="bilinear")
    torch.testing.assert_close(embed(images), embed.proj(padded))


def test_a_learned_table_fits_its_own_size_unchanged_and_others_interpolated() -> None:
    vit = built("vit", position="learned", pretrain_img_size=64, register_tokens=0)
    table = vit.pos_embed[:, 1:]
    assert vit.pos_embed.shape == (1, 17, 32)
    assert torch.equal(vit.positions(4, 4), table)
    grid = table.view(4, 4, 32).permute(2, 0, 1)[None]
    want = F.interpolate(grid, size=(3, 6), mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(vit.positions(3, 6), want)


@pytest.mark.parametrize("name", ["vit", "D2RADIO"])
def test_tokens_and_positions_are_not_decayed(name: str) -> None:
    backbone = built(name, **({"position": "learned"} if name == "vit" else {}))
    groups = parameter_groups(OptimSpec(weight_decay=0.1), nn.ModuleDict({"backbone": backbone}))
    undecayed = {id(p) for group in groups if group.weight_decay == 0 for p in group.tensors}
    tables = [p for n, p in backbone.named_parameters() if "token" in n or "pos_embed" in n]
    assert len(tables) == (3 if name == "vit" else 2) and all(id(p) in undecayed for p in tables)
    assert id(backbone.blocks[0].attn.qkv.weight) not in undecayed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_heads": 3}, "32 channels do not divide into 3 heads"),
        ({"embed_dim": 30, "num_heads": 2}, "quarter of the channels"),
        ({"num_heads": 16}, "heads of 2 channels cannot be turned"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said) as error:
        built("vit", **changes)
    assert error.value.where.startswith("model.backbone.vit.")


@pytest.mark.parametrize(
    ("size", "count"),
    [("ViT-S", 22_056_576), ("ViT-B", 86_580_480), ("ViT-L", 304_368_640), ("ViT-g", 1_136_480_768)],
)
def test_dinov2_has_its_released_number_of_parameters(size: str, count: int) -> None:
    """The releases without registers, less the token for masked patches; the pyramid is ours."""
    dim, depth, heads, ratio, gated = SIZES[size]
    with torch.device("meta"):
        vit = built(
            "vit",
            embed_dim=dim,
            depth=depth,
            num_heads=heads,
            mlp_ratio=ratio,
            gated_mlp=gated,
            patch_size=14,
            position="learned",
            register_tokens=0,
            layer_scale=1e-5,
        )
    assert sum(p.numel() for n, p in vit.named_parameters() if not n.startswith("pyramid.")) == count - dim


def radio_positions(backbone: Backbone, height: int, width: int) -> Tensor:
    generator: Any = backbone.get_submodule("patch_generator")
    found: Tensor = generator.positions(height, width)
    return found.transpose(1, 2).unflatten(2, (height, width))


def test_radio_scales_its_table_to_the_longer_side_and_crops_it() -> None:
    backbone = built("D2RADIO", cpe_max_size=128)
    table = backbone.patch_generator.pos_embed.transpose(1, 2).unflatten(2, (8, 8))
    scaled = F.interpolate(table, size=(6, 6), mode="bilinear", align_corners=True)
    torch.testing.assert_close(radio_positions(backbone, 4, 6), scaled[:, :, :4])
    assert torch.equal(radio_positions(backbone, 8, 8), table)
    corners = radio_positions(backbone, 12, 12)[:, :, [0, -1], [0, -1]]
    torch.testing.assert_close(corners, table[:, :, [0, -1], [0, -1]])


def test_radio_only_crops_a_table_made_for_images_of_its_size() -> None:
    backbone = built("D2RADIO", cpe_max_size=128, resolution=[128, 128])
    table = backbone.patch_generator.pos_embed.transpose(1, 2).unflatten(2, (8, 8))
    assert torch.equal(radio_positions(backbone, 4, 6), table[:, :, :4, :6])
    assert radio_positions(backbone, 9, 6).shape[2:] == (9, 6)


@pytest.mark.parametrize(("teachers", "multiple", "tokens"), [(4, 8, 8), (3, 8, 8), (8, 8, 16), (4, 0, 4), (1, 1, 2)])
def test_radio_fills_its_summary_tokens_up_with_registers(teachers: int, multiple: int, tokens: int) -> None:
    """As its release: a count that is a multiple already gets a whole multiple more."""
    backbone = built("D2RADIO", num_teacher=teachers, register_multiple=multiple)
    assert backbone.patch_generator.cls_token.token.shape == (tokens, 32)


def test_radio_reads_patches_row_by_row_and_channel_by_channel() -> None:
    """The order of the release: a linear layer over (channel, row, column)."""
    generator = built("D2RADIO").patch_generator
    images = torch.randn(2, 3, 32, 48)
    tokens, height, width = generator(images)
    assert (height, width) == (2, 3)
    patch = images[:, :, 16:32, 16:32].reshape(2, -1)
    want = patch @ generator.embedder.weight.t() + generator.positions(2, 3)[:, 4]
    torch.testing.assert_close(tokens[:, 4 + 4], want[:])


def test_radio_names_its_networks_and_has_the_names_of_the_release() -> None:
    with pytest.raises(SpecError, match="vit_small") as error:
        built("D2RADIO", backbone="vit_small")
    assert error.value.where == "model.backbone.radio.backbone" and "vit_base_patch16_224" in error.value.hint
    with torch.device("meta"):
        large = built(
            "D2RADIO", backbone="vit_large_patch16_reg4_dinov2", cpe_max_size=2048, num_teacher=4, register_multiple=8
        )
        huge = built("D2RADIO", backbone="vit_huge_patch16_224_mlpnorm")
    state = large.state_dict()
    assert state["patch_generator.pos_embed"].shape == (1, 128 * 128, 1024)
    assert state["patch_generator.embedder.weight"].shape == (1024, 768)
    assert {"blocks.23.ls1.gamma", "blocks.0.attn.qkv.bias", "patch_generator.cls_token.token"} <= set(state)
    assert "blocks.31.mlp.norm.weight" in huge.state_dict() and len(VARIANTS) >= 5


def test_the_pyramid_refines_by_learned_steps_and_halves_by_the_maximum() -> None:
    backbone = built("vit")
    x = torch.randn(1, 32, 3, 5)
    maps = backbone.pyramid(x, 41, 80)
    assert [tuple(m.shape[1:]) for m in maps.values()] == [(8, 11, 20), (16, 6, 10), (32, 3, 5), (32, 2, 3)]
    assert torch.equal(maps["res4"], x) and torch.equal(maps["res5"][0, :, 1, 2], x[0, :, 2, 4])
