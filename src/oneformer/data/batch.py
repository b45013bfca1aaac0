"""Samples -> a Parcel, as small as it can travel -> one Batch: images normalised, all of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import torch

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

    Bytes instead of floats, numbers instead of masks, no padding, and all images in one tensor, all maps in another:
    workers send each tensor in a file of its own, and open files are limited.
    """

    pixels: torch.Tensor  # uint8: B images (3, h, w), one after the other
    numbers: torch.Tensor | None  # int16 or int32: B maps (h, w) of `Target.from_map`, one after the other
    labels: list[list[int]]  # of the targets
    members: list[torch.Tensor | None]
    frame: tuple[int, int]  # (H, W) that all are padded to
    norm: Norm
    rest: Batch  # everything else; its images are empty

    def __len__(self) -> int:
        return len(self.rest)

    def pin_memory(self) -> Parcel:
        """The same in page-locked memory (called by the loader)."""
        numbers = None if self.numbers is None else self.numbers.pin_memory()
        tokens = {
            name: tensor.pin_memory()
            for name in ("task_tokens", "text_tokens", "text_index")
            if (tensor := getattr(self.rest, name)) is not None
        }
        rest = replace(self.rest, **tokens)
        return replace(self, pixels=self.pixels.pin_memory(), numbers=numbers, rest=rest)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The batch, made on a device.

        Padding is 0 after normalising, so it looks like the mean colour (oneformer-model.md 1.1); in targets it is
        void.
        """
        rest = self.rest.to(device, non_blocking=non_blocking)
        pixels = self.pixels.to(device, non_blocking=non_blocking)
        images = torch.zeros(len(self), 3, *self.frame, device=device)  # (B, 3, H, W)
        places = _places([(3, *size) for size in rest.sizes])
        for image, (height, width), place in zip(images, rest.sizes, places, strict=True):
            self.norm(pixels[place].view(3, height, width), out=image[:, :height, :width])
        targets = self._targets(device, non_blocking=non_blocking)
        return replace(rest, images=images, targets=targets)

    def _targets(self, device: torch.device | str, *, non_blocking: bool) -> list[Target] | None:
        if self.numbers is None:
            return None
        numbers = self.numbers.to(device, non_blocking=non_blocking)
        targets = []
        for i, (size, place) in enumerate(zip(self.rest.sizes, _places(self.rest.sizes), strict=True)):
            labels, members = torch.tensor(self.labels[i], dtype=torch.int64, device=device), self.members[i]
            members = members if members is None else members.to(device, non_blocking=non_blocking)
            targets.append(Target.from_map(labels, numbers[place].view(size), members).padded(*self.frame))
        return targets


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
    text_tokens, text_index = _texts(samples, text_tokenizer)
    targets = [s.target for s in samples if s.target is not None]
    truths = [s.truth for s in samples if s.truth is not None]
    assert len(targets) in (0, len(samples)) and len(truths) in (0, len(samples)), "a batch is for one purpose"
    maps = [target.compact() for target in targets]
    return Parcel(
        pixels=_joined([s.image for s in samples]),
        numbers=_joined([numbers for numbers, _ in maps]) if maps else None,
        labels=[target.labels.tolist() for target in targets],
        members=[members for _, members in maps],
        frame=padded_size([s.size for s in samples], size_divisibility=size_divisibility, at_least=pad_to),
        norm=norm,
        rest=Batch(
            images=torch.empty(0),
            sizes=[s.size for s in samples],
            original_sizes=[s.original_size for s in samples],
            tasks=[s.task for s in samples],
            task_tokens=torch.stack([task_tokenizer.task_tokens(s.task) for s in samples]),
            text_tokens=text_tokens,
            text_index=text_index,
            targets=None,
            truths=truths or None,
            names=[s.name for s in samples],
            image_ids=[s.image_id for s in samples],
        ),
    )


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors one after the other, (n,)."""
    return torch.cat([part.reshape(-1) for part in parts])


def padded_size(
    sizes: Sequence[tuple[int, int]], *, size_divisibility: int, at_least: tuple[int, int] | None = None
) -> tuple[int, int]:
    """The (height, width) that holds all sizes, rounded up to a multiple of `size_divisibility`."""
    height, width = (max(sides) for sides in zip(*sizes, *([at_least] if at_least else []), strict=True))
    step = max(1, size_divisibility)
    return -(-height // step) * step, -(-width // step) * step


def _texts(samples: Sequence[Sample], tokenizer: Tokenizer) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Tokens of the distinct texts (U, T), and each sample's places in them (B, texts)."""
    if not samples[0].texts:
        return None, None
    place_of = {text: place for place, text in enumerate(dict.fromkeys(t for s in samples for t in s.texts))}
    index = torch.tensor([[place_of[text] for text in s.texts] for s in samples], dtype=torch.int64)  # (B, Q - n_ctx)
    return tokenizer.encode_all(place_of), index
