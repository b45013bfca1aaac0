"""Images (B, 3, H, W) -> maps res2..res5 at strides 4, 8, 16 and 32: one file per backbone, one row per name here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from oneformer.model.backbones.common import Backbone
from oneformer.model.backbones.convnext import build_convnext
from oneformer.model.backbones.dinat import build_dinat
from oneformer.model.backbones.efficientnet_lite import build_efficientnet_lite
from oneformer.model.backbones.radio import build_radio
from oneformer.model.backbones.resnet import build_resnet
from oneformer.model.backbones.swin import build_swin
from oneformer.model.backbones.timm import build_timm
from oneformer.model.backbones.vit import build_vit

if TYPE_CHECKING:
    from oneformer.spec.backbone import BackboneSpec

BACKBONES: dict[str, Callable[[BackboneSpec], Backbone]] = {
    "D2SwinTransformer": build_swin,
    "resnet50": build_resnet,
    "D2DiNAT": build_dinat,
    "D2RADIO": build_radio,
    "convnext": build_convnext,
    "vit": build_vit,
    "efficientnet_lite": build_efficientnet_lite,
    "timm": build_timm,
}


def build_backbone(spec: BackboneSpec) -> Backbone:
    """The backbone that `model.backbone` names, weights as its paper initialises them.

    Raises:
        SpecError: its sizes do not fit together, or what it needs is not installed; the key is named.
    """
    return BACKBONES[spec.name](spec)
