"""A spec -> what `oneformer gen_trt_engine` does with it, for a small graph and the stand-in of the library."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from house.world import World
from oneformer.actions import gen_trt_engine
from oneformer.actions.gen_trt_engine import EngineBuilt, Proof
from oneformer.engines.onnxruntime import OnnxRuntimeEngine
from oneformer.spec import ExperimentSpec
from stand_in import stand_in
from trt.fake_library import Engine, Runtime, fake_library
from trt.small_graph import small_onnx

OPEN = ("gen_trt_engine.onnx_file={root}/graphs/open.onnx",)
INT8 = ("gen_trt_engine.tensorrt.data_type=int8", "inference.images_dir={other.images}")
RTX = ("gen_trt_engine.library=tensorrt_rtx",)


@contextmanager
def libraries() -> Iterator[None]:
    """While open, both are installed, as the stand-in."""
    names = ("tensorrt", "tensorrt_rtx")
    with stand_in(names[0], fake_library(names[0])), stand_in(names[1], fake_library(names[1])):
        yield


def graphs(world: World) -> Path:
    """The ONNX file that is built; beside it the same with open sizes."""
    folder = world.root / "graphs"
    for name, size in (("model", (64, 96)), ("open", None)):
        if not (folder / f"{name}.onnx").is_file():
            small_onnx(folder / f"{name}.onnx", size=size)
    return folder / "model.onnx"


def run(spec: ExperimentSpec, world: World) -> EngineBuilt:
    graph = graphs(world)
    spec.results_dir = spec.results_dir or str(world.fresh())
    spec.gen_trt_engine.onnx_file = spec.gen_trt_engine.onnx_file or str(graph)
    with libraries():
        done = gen_trt_engine.run(spec)
    assert isinstance(done, EngineBuilt)
    return done


def built(spec: ExperimentSpec, world: World) -> list[Any]:
    """A whole build but for the comparison: what the library was told, the facts, the cache, and what was logged."""
    log = logging.getLogger("oneformer.engines.tensorrt_library")
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        with mock.patch.object(gen_trt_engine, "prove", lambda *_, **__: Proof("")):
            done = run(spec, world)
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    engine = Runtime(None).deserialize_cuda_engine(done.files[0].read_bytes())
    assert isinstance(engine, Engine)
    cache = Path(spec.gen_trt_engine.timing_cache)
    facts = {k: v for k, v in done.facts.items() if k not in ("seconds", "onnx_file")}
    return [facts, engine.head, cache.read_bytes() if cache.is_file() else b"", lines]


def measured(spec: ExperimentSpec, world: World) -> list[float]:
    """The photos that ranges are measured on, by their brightest pixel."""
    from oneformer.trt.graph import read_graph

    return [float(batch.abs().max()) for batch in gen_trt_engine.photos(spec, read_graph(graphs(world)))]


def compared(spec: ExperimentSpec, world: World) -> dict[str, Any]:
    """The proof without its times."""
    proof = run(spec, world).proof.to_dict()
    return {k: v for k, v in proof.items() if k not in ("seconds_per_image", "exported", "reference")}


def kept(spec: ExperimentSpec, world: World) -> list[str]:
    """What is there after a build whose graph finds something else."""
    spec.results_dir, spec.gen_trt_engine.overwrite = str(world.root / "differs"), True  # a refusal names its place
    spec.gen_trt_engine.parity_images, original = 1, OnnxRuntimeEngine.run

    def other(engine: OnnxRuntimeEngine, images: torch.Tensor, task_tokens: torch.Tensor) -> Any:
        classes, masks = original(engine, images, task_tokens)
        return (classes.roll(1, -1), -masks) if engine.precision == "fp16" else (classes, masks)

    with mock.patch.object(OnnxRuntimeEngine, "run", other):
        return [file.name for file in run(spec, world).files]


def planned(spec: ExperimentSpec, world: World) -> list[str]:
    """The files that would be written."""
    spec.gen_trt_engine.onnx_file = str(graphs(world))
    return list(gen_trt_engine.run(spec, dry_run=True).writes)  # type: ignore[union-attr]


def in_the_way(spec: ExperimentSpec, world: World) -> list[str]:
    """The same where an engine is there already."""
    spec.results_dir = str(world.root / "taken")
    (world.root / "taken" / "gen_trt_engine").mkdir(parents=True, exist_ok=True)
    (world.root / "taken" / "gen_trt_engine" / "model.engine").touch()
    return planned(spec, world)


def gpu(spec: ExperimentSpec, _: World) -> Any:
    """The GPU that is built on."""
    with (
        mock.patch.object(gen_trt_engine, "has_gpu", lambda: True),
        mock.patch("torch.cuda.device_count", lambda: 4),
        mock.patch("torch.cuda.device", lambda number: number),
    ):
        return gen_trt_engine.on_gpu(spec.gen_trt_engine.gpu_id)
