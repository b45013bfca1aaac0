"""An ONNX file -> an engine that runs it with ONNX Runtime, on the CPU or an NVIDIA GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneformer.engines.about import INPUTS, KEY, OUTPUTS, read_about
from oneformer.engines.base import Options
from oneformer.engines.graph import Dims, GraphEngine, Ports, checked_names
from oneformer.errors import CheckpointError, MissingExtra, UserError
from oneformer.runs.encrypt import is_encrypted, read_plain

GPU, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxRuntimeEngine(GraphEngine):
    """A session of ONNX Runtime. Made by `open`."""

    def __init__(self, path: Path, session: Any, *, device: str) -> None:
        inputs = {port.name: dims(port.shape) for port in session.get_inputs()}
        outputs = {port.name: dims(port.shape) for port in session.get_outputs()}
        ports = checked_names(path, Ports(inputs, outputs))
        super().__init__(path, read_about(path, session.get_modelmeta().custom_metadata_map.get(KEY)), ports)
        self.session = session
        self._device = device

    @classmethod
    def open(cls, path: Path, options: Options) -> OnnxRuntimeEngine:
        """Read the file and make it ready.

        Raises:
            MissingExtra: ONNX Runtime is not installed.
            UserError: the precision or device is none that ONNX Runtime has for this file.
            CheckpointError: the file is broken or of another model.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("onnxruntime", extra="onnx", needed_for=f"running {path.name}") from error
        device, providers = chosen_providers(options.device, onnxruntime.get_available_providers())
        settings = session_options(options.threads or torch.get_num_threads())
        try:
            model = read_plain(path) if is_encrypted(path) else str(path)
            session = onnxruntime.InferenceSession(model, settings, providers=providers)
        except UserError:
            raise
        except Exception as error:  # its exceptions share no base class
            raise CheckpointError(f"ONNX Runtime cannot read it: {first_line(error)}", where=str(path)) from error
        device = checked_device(device, session.get_providers(), asked=options.device)
        engine = cls(path, session, device=device)
        if options.precision not in ("auto", engine.precision):
            raise UserError(
                f"the file computes in {engine.precision}, ONNX Runtime cannot run it in {options.precision}",
                where=str(path),
                hint="export.half=true writes fp16; for bf16 on the CPU use engine=openvino or an OpenVINO export",
            )
        return engine

    @property
    def device(self) -> str:
        return self._device

    @property
    def precision(self) -> str:
        return self.about.precision

    def run(self, images: Tensor, task_tokens: Tensor) -> tuple[Tensor, Tensor]:
        feed = dict(zip(INPUTS, (images.cpu().numpy(), task_tokens.cpu().numpy()), strict=True))
        try:
            classes, masks = self.session.run(list(OUTPUTS), feed)
        except Exception as error:
            raise UserError(f"ONNX Runtime failed: {first_line(error)}", where=str(self.path), exit_code=1) from error
        return torch.from_numpy(classes), torch.from_numpy(masks)


def session_options(threads: int) -> Any:
    """How a file is run: in what it says, with so many threads."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3  # errors; its warnings are about its own constant folding
    # Products with eight-bit weights are those of a file in float32; by itself it would round their inputs too.
    settings.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return settings


def chosen_providers(device: str, available: list[str]) -> tuple[str, list[Any]]:
    """The device as shown, and ONNX Runtime's names of what may run the graph. Raises UserError for no such device."""
    if device == "cpu" or (device == "auto" and GPU not in available):
        return "cpu", [CPU]
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cuda") or not (number or "0").isdecimal():
        raise UserError(f"there is no device {device!r} for ONNX Runtime", hint="use auto, cpu, cuda or cuda:N")
    if GPU not in available:
        hint = "pip install onnxruntime-gpu in the place of onnxruntime, or use device=cpu"
        raise UserError("this ONNX Runtime has no part for NVIDIA GPUs", hint=hint)
    return f"cuda:{number or 0}", [(GPU, {"device_id": int(number or 0)}), CPU]


def checked_device(device: str, running: list[str], *, asked: str) -> str:
    """Where the session really runs: its part for GPUs goes to the CPU by itself where there is no GPU or no CUDA.

    Raises:
        UserError: a GPU was asked for by name.
    """
    if device == "cpu" or GPU in running:
        return device
    if asked == "auto":
        return "cpu"
    hint = "oneformer doctor shows the GPUs and the CUDA that are found; device=cpu runs it without"
    raise UserError(f"ONNX Runtime cannot use {asked} here: it finds no GPU, or no CUDA of its version", hint=hint)


def dims(shape: list[Any]) -> Dims:
    """ONNX Runtime's shape, in which open sizes have names."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def first_line(error: BaseException) -> str:
    """What went wrong, without the trace that follows."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
