"""The files in specs/ load as they are, are short, and hold the values of the published recipes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oneformer.spec import ExperimentSpec
from oneformer.spec.load import Loaded, load
from oneformer.spec.tree import get

SPECS = Path(__file__).resolve().parents[2] / "specs"
FILES = sorted(SPECS.glob("*.yaml"))


@dataclass(frozen=True)
class Recipe:
    """What the published models of one data set share (oneformer-model.md 1.1, 1.9, 1.10 and 2.1)."""

    classes: int
    images: int
    """Training images."""
    threshold: float
    """A query's least class score."""
    steps: int
    """Optimiser steps of 16 images."""


RECIPES = {
    "ade20k": Recipe(150, 20_210, 0.5, 160_000),
    "cityscapes": Recipe(19, 2_975, 0.8, 90_000),
    "coco": Recipe(133, 118_287, 0.8, 368_750),
    "mapillary": Recipe(65, 18_000, 0.8, 300_000),
}
COCO_DROPS = {
    "coco_r50": (368_750, [327_778, 355_092]),
    "coco_swin_t": (368_750, [327_778, 355_092]),
    "coco_swin_l": (737_500, [655_556, 735_184]),
    "coco_dinat_l": (737_500, [655_556, 710_184]),
}
MODELS = {
    "ade20k": ["r50", "swin_t", "swin_l", "swin_l_896", "swin_l_1280", "convnext_l", "convnext_xl", "dinat_l",
               "dinat_l_896", "dinat_l_1280", "dinat_l_1280_coco"],
    "cityscapes": ["r50", "swin_l", "convnext_l", "convnext_l_mapillary", "convnext_xl", "convnext_xl_mapillary", "dinat_l"],
    "coco": ["r50", "swin_t", "swin_l", "dinat_l"],
    "mapillary": ["r50", "swin_l", "convnext_l", "convnext_xl", "dinat_l"],
}  # fmt: skip
NAMES = [f"{dataset}_{model}" for dataset, models in MODELS.items() for model in models]
published = pytest.mark.parametrize("name", NAMES)


def loaded(name: str, action: str = "train") -> Loaded:
    return load(SPECS / f"{name}.yaml", action=action)


def spec_of(name: str) -> ExperimentSpec:
    return loaded(name).spec


def dataset_of(name: str) -> str:
    return name.partition("_")[0]


def recipe_of(name: str) -> Recipe:
    return RECIPES[dataset_of(name)]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_shipped_spec_loads_without_a_warning_and_fits_on_a_screen(file: Path) -> None:
    for action in ("train", "evaluate", "inference"):
        assert load(file, action=action).warnings == []
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 31  # the first names the schema
    assert max(map(len, lines)) <= 120
    assert lines[0].startswith("# "), "the first line says what it is"


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_shipped_spec_says_only_what_differs_from_its_preset(file: Path) -> None:
    said = load(file, action="train")
    without = load(None, [f"preset={said.spec.preset}"], action="train").spec
    repeated = [key for key in said.set_keys if key != "preset" and get(said.spec, key) == get(without, key)]
    assert not repeated


def test_there_is_a_spec_for_each_published_model() -> None:
    assert {f.stem for f in FILES if dataset_of(f.stem) in RECIPES} == set(NAMES)


@published
def test_it_names_the_recipe_it_follows(name: str) -> None:
    text = (SPECS / f"{name}.yaml").read_text(encoding="utf-8").split("preset:")[0]
    assert "SHI-Labs/OneFormer" in text
    assert f"configs/{dataset_of(name)}" in text
    assert text.rstrip().endswith(".yaml")


@published
def test_classes_queries_and_thresholds_are_the_published_ones(name: str) -> None:
    spec, recipe = spec_of(name), recipe_of(name)
    small = name.endswith(("_r50", "_swin_t", "_coco")) or name.startswith("coco")
    assert spec.model.sem_seg_head.num_classes == recipe.classes
    assert spec.model.one_former.num_object_queries == (150 if small else 250)
    test = spec.model.test
    assert (test.object_mask_threshold, test.overlap_threshold) == (recipe.threshold, 0.8)
    assert test.test_topk_per_image == spec.model.one_former.num_object_queries


