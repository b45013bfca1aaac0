"""A graph, the `gen_trt_engine` section and photos -> an ONNX file in which every product has its final format."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from oneformer.engines.about import KEY
from oneformer.export.onnx import write
from oneformer.spec.engine import TensorrtSpec
from oneformer.trt.graph import Graph, check_precision
from oneformer.trt.precision import counts, precisions
from oneformer.trt.ranges import reaches
from oneformer.trt.typed import activations, apply

log = logging.getLogger(__name__)

Photos = Callable[[], Iterable[Tensor]]
"""Normalised float32 batches (B, 3, H, W) of the graph's size, made when they are needed."""


@dataclass(frozen=True)
class Prepared:
    """What the builder gets."""

    file: Path
    products: dict[str, int] = field(default_factory=dict)
    """How many products have each precision; empty where the file decided."""
    changed: bool = False
    """Whether it is another file than the user's."""


def prepare(graph: Graph, limits: TensorrtSpec, photos: Photos, *, folder: Path) -> Prepared:
    """Type the graph; the user's own file stays as it is.

    Args:
        graph: from `read_graph`; its model changes.
        limits: `data_type` and `layers_precision` are used.
        photos: on which `int8` and `fp8` measure ranges.
        folder: where files may be written.

    Raises:
        UserError: precisions that this graph cannot have, no photos, or ONNX Runtime is missing.
    """
    check_precision(graph, limits.data_type)
    if graph.quantized or graph.about.precision != "fp32":
        if limits.layers_precision or (graph.quantized and limits.data_type not in ("int8", "fp8")):
            log.warning("the ONNX file says itself how it is computed; the spec's precisions have no effect")
        file = _written(graph, folder, graph.about.precision) if graph.changed else graph.path
        return Prepared(file, changed=graph.changed)
    chosen = precisions(graph.model, limits.data_type, limits.layers_precision)
    found = counts(chosen)
    if set(found) == {"fp32"} and not graph.changed:
        return Prepared(graph.path, found)
    names, reach = activations(graph.model, chosen), {}
    if names:
        log.info("measuring %d ranges", len(names))
        source = _written(graph, folder, "fp32") if graph.changed else graph.path
        reach = reaches(source, graph.about, graph.ports, names, photos(), draft=folder / "measured.onnx")
    apply(graph.model, chosen, reach)
    return Prepared(_written(graph, folder, limits.data_type), found, changed=True)


def _written(graph: Graph, folder: Path, precision: str) -> Path:
    graph.model.metadata_props[KEY] = replace(graph.about, precision=precision).to_json()
    path, *_ = write(graph.model, folder / "typed.onnx")
    return path
