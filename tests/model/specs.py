"""Small model specs for the tests: the whole network in a few hundred thousand parameters."""

from __future__ import annotations

from oneformer.spec.model import ModelSpec

TASK_IDS = (49406.0, 518.0, 10549.0, 533.0, 1072.0, 24755.0, 49407.0)  # "the task is panoptic", oneformer-model.md 1.2


def tiny_spec(backbone: str = "D2SwinTransformer") -> ModelSpec:
    """A network of two deformable layers and three decoder layers, 64 channels wide."""
    spec = ModelSpec()
    swin, head, former, text = spec.backbone.swin, spec.sem_seg_head, spec.one_former, spec.text_encoder
    spec.backbone.name = backbone
    swin.embed_dim, swin.depths, swin.num_heads, swin.window_size = 16, [1, 2, 1, 1], [1, 2, 4, 8], 4
    swin.drop_path_rate = 0.0
    head.num_classes, head.convs_dim, head.mask_dim, head.dim_feedforward = 5, 64, 64, 64
    head.transformer_enc_layers = 2
    former.hidden_dim, former.nheads, former.dim_feedforward, former.dropout = 64, 4, 64, 0.0
    former.num_object_queries, former.dec_layers, former.class_dec_layers = 12, 4, 2
    text.width, text.num_layers, text.vocab_size, text.n_ctx = 64, 2, 49408, 4
    return spec


def swin_spec(size: str, *, queries: int = 150, classes: int = 150) -> ModelSpec:
    """A published size."""
    from oneformer.model.backbones.swin import SIZES

    spec = ModelSpec()
    dim, depths, heads, window = SIZES[size]
    swin = spec.backbone.swin
    swin.embed_dim, swin.depths, swin.num_heads, swin.window_size = dim, list(depths), list(heads), window
    spec.sem_seg_head.num_classes, spec.one_former.num_object_queries = classes, queries
    return spec
