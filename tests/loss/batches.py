"""Small random batches for the loss tests: what a network might say, and the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from oneformer.data.sample import BACKGROUND, VOID, Target
from oneformer.loss.points import Points, draw_points
from oneformer.model.decoder import Decoded, Prediction
from oneformer.spec.model import ModelSpec, OneFormerHeadSpec, SemSegHeadSpec

CLASSES = 5


def small_spec(points: int = 48, **settings: float) -> ModelSpec:
    """A model section with few classes and points."""
    head = OneFormerHeadSpec(train_num_points=points)
    for name, value in settings.items():
        setattr(head, name, value)
    return ModelSpec(sem_seg_head=SemSegHeadSpec(num_classes=CLASSES), one_former=head)


def random_target(objects: int, size: tuple[int, int] = (32, 40), *, void: bool = False) -> Target:
    """Objects in blobs of 4x4 pixels with background between; with `void` some blobs are unknown."""
    low = VOID if void else BACKGROUND
    coarse = torch.randint(low, objects, (size[0] // 4, size[1] // 4))
    numbers = coarse.repeat_interleave(4, 0).repeat_interleave(4, 1)
    return Target.from_map(torch.randint(0, CLASSES, (objects,)), numbers.to(torch.int16))


def as_masks(target: Target) -> Target:
    """The same truth held as masks instead of a map."""
    return Target(target.labels, target.masks, target.void)


def leaf(*shape: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random values that collect a gradient."""
    return (torch.randn(shape, dtype=dtype) * scale).requires_grad_()


def random_decoded(
    images: int,
    *,
    queries: int = 7,
    layers: int = 3,
    size: tuple[int, int] = (8, 10),
    dtype: torch.dtype = torch.float32,
) -> Decoded:
    """What the network returns in training, every part a leaf.

    The mask features hold the masks of all queries and layers, one a channel, and each query picks its own: masks are
    then as random and as independent as their features.
    """
    pick = torch.eye(layers * queries, dtype=dtype).unflatten(0, (layers, queries))
    outputs = [
        Prediction(
            leaf(images, queries, CLASSES + 1, dtype=dtype),
            pick[layer].expand(images, -1, -1).clone().requires_grad_(),
        )
        for layer in range(layers)
    ]
    return Decoded(
        last=outputs[0],
        early=tuple(outputs[1:]),
        mask_features=leaf(images, layers * queries, *size, scale=3, dtype=dtype),
        queries=leaf(images, queries, 16, dtype=dtype),
    )


def leaves(decoded: Decoded) -> list[Tensor]:
    """All tensors of `random_decoded`."""
    return [x for layer in (decoded.last, *decoded.early) for x in layer] + [decoded.mask_features, decoded.queries]


def some_points(target: Target, count: int = 48) -> Points:
    """Points as the criterion of `small_spec` draws them."""
    return draw_points(target.void, count=count, oversample=3.0, importance=0.75)
