"""SHI-Labs' names -> Hugging Face's, by the rule of oneformer-model.md 1.14 and nothing of our own tables."""

from __future__ import annotations

import re

from torch import Tensor

# Old -> new, applied in this order to what is left of a name; the left side is a regular expression.
BACKBONE = (
    (r"^backbone\.patch_embed\.proj\b", "embeddings.patch_embeddings.projection"),
    (r"^backbone\.patch_embed\.norm\b", "embeddings.norm"),
    (r"^backbone\.norm0\b", "hidden_states_norms.stage1"),
    (r"^backbone\.norm1\b", "hidden_states_norms.stage2"),
    (r"^backbone\.norm2\b", "hidden_states_norms.stage3"),
    (r"^backbone\.norm3\b", "hidden_states_norms.stage4"),
    (r"^backbone\.layers\.", "encoder.layers."),
    (r"\.norm1\b", ".layernorm_before"),
    (r"\.norm2\b", ".layernorm_after"),
    (r"\.attn\.(relative_position_\w+)", r".attention.self.\1"),
    (r"\.attn\.proj\b", ".attention.output.dense"),
    (r"\.mlp\.fc1\b", ".intermediate.dense"),
    (r"\.mlp\.fc2\b", ".output.dense"),
)
PIXEL = (
    (r"adapter_1\.norm\.", "adapter_1.1."),
    (r"adapter_1\.weight", "adapter_1.0.weight"),
    (r"layer_1\.norm\.", "layer_1.1."),
    (r"layer_1\.weight", "layer_1.0.weight"),
    (r"^input_proj\.", "input_projections."),
    (r"^transformer\.level_embed", "level_embed"),
    (r"^transformer\.encoder\.", "encoder."),
    (r"\.linear(\d)\b", r".fc\1"),
    (r"(encoder\.layers\.\d+)\.norm1\b", r"\1.self_attn_layer_norm"),
    (r"(encoder\.layers\.\d+)\.norm2\b", r"\1.final_layer_norm"),
    (r"^mask_features\b", "mask_projection"),
)
PREDICTOR = (
    (r"^query_embed\b", "queries_embedder"),
    (r"^decoder_norm\b", "decoder.decoder_norm"),
    (r"^class_input_proj\b", "decoder.query_input_projection"),
    (r"^class_embed\b", "decoder.class_embed"),
    (r"^mask_embed\.layers\.(\d)\b", r"decoder.mask_embed.layers.\1.0"),
    (r"^class_transformer\.decoder\.", "decoder.query_transformer.decoder."),
    (r"^transformer_cross_attention_layers\.(\d+)\.", r"decoder.layers.\1.cross_attn."),
    (r"^transformer_self_attention_layers\.(\d+)\.", r"decoder.layers.\1.self_attn."),
    (r"^transformer_ffn_layers\.(\d+)\.", r"decoder.layers.\1.ffn."),
)
TEXT = (
    (r"^task_mlp\.layers\.(\d)\b", r"task_encoder.task_mlp.layers.\1.0"),
    (r"^text_projector\.layers\.(\d)\b", r"text_mapper.text_projector.layers.\1.0"),
    (r"^prompt_ctx\b", "text_mapper.prompt_ctx"),
    (r"^text_encoder\.transformer\.resblocks\.", "text_mapper.text_encoder.transformer.layers."),
    (r"^text_encoder\.", "text_mapper.text_encoder."),
    (r"(transformer\.layers\.\d+)\.attn\.", r"\1.self_attn."),
    (r"\.mlp\.c_fc\b", ".mlp.fc1"),
    (r"\.mlp\.c_proj\b", ".mlp.fc2"),
    (r"\.ln_(\d)\b", r".layer_norm\1"),
)


def renamed(name: str, rule: tuple[tuple[str, str], ...]) -> str:
    for old, new in rule:
        name = re.sub(old, new, name)
    return name


def to_hugging_face(shi: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a OneFormer with Swin under the names that transformers saves."""
    out: dict[str, Tensor] = {}
    for name, tensor in shi.items():
        if name.startswith("criterion."):
            out[name] = tensor
        elif name.startswith("backbone."):
            new = "model.pixel_level_module.encoder." + renamed(name, BACKBONE)
            if ".attn.qkv." in new:
                for part, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    out[new.replace(".attn.qkv.", f".attention.self.{part}.")] = value.clone()
            else:
                out[new] = tensor
        elif name.startswith("sem_seg_head.pixel_decoder."):
            rest = name.removeprefix("sem_seg_head.pixel_decoder.")
            out["model.pixel_level_module.decoder." + renamed(rest, PIXEL)] = tensor
        elif name.startswith("sem_seg_head.predictor."):
            new = "model.transformer_module." + renamed(name.removeprefix("sem_seg_head.predictor."), PREDICTOR)
            if re.search(r"\.self_attn\.self_attn\.in_proj_", new):
                for part, value in zip("qkv", tensor.chunk(3), strict=True):
                    out[new.replace("in_proj_", f"{part}_proj.")] = value.clone()
            else:
                out[new] = tensor
        else:
            out["model." + renamed(name, TEXT)] = tensor
    return out
