"""Names of Swin transformers elsewhere -> those of the first release, which are ours.

Every library merges patches in the same channel order (top left, bottom left, top right, bottom right), so that only
names differ.
"""

from __future__ import annotations

from oneformer.model.weights.rename import Pieces

SWIN: dict[str, Pieces] = {
    "timm Swin": {  # since timm 0.9 the halving opens a stage instead of closing the one before; older names are ours
        "layers.1.downsample": "layers.0.downsample",
        "layers.2.downsample": "layers.1.downsample",
        "layers.3.downsample": "layers.2.downsample",
    },
    "torchvision Swin": {
        "^features.0.0": "patch_embed.proj",
        "^features.0.2": "patch_embed.norm",
        "^features.1.#": "layers.0.blocks.#",
        "^features.2": "layers.0.downsample",
        "^features.3.#": "layers.1.blocks.#",
        "^features.4": "layers.1.downsample",
        "^features.5.#": "layers.2.blocks.#",
        "^features.6": "layers.2.downsample",
        "^features.7.#": "layers.3.blocks.#",
        "mlp.0": "mlp.fc1",
        "mlp.3": "mlp.fc2",
    },
    "Hugging Face Swin": {  # transformers 4 and 5
        "^swin": "",
        "^embeddings.patch_embeddings.projection": "patch_embed.proj",
        "^embeddings.norm": "patch_embed.norm",
        "^embeddings.position_embeddings": "absolute_pos_embed",
        "^encoder.layers": "layers",
        "attention.self.query": "attn.qkv[0]",
        "attention.self.key": "attn.qkv[1]",
        "attention.self.value": "attn.qkv[2]",
        "attention.q_proj": "attn.qkv[0]",
        "attention.k_proj": "attn.qkv[1]",
        "attention.v_proj": "attn.qkv[2]",
        "attention.self.relative_position_bias_table": "attn.relative_position_bias_table",
        "attention.relative_position_bias.relative_position_bias_table": "attn.relative_position_bias_table",
        "attention.output.dense": "attn.proj",
        "attention.o_proj": "attn.proj",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "^hidden_states_norms.stage1": "norm0",
        "^hidden_states_norms.stage2": "norm1",
        "^hidden_states_norms.stage3": "norm2",
        "^hidden_states_norms.stage4": "norm3",
        "^layernorm": "norm",
    },
}
