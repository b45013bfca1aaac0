"""What every backend is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oneformer.engines.base import Engine
from oneformer.quantize.calibrate import Calibration
from oneformer.quantize.request import Formats, Request


@dataclass(frozen=True)
class Job:
    """One quantization."""

    request: Request
    source: Path
    """The checkpoint; for backends of graphs an ONNX or OpenVINO file in float32."""
    engine: Engine
    """The same, opened; it stays as it is."""
    calibration: Calibration | None
    """Photos, where the mode measures ranges."""
    draft: Path
    """Where the main file goes; others go beside it."""


@dataclass(frozen=True)
class Made:
    """What a backend has written."""

    files: Sequence[Path]
    """The main one first."""
    layers: Mapping[str, Formats]
    """What was quantized, by name."""
    kept: Sequence[str]
    """Names of the layers that were not."""
    size_before: int
    """Bytes: of PyTorch the network's weights in float32, of graphs the files."""
    size_after: int
