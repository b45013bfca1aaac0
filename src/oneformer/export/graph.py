"""A network -> its traced program: `images` and `task_tokens` in, `pred_logits` and `pred_masks` out.

| | type | shape |
|---|---|---|
| `images` | float32 | (B, 3, H, W) normalised; with `embed_preprocess` uint8 (B, H, W, 3) RGB |
| `task_tokens` | float32 | (B, 77) |
| `pred_logits` | float32 | (B, Q, K+1) |
| `pred_masks` | float32 | (B, Q, H/4, W/4); with `embed_preprocess` (B, Q, H, W) |

B is open on both inputs when the batch is; H and W are open in steps of 32 pixels when the size is.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from oneformer.engines.graph import STRIDE
from oneformer.engines.onnxruntime import first_line
from oneformer.errors import WorkError
from oneformer.model.oneformer import OneFormer

TRACED_BATCH = 2  # of an open batch: torch takes a size of 1 for a fixed one
KEPT_META = ("val", "tensor_meta")


@dataclass(frozen=True)
class Shape:
    """What the graph takes."""

    height: int
    width: int
    batch: int | None
    """Images per call; None leaves the number open."""
    open_size: bool = False
    """Height and width may be any multiple of 32; `height` and `width` are those of the trace."""


class Exported(nn.Module):
    """The network as it goes into a graph; with `embed`, normalisation and the resizing of masks are inside."""

    def __init__(self, model: OneFormer, *, mean: Sequence[float], std: Sequence[float], embed: bool) -> None:
        super().__init__()
        self.model = model
        self.embed = embed
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, task_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """As the table above says."""
        if not self.embed:
            logits, masks = self.model(images, task_tokens)
            return logits, masks
        assert isinstance(self.mean, Tensor) and isinstance(self.std, Tensor)
        pixels = images.permute(0, 3, 1, 2).float()  # (B, 3, H, W)
        logits, masks = self.model((pixels - self.mean) / self.std, task_tokens)
        return logits, F.interpolate(masks, size=pixels.shape[2:], mode="bilinear", align_corners=False)


def trace(network: Exported, shape: Shape, *, tokens: int) -> ExportedProgram:
    """The program of the network on the CPU.

    Args:
        network: on the CPU, in evaluation mode.
        shape: what is fixed and what is open.
        tokens: length of `task_tokens`.

    Raises:
        WorkError: torch cannot trace this network, or not with open sizes.
    """
    batch = shape.batch or TRACED_BATCH
    size = (batch, shape.height, shape.width, 3) if network.embed else (batch, 3, shape.height, shape.width)
    images = torch.zeros(size, dtype=torch.uint8 if network.embed else torch.float32)
    axes: dict[int, Any] = {} if shape.batch else {0: Dim("batch", min=1)}
    rows = dict(axes)
    if shape.open_size:
        first = 1 if network.embed else 2
        axes |= {first: STRIDE * Dim("height", min=1), first + 1: STRIDE * Dim("width", min=1)}
    try:
        # Of the attention kernels only this one has a result whose layout in memory does not depend on the processor.
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            program = torch.export.export(
                network,
                (images, torch.zeros(batch, tokens)),
                dynamic_shapes={"images": axes, "task_tokens": rows},
                strict=False,
            )
    except Exception as error:  # torch has many, and their texts are pages long
        name = network.model.spec.backbone.name
        what = f"torch cannot trace the network with the backbone {name}"
        what += " and open sizes" if shape.open_size else ""
        what += f": {first_line(error)}"
        hint = "leave export.dynamic_size off" if shape.open_size else "--traceback shows torch's whole message"
        raise WorkError(what, where=f"{shape.height} x {shape.width} pixels", hint=hint) from error
    return program


def without_traces(program: ExportedProgram) -> ExportedProgram:
    """The program without file names and lines of the source, example images, and guards, which are source code too."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta = {key: node.meta[key] for key in KEPT_META if key in node.meta}
    vars(program)["_example_inputs"] = None
    vars(program)["_guards_code"] = []
    return program


def network_of(model: OneFormer, *, mean: Sequence[float], std: Sequence[float], embed: bool) -> Exported:
    """A copy of the network for tracing; the given one stays what it is."""
    return Exported(copy.deepcopy(model).cpu(), mean=mean, std=std, embed=embed).eval()
