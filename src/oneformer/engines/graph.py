"""What the engines of exported graphs share: batches of any size cut and padded to what the graph takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from oneformer.data.labels import LabelMap
from oneformer.engines.about import INPUTS, OUTPUTS, About
from oneformer.engines.base import EngineInfo
from oneformer.errors import CheckpointError, UserError
from oneformer.segments.types import Outputs

Dims = tuple[int | None, ...]
"""Sizes along the axes of an input or output; None where the graph leaves them open."""
STRIDE = 32  # of the coarsest map: open heights and widths are multiples of it


@dataclass(frozen=True)
class Ports:
    """Names and sizes of what a graph takes and gives, in its order."""

    inputs: dict[str, Dims]
    outputs: dict[str, Dims]


class GraphEngine(ABC):
    """A graph with fixed or open sizes behind the promise of `Engine`.

    Args:
        path: the file, for messages.
        about: what it says of itself.
        ports: what the graph takes and gives.

    Raises:
        CheckpointError: the graph is not that of a OneFormer, or not the one that is described.
    """

    def __init__(self, path: Path, about: About, ports: Ports) -> None:
        check_ports(path, about, ports)
        batch, *sides = ports.inputs[INPUTS[0]]
        height, width = sides[:2] if about.embed_preprocess else sides[1:]
        self.path = path
        self.about = about
        self.ports = ports
        self.batch_size = batch
        self.least, self.most = batch or 1, batch
        self.labels: LabelMap = about.labels
        self.info: EngineInfo = replace(about.info, input_size=(height, width) if height and width else None)
        self.task_tokens = {task: torch.tensor(row) for task, row in about.task_tokens.items()}  # float32 (T,)

    @property
    @abstractmethod
    def device(self) -> str:
        """Where it runs."""

    @property
    @abstractmethod
    def precision(self) -> str:
        """Number format of the products."""

    @abstractmethod
    def run(self, images: Tensor, task_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The graph itself: as many images and token rows as it takes -> class and mask logits."""

    @property
    def told(self) -> str:
        """Inputs and outputs in words."""
        return f"takes {_told(self.ports.inputs)}\ngives {_told(self.ports.outputs)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path.name}, {self.device}, {self.precision})"

    def outputs(self, images: Tensor, tasks: Sequence[str]) -> dict[str, Outputs]:
        """Normalised float32 images (B, 3, H, W) -> outputs by task; any B, whatever batch the graph takes."""
        self.check_size(images)
        images = self.as_input(images)
        found = {}
        for task in tasks:
            parts = [self.some(part, self.task_tokens[task]) for part in images.split(self.most or len(images))]
            found[task] = parts[0] if len(parts) == 1 else Outputs.cat(parts)
        return found

    def some(self, images: Tensor, tokens: Tensor) -> Outputs:
        """At most `most` images; below `least` the last one fills the batch, and its copies are dropped."""
        count = len(images)
        classes, masks = self.run(*self.filled(images, tokens))
        return Outputs(classes[:count].float(), masks[:count].float())

    def filled(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """At most `most` images and the tokens of their task (T,) -> what the graph takes: a whole batch of both."""
        count = len(images)
        size = max(count, self.least)
        if count < size:
            images = torch.cat((images, images[-1:].expand(size - count, *images.shape[1:])))
        return images.contiguous(), tokens.expand(size, -1).contiguous()

    def check_size(self, images: Tensor) -> None:
        """Raise UserError for a height or width that the graph does not take."""
        height, width = images.shape[2:]
        fixed = self.info.input_size
        if fixed and (height, width) != fixed:
            raise UserError(
                f"the graph takes images of height {fixed[0]} and width {fixed[1]}, these have {height} and {width}",
                where=str(self.path),
                hint="predict() scales photos by itself; export.dynamic_size=true leaves the sizes open",
            )
        if not fixed and (height % STRIDE or width % STRIDE):
            raise UserError(
                f"the graph takes heights and widths that are multiples of {STRIDE}, these are {height} and {width}",
                where=str(self.path),
                hint="pad images at the bottom and right",
            )

    def as_input(self, images: Tensor) -> Tensor:
        """Normalised images as the graph takes them: as they are, or as the bytes they were made of, (B, H, W, 3)."""
        if not self.about.embed_preprocess:
            return images
        mean, std = (torch.tensor(v, device=images.device) for v in (self.info.pixel_mean, self.info.pixel_std))
        pixels = images.permute(0, 2, 3, 1) * std + mean
        return pixels.round_().clamp_(0, 255).to(torch.uint8)

    def seen(self, images: Tensor) -> Tensor:
        """Normalised images as the network in the graph sees them: made of whole bytes, where the graph takes bytes.

        Padding is not: it is zero, and the mean that it stands for lies between two bytes.
        """
        if not self.about.embed_preprocess:
            return images
        mean, std = (torch.tensor(v, device=images.device) for v in (self.info.pixel_mean, self.info.pixel_std))
        return ((self.as_input(images).float() - mean) / std).permute(0, 3, 1, 2)


def checked_names(path: Path, ports: Ports) -> Ports:
    """The ports when they have our names. Raises CheckpointError: the graph is of another model."""
    if set(ports.inputs) != set(INPUTS) or set(ports.outputs) != set(OUTPUTS):
        raise CheckpointError(
            f"this is the graph of another model: it takes {_told(ports.inputs)} and gives {_told(ports.outputs)}",
            where=str(path),
            hint=f"a graph of oneformer export takes {' and '.join(INPUTS)} and gives {' and '.join(OUTPUTS)}",
        )
    return ports


def check_ports(path: Path, about: About, ports: Ports) -> None:
    """Compare the graph with what is said of it. Raises CheckpointError."""
    checked_names(path, ports)
    images, tokens, classes, masks = (*(ports.inputs[n] for n in INPUTS), *(ports.outputs[n] for n in OUTPUTS))
    head, former = about.info.model.sem_seg_head, about.info.model.one_former
    said = (
        ("classes", classes[-1] and classes[-1] - 1, about.labels.num_classes),
        ("classes", classes[-1] and classes[-1] - 1, head.num_classes),
        ("queries", masks[1], former.num_object_queries),
        ("task tokens", tokens[-1], about.info.model.text_encoder.context_length),
        ("colour channels", images[3 if about.embed_preprocess else 1] if len(images) == 4 else 0, 3),
    )
    for what, has, should in said:
        if has is not None and has != should:
            raise CheckpointError(
                f"the graph has {has} {what}, its description has {should}",
                where=str(path),
                hint="the description belongs to another file; export the checkpoint again",
            )


def _told(ports: dict[str, Dims]) -> str:
    shapes = (f"{name} [{', '.join(str(d or 'any') for d in dims)}]" for name, dims in ports.items())
    return ", ".join(shapes) or "nothing"
