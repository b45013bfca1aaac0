"""Every pixel decoder keeps the same promises; the deformable one keeps its own beside."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.specs import tiny_spec
from oneformer.errors import SpecError
from oneformer.model.backbones import build_backbone
from oneformer.model.pixel import PIXEL_DECODERS, PixelDecoder, build_pixel_decoder
from oneformer.model.pixel.common import MaskPosition, group_norm
from oneformer.model.pixel.deformable import DeformablePixelDecoder
from oneformer.spec.model import ModelSpec

DEFORMABLE = "MSDeformAttnPixelDecoder"


def spec_of(name: str = DEFORMABLE) -> ModelSpec:
    spec = tiny_spec()
    spec.sem_seg_head.pixel_decoder_name = name  # type: ignore[assignment]
    return spec


def decoder_of(spec: ModelSpec) -> PixelDecoder:
    torch.manual_seed(0)
    return build_pixel_decoder(spec, build_backbone(spec.backbone))


def deformable(spec: ModelSpec) -> DeformablePixelDecoder:
    decoder = decoder_of(spec)
    assert isinstance(decoder, DeformablePixelDecoder)
    return decoder


def maps_of(spec: ModelSpec, size: tuple[int, int] = (64, 96), *, batch: int = 1) -> dict[str, Tensor]:
    backbone = build_backbone(spec.backbone)
    rng = torch.Generator().manual_seed(1)
    sizes = {name: [-(-side // stride) for side in size] for name, stride in backbone.strides.items()}
    return {name: torch.randn(batch, backbone.channels[name], *hw, generator=rng) for name, hw in sizes.items()}


@pytest.mark.parametrize("name", PIXEL_DECODERS)
@pytest.mark.parametrize("size", [(64, 96), (37, 61), (33, 32), (97, 10)])
@pytest.mark.parametrize("stride", [4, 8])
def test_masks_have_the_common_stride_and_memory_comes_coarsest_first_at_any_size(
    name: str, size: tuple[int, int], stride: int
) -> None:
    spec = spec_of(name)
    spec.sem_seg_head.common_stride, spec.sem_seg_head.mask_dim = stride, 32
    maps = maps_of(spec, size, batch=2)
    features = decoder_of(spec)(maps)
    finest = {4: "res2", 8: "res3"}[stride]
    assert features.mask_features.shape == (2, 32, *maps[finest].shape[2:])
    assert [m.shape for m in features.memory] == [(2, 64, *maps[n].shape[2:]) for n in ("res5", "res4", "res3")]
    assert all(x.isfinite().all() for x in (features.mask_features, *features.memory))


@pytest.mark.parametrize("name", PIXEL_DECODERS)
@pytest.mark.parametrize("norm", ["GN", "BN", "none"])
def test_every_parameter_gets_a_gradient(name: str, norm: str) -> None:
    spec = spec_of(name)
    spec.sem_seg_head.norm, spec.sem_seg_head.mask_position = norm, True  # type: ignore[assignment]
    decoder = decoder_of(spec).train()
    features = decoder(maps_of(spec, (61, 96), batch=2))
    sum(x.square().mean() for x in (features.mask_features, *features.memory)).backward()
    without = [n for n, p in decoder.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    kinds = {type(m).__name__ for part in (decoder.lateral, decoder.smooth) for m in part.modules()}  # type: ignore[union-attr]
    assert ("GroupNorm" in kinds, "BatchNorm2d" in kinds) == (norm == "GN", norm == "BN")
    biased = {
        m.bias is not None
        for part in (decoder.lateral, decoder.smooth)
        for m in part.modules()  # type: ignore[union-attr]
        if isinstance(m, torch.nn.Conv2d)
    }
    assert biased == {norm == "none"}, "a normalisation takes the place of the bias"


@pytest.mark.parametrize("name", PIXEL_DECODERS)
def test_the_maps_of_the_backbone_get_a_gradient_too(name: str) -> None:
    spec = spec_of(name)
    maps = {n: x.requires_grad_() for n, x in maps_of(spec).items()}
    decoder_of(spec)(maps).mask_features.square().mean().backward()
    assert all(x.grad is not None and x.grad.abs().max() > 0 for x in maps.values())


@pytest.mark.parametrize("name", PIXEL_DECODERS)
def test_recomputing_activations_changes_no_gradient(name: str) -> None:
    spec = spec_of(name)
    gradients = []
    for on in (False, True):
        decoder = decoder_of(spec).train()
        decoder.activation_checkpointing = on
        decoder(maps_of(spec)).mask_features.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in decoder.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", PIXEL_DECODERS)
def test_the_exported_graph_takes_any_batch_and_gives_the_same(name: str) -> None:
    spec = spec_of(name)
    spec.sem_seg_head.transformer_enc_layers = 1
    decoder = decoder_of(spec).eval()
    batch = torch.export.Dim("batch", min=1, max=16)
    shapes = {"maps": {n: {0: batch} for n in ("res2", "res3", "res4", "res5")}}
    graph = torch.export.export(decoder, (maps_of(spec, (61, 90), batch=2),), dynamic_shapes=shapes, strict=False)
    for count in (1, 3):
        maps = maps_of(spec, (61, 90), batch=count)
        with torch.no_grad():
            got, want = graph.module()(maps), decoder(maps)
        for a, b in zip((got[0], *got[1]), (want[0], *want[1]), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PIXEL_DECODERS)
def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(name: str) -> None:
    spec = spec_of(name)
    decoder, maps = decoder_of(spec).eval(), maps_of(spec, batch=3)
    with torch.no_grad():
        together = decoder(maps).mask_features[1:2]
        alone = decoder({n: x[1:2] for n, x in maps.items()}).mask_features
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PIXEL_DECODERS)
def test_the_map_at_the_common_stride_takes_part_whatever_the_list_says(name: str) -> None:
    """TAO's default list has no res2."""
    counts = []
    for listed in (["res3", "res4", "res5"], ["res2", "res3", "res4", "res5"]):
        spec = spec_of(name)
        spec.sem_seg_head.in_features = listed
        counts.append(sum(p.numel() for p in decoder_of(spec).parameters()))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", PIXEL_DECODERS)
