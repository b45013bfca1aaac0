"""Names of the dilated neighbourhood attention transformer elsewhere -> those of its first release, which are ours."""

from __future__ import annotations

from oneformer.model.weights.rename import Pieces

DINAT: dict[str, Pieces] = {
    "Hugging Face DiNAT": {
        "^dinat": "",
        "^embeddings.patch_embeddings.projection": "patch_embed.proj",
        "^embeddings.norm": "patch_embed.norm",
        "^encoder.levels.#.layers.#": "levels.#.blocks.#",
        "^encoder.levels": "levels",
        "attention.self.query": "attn.qkv[0]",
        "attention.self.key": "attn.qkv[1]",
        "attention.self.value": "attn.qkv[2]",
        "attention.self.rpb": "attn.rpb",
        "attention.output.dense": "attn.proj",
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
