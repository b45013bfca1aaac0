"""Samples -> a Parcel, as small as it can travel -> one Batch: images normalised, all of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from oneformer.data.sample import Norm, Sample, Target, Truth
from oneformer.data.tokens import Tokenizer


@dataclass
class Batch:
    """What the network, the losses and the scores need of B photos."""

    images: torch.Tensor  # float32 (B, 3, H, W), normalised, padded with 0 at the bottom and right
    sizes: list[tuple[int, int]]  # (h, w) of each image without padding
    original_sizes: list[tuple[int, int]]  # (H0, W0) of each photo
    tasks: list[str]
    task_tokens: torch.Tensor  # float32 (B, task_seq_len)
    text_tokens: torch.Tensor | None  # int64 (U, T): the batch's distinct texts
    text_index: torch.Tensor | None  # int64 (B, Q - n_ctx): which of them describe each photo
    targets: list[Target] | None
    truths: list[Truth] | None
    names: list[str]
    image_ids: list[int | str]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same with its tensors on another device; truths stay where they are."""
        moved = {
            name: tensor.to(device, non_blocking=non_blocking)
            for name in ("images", "task_tokens", "text_tokens", "text_index")
            if (tensor := getattr(self, name)) is not None
        }
        targets = self.targets and [t.to(device, non_blocking=non_blocking) for t in self.targets]
        return replace(self, **moved, targets=targets)


