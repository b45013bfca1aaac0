"""A network of two layers that is traced within a moment, and whole exports of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from oneformer.actions import export
from oneformer.engines.torch import TorchEngine
from oneformer.spec.load import load_spec
from oneformer.spec.model import ModelSpec
from story.tiny_model import TINY, write_tiny_checkpoint

SIZE = (64, 96)


class TwoLayers(nn.Module):
    """Takes and gives what the network does; `off` is added to what PyTorch itself computes, not to the traced graph."""

    def __init__(self, spec: ModelSpec, off: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spec, self.off = spec, off
        self.queries = spec.one_former.num_object_queries
        self.masks = nn.Conv2d(3, self.queries, 4, stride=4)
        self.classes = nn.Linear(3, self.queries * (spec.sem_seg_head.num_classes + 1))

    def forward(self, images: Tensor, task_tokens: Tensor) -> tuple[Tensor, Tensor]:
        means = images.mean((2, 3)) + task_tokens.mean(1, keepdim=True) / 49407 + torch.ones(3).cumsum(0)
        return self.classes(means).unflatten(1, (self.queries, -1)), self.masks(images)

    def features(self, images: Tensor) -> Tensor:
        return images

    def memory(self, images: Tensor) -> Tensor:
        return images

    def decode(self, images: Tensor, task_tokens: Tensor, *, auxiliary: bool, memory: Tensor | None) -> SimpleNamespace:
        classes, masks = self(images, task_tokens)
        return SimpleNamespace(class_logits=classes + self.off, mask_logits=masks)


@contextmanager
def two_layers(off: float = 0.0) -> Iterator[None]:
    """While open, checkpoints hold such a network."""
    original = TorchEngine.from_checkpoint.__func__  # type: ignore[attr-defined]

    def opened(cls: type[TorchEngine], path: Path, **options: Any) -> TorchEngine:
        engine: TorchEngine = original(cls, path, **options)
        engine.model = TwoLayers(engine.info.model, off).eval()  # type: ignore[assignment]
        return engine

    with mock.patch.object(TorchEngine, "from_checkpoint", classmethod(opened)):
        yield


def export_two_layers(folder: Path, *words: str) -> list[Path]:
    """The files of an export in `folder`, the graph first; `words` are laid over the spec."""
    checkpoint = folder / "model.pth"
    if not checkpoint.exists():
        write_tiny_checkpoint(checkpoint)
    base = [*TINY, f"export.input_height={SIZE[0]}", f"export.input_width={SIZE[1]}", "export.parity_images=1"]
    base += [f"export.checkpoint={checkpoint}", f"results_dir={folder}", "export.on_cpu=true"]
    with two_layers():
        done = export.run(load_spec(None, [*base, *words], action="export"))
    assert isinstance(done, export.Exported)
    return list(done.files)
