"""TorchEngine: one pass of the image for several tasks, the same numbers as the network, plain refusals."""

from __future__ import annotations

import pytest
import torch

from model.specs import tiny_spec
from oneformer.data.labels import LabelMap
from oneformer.data.tokens import Tokenizer
from oneformer.engines.base import EngineInfo
from oneformer.engines.torch import TorchEngine
from oneformer.errors import CheckpointError, UserError
from oneformer.model.oneformer import build_model

NAMES = ("a", "b", "c", "d", "e")
LABELS = LabelMap(NAMES, (True,) * 5, tuple((i, i, i) for i in range(5)), tuple(range(5)))


def engine_of(seed: int = 0) -> TorchEngine:
    torch.manual_seed(seed)
    spec = tiny_spec()
    info = EngineInfo((0.0,) * 3, (1.0,) * 3, 64, 128, spec)
    return TorchEngine(build_model(spec, text_branch=False), LABELS, info, precision="fp32", device="cpu")


def test_outputs_are_those_of_the_network_for_every_task() -> None:
    engine, images = engine_of(), torch.randn(2, 3, 64, 96)
    found = engine.outputs(images, ("semantic", "panoptic"))
    assert set(found) == {"semantic", "panoptic"}
    for task, outputs in found.items():
        tokens = Tokenizer().task_tokens(task).expand(2, -1)
        with torch.inference_mode():
            class_logits, mask_logits = engine.model(images, tokens)
        torch.testing.assert_close(outputs.class_logits, class_logits)
        torch.testing.assert_close(outputs.mask_logits, mask_logits)


def test_the_task_changes_the_answer() -> None:
    found = engine_of().outputs(torch.randn(1, 3, 64, 64), ("semantic", "instance"))
    assert not torch.allclose(found["semantic"].class_logits, found["instance"].class_logits)


def test_image_features_are_computed_once_for_several_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, calls = engine_of(), []
    features = engine.model.features
    monkeypatch.setattr(engine.model, "features", lambda images: calls.append(1) or features(images))
    engine.outputs(torch.randn(1, 3, 64, 64), ("semantic", "instance", "panoptic"))
    assert len(calls) == 1


def test_unknown_precision_and_device_are_refused() -> None:
    with pytest.raises(UserError, match="no precision 'int3'"):
        TorchEngine.from_checkpoint("none.pth", precision="int3", device="cpu")
    with pytest.raises(UserError, match="no device 'toaster'"):
        TorchEngine.from_checkpoint("none.pth", device="toaster")


def test_a_missing_checkpoint_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth"):
        TorchEngine.from_checkpoint("none.pth", precision="fp32", device="cpu")
