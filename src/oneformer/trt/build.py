"""An ONNX file with the formats of its products in it -> the bytes of an engine, by TensorRT or TensorRT-RTX."""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer.engines.tensorrt_file import Dims, Range, dims
from oneformer.engines.tensorrt_library import Library, Said
from oneformer.errors import SpecError, WorkError
from oneformer.runs.atomic import write_atomic
from oneformer.runs.encrypt import is_encrypted, read_plain

log = logging.getLogger(__name__)

MIB = 2**20
NO_GPU = "Cuda"  # in every message of a library that found no driver
NO_ROOM = re.compile(r"OutOfMemory \(Requested size was (\d+) bytes")  # more than the workspace


@dataclass(frozen=True)
class Wish:
    """What the builder is told."""

    profile: Mapping[str, Range]
    workspace_mib: int
    gpus: tuple[str, ...] = ()
    """Compute capabilities to build for, such as `8.9`; empty leaves the choice to the library."""
    timing_cache: Path | None = None
    exact: bool = False
    """No TF32: float32 products keep all their bits."""
    verbose: bool = False


@dataclass(frozen=True)
class Engine:
    """What came out."""

    plan: Any
    """The file's bytes, as a buffer."""
    layers: int
    """Of the network as the parser made it, before the library joined them."""
    inputs: dict[str, Dims]
    outputs: dict[str, Dims]
    gpus: tuple[str, ...]
    seconds: float


def build(library: Library, onnx_file: Path, wish: Wish) -> Engine:
    """Parse and build.

    Raises:
        SpecError: a GPU that the library does not build for, or none is there and it needs one.
        WorkError: the library cannot parse or build the network.
    """
    start = time.perf_counter()
    module = library.module
    logger, said = library.listener(verbose=wish.verbose)
    gpus = chosen_gpus(library, wish.gpus)
    try:
        builder = module.Builder(logger)
    except (TypeError, RuntimeError) as error:  # its way to say that it was not made
        raise no_builder(library, said) from error
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, logger)
    taken = parser.parse(read_plain(onnx_file)) if is_encrypted(onnx_file) else parser.parse_from_file(str(onnx_file))
    if not taken:
        raise not_parsed(library, parser, said)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, wish.workspace_mib * MIB)
    if wish.exact:
        config.clear_flag(module.BuilderFlag.TF32)
    config.add_optimization_profile(shapes(builder, wish.profile))
    for index, name in enumerate(gpus):
        config.num_compute_capabilities = len(gpus)
        config.set_compute_capability(capability(library, name), index)
    with timing_cache(library, config, wish.timing_cache):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise no_builder(library, said)
    inputs, outputs = (
        {tensor.name: dims(tensor.shape) for tensor in (get(i) for i in range(count))}
        for get, count in ((network.get_input, network.num_inputs), (network.get_output, network.num_outputs))
    )
    return Engine(plan, network.num_layers, inputs, outputs, gpus, time.perf_counter() - start)


def shapes(builder: Any, profile: Mapping[str, Range]) -> Any:
    """The builder's own form of a profile."""
    made = builder.create_optimization_profile()
    for name, sizes in profile.items():
        made.set_shape(name, *sizes)
    return made


def chosen_gpus(library: Library, wanted: Sequence[str]) -> tuple[str, ...]:
    """The compute capabilities to build for. Raises SpecError for those that the library does not know."""
    if wanted and not library.rtx:
        log.warning("gen_trt_engine.tensorrt.gpus has no effect: %s builds for the GPU it finds", library.told)
        return ()
    known = known_gpus(library) if wanted else []
    for name in wanted:
        if name not in known:
            raise SpecError(
                f"{library.told} does not build for compute capability {name}",
                where="gen_trt_engine.tensorrt.gpus",
                hint=f"it builds for {', '.join(known)}",
            )
    return tuple(dict.fromkeys(wanted))


def known_gpus(library: Library) -> list[str]:
    """The compute capabilities that TensorRT-RTX builds for, such as `8.9`."""
    names = [name for name in dir(library.module.ComputeCapability) if name.startswith("SM") and name[2:].isdecimal()]
    return [f"{name[2:-1]}.{name[-1]}" for name in sorted(names, key=lambda name: int(name[2:]))]


def capability(library: Library, name: str) -> Any:
    """The library's constant for `8.9`."""
    return getattr(library.module.ComputeCapability, f"SM{name.replace('.', '')}")


@contextmanager
def timing_cache(library: Library, config: Any, path: Path | None) -> Iterator[None]:
    """Times of kernels from earlier builds for the one inside, and its own into the same file afterwards."""
    if path is None:
        yield
        return
    if library.rtx:
        log.warning("gen_trt_engine.timing_cache has no effect: %s measures no kernels when it builds", library.told)
        yield
        return
    try:
        stored = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise SpecError("the cache cannot be read", where=f"gen_trt_engine.timing_cache ({path})") from error
    if not config.set_timing_cache(config.create_timing_cache(stored), False):
        log.warning("%s is of another GPU or version of the library, a new one is begun", path)
        config.set_timing_cache(config.create_timing_cache(b""), False)
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = config.get_timing_cache()
    if found is not None:
        write_atomic(path, lambda file: file.write(memoryview(found.serialize())))


def not_parsed(library: Library, parser: Any, said: Said) -> WorkError:
    """What of the graph the library does not know."""
    faults = [parser.get_error(i) for i in range(parser.num_errors)]
    why = "; ".join(f"{fault.node_name() or fault.node_operator()}: {fault.desc()}" for fault in faults[:3]) or said.why
    return WorkError(f"{library.told} does not understand the graph: {' '.join(why.split())[:500]}")


def no_builder(library: Library, said: Said) -> WorkError | SpecError:
    """Why nothing was built."""
    if NO_GPU in said.why or (not library.rtx and not said.lines):
        hint = "" if library.rtx else "gen_trt_engine.library=tensorrt_rtx builds without one"
        return SpecError(f"{library.told} finds no NVIDIA GPU to build for: {said.why}", hint=hint)
    hint = "gen_trt_engine.verbose=true shows all that the library says"
    if asked := NO_ROOM.search(said.why):
        least = -(-int(asked[1]) // MIB)
        hint = (
            f"one layer needs {least} MiB: gen_trt_engine.tensorrt.workspace_size={least}, or a smaller largest batch"
        )
    return WorkError(f"{library.told} cannot build the engine: {said.why}", hint=hint)
