"""Every backbone keeps the same promises; Swin, ResNet and ConvNeXt keep their own beside."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.specs import NAMES, section_of, tiny_spec
from oneformer.errors import SpecError
from oneformer.model.backbones import build_backbone
from oneformer.model.backbones.common import MAPS
from oneformer.model.backbones.convnext import SIZES as CONVNEXTS
from oneformer.model.backbones.resnet import FrozenBatchNorm
from oneformer.model.backbones.swin import Swin, WindowAttention
from oneformer.model.backbones.windows import relative_index, windows
from oneformer.spec.backbone import SECTIONS, BackboneSpec

CPU = torch.device("cpu")


# Beginnings of the names of the stem's parameters, of the first stage's and of the second's.
STAGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "D2SwinTransformer": (("patch_embed.",), ("layers.0.",), ("layers.1.",)),
    "resnet50": (("conv1.", "bn1."), ("layer1.",), ("layer2.",)),
    "D2DiNAT": (("patch_embed.",), ("levels.0.",), ("levels.1.",)),
    "D2RADIO": (("patch_generator.",), ("blocks.0.", "blocks.1."), ("blocks.2.",)),
    "convnext": (("downsample_layers.0.",), ("stages.0.",), ("stages.1.", "downsample_layers.1.")),
    "vit": (("patch_embed.", "cls_token", "register_tokens"), ("blocks.0.", "blocks.1."), ("blocks.2.",)),
    "efficientnet_lite": (("_conv_stem.", "_bn0."), ("_blocks.0.", "_blocks.1.", "_blocks.2."), ("_blocks.3.",)),
}


def spec_of(name: str, **changes: object) -> BackboneSpec:
    spec = tiny_spec(name)
    for key, value in changes.items():
        setattr(section_of(spec), key, value)
    return spec.backbone


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(64, 96), (97, 131), (32, 32)])
def test_maps_have_the_promised_channels_and_strides_at_any_size(name: str, size: tuple[int, int]) -> None:
    backbone = build_backbone(spec_of(name)).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, *size))
    assert tuple(maps) == MAPS
    assert backbone.strides == {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
    for key, x in maps.items():
        stride = backbone.strides[key]
        assert x.shape == (2, backbone.channels[key], -(-size[0] // stride), -(-size[1] // stride))
        assert x.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_every_trained_parameter_gets_a_gradient_and_frozen_ones_none(name: str) -> None:
    stem, first, second = STAGES[name]
    for freeze_at, fixed in ((0, ()), (1, stem), (2, stem + first)):
        spec = spec_of(name)
        spec.freeze_at = freeze_at
        backbone = build_backbone(spec).train()
        sum(x.square().mean() for x in backbone(torch.randn(1, 3, 64, 64)).values()).backward()
        frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad}
        assert frozen == {n for n, _ in backbone.named_parameters() if n.startswith(fixed)}
        assert all((p.grad is None) == (n in frozen) for n, p in backbone.named_parameters())
        assert any(n.startswith(second) for n, p in backbone.named_parameters() if p.grad is not None)
        assert not any(m.training for top in backbone.frozen for m in top.modules())


@pytest.mark.parametrize("name", NAMES)
def test_everything_can_be_frozen(name: str) -> None:
    spec = spec_of(name)
    spec.freeze_at = 5
    left = [n for n, p in build_backbone(spec).named_parameters() if p.requires_grad]
    assert all(n.startswith(("norm", "pyramid.")) for n in left)


def memory_and_gradients(spec: BackboneSpec) -> tuple[int, Tensor]:
    """Numbers kept for the backward pass outside of recomputed parts, and all gradients."""
    kept = 0

    def count(x: Tensor) -> Tensor:
        nonlocal kept
        kept += x.numel()
        return x

    torch.manual_seed(0)
    backbone = build_backbone(spec).train()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        maps = backbone(torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64))
    sum(x.square().mean() for x in maps.values()).backward()
    return kept, torch.cat([p.grad.flatten() for p in backbone.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", NAMES)
def test_recomputing_activations_keeps_less_and_changes_no_gradient(name: str) -> None:
    (kept, plain), (less, again) = (memory_and_gradients(spec_of(name, use_checkpoint=on)) for on in (False, True))
    torch.testing.assert_close(plain, again)
    assert less < 0.7 * kept


@pytest.mark.parametrize("name", NAMES)
def test_only_the_wanted_maps_are_returned(name: str) -> None:
    backbone = build_backbone(spec_of(name, out_features=["res4", "res3"]))
    assert list(backbone(torch.randn(1, 3, 32, 32))) == ["res3", "res4"]
    assert set(backbone.channels) == set(backbone.strides) == {"res3", "res4"}
    with pytest.raises(SpecError, match="res7") as error:
        build_backbone(spec_of(name, out_features=["res7"]))
    assert error.value.where == f"model.backbone.{SECTIONS[name]}.out_features"


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("D2SwinTransformer", "resnet50")])
def test_the_exported_graph_gives_the_same(name: str) -> None:
    """Swin's and the residual network's are exported with the whole network, in test_oneformer.py."""
    backbone, images = build_backbone(spec_of(name)).eval(), torch.randn(2, 3, 50, 70)
    graph = torch.export.export(backbone, (images,), strict=False)
    depends_on_data = ("nonzero", "local_scalar", "aten.item", "masked_select")
    assert not [n for n in graph.graph.nodes if any(word in str(n.target) for word in depends_on_data)]
    with torch.no_grad():
        found = graph.module()(images)
        for key, want in backbone(images).items():
            torch.testing.assert_close(found[key], want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_weights_make_the_same_network_again(name: str) -> None:
    one, other = (build_backbone(spec_of(name)).eval() for _ in range(2))
    other.load_state_dict(one.state_dict())
    images = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        for got, want in zip(other(images).values(), one(images).values(), strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("ConvNeXt-T", 28_589_128),
        ("ConvNeXt-S", 50_223_688),
        ("ConvNeXt-B", 88_591_464),
        ("ConvNeXt-L", 197_767_336),
        ("ConvNeXt-XL", 350_196_968),
    ],
)
def test_convnext_has_its_released_number_of_parameters(size: str, count: int) -> None:
    """The released classifiers: another last norm, and 1000 classes instead of the norms of the four maps."""
    spec = BackboneSpec(name="convnext")
    spec.convnext.embed_dim, spec.convnext.depths = CONVNEXTS[size][0], list(CONVNEXTS[size][1])
    with torch.device("meta"):
        backbone = build_backbone(spec)
    own = sum(p.numel() for n, p in backbone.named_parameters() if not n.startswith("norm"))
    last = backbone.channels["res5"]
    assert own + 2 * last + 1000 * (last + 1) == count


@pytest.mark.parametrize(("size", "count"), [("ConvNeXt-L", 196_233_024), ("ConvNeXt-XL", 348_151_552)])
def test_convnext_has_the_published_size_and_names(size: str, count: int) -> None:
    """oneformer-model.md 5.1."""
    spec = BackboneSpec(name="convnext")
    spec.convnext.embed_dim, spec.convnext.depths = CONVNEXTS[size][0], list(CONVNEXTS[size][1])
    with torch.device("meta"):
        backbone = build_backbone(spec)
    assert sum(p.numel() for p in backbone.parameters()) == count
    names = set(backbone.state_dict())
    block = [f"stages.2.26.{n}" for n in ("dwconv.bias", "norm.weight", "pwconv1.weight", "pwconv2.bias", "gamma")]
    assert {*block, "downsample_layers.0.0.weight", "downsample_layers.3.1.bias", "norm0.weight"} <= names


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
    spec.resnet.depth = 101
    with torch.device("meta"):
        assert sum("conv3.weight" in n for n in build_backbone(spec).state_dict()) == 33
    spec.resnet.depth = 34  # type: ignore[assignment]
    with pytest.raises(SpecError, match="ResNet-34"):
        build_backbone(spec)