def test_a_map_that_is_not_listed_has_no_part(name: str) -> None:
    counts, features = [], []
    for listed in (["res3", "res4", "res5"], ["res4", "res5"]):
        spec = spec_of(name)
        spec.one_former.num_feature_levels = 2
        spec.sem_seg_head.deformable_transformer_encoder_in_features = ["res4", "res5"]
        spec.sem_seg_head.in_features = listed
        decoder = decoder_of(spec)
        maps = maps_of(spec)
        if "res3" not in listed:
            del maps["res3"]
        features.append(decoder(maps))
        counts.append(sum(p.numel() for p in decoder.parameters()))
    assert counts[0] > counts[1]
    assert features[0].mask_features.shape == features[1].mask_features.shape


def refused(change: Callable[[ModelSpec], None], name: str = DEFORMABLE) -> SpecError:
    spec = spec_of(name)
    change(spec)
    with pytest.raises(SpecError) as error:
        decoder_of(spec)
    return error.value


def test_what_cannot_be_built_is_refused_by_key() -> None:
    def stride(spec: ModelSpec) -> None:
        spec.sem_seg_head.common_stride = 2

    def levels(spec: ModelSpec) -> None:
        spec.sem_seg_head.deformable_transformer_encoder_in_features = ["res4", "res5"]
        spec.sem_seg_head.in_features = ["res5"]

    def absent(spec: ModelSpec) -> None:
        spec.backbone.swin.out_features = ["res2", "res3", "res4"]

    def heads(spec: ModelSpec) -> None:
        spec.sem_seg_head.convs_dim = 66

    def not_listed(spec: ModelSpec) -> None:
        spec.sem_seg_head.in_features = ["res2", "res3", "res4"]

    at = "model.sem_seg_head."
    where = f"{at}deformable_transformer_encoder_in_features"
    assert refused(levels).where == where
    assert "res5" in refused(absent).what
    assert refused(absent).where == where
    assert "refines res5" in refused(not_listed).what
    for name in ("BasePixelDecoder", "TransformerEncoderPixelDecoder"):
        assert refused(levels, name).where == refused(absent, name).where == f"{at}in_features"
    for name in PIXEL_DECODERS:
        assert refused(stride, name).where == f"{at}common_stride"
    for name in (DEFORMABLE, "TransformerEncoderPixelDecoder"):
        assert refused(heads, name).where == f"{at}convs_dim"


@pytest.mark.parametrize(("dim", "groups"), [(256, 32), (64, 32), (48, 16), (20, 4)])
def test_normalisation_works_in_as_many_of_32_groups_as_divide_the_width(dim: int, groups: int) -> None:
    assert group_norm(dim).num_groups == groups


@pytest.mark.parametrize("name", PIXEL_DECODERS)
def test_the_top_down_path_starts_as_published(name: str) -> None:
    decoder = decoder_of(spec_of(name))
    smooth = decoder.smooth[-1][0].weight  # type: ignore[index, union-attr]
    bound = (3 / smooth[0].numel()) ** 0.5  # Kaiming-uniform with a=1
    assert 0.95 * bound < smooth.abs().max() <= bound
    assert not decoder.mask_features.bias.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", PIXEL_DECODERS)
def test_mask_position_tells_alike_places_apart_from_the_first_step(name: str) -> None:
    spec = spec_of(name)
    assert decoder_of(spec).mask_position is None
    spec.sem_seg_head.mask_position = True
    decoder = decoder_of(spec)
    assert isinstance(decoder.mask_position, MaskPosition)
    alike = torch.zeros(1, 64, 8, 8)
    told = decoder.mask_position(alike)[0].flatten(1).t()  # (h*w, C)
    distance = torch.cdist(told, told) + torch.eye(64) * 9
    assert distance.min() > 0.1
    told.sum().backward()
    assert decoder.mask_position.scale.grad is not None
    assert decoder.mask_position.scale.grad.abs().min() > 0


def test_the_vectors_of_the_levels_start_as_published() -> None:
    assert 0.8 < deformable(spec_of()).level_embed.std() < 1.2


def test_four_levels_may_take_part_in_deformable_attention() -> None:
    spec = spec_of()
    spec.sem_seg_head.deformable_transformer_encoder_in_features = ["res2", "res3", "res4", "res5"]
    features = decoder_of(spec)(maps_of(spec))
    assert features.mask_features.shape[2:] == (16, 24)
    assert len(features.memory) == 3


def test_more_points_and_wider_layers_change_the_sizes() -> None:
    spec = spec_of()
    spec.sem_seg_head.num_points, spec.sem_seg_head.dim_feedforward = 2, 96
    layer = deformable(spec).layers[0]
    assert layer.attn.sampling_offsets.out_features == 4 * 3 * 2 * 2  # type: ignore[union-attr]
    assert layer.ffn.linear1.out_features == 96  # type: ignore[union-attr]
