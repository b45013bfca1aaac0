"""Samples -> one Batch: images padded to one shape, every distinct text encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from oneformer.data.sample import Sample, Target, Truth
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

    def pin_memory(self) -> Batch:
        """The same in page-locked memory (called by the loader)."""
        pinned = {
            name: tensor.pin_memory()
            for name in ("images", "task_tokens", "text_tokens", "text_index")
            if (tensor := getattr(self, name)) is not None
        }
        return replace(self, **pinned, targets=self.targets and [t.pin_memory() for t in self.targets])


def collate(
    samples: Sequence[Sample],
    *,
    task_tokenizer: Tokenizer,
    text_tokenizer: Tokenizer,
    size_divisibility: int = 32,
    pad_to: tuple[int, int] | None = None,
) -> Batch:
    """B samples -> Batch. Images are padded to `pad_to` (height, width), else to the largest of them, rounded up.

    Padding is 0 after normalising, so it looks like the mean colour (oneformer-model.md 1.1); it is void in targets.
    """
    height, width = padded_size([s.size for s in samples], size_divisibility=size_divisibility, at_least=pad_to)
    images = torch.zeros(len(samples), 3, height, width)  # (B, 3, H, W)
    for place, sample in enumerate(samples):
        images[place, :, : sample.size[0], : sample.size[1]] = sample.image
    text_tokens, text_index = _texts(samples, text_tokenizer)
    targets = [s.target.padded(height, width) for s in samples if s.target is not None]
    truths = [s.truth for s in samples if s.truth is not None]
    assert len(targets) in (0, len(samples)) and len(truths) in (0, len(samples)), "a batch is for one purpose"
    return Batch(
        images=images,
        sizes=[s.size for s in samples],
        original_sizes=[s.original_size for s in samples],
        tasks=[s.task for s in samples],
        task_tokens=torch.stack([task_tokenizer.task_tokens(s.task) for s in samples]),
        text_tokens=text_tokens,
        text_index=text_index,
        targets=targets or None,
        truths=truths or None,
        names=[s.name for s in samples],
        image_ids=[s.image_id for s in samples],
    )


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
