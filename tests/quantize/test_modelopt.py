"""ModelOpt's own fake quantization against the layers that are written; it needs an environment with ModelOpt."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("modelopt")

from oneformer.model.quantized import QuantizedWeight, quantized_layer
from oneformer.quantize.modelopt_torch import AXES, BITS, amax_of, imported, largest, rounded


@pytest.mark.parametrize("format", BITS)
@pytest.mark.parametrize("layer", [nn.Linear(16, 6), nn.Conv2d(3, 4, 3)], ids=["linear", "convolution"])
def test_a_written_layer_computes_what_modelopt_computes(format: str, layer: Any) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 7, 16) if isinstance(layer, nn.Linear) else torch.randn(2, 3, 9, 9)
    config = {
        "quant_cfg": [
            {"quantizer_name": "*", "enable": False},
            {"quantizer_name": "0.weight_quantizer", "cfg": {"num_bits": BITS[format], "axis": AXES[format]}},
            {"quantizer_name": "0.input_quantizer", "cfg": {"num_bits": BITS[format], "axis": None}},
        ],
        "algorithm": "max",
    }
    theirs = imported().quantize(nn.Sequential(copy.deepcopy(layer)), config, forward_loop=lambda m: m(x))
    data, scale = rounded(layer.weight.detach().flatten(1), amax_of(theirs[0], "weight_quantizer"), format)
    reach = amax_of(theirs[0], "input_quantizer")
    assert reach is not None
    static = float(reach) / largest(format)
    mine = quantized_layer(layer, QuantizedWeight(format, data, scale, tuple(layer.weight.shape), format, static))
    with torch.no_grad():
        assert torch.allclose(mine(x), theirs(x), atol=2e-3)
        assert float((mine(x) - layer(x)).abs().max()) > 4e-3
