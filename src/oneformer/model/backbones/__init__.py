"""Images (B, 3, H, W) -> maps res2..res5 at strides 4, 8, 16 and 32: one file per backbone, one row per name here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from oneformer.errors import SpecError
from oneformer.model.backbones.common import Backbone
from oneformer.model.backbones.resnet import build_resnet
from oneformer.model.backbones.swin import build_swin

if TYPE_CHECKING:
    from oneformer.spec.backbone import BackboneSpec

BACKBONES: dict[str, Callable[[BackboneSpec], Backbone]] = {
    "D2SwinTransformer": build_swin,
    "resnet50": build_resnet,
}


def build_backbone(spec: BackboneSpec) -> Backbone:
    """The backbone that `model.backbone` names, weights as its paper initialises them.

    Raises:
        SpecError: the name stands in the spec but there is no such network here yet.
    """
    if spec.name not in BACKBONES:
        raise SpecError(
            f"the backbone {spec.name} is not available yet",
            where="model.backbone.name",
            hint=f"choose one of {', '.join(BACKBONES)}",
        )
    return BACKBONES[spec.name](spec)
