"""An ONNX file in float32 -> one with whole numbers, by ONNX Runtime: dynamic, or static with Q/DQ pairs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oneformer.engines.about import KEY
from oneformer.engines.graph import GraphEngine
from oneformer.engines.onnxruntime import first_line
from oneformer.errors import MissingExtra, SpecError, WorkError
from oneformer.quantize.graph import Node, bytes_of, chosen_of, described, layers_of, write_about
from oneformer.quantize.job import Job, Made
from oneformer.runs.by_name import by_name
from oneformer.runs.encrypt import is_encrypted, opened

# ONNX Runtime has whole products of weights with a sign for matrices, and none for convolutions.
OPERATORS = {"dynamic_ptq": ("MatMul",), "static_ptq": ("MatMul", "Gemm", "Conv")}
LARGEST = 2**31 - 2**24  # bytes; what ONNX keeps in one file


def check_installed() -> None:
    """Raise MissingExtra when ONNX Runtime or onnx is not here."""
    try:
        import onnx
        import onnxruntime.quantization

        assert onnx and onnxruntime
    except ImportError as error:
        raise MissingExtra(str(error.name), extra="quantize", needed_for="quantize.backend=onnxruntime") from error


def make(job: Job) -> Made:
    """Quantize the graph's layers and write it; its description goes into the file and beside it.

    Raises:
        UserErrors: patterns that fit no layer.
        SpecError: ONNX Runtime does not take the options, or the file is too large for it.
        WorkError: ONNX Runtime failed.
    """
    import onnx

    if bytes_of(job.source) > LARGEST:
        raise SpecError("ONNX files of more than 2 GiB are not quantized", where=str(job.source))
    with opened(job.source) as file:
        model = onnx.load(file) if is_encrypted(job.source) else onnx.load(job.source)
    chosen = chosen_of(job, layers_of(nodes_of(model), OPERATORS[job.request.mode]))
    try:
        with quiet(), by_name(job.draft) as draft:
            convert(job, model, list(chosen.nodes), draft)
            sign(job, draft)
    except TypeError as error:
        raise SpecError(f"ONNX Runtime refuses: {first_line(error)}", where="quantize.backend_kwargs") from error
    except Exception as error:  # its exceptions share no base class
        raise WorkError(f"ONNX Runtime cannot quantize it: {first_line(error)}", where=str(job.source)) from error
    return Made([job.draft, write_about(job)], chosen.formats, chosen.kept, bytes_of(job.source), bytes_of(job.draft))


def nodes_of(model: Any) -> Iterator[Node]:
    """The nodes of an ONNX model."""
    stored = {value.name for value in model.graph.initializer}
    for node in model.graph.node:
        yield Node(node.name, node.op_type, any(name in stored for name in node.input[:2]))


def convert(job: Job, model: Any, nodes: list[str], draft: Path) -> None:
    """Quantize these nodes and write the draft."""
    from onnxruntime import quantization as library

    kwargs = dict(job.request.kwargs)
    extra = {"MatMulConstBOnly": True, **kwargs.pop("extra_options", {})}
    common = {"per_channel": True, "weight_type": library.QuantType.QInt8, "nodes_to_quantize": nodes}
    if job.request.mode == "dynamic_ptq":
        options = {**common, "op_types_to_quantize": ["MatMul"], **kwargs}
        library.quantize_dynamic(model, draft, extra_options=extra, **options)
        return
    assert job.calibration is not None and isinstance(job.engine, GraphEngine)
    feeds = job.calibration.feeds(job.engine)

    class Reader(library.CalibrationDataReader):
        """Hands over one feed at a time."""

        def get_next(self) -> Any:
            return next(feeds, None)

    method = library.CalibrationMethod
    options = {
        **common,
        "activation_type": library.QuantType.QInt8,
        "calibrate_method": method.Entropy if job.request.algorithm == "entropy" else method.MinMax,
        "quant_format": library.QuantFormat.QDQ,
        **kwargs,
    }
    library.quantize_static(model, draft, Reader(), extra_options=extra, **options)


def sign(job: Job, draft: Path) -> None:
    """Put the description into the draft, in the place of the float model's."""
    import onnx

    model = onnx.load(draft)
    onnx.helper.set_model_props(model, {KEY: described(job).to_json()})
    model.producer_name = "oneformer"
    onnx.save(model, draft)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leave out its advice, which it gives by the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
