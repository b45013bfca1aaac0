"""What every engine promises: normalised images (B, 3, H, W) and task names -> one `Outputs` per task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from oneformer.data.labels import LabelMap
from oneformer.segments.types import Outputs

if TYPE_CHECKING:
    from oneformer.spec.model import ModelSpec, TestSpec


@dataclass(frozen=True)
class EngineInfo:
    """How images have to be prepared for a network and how its outputs are read."""

    pixel_mean: tuple[float, ...]
    """Per channel in RGB order, 0..255."""
    pixel_std: tuple[float, ...]
    test_min_size: int
    """Shorter side that images are scaled to, in pixels."""
    test_max_size: int
    """Longest side they may then have, in pixels."""
    model: ModelSpec
    """Sizes, tasks and thresholds of the network."""
    epoch: int = 0
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """Scores of the validation that belongs to the weights."""
    input_size: tuple[int, int] | None = None
    """Height and width of every batch where the file fixes them: photos are fitted into this frame and padded to it."""

    @property
    def size_divisibility(self) -> int:
        """Batches are padded at the bottom and right to a multiple of this many pixels."""
        return self.model.one_former.size_divisibility

    @property
    def test(self) -> TestSpec:
        """Thresholds of the post-processing."""
        return self.model.test


@dataclass(frozen=True)
class Options:
    """How a file is to be run."""

    precision: str = "auto"
    """`fp32`, `bf16`, `fp16`, or `auto`: what is fast and safe on the device."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, or `auto`: the best that the engine can use here."""
    threads: int = 0
    """Threads on the CPU; 0 takes as many as torch does."""


class Engine(Protocol):
    """Something that runs the network; post-processing, metrics and drawings are the same for all of them."""

    labels: LabelMap
    info: EngineInfo

    @property
    def device(self) -> object:
        """Where it runs; its text is shown."""
        ...

    @property
    def precision(self) -> str:
        """Number format of the products: fp32, bf16, fp16, int8."""
        ...

    def outputs(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Outputs]:
        """Normalised float32 images (B, 3, H, W) -> float32 outputs by task; what the tasks share is computed once."""
        ...
