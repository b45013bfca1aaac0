"""Parameters of ours <-> those of Hugging Face transformers' OneFormerForUniversalSegmentation (Swin, transformers 5).

One table, read in both directions. A `#` stands for any layer number. Where one matrix of ours is three of theirs
(query, key, value), the row lists all three.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

BACKBONE = "model.pixel_level_module.encoder."
PIXEL = "model.pixel_level_module.decoder."
QUERY = "model.transformer_module."
TEXT = "model.text_mapper."
BLOCK = BACKBONE + "swin.encoder.layers.#.blocks.#."
CLASS = QUERY + "decoder.query_transformer.decoder."
LAYER = QUERY + "decoder.layers.#."
TOKEN = TEXT + "text_encoder.transformer.layers.#."

# ours (without .weight or .bias) -> theirs
MODULES: dict[str, str | tuple[str, str, str]] = {
    "backbone.patch_embed.proj": BACKBONE + "swin.embeddings.patch_embeddings.projection",
    "backbone.patch_embed.norm": BACKBONE + "swin.embeddings.norm",
    "backbone.layers.#.blocks.#.norm1": BLOCK + "layernorm_before",
    "backbone.layers.#.blocks.#.norm2": BLOCK + "layernorm_after",
    "backbone.layers.#.blocks.#.attn.qkv": (
        BLOCK + "attention.q_proj",
        BLOCK + "attention.k_proj",
        BLOCK + "attention.v_proj",
    ),
    "backbone.layers.#.blocks.#.attn.proj": BLOCK + "attention.o_proj",
    "backbone.layers.#.blocks.#.mlp.fc1": BLOCK + "mlp.fc1",
    "backbone.layers.#.blocks.#.mlp.fc2": BLOCK + "mlp.fc2",
    "backbone.layers.#.downsample.norm": BACKBONE + "swin.encoder.layers.#.downsample.norm",
    "backbone.layers.#.downsample.reduction": BACKBONE + "swin.encoder.layers.#.downsample.reduction",
    "backbone.norm0": BACKBONE + "hidden_states_norms.stage1",
    "backbone.norm1": BACKBONE + "hidden_states_norms.stage2",
    "backbone.norm2": BACKBONE + "hidden_states_norms.stage3",
    "backbone.norm3": BACKBONE + "hidden_states_norms.stage4",
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
TENSORS: dict[str, str] = {
    "backbone.layers.#.blocks.#.attn.relative_position_bias_table": BLOCK
    + "attention.relative_position_bias.relative_position_bias_table",
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
}

# theirs without a counterpart: the classifier norm of their Swin, and what belongs to the loss
THEIRS_ONLY = (BACKBONE + "swin.layernorm.", "criterion.")


def to_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters under their names.

    Raises:
        KeyError: a parameter of ours that their network does not have.
    """
    rules = compiled(ours_first=True)
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        theirs = translate(name, rules)
        for part, value in zip(theirs, tensor.chunk(len(theirs)), strict=True):
            out[part] = value.contiguous()
    return out


def from_hf(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their parameters under our names; what the network has no place for (`THEIRS_ONLY`) is left out.

    Raises:
        KeyError: a parameter of theirs that our network does not have.
    """
    rules = compiled(ours_first=False)
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if not name.startswith(THEIRS_ONLY):
            (ours,) = translate(name, rules)
            parts.setdefault(ours, {})[name] = tensor
    forward = compiled(ours_first=True)
    return {ours: torch.cat([held[part] for part in translate(ours, forward)]) for ours, held in parts.items()}


Rule = tuple[re.Pattern[str], tuple[str, ...]]


def compiled(*, ours_first: bool) -> list[Rule]:
    """The table as (pattern of a full name, names it stands for); `#` and the last part of a name become groups."""
    rows: list[tuple[str, tuple[str, ...]]] = [(ours, (theirs,)) for ours, theirs in TENSORS.items()]
    for ours, theirs in MODULES.items():
        names = (theirs,) if isinstance(theirs, str) else theirs
        rows.append((ours + ".@", tuple(name + ".@" for name in names)))
    if not ours_first:
        rows = [(name, (ours,)) for ours, names in rows for name in names]
    rows.sort(key=lambda row: row[0].count("#"))  # a fixed number wins over any number
    return [(re.compile(pattern(name)), names) for name, names in rows]


def pattern(template: str) -> str:
    """Regular expression of a template."""
    return re.escape(template).replace(r"\#", r"(\d+)").replace("@", "(weight|bias)")


def translate(name: str, rules: list[Rule]) -> tuple[str, ...]:
    """The names that `name` stands for on the other side."""
    for expression, templates in rules:
        found = expression.fullmatch(name)
        if found:
            return tuple(fill(template, found.groups()) for template in templates)
    raise KeyError(name)


def fill(template: str, groups: tuple[str, ...]) -> str:
    """Put numbers and the last part of the name back into a template."""
    values = iter(groups)
    return re.sub("[#@]", lambda _: next(values), template)