def side_of(name: str) -> int:
    """The length that the scales 0.5 to 2 multiply."""
    if name.startswith("ade20k"):
        sizes = [int(part) for part in name.split("_") if part.isdigit()]
        return sizes[0] if sizes else 512 if name.endswith(("_r50", "_swin_t")) else 640
    return {"cityscapes": 1024, "mapillary": 2048}[dataset_of(name)]


@published
def test_image_sizes_are_the_published_ones(name: str) -> None:
    sizes = spec_of(name).dataset.augmentation
    if name.startswith("coco"):
        assert (sizes.train_resize, sizes.train_crop_size) == ("lsj", [1024, 1024])
        assert (sizes.test_min_size, sizes.test_max_size) == (800, 1333)
        assert sizes.color_jitter_prob == 0, "the published COCO pipeline only scales, crops and flips"
        return
    side, dataset = side_of(name), dataset_of(name)
    assert sizes.train_resize == "shortest_edge"
    assert sizes.train_min_size == [int(x * 0.1 * side) for x in range(5, 21)]
    assert sizes.train_max_size == 4 * side
    crops: dict[str, Any] = {"ade20k": [side, side], "cityscapes": [512, 1024], "mapillary": [1024, 1024]}
    assert sizes.train_crop_size == crops[dataset]
    assert (sizes.test_min_size, sizes.test_max_size) == (side, 4 * side if dataset == "ade20k" else 2048)


@published
def test_length_schedule_and_rates_are_the_published_ones(name: str) -> None:
    spec, recipe = spec_of(name), recipe_of(name)
    train, optim = spec.train, spec.train.optim
    steps, drops = COCO_DROPS.get(name, (recipe.steps, []))
    assert train.num_gpus * spec.dataset.train.batch_size * train.accumulate_grad_batches == 16
    assert (optim.max_iter, optim.steps) == (steps, drops)
    assert (optim.lr_scheduler, optim.warmup_iters) == (("MultiStep", 10) if drops else ("Warmuppoly", 0))
    assert (optim.lr, optim.backbone_multiplier, optim.weight_decay, optim.power, optim.gamma) == (
        1e-4,
        0.1,
        0.05,
        0.9,
        0.1,
    )
    assert train.clip_gradients.clip_value == 0.01
    steps_per_epoch = recipe.images / 16
    assert steps <= train.num_epochs * steps_per_epoch * 1.001, "epochs do not end before the steps do"
    assert (train.num_epochs - 1.5) * steps_per_epoch < steps
    in_full = "dinat" in name or name == "coco_swin_l"
    assert train.precision == ("fp32" if in_full else "fp16")
    half = {"semantic": 0.5, "panoptic": 0.5}
    assert (spec.dataset.task_prob_train == half) == name.startswith("mapillary")


@published
def test_backbones_are_the_published_ones(name: str) -> None:
    spec = spec_of(name)
    backbone, start = spec.model.backbone, spec.train
    kind = name.split("_", 1)[1]
    from_model = kind.endswith(("_coco", "_mapillary"))
    assert bool(start.pretrained_model) == from_model != bool(start.pretrained_backbone)
    if kind.startswith("r50"):
        assert backbone.resnet.norm == ("batch" if dataset_of(name) in ("cityscapes", "mapillary") else "frozen")
    elif kind.startswith("swin"):
        assert backbone.swin.drop_path_rate == 0.3
    elif kind.startswith("convnext"):
        assert (backbone.convnext.drop_path_rate, backbone.convnext.layer_scale) == (0.4, 1.0)
        assert backbone.convnext.embed_dim == (256 if "_xl" in name else 192)
    else:
        dinat = backbone.dinat
        assert (dinat.drop_path_rate, dinat.mlp_ratio, dinat.depths) == (0.3, 2.0, [3, 4, 18, 5])
        assert dinat.kernel_size == (7 if name.startswith("cityscapes") else 11)
        assert dinat.dilations is not None
        assert [len(stage) for stage in dinat.dilations] == dinat.depths
        widest = {"cityscapes": [18, 9, 4, 2]}.get(
            dataset_of(name), [28, 14, 7, 3] if "1280" in name else [20, 10, 5, 2]
        )
        assert [max(stage) for stage in dinat.dilations] == widest
    if name == "ade20k_swin_l_896":
        assert start.pretrained_backbone.endswith("_22k.pth")  # the one published with the weights before fine-tuning
