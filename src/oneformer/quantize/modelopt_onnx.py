"""An ONNX file in float32 -> one with Q/DQ pairs in eight bits, placed and measured by NVIDIA's ModelOpt."""

from __future__ import annotations

import contextlib
import re
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from oneformer.engines.graph import GraphEngine
from oneformer.engines.onnxruntime import first_line
from oneformer.errors import MissingExtra, SpecError, WorkError
from oneformer.quantize.graph import bytes_of, chosen_of, layers_of, write_about
from oneformer.quantize.job import Job, Made
from oneformer.quantize.onnxruntime import nodes_of, quiet, sign
from oneformer.runs.key import writing_key

OPERATORS = ("MatMul", "Gemm", "Conv")
MODES = {"int8": "int8", "fp8_e4m3fn": "fp8"}  # number format -> ModelOpt's name of it


def check_installed() -> None:
    """Raise MissingExtra when ModelOpt's part for ONNX is not here."""
    imported()


def imported() -> Any:
    """ModelOpt's quantization of ONNX files. Raises MissingExtra."""
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            import modelopt.onnx.quantization as library
    except ImportError as error:
        package = "nvidia-modelopt[onnx]" if (error.name or "").startswith("modelopt") else str(error.name)
        raise MissingExtra(package, extra="modelopt_onnx", needed_for="quantize.backend=modelopt.onnx") from error
    return library


def make(job: Job) -> Made:
    """Quantize the graph's layers and write it; its description goes into the file and beside it.

    Raises:
        UserErrors: patterns that fit no layer.
        SpecError: ModelOpt does not take the options, or layers have different formats.
        WorkError: ModelOpt failed.
    """
    import onnx

    library = imported()
    if writing_key():
        what = "ModelOpt works on plain files beside what it reads, so with an encryption key it is not used"
        raise SpecError(what, where="quantize.backend", hint="quantize.backend=onnxruntime keeps nothing in plain")
    chosen = chosen_of(job, layers_of(nodes_of(onnx.load(job.source, load_external_data=False)), OPERATORS))
    kinds = {formats.weights for formats in chosen.formats.values()}
    if len(kinds) > 1:
        raise SpecError("ModelOpt gives all layers of a graph one number format", where="quantize.layers")
    work = job.draft.parent / "modelopt"  # it leaves files beside what it reads
    work.mkdir()
    copied = work / "model.onnx"
    shutil.copy(job.source, copied)
    options: dict[str, Any] = {
        "quantize_mode": MODES[kinds.pop()],
        "calibration_data": arrays(job),
        "calibration_method": "entropy" if job.request.algorithm == "entropy" else "max",
        "calibration_eps": ["cpu"],
        "nodes_to_quantize": [f"^{re.escape(name)}$" for name in chosen.nodes],
        "op_types_to_quantize": list(OPERATORS),
        "high_precision_dtype": "fp32",
        "disable_mha_qdq": True,
        "log_level": "ERROR",
    }
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None), quiet():
            warnings.simplefilter("ignore")
            library.quantize(str(copied), output_path=str(job.draft), **{**options, **job.request.kwargs})
    except TypeError as error:
        raise SpecError(f"ModelOpt refuses: {first_line(error)}", where="quantize.backend_kwargs") from error
    except Exception as error:  # its exceptions share no base class
        raise WorkError(f"ModelOpt cannot quantize it: {first_line(error)}", where=str(job.source)) from error
    sign(job, job.draft)
    done = {node.partition("/")[0] for node in rounded_nodes(onnx.load(job.draft))}
    formats = {name: formats for name, formats in chosen.formats.items() if name in done}
    if not formats:
        what = "ModelOpt has quantized none of the layers: it leaves out products that are too small to gain by it"
        raise WorkError(what, where=str(job.source), hint="quantize.backend=onnxruntime quantizes every layer")
    kept = (*chosen.kept, *(name for name in chosen.formats if name not in done))
    return Made([job.draft, write_about(job)], formats, kept, bytes_of(job.source), bytes_of(job.draft))


def rounded_nodes(model: Any) -> Iterator[str]:
    """Names of the products whose factors come from whole numbers; ModelOpt decides on its own which are worth it."""
    made = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in model.graph.node:
        if node.op_type in OPERATORS and made.issuperset(node.input[:2]):
            yield node.name


def arrays(job: Job) -> dict[str, Any]:
    """All photos with all tasks, one array for each input."""
    assert job.calibration is not None and isinstance(job.engine, GraphEngine)
    feeds = list(job.calibration.feeds(job.engine))
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
