"""The shapes of a network tell its spec, and a spec that says otherwise is found out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.specs import tiny_spec
from oneformer.model.oneformer import build_model
from oneformer.model.weights.sizes import differences, sizes_of
from oneformer.spec.backbone import SECTIONS
from oneformer.spec.load import load_spec, preset_names
from oneformer.spec.model import ModelSpec
from oneformer.spec.tree import get


def shapes_of(spec: ModelSpec) -> dict[str, Any]:
    with torch.device("meta"):
        return build_model(spec).state_dict()


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_is_told_by_its_shapes(preset: str) -> None:
    spec = load_spec(None, [f"preset={preset}", "model.sem_seg_head.num_classes=5"], action="train").model
    state = shapes_of(spec)
    assert differences(spec, state) == {}
    told = sizes_of(state, heads=spec.one_former.nheads)
    said = {key: get(spec, key.removeprefix("model.")) for key in told}
    ratio = f"model.backbone.{SECTIONS[spec.backbone.name]}.mlp_ratio"  # a width rounds it
    assert said.pop(ratio, 1) == pytest.approx(told.pop(ratio, 1))
    assert said == told
    assert {"model.backbone.name", "model.sem_seg_head.num_points", "model.text_encoder.n_ctx"} <= told.keys()


CHANGES = {
    "sem_seg_head.num_classes": 6, "sem_seg_head.convs_dim": 128, "sem_seg_head.mask_dim": 32,
    "sem_seg_head.dim_feedforward": 32, "sem_seg_head.transformer_enc_layers": 10**9, "sem_seg_head.num_points": 2,
    "sem_seg_head.mask_position": True, "one_former.hidden_dim": 128, "one_former.num_object_queries": 10**9,
    "one_former.dim_feedforward": 32, "one_former.dec_layers": 10**9, "one_former.class_dec_layers": 10**9,
    "one_former.enc_layers": 10**9, "text_encoder.context_length": 10**9, "text_encoder.vocab_size": 10**9,
    "text_encoder.width": 128, "text_encoder.num_layers": 10**9, "text_encoder.n_ctx": 10**9,
    "text_encoder.proj_num_layers": 10**9, "backbone.name": "convnext", "backbone.swin.embed_dim": 32,
    "backbone.swin.depths": [1, 2, 10**9, 1], "backbone.swin.num_heads": [1, 2, 4, 4],
    "backbone.swin.window_size": 10**9, "backbone.swin.patch_size": 2, "backbone.swin.ape": True,
    "backbone.swin.patch_norm": False, "backbone.swin.qkv_bias": False,
}  # fmt: skip


@pytest.mark.parametrize("key", CHANGES)
def test_a_count_that_the_shapes_do_not_have_is_found_before_anything_is_built(key: str) -> None:
    spec = tiny_spec()
    state = shapes_of(spec)
    section, _, name = key.rpartition(".")
    setattr(get(spec, section), name, CHANGES[key])
    assert f"model.{key}" in differences(spec, state)


@pytest.mark.parametrize("backbone", ["D2SwinTransformer", "D2DiNAT", "convnext", "resnet50", "vit"])
def test_a_backbone_that_is_not_there_is_found_out(backbone: str) -> None:
    spec = tiny_spec(backbone)
    state = {name: tensor for name, tensor in shapes_of(spec).items() if not name.startswith("backbone.")}
    assert any(key.startswith("model.backbone") for key in differences(spec, state))
    assert "model.one_former.dec_layers" in differences(spec, {"x": torch.ones(1)})
