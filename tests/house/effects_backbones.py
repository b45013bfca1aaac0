"""Rows of `effects.py` for the sections of `model.backbone`, one table for each kind."""

from __future__ import annotations

from typing import Any

from house.look_model import learning, logits, noisy_logits, shapes, work
from house.row import Row
from house.world import World
from model.fake_timm import fake_timm
from model.specs import VARIANTS  # with a small C-RADIO among them
from oneformer.spec import ExperimentSpec
from oneformer.spec.backbone import SECTIONS
from stand_in import stand_in

assert "tiny" in VARIANTS
# Maps that are not refined by attention join on the way up; without res3 the way is shorter.
COARSE = (
    "model.sem_seg_head.deformable_transformer_encoder_in_features=[res4, res5]",
    "model.one_former.num_feature_levels=2",
)
FEWER = "[res2, res4, res5]"


def on(name: str, **sizes: str) -> tuple[str, ...]:
    """Overrides that choose a backbone and its sizes."""
    return (f"model.backbone.name={name}", *(f"model.backbone.{SECTIONS[name]}.{k}={v}" for k, v in sizes.items()))


def timm_shapes(spec: ExperimentSpec, world: World) -> Any:
    """`shapes`, with a stand-in for the package timm."""
    with stand_in("timm", fake_timm()):
        return shapes(spec, world)


def timm_work(spec: ExperimentSpec, world: World) -> Any:
    """`work`, with a stand-in for the package timm."""
    with stand_in("timm", fake_timm()):
        return work(spec, world)


SWIN = {
    "embed_dim": Row("12", shapes),
    "depths": Row("[1,1,1,1]", shapes),
    "num_heads": Row("[1,2,2,2]", shapes),
    "window_size": Row("3", shapes),
    "mlp_ratio": Row("2", shapes),
    "qkv_bias": Row("false", shapes),
    "qk_scale": Row("3.0", logits),
    "attn_drop_rate": Row("0.5", noisy_logits),
    "drop_rate": Row("0.5", noisy_logits),
    "drop_path_rate": Row("0.9", noisy_logits),
    "ape": Row("true", shapes),
    "patch_norm": Row("false", shapes),
    "patch_size": Row("2", shapes),
    "pretrain_img_size": Row("192", shapes, on=("model.backbone.swin.ape=true",)),
    "use_checkpoint": Row("true", work),
    "out_features": Row(FEWER, shapes, on=COARSE),
}
RESNET_ON = on("resnet50")
RESNET = {
    "stride_in_1x1": Row("true", logits, on=RESNET_ON),
    "depth": Row("101", shapes, on=RESNET_ON),
    "norm": Row("batch", learning, on=RESNET_ON),
    "out_features": Row(FEWER, shapes, on=(*RESNET_ON, *COARSE)),
    "use_checkpoint": Row("true", work, on=RESNET_ON),
}
DINAT_ON = on(
    "D2DiNAT", embed_dim="8", depths="[1,2,1,1]", num_heads="[1,1,2,2]", kernel_size="3", drop_path_rate="0.0"
)
DINAT = {
    "embed_dim": Row("16", shapes, on=DINAT_ON),
    "mlp_ratio": Row("4", shapes, on=DINAT_ON),
    "depths": Row("[1,1,1,1]", shapes, on=DINAT_ON),
    "num_heads": Row("[1,2,2,2]", shapes, on=DINAT_ON),
    "kernel_size": Row("5", shapes, on=DINAT_ON),
    "drop_path_rate": Row("0.9", noisy_logits, on=DINAT_ON),
    "dilations": Row("[[1],[1,2],[1],[1]]", logits, on=DINAT_ON),
    "layer_scale": Row("0.1", shapes, on=DINAT_ON),
    "out_features": Row(FEWER, shapes, on=(*DINAT_ON, *COARSE)),
    "use_checkpoint": Row("true", work, on=DINAT_ON),
}
CONVNEXT_ON = on("convnext", embed_dim="8", depths="[1,2,1,1]", drop_path_rate="0.0")
CONVNEXT = {
    "embed_dim": Row("16", shapes, on=CONVNEXT_ON),
    "depths": Row("[1,1,1,1]", shapes, on=CONVNEXT_ON),
    "layer_scale": Row("null", shapes, on=CONVNEXT_ON),
    "drop_path_rate": Row("0.9", noisy_logits, on=CONVNEXT_ON),
    "out_features": Row(FEWER, shapes, on=(*CONVNEXT_ON, *COARSE)),
    "use_checkpoint": Row("true", work, on=CONVNEXT_ON),
}
VIT_ON = on("vit", embed_dim="16", depth="8", num_heads="2", layer_scale="0.1")
VIT = {
    "embed_dim": Row("32", shapes, on=VIT_ON),
    "depth": Row("4", shapes, on=VIT_ON),
    "num_heads": Row("4", logits, on=VIT_ON),
    "mlp_ratio": Row("2", shapes, on=VIT_ON),
    "gated_mlp": Row("true", shapes, on=VIT_ON),
    "patch_size": Row("14", shapes, on=VIT_ON),
    "position": Row("learned", shapes, on=VIT_ON),
    "pretrain_img_size": Row("256", shapes, on=(*VIT_ON, "model.backbone.vit.position=learned")),
    "register_tokens": Row("2", shapes, on=VIT_ON),
    "layer_scale": Row("null", shapes, on=VIT_ON),
    "drop_path_rate": Row("0.9", noisy_logits, on=VIT_ON),
    "window_size": Row("2", logits, on=VIT_ON),
    "out_features": Row(FEWER, shapes, on=(*VIT_ON, *COARSE)),
    "use_checkpoint": Row("true", work, on=VIT_ON),
}
RADIO_ON = on("D2RADIO", backbone="tiny", cpe_max_size="96", num_teacher="2", register_multiple="4")
RADIO = {
    "backbone": Row("vit_base_patch16_224", shapes, on=RADIO_ON),
    "resolution": Row("[160, 160]", logits, on=(*RADIO_ON, "model.backbone.radio.cpe_max_size=160")),
    "window_size": Row("2", logits, on=RADIO_ON),
    "num_teacher": Row("5", shapes, on=RADIO_ON),
    "cpe_max_size": Row("160", shapes, on=RADIO_ON),
    "register_multiple": Row("8", shapes, on=RADIO_ON),
    "out_features": Row(FEWER, shapes, on=(*RADIO_ON, *COARSE)),
    "use_checkpoint": Row("true", work, on=RADIO_ON),
}
LITE_ON = on("efficientnet_lite", drop_path_rate="0.0")
LITE = {
    "size": Row("1", shapes, on=LITE_ON),
    "norm": Row("batch", learning, on=LITE_ON),
    "drop_path_rate": Row("0.9", noisy_logits, on=LITE_ON),
    "out_features": Row(FEWER, shapes, on=(*LITE_ON, *COARSE)),
    "use_checkpoint": Row("true", work, on=LITE_ON),
}
TIMM_ON = on("timm", model="tiny_net")
TIMM = {
    "model": Row("tiny_vit", timm_shapes, on=TIMM_ON, refused="tiny_vit gives maps at strides 16"),
    "out_features": Row(FEWER, timm_shapes, on=(*TIMM_ON, *COARSE)),
    "use_checkpoint": Row("true", timm_work, on=TIMM_ON),
}

BACKBONES = {
    "swin": SWIN, "resnet": RESNET, "dinat": DINAT, "radio": RADIO, "convnext": CONVNEXT, "vit": VIT,
    "efficientnet_lite": LITE, "timm": TIMM,
}  # fmt: skip
