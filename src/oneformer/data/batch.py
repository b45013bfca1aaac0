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

from oneformer.data.reuse import Pool
from oneformer.data.sample import VOID, Norm, Sample, Target, Truth
from oneformer.data.shelf import Lease, own_block
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
    workers send each tensor as a file of its own, which takes time, and open files are limited. With a `lease` they lie
    in memory that the worker and the main process share, and are good as long as the parcel is there. What is small is
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
    lease: Lease | None = None
    pool: Pool | None = None  # where memory for batches on the CPU comes from; the main process says so

    def __len__(self) -> int:
        return len(self.sizes)

    def __getstate__(self) -> dict[str, Any]:
        """What travels: of tensors in leased memory, only where they are."""
        state = dict(vars(self))
        if self.lease is not None:
            numbers = self.numbers
            state |= {"pixels": len(self.pixels), "numbers": numbers is not None and (len(numbers), numbers.dtype)}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.lease is not None:
            self.pixels, self.numbers = _leased(self.lease, state["pixels"], *(state["numbers"] or ()))

    def pin_memory(self) -> Parcel:
        """The same with what is large in page-locked memory (called by the loader)."""
        numbers = None if self.numbers is None else self.numbers.pin_memory()
        return replace(self, pixels=self.pixels.pin_memory(), numbers=numbers, lease=None)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch, made on a device.

        Padding is 0 after normalising, so it looks like the mean colour (oneformer-model.md 1.1); in targets it is
        void.
        """
        pixels = self.pixels.to(device, non_blocking=non_blocking)
        images = self._empty((len(self), 3, *self.frame), torch.float32, device)  # (B, 3, H, W)
        places = _places([(3, *size) for size in self.sizes])
        for image, (height, width), place in zip(images, self.sizes, places, strict=True):
            self.norm(pixels[place].view(3, height, width), out=image[:, :height, :width])
            _pad(image, height, width, 0)
        tokens: dict[str, Any] = {"text_tokens": None, "text_index": None}
        tokens |= {name: torch.from_numpy(values).to(device) for name, values in self.tokens.items()}
        targets = self._targets(device, non_blocking=non_blocking)
        return Batch(images=images, sizes=self.sizes, targets=targets, **tokens, **self.facts)

    def _targets(self, device: torch.device | str, *, non_blocking: bool) -> list[Target] | None:
        if self.numbers is None:
            return None
        numbers = self.numbers.to(device, non_blocking=non_blocking)
        maps = self._empty((len(self), *self.frame), numbers.dtype, device)  # (B, H, W)
        targets = []
        for i, ((height, width), place) in enumerate(zip(self.sizes, _places(self.sizes), strict=True)):
            maps[i, :height, :width] = numbers[place].view(height, width)
            _pad(maps[i], height, width, VOID)
            labels, known = torch.tensor(self.labels[i], dtype=torch.int64, device=device), self.members[i]
            targets.append(
                Target.from_map(labels, maps[i], None if known is None else torch.from_numpy(known).to(device))
            )
        return targets

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
        if torch.device(device).type == "cpu":
            return (self.pool or Pool()).empty(shape, dtype)
        return torch.empty(shape, dtype=dtype, device=device)


def _pad(plane: torch.Tensor, height: int, width: int, value: float) -> None:
    """Fill (..., H, W) below `height` and right of `width`."""
    plane[..., height:, :] = value
    plane[..., :height, width:] = value


def _leased(
    lease: Lease, pixels: int, numbers: int = 0, dtype: torch.dtype | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """So many bytes of pixels in leased memory, and behind them so many numbers, if any."""
    maps = None if dtype is None else lease.tensor(_aligned(pixels), numbers, dtype)
    return lease.tensor(0, pixels, torch.uint8), maps


def _aligned(size: int) -> int:
    """Bytes, so many that numbers of any type may follow."""
    return -(-size // 64) * 64


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
    """B samples -> Parcel. Images will be padded to `pad_to` (height, width), else to the largest, rounded up.

    A worker lays them on its shelf where it has one with room.
    """
    targets = [s.target for s in samples if s.target is not None]
    truths = [s.truth for s in samples if s.truth is not None]
    assert len(targets) in (0, len(samples)) and len(truths) in (0, len(samples)), "a batch is for one purpose"
    maps = [target.compact() for target in targets]
    sizes = [s.size for s in samples]
    task_tokens = torch.stack([task_tokenizer.task_tokens(s.task) for s in samples])
    pixels, numbers, lease = _laid([s.image for s in samples], [numbers for numbers, _ in maps])
    return Parcel(
        pixels=pixels,
        numbers=numbers,
        lease=lease,
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


def _laid(
    images: Sequence[torch.Tensor], maps: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor | None, Lease | None]:
    """Images one after the other, and maps, (n,) each; what holds their memory where that is a block of a shelf."""
    dtype = max((part.dtype for part in maps), key=lambda kind: kind.itemsize) if maps else None
    pixels, numbers = (sum(part.numel() for part in parts) for parts in (images, maps))
    size = _aligned(pixels) + numbers * (dtype.itemsize if dtype else 0)
    lease = own_block(size)
    if lease is not None:
        room, more = _leased(lease, pixels, numbers, dtype)
    else:
        room, more = _new(pixels, torch.uint8), _new(numbers, dtype) if dtype else None
    _join(images, room)
    if more is not None:
        _join(maps, more)
    return room, more, lease


def _new(count: int, dtype: torch.dtype) -> torch.Tensor:
    """(count,) of fresh memory. In a worker it is where the main process reads it."""
    if get_worker_info() is None:
        return torch.empty(count, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(count * dtype.itemsize)  # as torch's own `default_collate` does
    return torch.empty(0, dtype=dtype).set_(storage, 0, (count,))  # type: ignore[call-overload]


def _join(parts: Sequence[torch.Tensor], room: torch.Tensor) -> None:
    """Copy tensors one after the other into (n,)."""
    for part, place in zip(parts, _places([tuple(part.shape) for part in parts]), strict=True):
        room[place].view(part.shape).copy_(part)


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
