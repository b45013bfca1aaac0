"""The files in specs/ build networks of the published sizes, counted on the meta device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from oneformer.model.oneformer import build_model
from oneformer.spec.load import load_spec

SPECS = Path(__file__).resolve().parents[2] / "specs"
NAMES = sorted(
    f.stem for f in SPECS.glob("*.yaml") if f.stem.startswith(("ade20k_", "cityscapes_", "coco_", "mapillary_"))
)
# oneformer-model.md 5.1; ResNet-50 is torchvision's 25,557,032 without its classifier and, where frozen, without the
# 53,120 numbers of its normalisation.
BACKBONES = {
    "swin_t": 27_520_698,
    "swin_l": 195_201_204,
    "convnext_l": 196_233_024,
    "convnext_xl": 348_151_552,
    "dinat_l": 199_609_938,
    "r50": 25_557_032 - 2_049_000,
}
FROZEN_NORMS, SMALLER_NEIGHBOURHOODS = (
    53_120,
    738 * (21**2 - 13**2),
)  # 738 heads with tables for 7 x 7 instead of 11 x 11
PIXEL_DECODERS = {"swin_t": 5_421_504, "convnext_xl": 6_035_904, "r50": 5_052_864 + 256 * (256 + 512 + 1024 + 2048)}
TASK = 85_760
TOTALS = {  # as 5.1 adds them up
    "ade20k_swin_t": 50_736_401,
    "ade20k_swin_l": 218_811_147,
    "cityscapes_swin_l": 218_777_480,
    "coco_swin_l": 218_781_178,
    "ade20k_convnext_l": 219_842_967,
    "ade20k_convnext_xl": 372_007_255,
    "ade20k_dinat_l": 223_219_881,
}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_parameters_of_a_published_model_are_as_many_as_published(name: str) -> None:
    spec = load_spec(SPECS / f"{name}.yaml", action="train")
    with torch.device("meta"):
        model = build_model(spec.model, text_branch=False)
    dataset, kind = name.split("_", 1)
    net = next(n for n in sorted(BACKBONES, key=len, reverse=True) if kind.startswith(n))
    backbone = BACKBONES[net]
    if net == "r50" and dataset in ("ade20k", "coco"):
        backbone -= FROZEN_NORMS
    if net == "dinat_l" and dataset == "cityscapes":
        backbone -= SMALLER_NEIGHBOURHOODS
    classes, queries = spec.model.sem_seg_head.num_classes, spec.model.one_former.num_object_queries
    decoder = 17_708_439 + 257 * (classes - 150) + 256 * (queries - 150)
    found = [count(part) for part in (model.backbone, model.pixel_decoder, model.decoder, model.task)]
    assert found == [backbone, PIXEL_DECODERS.get(net, 5_790_144), decoder, TASK]
    assert count(model) == sum(found) == TOTALS.get(name, sum(found))


def test_every_total_of_the_reference_is_one_of_the_specs() -> None:
    assert set(TOTALS) <= set(NAMES)
