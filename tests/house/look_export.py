"""A spec -> what `oneformer export` does with it, for a network of two layers that is traced within a moment."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from house.world import World
from oneformer.actions import export
from oneformer.engines.torch import TorchEngine
from oneformer.spec import ExperimentSpec
from two_layers import two_layers

SMALL = ("export.input_height=64", "export.input_width=96", "export.parity_images=1")
AS_PROGRAM = (*SMALL, "export.format=torch")


def exported(spec: ExperimentSpec, world: World) -> dict[str, Any]:
    """A whole export: files, the graph's operators, what it says of itself, the proof, and what was logged."""
    spec.results_dir = str(world.fresh())
    spec.export.checkpoint = spec.export.checkpoint or str(world.files.checkpoint)
    with two_layers(), logged() as lines:
        done = export.run(spec)
    assert isinstance(done, export.Exported)
    graph = done.files[0]
    about = json.loads(graph.with_suffix(".json").read_text(encoding="utf-8"))
    del about["origin"]["versions"]
    proof = {k: v for k, v in done.parity.to_dict().items() if k != "seconds_per_image"}
    operators = onnx_operators(graph) if graph.suffix == ".onnx" else []
    names = sorted(file.name for file in done.files)
    return {"files": names, "ports": done.ports, "operators": operators, "about": about, "proof": proof, "log": lines}


def onnx_operators(file: Path) -> list[Any]:
    """The operator set and the kinds of operators in order."""
    import onnx

    model = onnx.load(file)
    return [[entry.version for entry in model.opset_import], [node.op_type for node in model.graph.node]]


@contextmanager
def logged() -> Iterator[list[str]]:
    """While open, the list takes what the room logs for people."""
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.msg)  # type: ignore[method-assign]
    log = logging.getLogger("oneformer.export")
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def kept(spec: ExperimentSpec, world: World) -> list[str]:
    """What is there after an export whose graph computes something else."""
    spec.results_dir, spec.export.overwrite = str(world.root / "unlike"), True  # a refusal names its place
    spec.export.checkpoint = str(world.files.checkpoint)
    with two_layers(off=0.5):
        done = export.run(spec)
    assert isinstance(done, export.Exported)
    return [file.name for file in done.files]


def planned(spec: ExperimentSpec, world: World) -> list[str]:
    """The files that would be written."""
    spec.export.checkpoint = str(world.files.checkpoint)
    return list(export.run(spec, dry_run=True).writes)  # type: ignore[union-attr]


def in_the_way(spec: ExperimentSpec, world: World) -> list[str]:
    """The same where a file has the name of one of them."""
    folder = world.root / "taken"
    (folder / "export").mkdir(parents=True, exist_ok=True)
    (folder / "export" / "model.onnx").touch()
    spec.results_dir = str(folder)
    return planned(spec, world)


def compared_on(spec: ExperimentSpec, world: World) -> str:
    """Where the checkpoint is opened on a machine with GPUs."""
    with (
        mock.patch("torch.cuda.is_available", lambda: True),
        mock.patch.object(TorchEngine, "from_checkpoint") as opened,
    ):
        export.open_reference(spec, world.files.checkpoint)
    return str(opened.call_args.kwargs["device"])
