"""A stand-in for the Python packages `tensorrt` and `tensorrt_rtx`: their classes as far as we call them, on the CPU.

It parses the ONNX file, holds profiles to the graph's sizes, and runs the "engine" with ONNX Runtime, reading and
writing memory through the addresses it is given, as the real one does on a GPU. What it cannot show is whether the real
library accepts a graph; `test_real.py` does that with TensorRT-RTX.
"""

from __future__ import annotations

import ctypes
import enum
import json
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import torch

MAGIC = b"fake engine\n"
FOREIGN = ("NonZero", "ScatterND", "SequenceAt")  # what the fake does not understand


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class DataType(enum.Enum):
    FLOAT = np.float32
    HALF = np.float16
    UINT8 = np.uint8


class TensorIOMode(enum.Enum):
    INPUT = 0
    OUTPUT = 1


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    TF32 = 0


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class ComputeCapability(enum.Enum):
    NONE = 0
    CURRENT = 1
    SM86 = 86
    SM89 = 89
    SM120 = 120


@dataclass
class Tensor:
    name: str
    shape: tuple[int, ...]
    kind: str

    @classmethod
    def of(cls, value: Any) -> Tensor:
        sizes = tuple(size if isinstance(size, int) else -1 for size in value.shape)
        return cls(value.name, sizes, np.dtype(value.dtype.numpy()).name)


@dataclass
class Network:
    content: bytes | None = None
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    num_layers: int = 0

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]


@dataclass
class Fault:
    name: str
    operator: str

    def node_name(self) -> str:
        return self.name

    def node_operator(self) -> str:
        return self.operator

    def desc(self) -> str:
        return f"no importer for {self.operator}"


class OnnxParser:
    def __init__(self, network: Network, logger: Any) -> None:
        self.network = network
        self.faults: list[Fault] = []

    @property
    def num_errors(self) -> int:
        return len(self.faults)

    def get_error(self, index: int) -> Fault:
        return self.faults[index]

    def parse_from_file(self, path: str) -> bool:
        return self.parse(Path(path).read_bytes())

    def parse(self, content: bytes) -> bool:
        graph = ir.from_proto(onnx.load_from_string(content)).graph
        self.faults = [Fault(str(n.name), n.op_type) for n in graph if n.op_type in FOREIGN]
        self.network.content, self.network.num_layers = content, len(graph)
        self.network.inputs = [Tensor.of(value) for value in graph.inputs]
        self.network.outputs = [Tensor.of(value) for value in graph.outputs]
        return not self.faults


class Profile(dict[str, Any]):
    def set_shape(self, name: str, low: Any, usual: Any, high: Any) -> None:
        self[name] = [list(low), list(usual), list(high)]


class Config:
    def __init__(self) -> None:
        self.told: dict[str, Any] = {"gpus": [], "tf32": True}
        self.profile: Profile = Profile()
        self.num_compute_capabilities = 0
        self.cache = b""

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.told[pool.name.lower()] = size

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.told[flag.name.lower()] = False

    def add_optimization_profile(self, profile: Profile) -> None:
        self.profile = profile

    def set_compute_capability(self, capability: ComputeCapability, index: int) -> bool:
        assert index < self.num_compute_capabilities
        self.told["gpus"].append(capability.name)
        return True

    def create_timing_cache(self, stored: bytes) -> bytes:
        return stored

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return cache != b"of another GPU"

    def get_timing_cache(self) -> Any:
        found = self.cache + b"kernel "
        return types.SimpleNamespace(serialize=lambda: bytearray(found))


class Builder:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> Network:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return Network()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytearray | None:
        for tensor in network.inputs:
            low, usual, high = config.profile[tensor.name]
            for size, *sizes in zip(tensor.shape, low, usual, high, strict=True):
                if sizes != sorted(sizes) or (size != -1 and set(sizes) != {size}):
                    self.logger.log(ILogger.ERROR, f"{tensor.name}: the profile does not fit the network")
                    return None
        self.logger.log(ILogger.INFO, "built")
        assert network.content is not None
        ports = {name: [vars(t) for t in getattr(network, name)] for name in ("inputs", "outputs")}
        head = json.dumps({"profile": config.profile, **config.told, **ports}).encode()
        return bytearray(MAGIC + head + b"\n" + network.content)


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, stored: bytes) -> Engine | None:
        if not stored.startswith(MAGIC):
            self.logger.log(ILogger.ERROR, "magic tag does not match")
            return None
        head, _, graph = stored.removeprefix(MAGIC).partition(b"\n")
        return Engine(json.loads(head), graph)


class Engine:
    def __init__(self, head: dict[str, Any], graph: bytes) -> None:
        self.head = head
        self.tensors = {t["name"]: Tensor(**t) for t in (*head["inputs"], *head["outputs"])}
        self.names = list(self.tensors)
        self.num_io_tensors = len(self.names)
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode(int(name not in self.head["profile"]))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensors[name].shape)

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType(np.dtype(self.tensors[name].kind).type)

    def get_tensor_profile_shape(self, name: str, index: int) -> list[list[int]]:
        assert index == 0
        return self.head["profile"][name]

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.engine.head["profile"][name]
        self.shapes[name] = shape
        return all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch, _, height, width = self.shapes["images"]
        found = [batch, *self.engine.tensors[name].shape[1:]]
        for axis, size in ((2, height // 4), (3, width // 4)):
            if len(found) > axis and found[axis] == -1:
                found[axis] = size
        return tuple(found)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        feed = {name: self.view(name, shape).copy() for name, shape in self.shapes.items()}
        names = [name for name in self.engine.names if name not in feed]
        for name, value in zip(names, self.engine.session.run(names, feed), strict=True):
            self.view(name, self.get_tensor_shape(name))[...] = value
        return True

    def view(self, name: str, shape: tuple[int, ...]) -> Any:
        """The memory behind an address as an array."""
        kind = np.dtype(self.engine.tensors[name].kind)
        size = int(np.prod(shape)) * kind.itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(self.addresses[name]), kind).reshape(shape)


def fake_library(name: str = "tensorrt", version: str = "11.4.0") -> types.ModuleType:
    """The package; `tensorrt_rtx` has compute capabilities."""
    made = types.ModuleType(name)
    classes = (ILogger, DataType, TensorIOMode, NetworkDefinitionCreationFlag, BuilderFlag, MemoryPoolType)
    vars(made).update({kind.__name__: kind for kind in (*classes, OnnxParser, Builder, Runtime)}, __version__=version)
    if name == "tensorrt_rtx":
        made.ComputeCapability = ComputeCapability  # type: ignore[attr-defined]
    return made


class Queue:
    cuda_stream = 0

    def wait_stream(self, other: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """While open, engines take the CPU for their GPU."""
    nothing = nullcontext()
    with (
        mock.patch("oneformer.engines.tensorrt.chosen_gpu", lambda device, path: torch.device("cpu")),
        mock.patch("oneformer.engines.tensorrt.queue", lambda device: Queue()),
        mock.patch("torch.cuda.device", lambda device: nothing),
        mock.patch("torch.cuda.stream", lambda stream: nothing),
        mock.patch("torch.cuda.current_stream", lambda device: None),
    ):
        yield
