"""The same weights in Hugging Face's backbones and in ours give the same maps."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oneformer.model.backbones import build_backbone
from oneformer.spec.backbone import BackboneSpec

transformers = pytest.importorskip("transformers")

CONVNEXT = (  # theirs -> ours
    (r"embeddings\.patch_embeddings", "downsample_layers.0.0"),
    (r"embeddings\.layernorm", "downsample_layers.0.1"),
    (r"encoder\.stages\.(\d)\.downsampling_layer", r"downsample_layers.\1"),
    (r"encoder\.stages\.(\d)\.layers", r"stages.\1"),
    (r"layernorm", "norm"),
    (r"layer_scale_parameter", "gamma"),
    (r"hidden_states_norms\.stage(\d)", lambda m: f"norm{int(m[1]) - 1}"),
)
RESNET = (
    (r"embedder\.embedder\.convolution", "conv1"),
    (r"embedder\.embedder\.normalization", "bn1"),
    (r"encoder\.stages\.(\d)\.layers", lambda m: f"layer{int(m[1]) + 1}"),
    (r"shortcut\.convolution", "downsample.0"),
    (r"shortcut\.normalization", "downsample.1"),
    (r"layer\.(\d)\.convolution", lambda m: f"conv{int(m[1]) + 1}"),
    (r"layer\.(\d)\.normalization", lambda m: f"bn{int(m[1]) + 1}"),
)
VIT = (
    (r"embeddings\.patch_embeddings(\.projection)?", "patch_embed.proj"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.(cls_token|register_tokens)", r"\1"),
    (r"(encoder|model)\.layer", "blocks"),
    (r"attention\.(attention\.)?(query|q_proj)", "attn.q"),
    (r"attention\.(attention\.)?(key|k_proj)", "attn.k"),
    (r"attention\.(attention\.)?(value|v_proj)", "attn.v"),
    (r"attention\.(output\.dense|o_proj)", "attn.proj"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    (r"mlp\.(up_proj)", "mlp.fc1"),
    (r"mlp\.(down_proj)", "mlp.fc2"),
    (r"^layernorm", "norm"),
)


def randomised(model: nn.Module) -> nn.Module:
    """Weights and statistics that hide nothing behind a zero or a one."""
    torch.manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim > 1:
                tensor.normal_(std=1.5 / tensor[0].numel() ** 0.5 if "embeddings" not in name else 0.2)
            else:
                tensor.normal_(mean=0.0 if name.endswith(("bias", "mean")) else 1.0, std=0.2)
    return model.eval()


def renamed(state: dict[str, Tensor], table: Any) -> dict[str, Tensor]:
    """Their tensors under our names, those in one that are one tensor here."""
    out = {}
    for name, tensor in state.items():
        ours = name
        for pattern, words in table:
            ours = re.sub(pattern, words, ours)
        out[ours] = tensor
    for name in [n for n in out if re.search(r"attn\.q\.", n)]:
        parts = [out.pop(name.replace("attn.q.", f"attn.{x}."), None) for x in "qkv"]
        parts = [torch.zeros_like(out.get(name, parts[0])) if p is None else p for p in parts]  # DINOv3's key bias
        out[name.replace("attn.q.", "attn.qkv.")] = torch.cat(parts)
    for name in [n for n in out if "mlp.gate_proj" in n]:  # a gated part
        gate, value = out.pop(name), out.pop(name.replace("gate_proj", "fc1"))
        out[name.replace("gate_proj", "w12")] = torch.cat((gate, value))
        out[name.replace("gate_proj", "w3")] = out.pop(name.replace("gate_proj", "fc2"))
    return out


def with_weights(spec: BackboneSpec, state: dict[str, Tensor], *, ours_alone: tuple[str, ...] = ()) -> Any:
    """Our backbone with these tensors, all of its own among them."""
    backbone = build_backbone(spec).eval()
    missing, _ = backbone.load_state_dict(state, strict=False)
    assert [name for name in missing if not name.startswith(ours_alone)] == []
    return backbone


def test_convnext() -> None:
    config = transformers.ConvNextConfig(hidden_sizes=[16, 32, 64, 128], depths=[1, 2, 2, 1])
    config.out_features = ["stage1", "stage2", "stage3", "stage4"]
    theirs = randomised(transformers.ConvNextBackbone(config))
    spec = BackboneSpec(name="convnext")
    spec.convnext.embed_dim, spec.convnext.depths = 16, [1, 2, 2, 1]
    ours, images = with_weights(spec, renamed(theirs.state_dict(), CONVNEXT)), torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        for got, want in zip(ours(images).values(), theirs(images).feature_maps, strict=True):
            torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_resnet_101() -> None:
    config = transformers.ResNetConfig(depths=[3, 4, 23, 3])
    theirs = randomised(transformers.ResNetModel(config))
    spec = BackboneSpec(name="resnet50")
    spec.resnet.depth = 101
    ours, images = with_weights(spec, renamed(theirs.state_dict(), RESNET)), torch.randn(1, 3, 65, 64)
    with torch.no_grad():
        hidden = theirs(images, output_hidden_states=True).hidden_states[1:]
        for got, want in zip(ours(images).values(), hidden, strict=True):
            assert (got - want).abs().max() < 1e-4 * want.abs().max()


def last_map(backbone: Any, images: Tensor) -> Tensor:
    """What the last normalisation gives, (B, N, C)."""
    found: list[Tensor] = []
    backbone.norm.register_forward_hook(lambda *args: found.append(args[2]))
    with torch.no_grad():
        backbone(images)
    return found[0]


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2(registers: int, gated: bool) -> None:
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    more = {"num_register_tokens": registers} if registers else {}
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=112,
        patch_size=14,
        use_swiglu_ffn=gated,
        **more,
    )
    theirs = randomised(getattr(transformers, f"{kind}Model")(config))
    spec = BackboneSpec(name="vit")
    vit = spec.vit
    vit.embed_dim, vit.depth, vit.num_heads, vit.gated_mlp = 48, 3, 4, gated
    vit.patch_size, vit.position, vit.pretrain_img_size, vit.register_tokens = 14, "learned", 112, registers
    ours = with_weights(spec, renamed(theirs.state_dict(), VIT), ours_alone=("pyramid.",))
    images = torch.randn(2, 3, 96, 160)
    scaled = torch.nn.functional.interpolate(images, size=(84, 140), mode="bilinear")  # 14 pixels for 16 of ours
    with torch.no_grad():
        want = theirs(scaled).last_hidden_state[:, 1 + registers :]
    torch.testing.assert_close(last_map(ours, images), want, atol=1e-4, rtol=1e-4)


def test_dinov3() -> None:
    config = transformers.DINOv3ViTConfig(
        hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256, num_register_tokens=4
    )
    theirs = randomised(transformers.DINOv3ViTModel(config))
    spec = BackboneSpec(name="vit")
    spec.vit.embed_dim, spec.vit.depth, spec.vit.num_heads = 64, 3, 4
    ours = with_weights(spec, renamed(theirs.state_dict(), VIT), ours_alone=("pyramid.",))
    images = torch.randn(2, 3, 64, 112)
    with torch.no_grad():
        want = theirs(images).last_hidden_state[:, 5:]
    torch.testing.assert_close(last_map(ours, images), want, atol=1e-4, rtol=1e-4)
