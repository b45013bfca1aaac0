"""Combinations that no run could work with are faults before anything is started."""

from __future__ import annotations

import pytest

from oneformer.errors import UserErrors
from oneformer.spec import ExperimentSpec
from oneformer.spec.load import load_spec
from oneformer.spec.rules import faults

FPN = "model.sem_seg_head.pixel_decoder_name=BasePixelDecoder"
ODD_WIDTH = "model.sem_seg_head.convs_dim=250"
IMPOSSIBLE = [
    (["model.one_former.hidden_dim=100"], "try 96"),
    (["model.one_former.hidden_dim=254", "model.one_former.nheads=1"], "no multiple of 4"),
    ([ODD_WIDTH], "convs_dim 250"),
    (["model.sem_seg_head.mask_dim=90", "model.sem_seg_head.mask_position=true"], "mask_dim 90"),
    (["model.sem_seg_head.deformable_transformer_encoder_in_features=[res4, res5]"], "names 2 maps"),
    (["model.sem_seg_head.deformable_transformer_encoder_in_features=[res4, res5, res5]"], "twice"),
    (["model.backbone.swin.out_features=[res2, res3, res4]"], "asks for res5"),
    (["model.backbone.name=resnet50", "model.backbone.resnet.out_features=[res2, res3, res4]"], "asks for res5"),
    (["model.sem_seg_head.common_stride=5"], "strides 4, 8, 16, 32"),
    (["model.sem_seg_head.in_features=[res2, res3, res4]"], "asks for res5, but the pixel decoder's maps"),
    ([FPN, "model.sem_seg_head.in_features=[res4, res3, res4]"], "in_features names a map twice"),
    ([FPN, "model.sem_seg_head.in_features=[res5]"], "in_features names 2 maps"),
    ([FPN, "model.backbone.swin.out_features=[res2, res3, res4]"], "in_features asks for res5"),
    (["model.sem_seg_head.pixel_decoder_name=TransformerEncoderPixelDecoder", ODD_WIDTH], "convs_dim 250"),
    (["model.backbone.swin.patch_size=8"], "strides 8, 16, 32, 64"),
    (["model.text_encoder.n_ctx=150"], "n_ctx"),
    (["model.text_encoder.width=200"], "try 192"),
    (["model.text_encoder.width=192", "model.text_encoder.proj_num_layers=0"], "without a projection"),
    (["model.text_encoder.vocab_size=1000"], "49408"),
    (["model.backbone.swin.embed_dim=100"], "stage 1"),
    (["model.backbone.swin.num_heads=[6, 12, 24, 47]"], "stage 4"),
    (["model.backbone.name=dinat", "model.backbone.dinat.num_heads=[6, 12, 24, 47]"], "stage 4"),
    (["model.backbone.name=dinat", "model.backbone.dinat.kernel_size=8"], "try 9"),
    (["model.backbone.name=dinat", "model.backbone.dinat.dilations=[[1], [1], [1], [1]]"], "lists of 1, 1, 1, 1"),
    (["model.backbone.name=dinat", "model.backbone.dinat.out_features=[res2, res3, res4]"], "asks for res5"),
    (["model.backbone.name=vit", "model.backbone.vit.num_heads=7"], "cannot be divided among 7 heads"),
    (
        ["model.backbone.name=vit", "model.backbone.vit.embed_dim=774", "model.backbone.vit.num_heads=9"],
        "multiple of 4",
    ),
    (["model.backbone.name=vit", "model.backbone.vit.num_heads=128"], "cannot be turned"),
    (["dataset.task_prob_train={semantic: 0.5}"], "adds up to 0.5"),
    (["dataset.task_prob_val={semantic: 0.5, depth: 0.5}"], "depth"),
    (["dataset.task_prob_train={semantic: 1}", "model.task_toggling.semantic_on=false"], "switches off"),
    (
        [f"model.task_toggling.{task}_on=false" for task in ("semantic", "instance", "panoptic")],
        "switches every task off",
    ),
    (["dataset.min_scale=3"], "min_scale"),
    (["dataset.augmentation.test_min_size=2000"], "test_min_size"),
    (
        ["dataset.augmentation.train_resize=shortest_edge", "dataset.augmentation.train_min_size=[512, 1400]"],
        "train_min_size",
    ),
    (["dataset.augmentation.train_crop_size=[20000, 20000]"], "max_image_mpx"),
    (["dataset.train.images=[a, b]", "dataset.train.annotations=[x, y, z]"], "lists 2"),
    (["dataset.task_seq_len=40"], "must be equal"),
    (["dataset.max_seq_len=100"], "longest text"),
    (["inference.image_size=[640]"], "[width, height]"),
    (["train.gpu_ids=[0, 0]"], "twice"),
    (["gen_trt_engine.tensorrt.min_batch_size=4"], "must not fall"),
]


@pytest.mark.parametrize(("overrides", "said"), IMPOSSIBLE, ids=[said for _, said in IMPOSSIBLE])
def test_what_cannot_work_is_refused_at_load(overrides: list[str], said: str) -> None:
    with pytest.raises(UserErrors) as caught:
        load_spec(None, overrides, action="train")
    assert said in caught.value.message
    assert len(caught.value.errors) == 1
    assert caught.value.errors[0].where.startswith("command line")


def test_the_defaults_break_no_rule() -> None:
    assert list(faults(ExperimentSpec())) == []


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset.task_prob_train={semantic: 0.33, instance: 0.33, panoptic: 0.3395}"],
        ["dataset.task_prob_train={panoptic: 1}"],
        ["model.backbone.name=resnet50", "model.backbone.swin.embed_dim=100"],
        ["model.backbone.name=resnet", "model.backbone.resnet.depth=101"],
        ["model.backbone.name=vit", "model.backbone.vit.position=learned", "model.backbone.vit.num_heads=128"],
        ["model.text_encoder.width=96"],
        ["model.sem_seg_head.convs_dim=200"],
        ["model.sem_seg_head.common_stride=8"],
        ["model.sem_seg_head.deformable_transformer_encoder_in_features=[res5, res4, res3, res2]"],
        [FPN, "model.sem_seg_head.in_features=[res5, res3]"],
        [FPN, "model.sem_seg_head.deformable_transformer_encoder_in_features=[res5]", ODD_WIDTH],
        ["train.num_gpus=8"],
        ["dataset.train.images=[a]", "dataset.train.annotations=[x, y, z]"],
        ["dataset.test.images=[a, b]"],
    ],
)
def test_what_can_work_is_not_refused(overrides: list[str]) -> None:
    assert load_spec(None, overrides, action="train")


def test_a_rule_says_nothing_about_values_that_are_wrong_by_themselves() -> None:
    with pytest.raises(UserErrors) as caught:
        load_spec(None, ["model.one_former.nheads=0"], action="train")
    assert len(caught.value.errors) == 1
