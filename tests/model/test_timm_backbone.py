"""Networks of timm behind our promises, with a stand-in for the package, and the words when it is not there."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from model.fake_timm import TinyNet, fake_timm
from model.specs import tiny_spec
from oneformer.errors import MissingExtra, SpecError
from oneformer.model.backbones import build_backbone
from oneformer.model.backbones.common import MAPS, Backbone
from oneformer.model.backbones.timm import Timm
from oneformer.model.oneformer import build_model


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", fake_timm())


def timm(model: str = "tiny_net", *, freeze_at: int = 0, **changes: Any) -> Backbone:
    spec = tiny_spec("timm").backbone
    spec.freeze_at, spec.timm.model = freeze_at, model
    for key, value in changes.items():
        setattr(spec.timm, key, value)
    return build_backbone(spec)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("model", ["tiny_net", "tiny_swin"])
def test_maps_have_the_promised_channels_and_strides_at_any_size(model: str) -> None:
    backbone = timm(model).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, 97, 131))
    assert tuple(maps) == MAPS and list(backbone.channels.values()) == [8, 8, 16, 16]
    for name, x in maps.items():
        stride = backbone.strides[name]
        assert x.shape == (2, backbone.channels[name], -(-97 // stride), -(-131 // stride))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("freeze_at", [0, 1, 2, 4])
def test_stages_are_fixed_from_the_image_on(freeze_at: int) -> None:
    backbone = timm(freeze_at=freeze_at).train()
    sum(x.square().mean() for x in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    parts = ["stem", *(f"stages_{i}" for i in range(4))]
    frozen = [p for p in parts if not any(q.requires_grad for q in backbone.network.get_submodule(p).parameters())]
    assert frozen == parts[:freeze_at]
    assert all((p.grad is None) != p.requires_grad for p in backbone.parameters())
    norms = [backbone.network.get_submodule(f"{p}.1").training for p in parts]
    assert norms == [p not in frozen for p in parts]


@pytest.mark.usefixtures("installed")
def test_checkpointing_is_timms_own_and_only_wanted_maps_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not timm().network.checkpointing
    assert timm(use_checkpoint=True).network.checkpointing
    with monkeypatch.context() as patch:
        patch.delattr(TinyNet, "set_grad_checkpointing")
        with pytest.raises(SpecError, match="cannot recompute"):
            timm(use_checkpoint=True)
    backbone = timm(out_features=["res3", "res5"])
    assert list(backbone(torch.randn(2, 3, 32, 32))) == ["res3", "res5"] == list(backbone.strides)


@pytest.mark.usefixtures("installed")
def test_the_whole_network_runs_on_it_and_exports() -> None:
    spec = tiny_spec("timm")
    spec.backbone.timm.model = "tiny_swin"
    model = build_model(spec).eval()
    assert isinstance(model.backbone, Timm)
    with torch.no_grad():
        classes, masks = model(torch.randn(1, 3, 50, 70), torch.zeros(1, 77))
        images = torch.randn(1, 3, 50, 70)
        found = torch.export.export(model.backbone, (images,), strict=False).module()(images)
        torch.testing.assert_close(found, model.backbone(images))
    assert classes.shape == (1, 12, 6) and masks.shape == (1, 12, 13, 18)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("model", "said", "hint"),
    [
        ("", "name of timm's network is missing", "list_models"),
        ("tiny_resnet", "Unknown model", "tiny_net"),
        ("fixed_net", "does not take images of any size: Input height", "convolutional"),
        ("tiny_vit", "strides 16, 16, 16, none at 4", "vit"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_by_name(model: str, said: str, hint: str) -> None:
    with pytest.raises(SpecError, match=said) as error:
        timm(model)
    assert error.value.where == "model.backbone.timm.model" and hint in error.value.hint


@pytest.mark.usefixtures("installed")
def test_stages_without_a_name_cannot_be_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(*_: Any, **__: Any) -> TinyNet:
        net = TinyNet()
        for row in net.feature_info:
            row["module"] = "elsewhere"
        return net

    monkeypatch.setattr(sys.modules["timm"], "create_model", renamed)
    with pytest.raises(SpecError, match="not known by name") as error:
        timm(freeze_at=1)
    assert error.value.where == "model.backbone.freeze_at"


def test_without_timm_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra) as error:
        timm()
    assert 'pip install "oneformer[timm]"' in error.value.message
    assert error.value.exit_code == 2


def test_a_timm_that_cannot_be_imported_is_told_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    with pytest.raises(SpecError, match="torchvision::nms") as error:
        timm()
    assert "torchvision" in error.value.hint
