"""A network and a few photos -> its layers ranked by what rounding each of them alone changes, and which to leave out.

The rounding here is the plain one, to the nearest number with one scale a row, whatever the backend: what is compared
is how much a layer minds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from oneformer.engines.torch import TorchEngine
from oneformer.model.oneformer import Features
from oneformer.model.quantized import FORMATS, QuantizedWeight, quantized_layer
from oneformer.quantize.network import Weighted, layers_of
from oneformer.quantize.request import NATIVE, Formats
from oneformer.report.tables import align
from oneformer.segments.types import Outputs

HALF = 0.5  # of the squared error, which adds up where errors have nothing to do with each other
AT_MOST = 0.15  # of the layers are proposed: more would be another quantization
GROUPS = (32, 16, 8)
SHOWN = 12
IMAGES = 4  # of the scan: each layer is a pass of its own
AFTER_FEATURES = ("decoder.", "task.")


class Row(NamedTuple):
    """One layer."""

    name: str
    error: float
    """Norm of what its rounding changes in class and mask logits, as a share of their own norm."""


@dataclass(frozen=True)
class Scan:
    """The layers, the most sensitive first, and the proposal."""

    rows: Sequence[Row]
    proposed: Sequence[str]
    all_rounded: float
    """Error with every layer rounded."""
    without_proposed: float
    """Error with every layer rounded but those proposed."""
    images: int

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "images": self.images,
            "layers": [row._asdict() for row in self.rows],
            "proposed_skip_names": list(self.proposed),
            "error": {"all_rounded": self.all_rounded, "without_proposed": self.without_proposed},
        }

    def table(self) -> str:
        """The most sensitive layers and the proposal."""
        rows = [(name, f"{error:.3%}") for name, error in self.rows[:SHOWN]]
        names = ", ".join(self.proposed)
        gain = f"error of all layers together {self.all_rounded:.2%}, without these {self.without_proposed:.2%}"
        head = f"sensitivity of {len(self.rows)} layers, each rounded alone, on {self.images} images"
        return f"{head}\n{align(('layer', 'error'), rows)}\n\nproposed: quantize.skip_names=[{names}]\n{gain}"


def scan(engine: TorchEngine, chosen: Mapping[str, Formats], images: Sequence[Tensor], tasks: Sequence[str]) -> Scan:
    """Round every chosen layer alone, and all together with and without the worst.

    Args:
        engine: in float32; it is as it was afterwards.
        chosen: name -> formats.
        images: normalised float32 (1, 3, H, W) each.
        tasks: those the network was trained for.
    """
    layers = layers_of(engine)
    small = {name: nearest(layers[name], formats) for name, formats in chosen.items()}
    watch = Watch(engine, images, tasks)
    rows = [Row(name, watch.error([name], small)) for name in chosen]
    rows.sort(key=lambda row: -row.error)
    proposed = worst(rows)
    rest = [name for name in chosen if name not in proposed]
    return Scan(rows, proposed, watch.error(list(chosen), small), watch.error(rest, small), len(images))


def worst(rows: Sequence[Row]) -> list[str]:
    """The fewest layers that hold half of the squared error, no more than `AT_MOST` of all."""
    total = sum(row.error**2 for row in rows)
    names: list[str] = []
    held = 0.0
    for row in rows:
        if held >= HALF * total or len(names) >= max(1, int(AT_MOST * len(rows))):
            break
        names.append(row.name)
        held += row.error**2
    return names


class Watch:
    """Outputs of the network as it is, and how far those with some layers rounded are from them."""

    def __init__(self, engine: TorchEngine, images: Sequence[Tensor], tasks: Sequence[str]) -> None:
        self.engine, self.images, self.tasks = engine, images, tasks
        with torch.inference_mode():
            self.features = [engine.model.features(image.to(engine.device)) for image in images]
            self.right = [self.decoded(features) for features in self.features]

    def decoded(self, features: Features) -> list[Outputs]:
        """Outputs of every task."""
        model, tokens = self.engine.model, self.engine.task_tokens
        memory = model.memory(features)
        found = (model.decode(features, tokens[task][None], auxiliary=False, memory=memory) for task in self.tasks)
        return [Outputs(one.class_logits.float(), one.mask_logits.float()) for one in found]

    @torch.inference_mode()
    def error(self, names: Sequence[str], small: Mapping[str, QuantizedWeight]) -> float:
        """Mean over images, tasks and both outputs of the relative change."""
        same = all(name.startswith(AFTER_FEATURES) for name in names)  # then the image features are, too
        changes = []
        with swapped(self.engine.model, {name: small[name] for name in names}):
            for image, features, right in zip(self.images, self.features, self.right, strict=True):
                mine = features if same else self.engine.model.features(image.to(self.engine.device))
                for before, after in zip(right, self.decoded(mine), strict=True):
                    changes += [
                        float((a - b).norm() / b.norm()) for a, b in zip(pair(after), pair(before), strict=True)
                    ]
        return sum(changes) / len(changes)


def pair(outputs: Outputs) -> tuple[Tensor, Tensor]:
    """Class and mask logits."""
    return outputs.class_logits, outputs.mask_logits


@contextmanager
def swapped(model: nn.Module, small: Mapping[str, QuantizedWeight]) -> Iterator[None]:
    """The network with some layers quantized, for a while."""
    old = {name: model.get_submodule(name) for name in small}
    try:
        for name, stored in small.items():
            model.set_submodule(name, quantized_layer(old[name], stored))
        yield
    finally:
        for name, layer in old.items():
            model.set_submodule(name, layer)


def nearest(layer: Weighted, formats: Formats) -> QuantizedWeight:
    """The layer's weight rounded to the nearest number, inputs with a scale for each token."""
    matrix = layer.weight.detach().float().flatten(1)
    columns = matrix.shape[1]
    group = next((n for n in GROUPS if not columns % n), columns) if formats.weights == "int4" else columns
    parts = matrix.unflatten(1, (-1, group))  # (rows, groups, group)
    kind = FORMATS[formats.weights]
    most = {"int8": 127.0, "int4": 7.0}.get(formats.weights) or torch.finfo(kind).max
    scale = (parts.abs().amax(dim=2) / most).clamp(min=torch.finfo(torch.float32).tiny)
    numbers = (parts / scale[:, :, None]).clamp(-most, most)
    numbers = numbers.round() if kind == torch.int8 else numbers
    dynamic = "" if formats.activations == NATIVE else "int8_dynamic"
    return QuantizedWeight(formats.weights, numbers.flatten(1).to(kind), scale, tuple(layer.weight.shape), dynamic)
