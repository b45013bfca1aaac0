"""Parameters of ours <-> those of the published OneFormer (SHI-Labs), which NVIDIA TAO and detectron2 files share.

One table, read in both directions; see `table` for its signs. Their backbones have the names of the first releases, as
ours do; only the residual network is detectron2's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from oneformer.model.backbones.windows import relative_index
from oneformer.model.weights.table import Carried, Names, Table

PIXEL = "sem_seg_head.pixel_decoder."
ENCODER = PIXEL + "transformer.encoder.layers.#."
QUERY = "sem_seg_head.predictor."
CLASS = QUERY + "class_transformer."
TOKEN = "text_encoder.transformer.resblocks.#."  # noqa: S105  # no secret: the layers that read tokens

RESNET: Names = {
    "backbone.conv1": "backbone.stem.conv1",
    "backbone.bn1": "backbone.stem.conv1.norm",
    **{
        f"backbone.layer{i}.#.{ours}": f"backbone.res{i + 1}.#.{theirs}"
        for i in range(1, 5)
        for ours, theirs in {
            "downsample.0": "shortcut",
            "downsample.1": "shortcut.norm",
            "conv1": "conv1",
            "bn1": "conv1.norm",
            "conv2": "conv2",
            "bn2": "conv2.norm",
            "conv3": "conv3",
            "bn3": "conv3.norm",
        }.items()
    },
}

# What Mask2Former has too, under the same names.
SHARED: Names = {
    "pixel_decoder.input_proj.#.0": PIXEL + "input_proj.#.0",
    "pixel_decoder.input_proj.#.1": PIXEL + "input_proj.#.1",
    "pixel_decoder.layers.#.attn.value_proj": ENCODER + "self_attn.value_proj",
    "pixel_decoder.layers.#.attn.sampling_offsets": ENCODER + "self_attn.sampling_offsets",
    "pixel_decoder.layers.#.attn.attention_weights": ENCODER + "self_attn.attention_weights",
    "pixel_decoder.layers.#.attn.output_proj": ENCODER + "self_attn.output_proj",
    "pixel_decoder.layers.#.norm1": ENCODER + "norm1",
    "pixel_decoder.layers.#.ffn.linear1": ENCODER + "linear1",
    "pixel_decoder.layers.#.ffn.linear2": ENCODER + "linear2",
    "pixel_decoder.layers.#.norm2": ENCODER + "norm2",
    "pixel_decoder.lateral.0.0": PIXEL + "adapter_1",
    "pixel_decoder.lateral.0.1": PIXEL + "adapter_1.norm",
    "pixel_decoder.smooth.0.0": PIXEL + "layer_1",
    "pixel_decoder.smooth.0.1": PIXEL + "layer_1.norm",
    "pixel_decoder.mask_features": PIXEL + "mask_features",
    "decoder.query_embed": QUERY + "query_embed",
    "decoder.level_embed": QUERY + "level_embed",
    "decoder.input_proj.#": QUERY + "input_proj.#",
    "decoder.layers.#.cross_attn.out": QUERY + "transformer_cross_attention_layers.#.multihead_attn.out_proj",
    "decoder.layers.#.cross_norm": QUERY + "transformer_cross_attention_layers.#.norm",
    "decoder.layers.#.self_attn.out": QUERY + "transformer_self_attention_layers.#.self_attn.out_proj",
    "decoder.layers.#.self_norm": QUERY + "transformer_self_attention_layers.#.norm",
    "decoder.layers.#.ffn.linear1": QUERY + "transformer_ffn_layers.#.linear1",
    "decoder.layers.#.ffn.linear2": QUERY + "transformer_ffn_layers.#.linear2",
    "decoder.layers.#.ffn_norm": QUERY + "transformer_ffn_layers.#.norm",
    "decoder.norm": QUERY + "decoder_norm",
    "decoder.class_embed": QUERY + "class_embed",
    "decoder.mask_embed.layers.#": QUERY + "mask_embed.layers.#",
}
SHARED_TENSORS: Names = {
    "backbone.*": "backbone.*",
    "pixel_decoder.level_embed": PIXEL + "transformer.level_embed",
    **{
        f"decoder.layers.#.{ours}.qkv.{last}": QUERY + f"{theirs}.in_proj_{last}"
        for ours, theirs in {
            "cross_attn": "transformer_cross_attention_layers.#.multihead_attn",
            "self_attn": "transformer_self_attention_layers.#.self_attn",
        }.items()
        for last in ("weight", "bias")
    },
}

# What makes a OneFormer of it: the task, the queries made from it, the texts, the contrastive loss.
OWN: Names = {
    "task.mlp.layers.#": "task_mlp.layers.#",
    "decoder.initialiser.input_proj": QUERY + "class_input_proj",
    "decoder.initialiser.encoder.#.attn.out": CLASS + "encoder.layers.#.self_attn.out_proj",
    "decoder.initialiser.encoder.#.norm1": CLASS + "encoder.layers.#.norm1",
    "decoder.initialiser.encoder.#.ffn.linear1": CLASS + "encoder.layers.#.linear1",
    "decoder.initialiser.encoder.#.ffn.linear2": CLASS + "encoder.layers.#.linear2",
    "decoder.initialiser.encoder.#.norm2": CLASS + "encoder.layers.#.norm2",
    "decoder.initialiser.encoder_norm": CLASS + "encoder.norm",
    "decoder.initialiser.layers.#.self_attn.out": CLASS + "decoder.layers.#.self_attn.out_proj",
    "decoder.initialiser.layers.#.self_norm": CLASS + "decoder.layers.#.norm1",
    "decoder.initialiser.layers.#.cross_attn.out": CLASS + "decoder.layers.#.multihead_attn.out_proj",
    "decoder.initialiser.layers.#.cross_norm": CLASS + "decoder.layers.#.norm2",
    "decoder.initialiser.layers.#.ffn.linear1": CLASS + "decoder.layers.#.linear1",
    "decoder.initialiser.layers.#.ffn.linear2": CLASS + "decoder.layers.#.linear2",
    "decoder.initialiser.layers.#.ffn_norm": CLASS + "decoder.layers.#.norm3",
    "decoder.initialiser.norm": CLASS + "decoder.norm",
    "text.token_embedding": "text_encoder.token_embedding",
    "text.layers.#.norm1": TOKEN + "ln_1",
    "text.layers.#.attn.out": TOKEN + "attn.out_proj",
    "text.layers.#.norm2": TOKEN + "ln_2",
    "text.layers.#.fc1": TOKEN + "mlp.c_fc",
    "text.layers.#.fc2": TOKEN + "mlp.c_proj",
    "text.norm": "text_encoder.ln_final",
    "text.projector.layers.#": "text_projector.layers.#",
    "text.prompt_ctx": "prompt_ctx",
}
OWN_TENSORS: Names = {
    **{
        f"{ours}.qkv.{last}": f"{theirs}.in_proj_{last}"
        for ours, theirs in {
            "decoder.initialiser.encoder.#.attn": CLASS + "encoder.layers.#.self_attn",
            "decoder.initialiser.layers.#.self_attn": CLASS + "decoder.layers.#.self_attn",
            "decoder.initialiser.layers.#.cross_attn": CLASS + "decoder.layers.#.multihead_attn",
            "text.layers.#.attn": TOKEN + "attn",
        }.items()
        for last in ("weight", "bias")
    },
    "text.positional_embedding": "text_encoder.positional_embedding",
    "criterion.logit_scale": "criterion.logit_scale",
}

TABLE = Table(modules={**RESNET, **SHARED, **OWN}, tensors={**SHARED_TENSORS, **OWN_TENSORS})
MASK2FORMER = Table(modules={**RESNET, **SHARED}, tensors=SHARED_TENSORS)
"""Mask2Former in detectron2's layout; its learned queries (`query_feat`) have no place here: the task makes ours."""