@dataclass
class Parcel:
    """A batch on its way from a loader's worker to the device that computes.

    Bytes instead of floats, numbers instead of masks, no padding. All images are one tensor and all maps another, for
    workers send each tensor as a file of its own, which takes time, and open files are limited. What is small is
    NumPy's and travels in the message itself.
    """

    pixels: torch.Tensor  # uint8: B images (3, h, w), one after the other
    numbers: torch.Tensor | None  # int16 or int32: B maps (h, w) of `Target.from_map`, one after the other
    sizes: list[tuple[int, int]]  # (h, w) of each
    labels: list[list[int]]  # of the targets
    members: list[np.ndarray | None]
    tokens: dict[str, np.ndarray]  # `Batch`'s tensors of tokens
    facts: dict[str, Any]  # everything else of the `Batch`
    frame: tuple[int, int]  # (H, W) that all are padded to
    norm: Norm

    def __len__(self) -> int:
        return len(self.sizes)

    def pin_memory(self) -> Parcel:
        """The same with what is large in page-locked memory (called by the loader)."""
        numbers = None if self.numbers is None else self.numbers.pin_memory()
        return replace(self, pixels=self.pixels.pin_memory(), numbers=numbers)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch, made on a device.

        Padding is 0 after normalising, so it looks like the mean colour (oneformer-model.md 1.1); in targets it is
        void.
        """
        pixels = self.pixels.to(device, non_blocking=non_blocking)
        images = _zeros((len(self), 3, *self.frame), device)  # (B, 3, H, W)
        places = _places([(3, *size) for size in self.sizes])
        for image, (height, width), place in zip(images, self.sizes, places, strict=True):
            self.norm(pixels[place].view(3, height, width), out=image[:, :height, :width])
        tokens: dict[str, Any] = {"text_tokens": None, "text_index": None}
        tokens |= {name: torch.from_numpy(values).to(device) for name, values in self.tokens.items()}
        targets = self._targets(device, non_blocking=non_blocking)
        return Batch(images=images, sizes=self.sizes, targets=targets, **tokens, **self.facts)

    def _targets(self, device: torch.device | str, *, non_blocking: bool) -> list[Target] | None:
        if self.numbers is None:
            return None
        numbers = self.numbers.to(device, non_blocking=non_blocking)
        targets = []
        for i, (size, place) in enumerate(zip(self.sizes, _places(self.sizes), strict=True)):
            labels, known = torch.tensor(self.labels[i], dtype=torch.int64, device=device), self.members[i]
            members = None if known is None else torch.from_numpy(known).to(device)
            targets.append(Target.from_map(labels, numbers[place].view(size), members).padded(*self.frame))
        return targets


def _zeros(shape: tuple[int, ...], device: torch.device | str) -> torch.Tensor:
    """float32 zeros. On the CPU NumPy's: it asks for large pages, which come zeroed, in a fifth of torch's time."""
    if torch.device(device).type == "cpu":
        return torch.from_numpy(np.zeros(shape, np.float32))
    return torch.zeros(shape, device=device)


def _places(shapes: Sequence[tuple[int, ...]]) -> list[slice]:
    """Where each of some tensors lies when all are laid one after the other."""
    ends = [0]
    for shape in shapes:
        ends.append(ends[-1] + prod(shape))
    return [slice(start, end) for start, end in pairwise(ends)]


def collate(
    samples: Sequence[Sample],
    *,
    norm: Norm,
    task_tokenizer: Tokenizer,
    text_tokenizer: Tokenizer,
    size_divisibility: int = 32,
    pad_to: tuple[int, int] | None = None,
) -> Parcel:
    """B samples -> Parcel. Images will be padded to `pad_to` (height, width), else to the largest, rounded up."""
    targets = [s.target for s in samples if s.target is not None]
    truths = [s.truth for s in samples if s.truth is not None]
    assert len(targets) in (0, len(samples)) and len(truths) in (0, len(samples)), "a batch is for one purpose"
    maps = [target.compact() for target in targets]
    sizes = [s.size for s in samples]
    task_tokens = torch.stack([task_tokenizer.task_tokens(s.task) for s in samples])
    return Parcel(
        pixels=_joined([s.image for s in samples]),
        numbers=_joined([numbers for numbers, _ in maps]) if maps else None,
        sizes=sizes,
        labels=[target.labels.tolist() for target in targets],
        members=[None if members is None else members.numpy() for _, members in maps],
        tokens={"task_tokens": task_tokens.numpy(), **_texts(samples, text_tokenizer)},
        facts={
            "original_sizes": [s.original_size for s in samples],
            "tasks": [s.task for s in samples],
            "truths": truths or None,
            "names": [s.name for s in samples],
            "image_ids": [s.image_id for s in samples],
        },
        frame=padded_size(sizes, size_divisibility=size_divisibility, at_least=pad_to),
        norm=norm,
    )


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors one after the other, (n,). In a worker they are written where the main process reads them."""
    dtype = max((part.dtype for part in parts), key=lambda kind: kind.itemsize)
    places = _places([tuple(part.shape) for part in parts])
    joined = torch.empty(0, dtype=dtype)
    if get_worker_info() is None:
        joined = torch.empty(places[-1].stop, dtype=dtype)
    else:  # as torch's own `default_collate` does
        storage = torch.UntypedStorage._new_shared(places[-1].stop * dtype.itemsize)
        joined.set_(storage, 0, (places[-1].stop,))  # type: ignore[call-overload]
    for part, place in zip(parts, places, strict=True):
        joined[place].view(part.shape).copy_(part)
    return joined


def padded_size(
    sizes: Sequence[tuple[int, int]], *, size_divisibility: int, at_least: tuple[int, int] | None = None
) -> tuple[int, int]:
    """The (height, width) that holds all sizes, rounded up to a multiple of `size_divisibility`."""
    height, width = (max(sides) for sides in zip(*sizes, *([at_least] if at_least else []), strict=True))
    step = max(1, size_divisibility)
    return -(-height // step) * step, -(-width // step) * step


def _texts(samples: Sequence[Sample], tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """Tokens of the distinct texts (U, T), and each sample's places in them (B, texts)."""
    if not samples[0].texts:
        return {}
    place_of = {text: place for place, text in enumerate(dict.fromkeys(t for s in samples for t in s.texts))}
    index = np.array([[place_of[text] for text in s.texts] for s in samples], np.int64)  # (B, Q - n_ctx)
    return {"text_tokens": tokenizer.encode_all(place_of).numpy(), "text_index": index}
