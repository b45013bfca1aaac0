"""Names of vision transformers elsewhere -> DINOv2's (and, for C-RADIO, its release's), which are ours."""

from __future__ import annotations

from oneformer.model.weights.rename import Pieces

VIT: dict[str, Pieces] = {
    "DINOv3": {
        "^storage_tokens": "register_tokens",
        "mlp.w1": "mlp.w12[0]",
        "mlp.w2": "mlp.w12[1]",
    },
    "timm ViT": {
        "^reg_token": "register_tokens",
        "gamma_1": "ls1.gamma",
        "gamma_2": "ls2.gamma",
    },
    "Hugging Face DINOv2": {  # with and without registers, transformers 4 and 5
        "^dinov2": "",
        "^dinov2_with_registers": "",
        "^embeddings.cls_token": "cls_token",
        "^embeddings.mask_token": "mask_token",
        "^embeddings.register_tokens": "register_tokens",
        "^embeddings.position_embeddings": "pos_embed",
        "^embeddings.patch_embeddings.projection": "patch_embed.proj",
        "^encoder.layer.#": "blocks.#",
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
        "mlp.weights_in": "mlp.w12",
        "mlp.weights_out": "mlp.w3",
        "mlp.gate_proj": "mlp.w12[0]",
        "mlp.up_proj": "mlp.w12[1]",
        "mlp.down_proj": "mlp.w3",
        "^layernorm": "norm",
    },
    "Hugging Face DINOv3": {
        "^embeddings.cls_token": "cls_token",
        "^embeddings.mask_token": "mask_token",
        "^embeddings.register_tokens": "register_tokens",
        "^embeddings.patch_embeddings": "patch_embed.proj",
        "^model.layer.#": "blocks.#",
        "^layer.#": "blocks.#",
        "attention.q_proj": "attn.qkv[0]",
        "attention.k_proj": "attn.qkv[1]",
        "attention.v_proj": "attn.qkv[2]",
        "attention.o_proj": "attn.proj",
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
        "mlp.up_proj": "mlp.fc1",
        "mlp.down_proj": "mlp.fc2",
    },
    "C-RADIO": {  # TAO's files write grandma, so that no loader takes gamma for an old name of weight
        "^radio_model": "",
        "^radio": "",
        "^model": "",
        "grandma": "gamma",
    },
}
