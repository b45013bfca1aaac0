"""A TensorRT engine file -> an engine that runs it on an NVIDIA GPU, with TensorRT or TensorRT-RTX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oneformer.engines.about import INPUTS, OUTPUTS, About
from oneformer.engines.base import Options
from oneformer.engines.graph import GraphEngine, Ports
from oneformer.engines.tensorrt_file import Built, Range, dims, read_description
from oneformer.engines.tensorrt_library import TOLD, Library, Said, find_library
from oneformer.errors import CheckpointError, UserError
from oneformer.runs.encrypt import read_plain

TYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "UINT8": torch.uint8}


@dataclass(frozen=True)
class Session:
    """A deserialised engine and what it runs in."""

    library: Library
    engine: Any
    said: Said
    runtime: Any
    """Kept because the engine does not keep it."""


class TensorrtEngine(GraphEngine):
    """An engine on one GPU. Made by `open`."""

    def __init__(self, path: Path, about: About, session: Session, *, device: torch.device) -> None:
        found = ports(session.engine)
        super().__init__(path, about, found)
        self.session = session
        self.profile = profile(session.engine, found)
        least, _, most = (sizes[0] for sizes in self.profile[INPUTS[0]])
        self.least, self.most = least or 1, most
        self._device = device
        self.queue = queue(device)
        self.context = session.engine.create_execution_context()
        if self.context is None:
            what = f"the engine cannot be made ready: {session.said.why}"
            raise UserError(what, where=str(path), hint="is the GPU's memory full?", exit_code=1)

    @classmethod
    def open(cls, path: Path, options: Options) -> TensorrtEngine:
        """Read the file and put it on the GPU.

        Raises:
            UserError: the library or a GPU is missing, or the precision is not the engine's.
            CheckpointError: the file is broken, of another model, or for another library, version or GPU.
        """
        about, built = read_description(path)
        if options.precision not in ("auto", about.precision):
            raise UserError(
                f"the engine computes in {about.precision}, that was decided when it was built",
                where=str(path),
                hint=f"gen_trt_engine.tensorrt.data_type={options.precision} builds one that computes in it",
            )
        library = find_library(built.library if built else "auto", needed_for=f"running {path.name}")
        device = chosen_gpu(options.device, path)
        with torch.cuda.device(device):
            return cls(path, about, deserialise(path, library, built), device=device)

    @property
    def device(self) -> str:
        return str(self._device)

    @property
    def precision(self) -> str:
        return self.about.precision

    def check_size(self, images: Tensor) -> None:
        super().check_size(images)
        axes = (1, 2) if self.about.embed_preprocess else (2, 3)
        least, _, most = self.profile[INPUTS[0]]
        for told, axis, size in zip(("heights", "widths"), axes, images.shape[2:], strict=True):
            low, high = least[axis] or size, most[axis] or size
            if not low <= size <= high:
                raise UserError(
                    f"the engine was built for {told} from {low} to {high}, these images have {size}",
                    where=str(self.path),
                    hint="gen_trt_engine.tensorrt.min_size and max_size set what an engine takes",
                )

    @torch.inference_mode()
    def run(self, images: Tensor, task_tokens: Tensor) -> tuple[Tensor, Tensor]:
        self.queue.wait_stream(torch.cuda.current_stream(self._device))  # images may just be made there
        with torch.cuda.device(self._device), torch.cuda.stream(self.queue):
            fed = {  # kept until the GPU is done with them
                name: value.to(self._device, self.type_of(name)).contiguous()
                for name, value in zip(INPUTS, (images, task_tokens), strict=True)
            }
            for name, value in fed.items():
                self.demand(self.context.set_input_shape(name, tuple(value.shape)), f"{name} of {tuple(value.shape)}")
                self.context.set_tensor_address(name, value.data_ptr())
            found = {name: self.room_for(name) for name in OUTPUTS}
            self.demand(self.context.execute_async_v3(self.queue.cuda_stream), "the network")
            self.queue.synchronize()
        classes, masks = (found[name] for name in OUTPUTS)
        return classes, masks

    def room_for(self, name: str) -> Tensor:
        """An output of the size that the inputs lead to, its address told."""
        made = torch.empty(tuple(self.context.get_tensor_shape(name)), dtype=self.type_of(name), device=self._device)
        self.context.set_tensor_address(name, made.data_ptr())
        return made

    def type_of(self, name: str) -> torch.dtype:
        """Number format of an input or output."""
        return TYPES[self.session.engine.get_tensor_dtype(name).name]

    def demand(self, done: bool, what: str) -> None:
        """Raise UserError when the library could not do something."""
        if not done:
            library, said = self.session.library, self.session.said
            raise UserError(f"{library.told} failed on {what}: {said.why}", where=str(self.path), exit_code=1)


def chosen_gpu(device: str, path: Path) -> torch.device:
    """The GPU of that name. Raises UserError when there is none."""
    if not torch.cuda.is_available():
        raise UserError(
            "TensorRT engines run on NVIDIA GPUs, and torch sees none here",
            where=str(path),
            hint="the ONNX file it was built from, and the checkpoint, run on this machine's processor",
        )
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cuda") or not (number or "0").isdecimal() or int(number or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no GPU {device!r} for the engine", where=str(path), hint="use auto, cuda or cuda:N")
    return torch.device("cuda", int(number) if number else torch.cuda.current_device())


def queue(device: torch.device) -> Any:
    """The order in which the GPU does what this engine asks; the default one would wait for everybody else's."""
    return torch.cuda.Stream(device)


def deserialise(path: Path, library: Library, built: Built | None) -> Session:
    """The engine on the current GPU. Raises CheckpointError when the library does not take it."""
    logger, said = library.listener()
    runtime = library.module.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(read_plain(path))
    if engine is None:
        gpus = f" for GPUs of compute capability {', '.join(built.gpus)}" if built and built.gpus else ""
        by = f"it was built by {TOLD.get(built.library, built.library)} {built.version}{gpus}; " if built else ""
        raise CheckpointError(
            f"{library.told} does not take the engine: {said.why}",
            where=str(path),
            hint=f"{by}engines belong to one version of the library and its GPUs: oneformer gen_trt_engine builds it",
        )
    return Session(library, engine, said, runtime)


def ports(engine: Any) -> Ports:
    """Names and sizes of what an engine takes and gives."""
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs, outputs = (
        {name: dims(engine.get_tensor_shape(name)) for name in names if engine.get_tensor_mode(name).name == mode}
        for mode in ("INPUT", "OUTPUT")
    )
    return Ports(inputs, outputs)


def profile(engine: Any, found: Ports) -> dict[str, Range]:
    """Input -> smallest, usual and largest sizes."""
    rows = {name: [dims(row) for row in engine.get_tensor_profile_shape(name, 0)] for name in found.inputs}
    return {name: (low, usual, high) for name, (low, usual, high) in rows.items()}
