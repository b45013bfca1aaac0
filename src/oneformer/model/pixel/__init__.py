"""Backbone maps -> mask features (B, C, h, w) and memory maps: one file per kind of pixel decoder, one row per name.

The names are Mask2Former's, which TAO keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from oneformer.model.pixel.common import Features, PixelDecoder
from oneformer.model.pixel.deformable import DeformablePixelDecoder
from oneformer.model.pixel.fpn import FpnPixelDecoder

if TYPE_CHECKING:
    from oneformer.model.backbones.common import Backbone
    from oneformer.spec.model import ModelSpec

__all__ = ["PIXEL_DECODERS", "Features", "PixelDecoder", "build_pixel_decoder"]

PIXEL_DECODERS: dict[str, Callable[[ModelSpec, Backbone], PixelDecoder]] = {
    "MSDeformAttnPixelDecoder": DeformablePixelDecoder,
    "BasePixelDecoder": FpnPixelDecoder,
    "TransformerEncoderPixelDecoder": partial(FpnPixelDecoder, attend=True),
}


def build_pixel_decoder(spec: ModelSpec, backbone: Backbone) -> PixelDecoder:
    """The pixel decoder that `model.sem_seg_head.pixel_decoder_name` names, for the maps that `backbone` gives.

    Raises:
        SpecError: maps or widths that do not fit together; the key is named.
    """
    return PIXEL_DECODERS[spec.sem_seg_head.pixel_decoder_name](spec, backbone)
