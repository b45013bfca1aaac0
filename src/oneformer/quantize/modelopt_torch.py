"""Layers of the PyTorch network -> weights and inputs in eight bits, with ranges that NVIDIA's ModelOpt measures."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from oneformer.engines.torch import TorchEngine
from oneformer.errors import MissingExtra, SpecError
from oneformer.model.quantized import FORMATS, QuantizedWeight
from oneformer.quantize.calibrate import pass_through
from oneformer.quantize.job import Job, Made
from oneformer.quantize.network import layers_of, told, written
from oneformer.quantize.request import NATIVE, Formats

BITS: dict[str, Any] = {"int8": 8, "fp8_e4m3fn": (4, 3)}  # as ModelOpt writes number formats
AXES = {"int8": 0, "fp8_e4m3fn": None}  # of weights: a scale for each row, or one for all, as in ModelOpt's own recipes


def check_installed() -> None:
    """Raise MissingExtra when ModelOpt is not here."""
    imported()


def imported() -> Any:
    """ModelOpt's quantization. Raises MissingExtra."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import modelopt.torch.quantization as library
    except ImportError as error:
        package = "nvidia-modelopt" if (error.name or "").startswith("modelopt") else str(error.name)
        raise MissingExtra(package, extra="modelopt", needed_for="quantize.backend=modelopt.pytorch") from error
    return library


def make(job: Job) -> Made:
    """Measure the ranges of the chosen layers, round their weights and write the checkpoint.

    Raises:
        UserErrors: patterns that fit no layer.
        SpecError: ModelOpt does not take the options.
        WorkError: the file cannot be written.
    """
    assert isinstance(job.engine, TorchEngine)
    layers = layers_of(job.engine)
    chosen = job.request.chosen(told(layers))
    measured = watched(job, chosen)
    found = {}
    for name, formats in chosen.items():
        layer = measured.get_submodule(name)
        weight = layers[name].weight.detach().float().cpu()
        data, scale = rounded(weight.flatten(1), amax_of(layer, "weight_quantizer"), formats.weights)
        reach = amax_of(layer, "input_quantizer") if formats.activations != NATIVE else None
        # A layer whose weight is used in parts, as in the decoder's attention, sees no inputs of its own.
        inputs = formats.activations if reach is not None and float(reach) > 0 else ""
        static = float(reach) / largest(formats.activations) if inputs and reach is not None else 0.0
        found[name] = QuantizedWeight(formats.weights, data, scale, tuple(weight.shape), inputs, static)
        chosen[name] = Formats(formats.weights, inputs or NATIVE)
    return written(job, found, chosen, kept=[name for name in layers if name not in chosen])


def watched(job: Job, chosen: Mapping[str, Formats]) -> nn.Module:
    """A copy of the network in which ModelOpt has measured weights and, with photos, inputs."""
    library, engine = imported(), job.engine
    assert isinstance(engine, TorchEngine)
    rules: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for name, formats in chosen.items():
        weights = {"num_bits": BITS[formats.weights], "axis": AXES[formats.weights]}
        rules.append({"quantizer_name": f"{name}.weight_quantizer", "cfg": weights})
        if formats.activations != NATIVE:
            inputs = {"num_bits": BITS[formats.activations], "axis": None}
            rules.append({"quantizer_name": f"{name}.input_quantizer", "cfg": inputs})
    config = {"quant_cfg": rules, "algorithm": "max", **job.request.kwargs}

    def photos(model: Any) -> None:
        assert job.calibration is not None
        copied = TorchEngine(model, engine.labels, engine.info, precision="fp32", device=str(engine.device))
        pass_through(copied, job.calibration)

    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            model: nn.Module = library.quantize(
                copy.deepcopy(engine.model), config, forward_loop=photos if job.calibration else None
            )
    except (TypeError, ValueError, KeyError) as error:
        raise SpecError(f"ModelOpt refuses: {error}"[:300], where="quantize.backend_kwargs") from error
    return model


def amax_of(layer: nn.Module, quantizer: str) -> Tensor | None:
    """The largest magnitude that was measured, or None where nothing was."""
    amax = getattr(getattr(layer, quantizer), "amax", None)
    return None if amax is None else amax.detach().float().cpu()


def largest(format: str) -> float:
    """The largest number of a format."""
    return 127.0 if format == "int8" else float(torch.finfo(FORMATS[format]).max)


def rounded(matrix: Tensor, amax: Tensor | None, format: str) -> tuple[Tensor, Tensor]:
    """float (rows, columns) and what was measured of it -> numbers and scales (rows, 1)."""
    if amax is None:
        amax = matrix.abs().amax(dim=1)
    scale = (amax.reshape(-1, 1).expand(len(matrix), 1) / largest(format)).clamp(min=torch.finfo(torch.float32).tiny)
    numbers = matrix / scale
    if format == "int8":
        return numbers.round().clamp(-128, 127).to(torch.int8), scale.contiguous()
    return numbers.clamp(-largest(format), largest(format)).to(FORMATS[format]), scale.contiguous()
