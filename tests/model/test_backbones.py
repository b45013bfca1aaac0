"""Every backbone keeps the same promises; Swin and ResNet keep their own beside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.specs import tiny_spec
from oneformer.errors import SpecError
from oneformer.model.backbones import BACKBONES, build_backbone
from oneformer.model.backbones.common import MAPS
from oneformer.model.backbones.resnet import FrozenBatchNorm
from oneformer.model.backbones.swin import Swin, WindowAttention
from oneformer.model.backbones.windows import relative_index, windows
from oneformer.spec.backbone import BackboneSpec

CPU = torch.device("cpu")


def spec_of(name: str) -> BackboneSpec:
    return tiny_spec(name).backbone


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [(64, 96), (37, 61), (32, 32)])
def test_maps_have_the_promised_channels_and_strides_at_any_size(name: str, size: tuple[int, int]) -> None:
    backbone = build_backbone(spec_of(name)).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, *size))
    assert tuple(maps) == MAPS
    for key, x in maps.items():
        stride = backbone.strides[key]
        assert x.shape == (2, backbone.channels[key], -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_trained_parameter_gets_a_gradient_and_frozen_ones_none(name: str) -> None:
    spec = spec_of(name)
    spec.freeze_at = 2
    backbone = build_backbone(spec).train()
    sum(x.square().mean() for x in backbone(torch.randn(1, 3, 64, 64)).values()).backward()
    frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad}
    first = "layers.0." if name.startswith("D2") else "layer1."
    assert any(n.startswith(first) for n in frozen)
    assert all((p.grad is None) == (n in frozen) for n, p in backbone.named_parameters())
    assert not any(
        n.startswith((first.replace("0", "1"), "layer2."))
        for n in frozen - {n for n in frozen if "layers.0" in n or "layer1" in n}
    )
    assert not any(m.training for top in backbone.frozen for m in top.modules())


@pytest.mark.parametrize("name", BACKBONES)
def test_freezing_nothing_trains_everything(name: str) -> None:
    assert all(p.requires_grad for p in build_backbone(spec_of(name)).parameters())


@pytest.mark.parametrize("name", BACKBONES)
def test_recomputing_activations_changes_no_gradient(name: str) -> None:
    gradients = []
    for use in (False, True):
        spec = spec_of(name)
        spec.swin.use_checkpoint = spec.resnet.use_checkpoint = use
        torch.manual_seed(0)
        backbone = build_backbone(spec).train()
        backbone(torch.ones(1, 3, 64, 64))["res5"].square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in backbone.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", BACKBONES)
def test_only_the_wanted_maps_are_returned(name: str) -> None:
    spec = spec_of(name)
    spec.swin.out_features = spec.resnet.out_features = ["res4", "res3"]
    assert list(build_backbone(spec)(torch.randn(1, 3, 32, 32))) == ["res3", "res4"]
    spec.swin.out_features = spec.resnet.out_features = ["res7"]
    with pytest.raises(SpecError, match="res7"):
        build_backbone(spec)


@pytest.mark.parametrize("name", ["D2DiNAT", "D2RADIO"])
def test_a_backbone_to_come_is_refused_with_those_at_hand(name: str) -> None:
    spec = BackboneSpec()
    spec.name = name  # type: ignore[assignment]
    with pytest.raises(SpecError, match="not available yet") as error:
        build_backbone(spec)
    assert error.value.where == "model.backbone.name"
    assert "D2SwinTransformer" in error.value.hint


def swin(**changes: object) -> Swin:
    spec = spec_of("D2SwinTransformer")
    for key, value in changes.items():
        setattr(spec.swin, key, value)
    backbone = build_backbone(spec)
    assert isinstance(backbone, Swin)
    return backbone


def test_every_token_stands_in_one_window_and_comes_back() -> None:
    for shift in (0, 2):
        where = windows(7, 10, 4, shift=shift, device=CPU)
        assert where.count == 6
        assert where.padded
        assert where.order[where.place].tolist() == list(range(70))
        assert (where.order == 70).sum() == 6 * 16 - 70


def test_a_shift_keeps_apart_what_the_wrap_has_brought_together() -> None:
    where = windows(8, 8, 4, shift=2, device=CPU)
    assert where.apart is not None
    token = where.order.view(where.count, 16)
    for window in range(where.count):
        row, column = token[window] // 8, token[window] % 8
        far = ((row[:, None] - row).abs() >= 4) | ((column[:, None] - column).abs() >= 4)
        assert torch.equal(where.apart[window] < 0, far)


def test_the_bias_of_a_pair_depends_on_its_offset_only() -> None:
    index = relative_index(3)
    assert index[0, 4] == index[4, 8]
    assert len(index.unique()) == 25
    assert index[4, 4] == 12


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ape", True),
        ("patch_norm", False),
        ("qkv_bias", False),
        ("qk_scale", 1.0),
        ("patch_size", 2),
        ("mlp_ratio", 2.0),
    ],
)
def test_every_switch_of_swin_acts(key: str, value: object) -> None:
    images = torch.randn(1, 3, 64, 64)
    found = []
    for changes in ({}, {key: value}):
        torch.manual_seed(0)
        backbone = swin(pretrain_img_size=64, **changes).eval()
        with torch.no_grad():
            found.append((sum(p.numel() for p in backbone.parameters()), backbone(images)["res5"]))
    (count, plain), (changed_count, changed) = found
    assert plain.shape != changed.shape or not torch.allclose(plain, changed)
    assert (count == changed_count) == (key in ("qk_scale",))


@pytest.mark.parametrize("key", ["drop_rate", "attn_drop_rate", "drop_path_rate"])
def test_every_dropout_of_swin_acts_in_training_only(key: str) -> None:
    torch.manual_seed(0)
    backbone, images = swin(**{key: 0.5}), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(backbone(images)["res5"], backbone(images)["res5"])
        backbone.eval()
        assert torch.equal(backbone(images)["res5"], backbone(images)["res5"])


def test_drop_path_rises_from_zero_over_all_blocks() -> None:
    backbone = swin(drop_path_rate=0.4, depths=[1, 2, 1, 1])
    rates = [block.drop_path.rate for stage in backbone.layers for block in stage.blocks]  # type: ignore[union-attr]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_heads_that_do_not_divide_a_stage_are_refused() -> None:
    with pytest.raises(SpecError, match="stage 2 has 32 channels"):
        swin(num_heads=[1, 3, 4, 8])


def test_the_position_table_starts_small_and_random() -> None:
    tables = [m.relative_position_bias_table for m in swin().modules() if isinstance(m, WindowAttention)]
    assert all(0.01 < t.std() < 0.03 for t in tables)


def test_a_frozen_norm_equals_batch_norm_at_rest_and_never_changes() -> None:
    frozen, live = FrozenBatchNorm(4).train(), nn.BatchNorm2d(4).eval()
    state = {
        "weight": torch.rand(4),
        "bias": torch.rand(4),
        "running_mean": torch.rand(4),
        "running_var": torch.rand(4),
    }
    frozen.load_state_dict(state)
    live.load_state_dict(state, strict=False)
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(frozen(x), live(x))
    assert torch.equal(frozen.running_mean, state["running_mean"])
    assert not list(frozen.parameters())


def test_a_learning_norm_follows_its_batches() -> None:
    spec = spec_of("resnet50")
    spec.resnet.norm = "batch"
    backbone = build_backbone(spec).train()
    before = backbone.state_dict()["bn1.running_mean"].clone()
    backbone(torch.randn(2, 3, 64, 64))
    assert not torch.equal(backbone.state_dict()["bn1.running_mean"], before)


def test_resnet_101_has_more_layers_and_others_are_refused() -> None:
    spec = spec_of("resnet50")
    spec.resnet.depth = 101  # type: ignore[assignment]
    with torch.device("meta"):
        assert sum("conv3.weight" in n for n in build_backbone(spec).state_dict()) == 33
    spec.resnet.depth = 34  # type: ignore[assignment]
    with pytest.raises(SpecError, match="ResNet-34"):
        build_backbone(spec)
