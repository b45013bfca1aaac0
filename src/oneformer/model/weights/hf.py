"""Parameters of ours <-> those of Hugging Face transformers' OneFormerForUniversalSegmentation.

One table, read in both directions; see `table` for its signs. It holds the names of saved files, which transformers 4
and 5 share; `RENAMED` tells what transformers 5 calls some of them in memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from oneformer.model.weights import hf_backbones as backbones
from oneformer.model.weights.hf_backbones import BACKBONE
from oneformer.model.weights.table import Carried, Names, Table

PIXEL = "model.pixel_level_module.decoder."
QUERY = "model.transformer_module."
TEXT = "model.text_mapper."
CLASS = QUERY + "decoder.query_transformer.decoder."
LAYER = QUERY + "decoder.layers.#."
TOKEN = TEXT + "text_encoder.transformer.layers.#."

# ours (without .weight or .bias) -> theirs
MODULES: Names = {
    "pixel_decoder.input_proj.#.0": PIXEL + "input_projections.#.0",
    "pixel_decoder.input_proj.#.1": PIXEL + "input_projections.#.1",
    "pixel_decoder.layers.#.attn.value_proj": PIXEL + "encoder.layers.#.self_attn.value_proj",
    "pixel_decoder.layers.#.attn.sampling_offsets": PIXEL + "encoder.layers.#.self_attn.sampling_offsets",
    "pixel_decoder.layers.#.attn.attention_weights": PIXEL + "encoder.layers.#.self_attn.attention_weights",
    "pixel_decoder.layers.#.attn.output_proj": PIXEL + "encoder.layers.#.self_attn.output_proj",
    "pixel_decoder.layers.#.norm1": PIXEL + "encoder.layers.#.self_attn_layer_norm",
    "pixel_decoder.layers.#.ffn.linear1": PIXEL + "encoder.layers.#.fc1",
    "pixel_decoder.layers.#.ffn.linear2": PIXEL + "encoder.layers.#.fc2",
    "pixel_decoder.layers.#.norm2": PIXEL + "encoder.layers.#.final_layer_norm",
    "pixel_decoder.lateral.0.0": PIXEL + "adapter_1.0",
    "pixel_decoder.lateral.0.1": PIXEL + "adapter_1.1",
    "pixel_decoder.smooth.0.0": PIXEL + "layer_1.0",
    "pixel_decoder.smooth.0.1": PIXEL + "layer_1.1",
    "pixel_decoder.mask_features": PIXEL + "mask_projection",
    "task.mlp.layers.#": "model.task_encoder.task_mlp.layers.#.0",
    "decoder.query_embed": QUERY + "queries_embedder",
    "decoder.level_embed": QUERY + "level_embed",
    "decoder.initialiser.input_proj": QUERY + "decoder.query_input_projection",
    "decoder.initialiser.layers.#.self_attn.out": CLASS + "layers.#.self_attn.out_proj",
    "decoder.initialiser.layers.#.self_norm": CLASS + "layers.#.norm1",
    "decoder.initialiser.layers.#.cross_attn.out": CLASS + "layers.#.multihead_attn.out_proj",
    "decoder.initialiser.layers.#.cross_norm": CLASS + "layers.#.norm2",
    "decoder.initialiser.layers.#.ffn.linear1": CLASS + "layers.#.linear1",
    "decoder.initialiser.layers.#.ffn.linear2": CLASS + "layers.#.linear2",
    "decoder.initialiser.layers.#.ffn_norm": CLASS + "layers.#.norm3",
    "decoder.initialiser.norm": CLASS + "norm",
    "decoder.layers.#.cross_attn.out": LAYER + "cross_attn.multihead_attn.out_proj",
    "decoder.layers.#.cross_norm": LAYER + "cross_attn.norm",
    "decoder.layers.#.self_attn.qkv": (
        LAYER + "self_attn.self_attn.q_proj",
        LAYER + "self_attn.self_attn.k_proj",
        LAYER + "self_attn.self_attn.v_proj",
    ),
    "decoder.layers.#.self_attn.out": LAYER + "self_attn.self_attn.out_proj",
    "decoder.layers.#.self_norm": LAYER + "self_attn.norm",
    "decoder.layers.#.ffn.linear1": LAYER + "ffn.linear1",
    "decoder.layers.#.ffn.linear2": LAYER + "ffn.linear2",
    "decoder.layers.#.ffn_norm": LAYER + "ffn.norm",
    "decoder.norm": QUERY + "decoder.decoder_norm",
    "decoder.class_embed": QUERY + "decoder.class_embed",
    "decoder.mask_embed.layers.#": QUERY + "decoder.mask_embed.layers.#.0",
    "text.token_embedding": TEXT + "text_encoder.token_embedding",
    "text.layers.#.norm1": TOKEN + "layer_norm1",
    "text.layers.#.attn.out": TOKEN + "self_attn.out_proj",
    "text.layers.#.norm2": TOKEN + "layer_norm2",
    "text.layers.#.fc1": TOKEN + "mlp.fc1",
    "text.layers.#.fc2": TOKEN + "mlp.fc2",
    "text.norm": TEXT + "text_encoder.ln_final",
    "text.projector.layers.#": TEXT + "text_projector.layers.#.0",
    "text.prompt_ctx": TEXT + "prompt_ctx",
}

# ours -> theirs, where the names differ to the last part
TENSORS: Names = {
    "pixel_decoder.level_embed": PIXEL + "level_embed",
    "decoder.initialiser.layers.#.self_attn.qkv.weight": CLASS + "layers.#.self_attn.in_proj_weight",
    "decoder.initialiser.layers.#.self_attn.qkv.bias": CLASS + "layers.#.self_attn.in_proj_bias",
    "decoder.initialiser.layers.#.cross_attn.qkv.weight": CLASS + "layers.#.multihead_attn.in_proj_weight",
    "decoder.initialiser.layers.#.cross_attn.qkv.bias": CLASS + "layers.#.multihead_attn.in_proj_bias",
    "decoder.layers.#.cross_attn.qkv.weight": LAYER + "cross_attn.multihead_attn.in_proj_weight",
    "decoder.layers.#.cross_attn.qkv.bias": LAYER + "cross_attn.multihead_attn.in_proj_bias",
    "text.layers.#.attn.qkv.weight": TOKEN + "self_attn.in_proj_weight",
    "text.layers.#.attn.qkv.bias": TOKEN + "self_attn.in_proj_bias",
    "text.positional_embedding": TEXT + "text_encoder.positional_embedding",
    "criterion.logit_scale": "criterion.logit_scale",
}

TABLE = Table(
    modules={
        **MODULES,
        **backbones.NORMS,
        **backbones.SWIN,
        **backbones.DINAT,
        **backbones.CONVNEXT,
        **backbones.RESNET,
    },
    tensors={
        **TENSORS,
        **backbones.SWIN_TENSORS,
        **backbones.DINAT_TENSORS,
        **backbones.CONVNEXT_TENSORS,
    },
)

# Behind BACKBONE, for Swin alone: in saved files -> in the memory of transformers 5.
RENAMED: dict[str, str] = {
    "embeddings.": "swin.embeddings.",
    "encoder.layers.": "swin.encoder.layers.",
    "attention.self.query": "attention.q_proj",
    "attention.self.key": "attention.k_proj",
    "attention.self.value": "attention.v_proj",
    "attention.self.relative_position_bias_table": "attention.relative_position_bias.relative_position_bias_table",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}

# Theirs without a counterpart that is missed: the classifier norm of their Swin, buffers, the loss's class weights.
THEIRS_ONLY = re.compile(r".*(swin\.layernorm\.(weight|bias)|relative_position_index|criterion\.empty_weight)")


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters under the names that transformers 5 uses in memory.

    Raises:
        KeyError: a parameter of ours that their network does not have.
    """
    carried = TABLE.to_theirs(state)
    if carried.left:
        raise KeyError(next(iter(carried.left)))
    swin = any(name.startswith(BACKBONE + "encoder.layers.") for name in carried.state)
    return {in_memory(name) if swin else name: tensor.contiguous() for name, tensor in carried.state.items()}


