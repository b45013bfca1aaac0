"""The compiled engine: the same numbers as the plain one, and a clear word where nothing can compile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from oneformer.engines.compiled import CompiledEngine
from oneformer.engines.open import open_engine
from oneformer.errors import UserError
from story.tiny_model import write_tiny_checkpoint
from two_layers import two_layers


def test_it_computes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's compiler up to the code that it would compile: that takes minutes, and is torch's own to test."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend="eager"))
    monkeypatch.setattr(shutil, "which", lambda name: name == "g++")
    file = write_tiny_checkpoint(tmp_path / "model.pth")
    images = torch.randn(2, 3, 64, 96)
    with two_layers():
        plain = open_engine(file, precision="fp32", device="cpu").outputs(images, ["panoptic", "semantic"])
        engine = open_engine(file, "compiled", precision="fp32", device="cpu")
        compiled = engine.outputs(images, ["panoptic", "semantic"])
    assert isinstance(engine, CompiledEngine) and repr(engine).startswith("CompiledEngine(")
    for task in plain:
        torch.testing.assert_close(compiled[task].class_logits, plain[task].class_logits)
        torch.testing.assert_close(compiled[task].mask_logits, plain[task].mask_logits)


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        open_engine(write_tiny_checkpoint(tmp_path / "model.pth"), "compiled", precision="fp32", device="cpu")
