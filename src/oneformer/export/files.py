"""A network and the `export` section -> the files of its graph, in the format that is asked for."""

from __future__ import annotations

import logging
from pathlib import Path

from oneformer.engines.about import About
from oneformer.engines.openvino import imported
from oneformer.export import onnx, openvino, program
from oneformer.export.graph import Shape, network_of, trace
from oneformer.export.half import halve
from oneformer.export.tidy import tidy
from oneformer.model.oneformer import OneFormer
from oneformer.runs.atomic import write_json
from oneformer.spec.export import ExportSpec

log = logging.getLogger(__name__)

ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


def check_installed(format: str) -> None:
    """Raise MissingExtra when files of this format cannot be written here."""
    if format != "torch":
        onnx.check_installed()
    if format == "openvino":
        imported(needed_for="export.format=openvino")


def write_graph(model: OneFormer, about: About, section: ExportSpec, draft: Path, *, simplify: bool) -> list[Path]:
    """Trace, convert and write; the description goes into the graph and, for people, beside it.

    Args:
        model: stays as it is.
        about: what the file shall say of itself.
        section: format, shape and precision.
        draft: where the main file goes; the others go beside it.
        simplify: whether an ONNX graph is tidied.

    Raises:
        WorkError: torch or OpenVINO cannot express the network, or a file cannot be written.
    """
    say = log.info if section.verbose else log.debug
    batch = section.batch_size if section.batch_size > 0 else None
    shape = Shape(section.input_height, section.input_width, batch, section.dynamic_size)
    info = about.info
    network = network_of(model, mean=info.pixel_mean, std=info.pixel_std, embed=section.embed_preprocess)
    say("tracing %s with %s", info.model.backbone.name, shape)
    traced = trace(network, shape, tokens=info.model.text_encoder.context_length)
    beside = write_json(draft.with_suffix(".json"), about.to_dict())
    if section.format == "torch":
        return [*program.write(traced, draft, about), beside]
    say("%d operations, converting to ONNX", len(traced.graph.nodes))
    graph = onnx.convert(traced, shape, about, opset=section.opset_version, verbose=section.verbose)
    say("%d nodes%s", len(graph.graph), ", tidying" if simplify else "")
    if simplify:
        tidy(graph)
    onnx.plain_splits(graph)
    if section.format == "onnx":
        if section.half:
            halve(graph)
        say("%d nodes, writing %s", len(graph.graph), draft.name)
        return [*onnx.write(graph, draft), beside]
    say("%d nodes, converting to OpenVINO", len(graph.graph))
    between, *_ = onnx.write(graph, draft.with_name("between.onnx"))
    return [*openvino.write(between, draft, about, half=section.half), beside]
