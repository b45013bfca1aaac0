"""Small model specs for the tests: the whole network in a few hundred thousand parameters."""

from __future__ import annotations

from typing import Any

from oneformer.model.backbones import BACKBONES
from oneformer.model.backbones.radio import VARIANTS, Variant
from oneformer.spec.backbone import SECTIONS
from oneformer.spec.model import ModelSpec

TASK_IDS = (49406.0, 518.0, 10549.0, 533.0, 1072.0, 24755.0, 49407.0)  # "the task is panoptic", oneformer-model.md 1.2

NAMES = [name for name in BACKBONES if name != "timm"]  # which is not installed here
VARIANTS.setdefault("tiny", Variant(32, 8, 2, layer_scale=0.1, mlp_norm=True))


def tiny_spec(backbone: str = "D2SwinTransformer") -> ModelSpec:
    """A network of two deformable layers and three decoder layers, 64 channels wide."""
    spec = ModelSpec()
    swin, head, former, text = spec.backbone.swin, spec.sem_seg_head, spec.one_former, spec.text_encoder
    spec.backbone.name = backbone
    swin.embed_dim, swin.depths, swin.num_heads, swin.window_size = 16, [1, 2, 1, 1], [1, 2, 4, 8], 4
    swin.drop_path_rate = 0.0
    tiny_backbones(spec)
    head.num_classes, head.convs_dim, head.mask_dim, head.dim_feedforward = 5, 64, 64, 64
    head.transformer_enc_layers = 2
    former.hidden_dim, former.nheads, former.dim_feedforward, former.dropout = 64, 4, 64, 0.0
    former.num_object_queries, former.dec_layers, former.class_dec_layers = 12, 4, 2
    text.width, text.num_layers, text.vocab_size, text.n_ctx = 64, 2, 49408, 4
    return spec


def tiny_backbones(spec: ModelSpec) -> None:
    """Small sizes for every kind but Swin, without chance in training."""
    dinat, radio, convnext, vit = (getattr(spec.backbone, s) for s in ("dinat", "radio", "convnext", "vit"))
    dinat.embed_dim, dinat.depths, dinat.num_heads, dinat.kernel_size = 16, [2, 1, 1, 1], [1, 2, 4, 8], 3
    dinat.dilations, dinat.drop_path_rate = [[1, 2], [1], [3], [1]], 0.0
    radio.backbone, radio.cpe_max_size, radio.num_teacher, radio.register_multiple = "tiny", 96, 2, 4
    convnext.embed_dim, convnext.depths, convnext.drop_path_rate = 16, [1, 2, 1, 1], 0.0
    vit.embed_dim, vit.depth, vit.num_heads, vit.layer_scale = 32, 8, 2, 0.1
    spec.backbone.efficientnet_lite.drop_path_rate = 0.0


def section_of(spec: ModelSpec) -> Any:
    """The section of the backbone that the spec names."""
    return getattr(spec.backbone, SECTIONS[spec.backbone.name])


def swin_spec(size: str, *, queries: int = 150, classes: int = 150) -> ModelSpec:
    """A published size."""
    from oneformer.model.backbones.swin import SIZES

    spec = ModelSpec()
    dim, depths, heads, window = SIZES[size]
    swin = spec.backbone.swin
    swin.embed_dim, swin.depths, swin.num_heads, swin.window_size = dim, list(depths), list(heads), window
    spec.sem_seg_head.num_classes, spec.one_former.num_object_queries = classes, queries
    return spec