def from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their parameters under our names; what the network has no place for (`THEIRS_ONLY`) is left out.

    Raises:
        KeyError: a parameter of theirs that our network does not have.
    """
    carried = read_hf(state)
    missed = [name for name in carried.left if not THEIRS_ONLY.fullmatch(name)]
    if missed:
        raise KeyError(missed[0])
    return carried.state


def read_hf(state: Mapping[str, Tensor]) -> Carried:
    """Their parameters, as saved or as in memory, under our names, and what has none of ours under its own."""
    named = {as_saved(name): name for name in state}
    carried = TABLE.to_ours({saved: state[name] for saved, name in named.items()})
    return Carried(carried.state, {named[saved]: tensor for saved, tensor in carried.left.items()})


def in_memory(name: str) -> str:
    """The name that transformers 5 gives in memory to what a network with Swin saves as `name`."""
    if not name.startswith(BACKBONE):
        return name
    rest = name.removeprefix(BACKBONE)
    for saved, memory in RENAMED.items():
        if memory not in rest:
            rest = rest.replace(saved, memory, 1)
    return BACKBONE + rest


def as_saved(name: str) -> str:
    """The inverse of `in_memory`; a saved name stays as it is."""
    if not name.startswith(BACKBONE):
        return name
    rest = name.removeprefix(BACKBONE)
    for saved, memory in RENAMED.items():
        rest = rest.replace(memory, saved, 1)
    return BACKBONE + rest
