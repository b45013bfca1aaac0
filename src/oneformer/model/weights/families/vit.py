"""Names of vision transformers elsewhere -> DINOv2's, which are ours."""

from __future__ import annotations

from oneformer.model.weights.rename import Pieces

VIT: dict[str, Pieces] = {
    "timm ViT": {
        "^reg_token": "register_tokens",
        "gamma_1": "ls1.gamma",
        "gamma_2": "ls2.gamma",
    },
    "Hugging Face ViT": {  # ViT, DINOv2 (with registers) and DINOv3, transformers 4 and 5
        "^vit": "",
        "^dinov2": "",
        "^dinov2_with_registers": "",
        "^embeddings.cls_token": "cls_token",
        "^embeddings.mask_token": "mask_token",
        "^embeddings.register_tokens": "register_tokens",
        "^embeddings.position_embeddings": "pos_embed",
        "^embeddings.patch_embeddings.projection": "patch_embed.proj",
        "^embeddings.patch_embeddings": "patch_embed.proj",
        "^encoder.layer.#": "blocks.#",
        "^model.layer.#": "blocks.#",
        "^layers.#": "blocks.#",
        "^layer.#": "blocks.#",
        "attention.attention.query": "attn.qkv[0]",
        "attention.attention.key": "attn.qkv[1]",
        "attention.attention.value": "attn.qkv[2]",
        "attention.q_proj": "attn.qkv[0]",
        "attention.k_proj": "attn.qkv[1]",
        "attention.v_proj": "attn.qkv[2]",
        "attention.output.dense": "attn.proj",
        "attention.o_proj": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "mlp.weights_in": "mlp.w12",
        "mlp.weights_out": "mlp.w3",
        "mlp.gate_proj": "mlp.w12[0]",
        "mlp.up_proj": "mlp.w12[1]",
        "mlp.down_proj": "mlp.w3",
        "^layernorm": "norm",
    },
}
