"""The pixel decoder: which maps it takes, what it returns, what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from model.specs import tiny_spec
from oneformer.errors import SpecError
from oneformer.model.backbones import build_backbone
from oneformer.model.pixel import MaskPosition, PixelDecoder, group_norm
from oneformer.spec.model import ModelSpec


def decoder_of(spec: ModelSpec) -> PixelDecoder:
    return PixelDecoder(spec, build_backbone(spec.backbone))


def maps_of(decoder: PixelDecoder, spec: ModelSpec, size: tuple[int, int] = (64, 96)) -> dict[str, torch.Tensor]:
    backbone = build_backbone(spec.backbone)
    return {n: torch.randn(1, backbone.channels[n], size[0] // s, size[1] // s) for n, s in backbone.strides.items()}


@pytest.mark.parametrize("stride", [4, 8])
def test_mask_features_have_the_common_stride_and_memory_comes_coarsest_first(stride: int) -> None:
    spec = tiny_spec()
    spec.sem_seg_head.common_stride = stride
    decoder = decoder_of(spec)
    features = decoder(maps_of(decoder, spec))
    assert features.mask_features.shape == (1, 64, 64 // stride, 96 // stride)
    assert [m.shape[1:] for m in features.memory] == [(64, 2, 3), (64, 4, 6), (64, 8, 12)]


def test_four_levels_may_take_part_in_deformable_attention() -> None:
    spec = tiny_spec()
    spec.sem_seg_head.deformable_transformer_encoder_in_features = ["res2", "res3", "res4", "res5"]
    decoder = decoder_of(spec)
    features = decoder(maps_of(decoder, spec))
    assert features.mask_features.shape[2:] == (16, 24)
    assert len(features.memory) == 3


def refused(change: Callable[[ModelSpec], None]) -> SpecError:
    spec = tiny_spec()
    change(spec)
    with pytest.raises(SpecError) as error:
        decoder_of(spec)
    return error.value


def test_what_cannot_be_built_is_refused_by_key() -> None:
    def stride(spec: ModelSpec) -> None:
        spec.sem_seg_head.common_stride = 2

    def levels(spec: ModelSpec) -> None:
        spec.sem_seg_head.deformable_transformer_encoder_in_features = ["res4", "res5"]

    def absent(spec: ModelSpec) -> None:
        spec.backbone.swin.out_features = ["res2", "res3", "res4"]

    def heads(spec: ModelSpec) -> None:
        spec.sem_seg_head.convs_dim = 66

    where = "model.sem_seg_head.deformable_transformer_encoder_in_features"
    assert refused(stride).where == "model.sem_seg_head.common_stride"
    assert refused(levels).where == where
    assert "res5" in refused(absent).what
    assert refused(absent).where == where
    assert refused(heads).where == "model.sem_seg_head.convs_dim"


@pytest.mark.parametrize(("dim", "groups"), [(256, 32), (64, 32), (48, 16), (20, 4)])
def test_normalisation_works_in_as_many_of_32_groups_as_divide_the_width(dim: int, groups: int) -> None:
    assert group_norm(dim).num_groups == groups


def test_it_starts_as_published() -> None:
    torch.manual_seed(0)
    decoder = decoder_of(tiny_spec())
    assert 0.8 < decoder.level_embed.std() < 1.2
    smooth = decoder.smooth[0][0].weight  # type: ignore[index]
    bound = (3 / smooth[0].numel()) ** 0.5  # Kaiming-uniform with a=1
    assert 0.95 * bound < smooth.abs().max() <= bound
    assert not decoder.mask_features.bias.any()  # type: ignore[union-attr]


def test_mask_position_tells_alike_places_apart_from_the_first_step() -> None:
    spec = tiny_spec()
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
    assert decoder_of(tiny_spec()).mask_position is None


def test_more_points_and_wider_layers_change_the_sizes() -> None:
    spec = tiny_spec()
    spec.sem_seg_head.num_points, spec.sem_seg_head.dim_feedforward = 2, 96
    layer = decoder_of(spec).layers[0]
    assert layer.attn.sampling_offsets.out_features == 4 * 3 * 2 * 2  # type: ignore[union-attr]
    assert layer.ffn.linear1.out_features == 96  # type: ignore[union-attr]