# Computed here from the sizes, kept there: no parameters.
BUFFERS = re.compile(r".*(relative_position_index|attn_mask|criterion\.empty_weight|pixel_mean|pixel_std)")


def read_shi(state: Mapping[str, Tensor], *, table: Table = TABLE) -> Carried:
    """Their tensors under our names, and what has none of ours under its own.

    Raises:
        CheckpointError: a part of one matrix is missing.
    """
    kept = {name: tensor for name, tensor in state.items() if not BUFFERS.fullmatch(name)}
    carried = table.to_ours(kept)
    return Carried(carried.state, carried.left | {n: t for n, t in state.items() if n not in kept})


def window_indices(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Swin's tables of relative positions, int64 (N, N) for windows of N tokens, which their files hold beside biases.

    Args:
        state: tensors of either side whose bias tables end in `relative_position_bias_table`.
    """
    made: dict[int, Tensor] = {}
    out = {}
    for name, table in state.items():
        if name.endswith("relative_position_bias_table"):
            window = (round(table.shape[0] ** 0.5) + 1) // 2
            made.setdefault(window, relative_index(window))
            out[name.removesuffix("bias_table") + "index"] = made[window].clone()
    return out


def class_weights(num_classes: int, no_object_weight: float) -> Tensor:
    """The weights of the class loss, float32 (K+1,), which their files hold: one, and less for "no object"."""
    weights = torch.ones(num_classes + 1)
    weights[-1] = no_object_weight
    return weights
