"""An ONNX or OpenVINO file in float32 -> OpenVINO files in few bits, by NNCF: weights alone, or activations too."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Any

from oneformer.engines import openvino as engine
from oneformer.engines.about import KEY
from oneformer.engines.graph import GraphEngine
from oneformer.engines.onnxruntime import first_line
from oneformer.errors import MissingExtra, SpecError, WorkError
from oneformer.quantize.graph import Chosen, Node, bytes_of, chosen_of, described, layers_of, write_about
from oneformer.quantize.job import Job, Made
from oneformer.runs.by_name import by_name

OPERATORS = ("MatMul", "Convolution")
NEEDED_FOR = "quantize.backend=openvino"
# Operators that NNCF would quantize too because results of quantized layers flow through them. They stay in float:
# they are cheap, and sums and products of the residual path lose more than they gain.
FLOAT_OPERATORS = ("Add", "Multiply", "Subtract", "Divide", "MVN", "Softmax", "Interpolate", "GridSample", "ReduceSum")


def check_installed() -> None:
    """Raise MissingExtra when OpenVINO or NNCF is not here."""
    engine.imported(needed_for=NEEDED_FOR)
    imported()


def imported() -> Any:
    """NNCF, which sends no events as it is loaded here. Raises MissingExtra."""
    try:
        with engine.without_telemetry(), quiet():
            import nncf
    except ImportError as error:
        raise MissingExtra("nncf", extra="quantize", needed_for=NEEDED_FOR) from error
    return nncf


def make(job: Job) -> Made:
    """Quantize the graph's layers and write the two files and their description.

    Raises:
        UserErrors: patterns that fit no layer.
        SpecError: NNCF does not take the options.
        WorkError: NNCF or OpenVINO failed.
    """
    openvino = engine.imported(needed_for=NEEDED_FOR)
    try:
        model = engine.read_model(openvino.Core(), job.source)
        nodes = list(nodes_of(model))
        chosen = chosen_of(job, layers_of(nodes, OPERATORS))
        with engine.without_telemetry(), quiet():
            small = converted(job, model, nodes, chosen)
        small.set_rt_info(described(job).to_json(), KEY)
        with by_name(job.draft, job.draft.with_suffix(".bin")) as place:
            openvino.save_model(small, place, compress_to_fp16=False)
    except TypeError as error:
        raise SpecError(f"NNCF refuses: {first_line(error)}", where="quantize.backend_kwargs") from error
    except (RuntimeError, ValueError) as error:
        raise WorkError(f"NNCF cannot quantize it: {first_line(error)}", where=str(job.source)) from error
    files = [job.draft, job.draft.with_suffix(".bin"), write_about(job)]
    return Made(files, chosen.formats, chosen.kept, bytes_of(job.source), bytes_of(job.draft))


def nodes_of(model: Any) -> Iterator[Node]:
    """The nodes of an OpenVINO model; those of an ONNX file keep their names."""
    for node in model.get_ops():
        kinds = [port.get_source_output().get_node().get_type_name() for port in node.inputs()]
        yield Node(node.get_friendly_name(), node.get_type_name(), "Constant" in kinds)


def converted(job: Job, model: Any, nodes: list[Node], chosen: Chosen) -> Any:
    """The model with these layers quantized and everything else in float."""
    nncf = imported()
    kwargs = dict(job.request.kwargs)
    products = [node.name for node in nodes if node.operator in OPERATORS and node.name not in chosen.nodes]
    if job.request.mode == "weight_only_ptq":
        kinds = {formats.weights for formats in chosen.formats.values()}
        if len(kinds) > 1:
            raise SpecError("NNCF gives all layers of a graph one number format", where="quantize.layers")
        mode = nncf.CompressWeightsMode.INT4_SYM if "int4" in kinds else nncf.CompressWeightsMode.INT8_SYM
        if "int4" in kinds:
            kwargs = {"ratio": 1.0, "group_size": -1, "all_layers": True, **kwargs}
        ignored = nncf.IgnoredScope(names=with_weights(nodes, products), validate=False)
        return nncf.compress_weights(model, mode=mode, ignored_scope=ignored, **kwargs)
    assert job.calibration is not None and isinstance(job.engine, GraphEngine)
    feeds = list(job.calibration.feeds(job.engine))
    types = kwargs.pop("float_operators", FLOAT_OPERATORS)
    options = {"subset_size": len(feeds), "preset": nncf.QuantizationPreset.MIXED, "fast_bias_correction": True}
    for name, kind in (("preset", nncf.QuantizationPreset), ("model_type", nncf.ModelType)):
        if name in kwargs:
            kwargs[name] = kind(kwargs[name])
    ignored = nncf.IgnoredScope(names=products, types=list(types), validate=False)
    return nncf.quantize(model, nncf.Dataset(feeds), ignored_scope=ignored, **{**options, **kwargs})


def with_weights(nodes: list[Node], names: list[str]) -> list[str]:
    """Those of the nodes that have something to compress."""
    stored = {node.name for node in nodes if node.has_weight}
    return [name for name in names if name in stored]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out what NNCF says of itself and its progress bars, but for errors."""
    log = logging.getLogger("nncf")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        log.setLevel(level)
