"""An OpenVINO or ONNX file -> an engine that runs it with OpenVINO, on the CPU or an Intel GPU."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneformer.engines.about import INPUTS, KEY, OUTPUTS, read_about
from oneformer.engines.base import Options
from oneformer.engines.graph import Dims, GraphEngine, Ports, checked_names
from oneformer.engines.torch import bf16_is_fast
from oneformer.errors import CheckpointError, MissingExtra, UserError
from oneformer.runs.encrypt import is_encrypted, read_plain

HINTS = {"fp32": "f32", "bf16": "bf16"}  # precision -> OpenVINO's name; weights keep the format of the file
ON_GPU = {**HINTS, "fp16": "f16"}
TELEMETRY = "openvino_telemetry"


class OpenvinoEngine(GraphEngine):
    """A model compiled by OpenVINO. Made by `open`."""

    def __init__(self, path: Path, compiled: Any, *, embedded: str | None, device: str, precision: str) -> None:
        found = checked_names(path, ports(compiled))
        super().__init__(path, read_about(path, embedded), found)
        self.compiled = compiled
        self._device = device
        self._precision = precision

    @classmethod
    def open(cls, path: Path, options: Options) -> OpenvinoEngine:
        """Read the file and compile it.

        Raises:
            MissingExtra: OpenVINO is not installed.
            UserError: the precision or device is none that OpenVINO has.
            CheckpointError: the file is broken or of another model, or the weights beside it are missing.
        """
        openvino = imported(needed_for=f"running {path.name}")
        core = openvino.Core()
        device = chosen_device(options.device, core.available_devices)
        precision = chosen_precision(options.precision, device)
        settings = {"INFERENCE_PRECISION_HINT": ON_GPU[precision], "PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = str(options.threads or torch.get_num_threads())
        weights = path.with_suffix(".bin")
        if path.suffix.lower() == ".xml" and not weights.is_file():
            raise CheckpointError(
                "the weights of the OpenVINO model are missing",
                where=str(weights),
                hint=f"{path.name} and {weights.name} belong together; copy both",
            )
        try:
            model = read_model(core, path)
            compiled = core.compile_model(model, device, settings)
        except RuntimeError as error:
            raise CheckpointError(f"OpenVINO cannot read it: {last_line(error)}", where=str(path)) from error
        return cls(path, compiled, embedded=embedded_text(model), device=device, precision=precision)

    @property
    def device(self) -> str:
        return self._device.lower()

    @property
    def precision(self) -> str:
        return self._precision

    def run(self, images: Tensor, task_tokens: Tensor) -> tuple[Tensor, Tensor]:
        feed = dict(zip(INPUTS, (images.cpu().numpy(), task_tokens.cpu().numpy()), strict=True))
        try:
            found = self.compiled(feed)
        except RuntimeError as error:
            raise UserError(f"OpenVINO failed: {last_line(error)}", where=str(self.path), exit_code=1) from error
        classes, masks = (torch.from_numpy(found[name].copy()) for name in OUTPUTS)  # the next call reuses the memory
        return classes, masks


def read_model(core: Any, path: Path) -> Any:
    """The model in a file, with the weights beside it; encrypted ones are opened in memory. Raises RuntimeError."""
    if not is_encrypted(path):
        return core.read_model(path)
    weights = path.with_suffix(".bin")
    if path.suffix.lower() != ".xml":
        return core.read_model(read_plain(path))
    return core.read_model(read_plain(path), read_plain(weights))


def imported(*, needed_for: str) -> Any:
    """The package, loaded without its telemetry: importing it would send an event to its maker. Raises MissingExtra."""
    try:
        with without_telemetry():
            import openvino
    except ImportError as error:
        raise MissingExtra("openvino", extra="openvino", needed_for=needed_for) from error
    return openvino


def last_line(error: BaseException) -> str:
    """What went wrong: OpenVINO puts it behind the lines of its source that the error came through."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """While open, the package that sends events is as if it were not installed."""
    hidden = TELEMETRY not in sys.modules
    if hidden:
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[TELEMETRY]


def embedded_text(model: Any) -> str | None:
    """The description that the export put into the model."""
    for place in ([KEY], ["framework", KEY]):  # of an IR file, of an ONNX file
        if model.has_rt_info(place):
            return str(model.get_rt_info(place).astype(str))
    return None


def ports(compiled: Any) -> Ports:
    """Names and sizes of a compiled model's inputs and outputs."""

    def of(items: Any) -> dict[str, Dims]:
        shapes = {item.any_name: item.get_partial_shape() for item in items}
        return {name: tuple(d.get_length() if d.is_static else None for d in shape) for name, shape in shapes.items()}

    return Ports(of(compiled.inputs), of(compiled.outputs))


def chosen_device(device: str, available: list[str]) -> str:
    """OpenVINO's name of a device. Raises UserError when it is not there."""
    name = "CPU" if device == "auto" else device.upper()
    if name not in available and name.partition(".")[0] not in available:
        raise UserError(
            f"there is no device {device!r} for OpenVINO",
            hint=f"it sees {', '.join(available) or 'none'}; NVIDIA GPUs run ONNX files and checkpoints",
        )
    return name


def chosen_precision(precision: str, device: str) -> str:
    """`fp32`, `bf16` or `fp16`. Raises UserError for one that the device does not compute in."""
    if precision == "auto":
        return ("bf16" if bf16_is_fast(torch.device("cpu")) else "fp32") if device == "CPU" else "fp16"
    allowed = HINTS if device == "CPU" else ON_GPU
    if precision not in allowed:
        raise UserError(
            f"OpenVINO has no precision {precision} on {device}", hint=f"use auto or {' or '.join(allowed)}"
        )
    return precision
