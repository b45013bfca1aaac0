"""The nodes of an exported graph -> its layers under the names that PyTorch has for them, and those that are chosen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from oneformer.engines.about import About
from oneformer.engines.graph import GraphEngine
from oneformer.quantize.job import Job
from oneformer.quantize.request import Formats, Layer
from oneformer.runs.atomic import write_json

KINDS = {"MatMul": "Linear", "Gemm": "Linear", "Conv": "Conv2d", "Convolution": "Conv2d"}
"""Operators with a weight, as ONNX and OpenVINO call them -> the class of the layer in PyTorch."""


@dataclass(frozen=True)
class Node:
    """A product of an exported graph."""

    name: str
    """`<layer>/<operator>`, numbered where a layer is used several times."""
    operator: str
    has_weight: bool
    """Whether one of its factors is stored in the file."""

    @property
    def layer(self) -> str:
        """The part of the network that it comes from."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class GraphLayer:
    """One layer with the nodes that compute it."""

    told: Layer
    nodes: tuple[str, ...]


def layers_of(nodes: Iterable[Node], operators: Sequence[str]) -> dict[str, GraphLayer]:
    """Layers with a weight of their own, by name.

    Products within a larger part, such as those of attention, have no weight or one that was computed from others.
    """
    nodes = [node for node in nodes if node.operator in KINDS]
    parts = {node.layer for node in nodes}
    found: dict[str, GraphLayer] = {}
    for node in nodes:
        whole = any(part.startswith(f"{node.layer}.") for part in parts)
        if not node.has_weight or whole or "/" not in node.name or node.operator not in operators:
            continue
        before = found[node.layer].nodes if node.layer in found else ()
        names = (*before, node.name)
        found[node.layer] = GraphLayer(Layer(node.layer, KINDS[node.operator], (*names, node.operator)), names)
    return found


@dataclass(frozen=True)
class Chosen:
    """What becomes of the layers of a graph."""

    formats: Mapping[str, Formats]
    nodes: tuple[str, ...]
    """Of the layers that are quantized."""
    kept: tuple[str, ...]
    """Layers that are not."""


def chosen_of(job: Job, layers: Mapping[str, GraphLayer]) -> Chosen:
    """Apply the request to the layers. Raises UserErrors as `Request.chosen` does."""
    formats = job.request.chosen([layer.told for layer in layers.values()])
    nodes = tuple(node for name in formats for node in layers[name].nodes)
    return Chosen(formats, nodes, tuple(name for name in layers if name not in formats))


def described(job: Job) -> About:
    """What the quantized file says of itself: as the float one, and how it was quantized."""
    assert isinstance(job.engine, GraphEngine)
    about = job.engine.about
    return replace(about, origin={**about.origin, "quantized": job.request.about})


def write_about(job: Job) -> Path:
    """The description for people, beside the draft."""
    return write_json(job.draft.with_suffix(".json"), json.loads(described(job).to_json()))


def bytes_of(file: Path) -> int:
    """Size of a graph file with those that belong to it: weights of OpenVINO, external data of ONNX."""
    beside = (file.with_suffix(".bin"), file.with_name(f"{file.name}.data"))
    return sum(path.stat().st_size for path in (file, *beside) if path.is_file())
