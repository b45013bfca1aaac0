"""Layers of the PyTorch network <-> patterns; quantized weights -> a checkpoint that evaluates and exports as any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import nn

from oneformer.engines.torch import TorchEngine
from oneformer.model.quantized import LAYERS, QuantizedWeight
from oneformer.model.weights.checkpoint import Aside, Quantization
from oneformer.model.weights.settle import read_model
from oneformer.model.weights.targets import ours_content
from oneformer.quantize.job import Job, Made
from oneformer.quantize.request import Formats, Layer
from oneformer.train.checkpoint import write_checkpoint

Weighted = nn.Linear | nn.Conv2d


def layers_of(engine: TorchEngine) -> dict[str, Weighted]:
    """Linear layers and convolutions by name."""
    modules = engine.model.named_modules()
    return {name: layer for name, layer in modules if isinstance(layer, LAYERS)}


def told(layers: Mapping[str, Weighted]) -> list[Layer]:
    """The same for patterns."""
    return [Layer(name, "Linear" if isinstance(layer, nn.Linear) else "Conv2d") for name, layer in layers.items()]


def written(
    job: Job, weights: Mapping[str, QuantizedWeight], chosen: Mapping[str, Formats], *, kept: Sequence[str]
) -> Made:
    """Write the checkpoint: the weights in few bits, the rest as it was, without what only training needs.

    Raises:
        WorkError: it cannot be written.
    """
    info = read_model(job.source)
    state = {name: value.float() for name, value in info.state_dict.items() if not name.startswith("text.")}
    quantized = Quantization(dict(weights), job.request.about)
    content = ours_content(replace(info, state_dict=state, criterion={}, aside=Aside(), quantized=quantized))
    write_checkpoint(content, job.draft)
    small = sum(weight.nbytes for weight in weights.values())
    before = sum(4 * value.numel() for value in state.values())
    after = small + sum(4 * value.numel() for value in content["state_dict"].values())
    return Made([job.draft], chosen, kept, before, after)
