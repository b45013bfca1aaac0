"""Layers of the PyTorch network -> their weights in few bits, computed by torchao."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from oneformer.engines.torch import TorchEngine
from oneformer.errors import MissingExtra, SpecError
from oneformer.model.quantized import FORMATS, QuantizedWeight
from oneformer.quantize.job import Job, Made
from oneformer.quantize.network import layers_of, told, written
from oneformer.quantize.request import NATIVE, Formats

GROUPS = (128, 64, 32, 16, 8)  # of four-bit numbers: the largest that divides a row, so that scales stay few
NOISY = ("torchao", "torch.utils._pytree")


def imported() -> Any:
    """torchao's quantization, without its remarks about kernels for other machines. Raises MissingExtra."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchao.quantization
    except ImportError as error:
        raise MissingExtra("torchao", extra="quantize", needed_for="quantize.backend=torchao") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    return torchao.quantization


def check_installed() -> None:
    """Raise MissingExtra when torchao is not here."""
    imported()


def make(job: Job) -> Made:
    """Quantize the network's layers and write the checkpoint; `group_size` in the options is that of int4.

    Raises:
        UserErrors: patterns that fit no layer.
        SpecError: torchao does not take the options.
        WorkError: the file cannot be written.
    """
    assert isinstance(job.engine, TorchEngine)
    layers, library = layers_of(job.engine), imported()
    chosen = job.request.chosen(told(layers))
    found = {}
    for name, formats in chosen.items():
        weight = layers[name].weight
        numbers, scale = rounded(library, weight.detach().cpu().flatten(1), formats, job.request.kwargs)
        dynamic = "int8_dynamic" if formats.activations != NATIVE else ""
        found[name] = QuantizedWeight(formats.weights, numbers, scale, tuple(weight.shape), dynamic)
    return written(job, found, chosen, kept=[name for name in layers if name not in chosen])


def rounded(library: Any, matrix: Tensor, formats: Formats, kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """float (rows, columns) -> numbers of the same shape, and scales (rows, groups)."""
    rows, columns = matrix.shape
    holder = nn.Linear(
        columns, rows, bias=False, device="meta"
    )  # torchao takes layers; a convolution is one on patches
    holder.weight = nn.Parameter(matrix.float().contiguous(), requires_grad=False)
    try:
        library.quantize_(holder, config(library, formats, columns, kwargs))
    except (TypeError, ValueError, AssertionError) as error:
        raise SpecError(f"torchao refuses: {error}"[:300], where="quantize.backend_kwargs") from error
    made: Any = holder.weight
    zero = getattr(made, "zero_point", None)
    if zero is not None and bool(zero.any()):
        what = "only symmetric numbers are kept in a file, these have a zero point"
        raise SpecError(what, where="quantize.backend_kwargs", hint="leave mapping_type at its default")
    # Rows of zeros have no scale, and in eight bits of floating point torchao divides by it.
    numbers = made.qdata if made.qdata.dtype == torch.int8 else made.qdata.float().nan_to_num()
    return numbers.to(FORMATS[formats.weights]), made.scale.float().nan_to_num().reshape(rows, -1)


def config(library: Any, formats: Formats, columns: int, kwargs: Mapping[str, Any]) -> Any:
    """torchao's configuration for a row of so many columns."""
    kwargs = dict(kwargs)
    group = kwargs.pop("group_size", None)
    if formats.activations != NATIVE:
        return library.Int8DynamicActivationInt8WeightConfig(**kwargs)
    if formats.weights == "int8":
        return library.Int8WeightOnlyConfig(**kwargs)
    if formats.weights == "int4":
        size = next((n for n in ([group] if group else GROUPS) if not columns % n), columns)
        return library.IntxWeightOnlyConfig(
            weight_dtype=torch.int4,  # type: ignore[attr-defined]
            granularity=library.PerGroup(size),
            **kwargs,
        )
    return library.Float8WeightOnlyConfig(weight_dtype=FORMATS[formats.weights], **kwargs)
