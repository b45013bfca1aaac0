"""Pretrained backbone weights in anybody's names: equal maps, and a report that says what became of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.weights.elsewhere import SIZE, kept, picture
from model.weights.holder import Holder, bicubic, error, records, resnet_spec, shuffle, swin_spec, weights_of
from oneformer.errors import CheckpointError
from oneformer.model.weights.backbone import load_backbone, locate
from oneformer.model.weights.describe import describe

NORMS = {f"norm{i}.{kind}" for i in range(4) for kind in ("weight", "bias")}
CLOSE = 1e-5


@pytest.mark.parametrize("name", ["torchvision swin", "timm swin"])
def test_swin_of_other_libraries_gives_their_maps(name: str) -> None:
    model = Holder(swin_spec())
    report = load_backbone(model, weights_of(name))
    assert set(report.missing) == NORMS
    assert not report.unexpected and not report.mismatched and not report.reshaped
    for got, want in zip(model.maps(picture()), records()[name]["maps"], strict=True):
        assert error(torch.tensor(kept(got)), torch.tensor(want)) < CLOSE
    assert f"the names are those of {name.replace('swin', 'Swin')}" in report.table()


def test_our_own_names_are_taken_as_they_are() -> None:
    """No table of another library may exchange a piece of a file in the names of the first release."""
    source = shuffle(Holder(swin_spec())).backbone.state_dict()
    model = Holder(swin_spec())
    report = load_backbone(model, source)
    assert not report.notes and not report.missing and not report.unexpected
    assert all(torch.equal(tensor, source[name]) for name, tensor in model.backbone.state_dict().items())


@pytest.fixture(scope="module")
def hf_swin() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.SwinConfig(
        embed_dim=8,
        depths=[2, 2, 1, 1],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        image_size=64,
        use_absolute_embeddings=True,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return shuffle(transformers.SwinBackbone(config))


def hf_maps(theirs: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return list(theirs(images).feature_maps)


def swin_like_theirs() -> Holder:
    spec = swin_spec(window=4)
    spec.swin.ape = True
    return Holder(spec)


def test_hugging_face_swin_gives_its_maps(hf_swin: Any) -> None:
    model = swin_like_theirs()
    report = load_backbone(model, hf_swin.state_dict())
    assert not report.missing and not report.unexpected and not report.mismatched
    assert [name for name, *_ in report.reshaped] == ["absolute_pos_embed"]
    for got, want in zip(model.maps(picture()), hf_maps(hf_swin, picture()), strict=True):
        assert error(got, want) < CLOSE


@pytest.mark.parametrize("how", ["folder", "file", "sharded folder", "classifier"])
def test_hugging_face_swin_model_loads_from_disk(hf_swin: Any, tmp_path: Path, how: str) -> None:
    """Saved files have the names of transformers 4, memory has those of 5; SwinModel lacks the norms of the maps."""
    import transformers

    theirs = hf_swin.swin
    if how == "classifier":
        theirs = transformers.SwinForImageClassification(hf_swin.config)
        theirs.swin.load_state_dict(hf_swin.swin.state_dict())
    theirs.save_pretrained(tmp_path, max_shard_size="20KB" if how == "sharded folder" else "5GB")
    assert (tmp_path / "model.safetensors.index.json").exists() == (how == "sharded folder")
    model = swin_like_theirs()
    report = load_backbone(model, tmp_path / "model.safetensors" if how == "file" else tmp_path)
    assert set(report.missing) == NORMS
    assert not report.unexpected and not report.mismatched
    norms = hf_swin.hidden_states_norms
    for i, (got, want) in enumerate(zip(model.maps(picture()), hf_maps(hf_swin, picture()), strict=True)):
        scale, shift = norms[f"stage{i + 1}"].weight, norms[f"stage{i + 1}"].bias
        assert error(got * scale[:, None, None] + shift[:, None, None], want) < CLOSE


def test_hugging_face_resnet_gives_its_maps() -> None:
    transformers = pytest.importorskip("transformers")
    for in_1x1 in (False, True):
        theirs = shuffle(transformers.ResNetModel(transformers.ResNetConfig(downsample_in_bottleneck=in_1x1)))
        model = Holder(resnet_spec(stride_in_1x1=in_1x1))
        report = load_backbone(model, theirs.state_dict())
        assert not report.missing and not report.unexpected
        with torch.no_grad():
            wanted = theirs(picture(), output_hidden_states=True).hidden_states[1:]
        for got, want in zip(model.maps(picture()), wanted, strict=True):
            assert error(got, want) < CLOSE


def test_windows_of_another_size_get_interpolated_tables() -> None:
    small = shuffle(Holder(swin_spec(window=3))).backbone.state_dict()
    model = Holder(swin_spec(window=5))
    report = load_backbone(model, small)
    tables = [name for name in small if name.endswith("relative_position_bias_table")]
    assert [name for name, *_ in report.reshaped] == tables
    assert report.reshaped[0][1:] == ((25, 1), (81, 1))
    assert f"{len(tables)} of them reshaped" in report.summary()
    assert "layers.0.blocks.0.attn.relative_position_bias_table  (25, 1) -> (81, 1)" in report.table()
    got = model.backbone.state_dict()
    for name in tables:
        for head in range(small[name].shape[1]):
            want = bicubic(small[name][:, head].reshape(5, 5).numpy(), 9)
            np.testing.assert_allclose(got[name][:, head].reshape(9, 9), want, atol=1e-6)


def test_an_absolute_position_table_is_interpolated() -> None:
    spec = swin_spec()
    spec.swin.ape = True
    small = shuffle(Holder(spec)).backbone.state_dict()
    table = small["absolute_pos_embed"]  # (1, 8, 16, 16)
    small["absolute_pos_embed"] = table.flatten(2).transpose(1, 2)  # (1, 256, 8), as a classifier keeps it
    spec.swin.pretrain_img_size = 96
    model = Holder(spec)
    report = load_backbone(model, small)
    assert report.reshaped == (("absolute_pos_embed", (1, 256, 8), (1, 8, 24, 24)),)
    got = model.backbone.state_dict()["absolute_pos_embed"]
    for channel in (0, 5):
        np.testing.assert_allclose(got[0, channel], bicubic(table[0, channel].numpy(), 24), atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.backbone.", "model.pixel_level_module.encoder."])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_the_backbone_is_found_within_a_file(tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    """Official releases keep tensors under "model", with a classifier and buffers that are computed here."""
    source = shuffle(Holder(swin_spec()), seed=3).backbone.state_dict()
    state = {prefix + name: tensor for name, tensor in source.items() if not name.startswith("norm")}
    extra = {"head.weight": torch.zeros(5, 64), "norm.weight": torch.ones(64)}
    extra |= {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(4, 4)}
    state |= {prefix + name: tensor for name, tensor in extra.items()}
    file = tmp_path / "swin.pth"
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, file)
    model = Holder(swin_spec())
    report = load_backbone(model, file)
    assert set(report.missing) == NORMS
    assert not report.unexpected
    assert all(torch.equal(model.backbone.state_dict()[name], source[name]) for name in report.matched)


def test_a_file_of_another_size_says_which_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "wide.pth"
    torch.save(Holder(swin_spec(dim=16)).backbone.state_dict(), file)
    model = Holder(swin_spec())
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    with pytest.raises(CheckpointError) as told:
        load_backbone(model, file)
    assert "embed_dim 16, depths 2-2-1-1, window 2" in told.value.what
    assert "embed_dim 8, depths 2-2-1-1, window 2" in told.value.what
    assert told.value.where == str(file)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())


def test_what_fits_in_part_is_loaded_and_both_sizes_are_told() -> None:
    report = load_backbone(Holder(swin_spec(depths=(2, 2, 2, 1))), shuffle(Holder(swin_spec())).backbone.state_dict())
    assert {name.rsplit(".", 2)[0] for name in report.missing} <= {
        f"layers.2.blocks.1{x}" for x in ("", ".attn", ".mlp")
    }
    assert "the file holds a Swin transformer (embed_dim 8, depths 2-2-1-1, window 2)" in report.table()
    assert "the backbone here is a Swin transformer (embed_dim 8, depths 2-2-2-1, window 2)" in report.table()


def test_a_scale_of_another_rank_and_an_unknown_tensor_are_told() -> None:
    state = Holder(swin_spec()).backbone.state_dict()
    state["norm0.weight"] = state["norm0.weight"][:, None, None]
    state["extra.weight"] = torch.zeros(2)
    report = load_backbone(Holder(swin_spec()), state)
    assert report.reshaped == (("norm0.weight", (8, 1, 1), (8,)),)
    assert report.unexpected == ("extra.weight",)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder, "holds no backbone weights"),
        (lambda folder: folder / "absent.pth", "no such weight file"),
    ],
)
def test_what_is_not_there_is_told_with_what_lies_nearby(tmp_path: Path, make: Any, says: str) -> None:
    (tmp_path / "other.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=says) as told:
        locate(str(make(tmp_path)))
    assert "other.pth" in told.value.hint


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"weight_map": {"a": "../../etc/passwd"}}', '{"weight_map": 3}', "[" * 100_000]
)
def test_a_broken_list_of_parts_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError) as told:
        load_backbone(Holder(swin_spec()), tmp_path)
    assert told.value.where == str(tmp_path / "model.safetensors.index.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    state = Holder(swin_spec()).backbone.state_dict()
    state["layers.1.blocks.0.norm1.weight"] = torch.full((16,), value)
    with pytest.raises(CheckpointError, match=r"layers\.1\.blocks\.0\.norm1\.weight holds 16 numbers"):
        load_backbone(Holder(swin_spec()), state)


SIZES = {  # names and sizes that no library needs to be installed for
    "Swin-T (embed_dim 96, depths 2-2-6-2, window 7)": {
        "patch_embed.proj.weight": (96, 3, 4, 4),
        "layers.0.blocks.0.attn.relative_position_bias_table": (169, 3),
        **{f"layers.{i}.blocks.{j}.norm1.weight": (8,) for i, n in enumerate((2, 2, 6, 2)) for j in range(n)},
    },
    "ResNet-101": {
        **{f"layer{i + 1}.{j}.conv3.weight": (8, 8, 1, 1) for i, n in enumerate((3, 4, 23, 3)) for j in range(n)}
    },
    "ConvNeXt-L (first stage 192, depths 3-3-27-3)": {
        "stem.0.weight": (192, 3, 4, 4),  # timm
        **{f"stages.{i}.blocks.{j}.norm.weight": (8,) for i, n in enumerate((3, 3, 27, 3)) for j in range(n)},
    },
    "DiNAT-L (embed_dim 192, depths 3-4-18-5, kernel 11)": {
        "backbone.levels.0.blocks.0.attn.rpb": (6, 21, 21),
        **{
            f"backbone.levels.{i}.blocks.{j}.norm1.weight": (192,)
            for i, n in enumerate((3, 4, 18, 5))
            for j in range(n)
        },
    },
    "ViT-L (width 1024, 24 blocks, patch 14, 4 registers)": {
        "cls_token": (1, 1, 1024),
        "reg_token": (1, 4, 1024),
        "patch_embed.proj.weight": (1024, 3, 14, 14),
        **{f"blocks.{j}.attn.qkv.weight": (8, 8) for j in range(24)},
    },
    "EfficientNet-lite2": {
        "_conv_stem.weight": (32, 3, 3, 3),
        **{f"_blocks.{j}._project_conv.weight": (352, 8, 1, 1) for j in range(21)},
    },
}


@pytest.mark.parametrize("words", SIZES)
def test_a_file_is_described_by_family_and_size(words: str) -> None:
    assert describe({name: torch.empty(shape, device="meta") for name, shape in SIZES[words].items()}) == words


def test_the_picture_has_the_size_that_the_records_were_made_with() -> None:
    assert picture().shape == (1, 3, SIZE, SIZE)
