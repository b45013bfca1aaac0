"""A spec -> what the network, its losses and its post-processing make of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from house.world import World, digest
from oneformer.loss.total import Criterion
from oneformer.model.backbones import build_backbone
from oneformer.model.oneformer import Decoded, OneFormer, build_model
from oneformer.segments import Rules, encoded_instances, panoptic
from oneformer.spec import ExperimentSpec
from oneformer.spec.model import ModelSpec

TOKENS, TEXTS = (49406.0, 518.0, 533.0, 49407.0), ((49406, 320, 49407), (49406, 49407, 0))


def shapes(spec: ExperimentSpec, _: World) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build_model(spec.model).state_dict().items()}


def logits(spec: ExperimentSpec, _: World) -> str:
    """What random weights say about a random image."""
    with torch.no_grad():
        decoded = run(build_model(spec.model).eval(), spec.model)
    return digest([decoded.class_logits, decoded.mask_logits])


def noisy_logits(spec: ExperimentSpec, _: World) -> list[str]:
    """The same in training, where dropout acts and earlier layers predict too."""
    with torch.no_grad():
        decoded = run(build_model(spec.model).train(), spec.model)
    return [digest(part) for part in (decoded.class_logits, *decoded.auxiliary)]


def run(model: OneFormer, spec: ModelSpec, *, images: int = 1) -> Decoded:
    """Random images through the network."""
    torch.manual_seed(1)  # weights of other shapes have drawn other numbers of random numbers
    tokens = torch.zeros(images, spec.text_encoder.context_length)
    tokens[:, : len(TOKENS)] = torch.tensor(TOKENS)
    return model.decode(model.features(torch.randn(images, 3, 64, 96)), tokens)


def learning(spec: ExperimentSpec, _: World) -> list[str]:
    """Names of the parameters that learn."""
    with torch.device("meta"):
        return [name for name, value in build_model(spec.model).named_parameters() if value.requires_grad]


def work(spec: ExperimentSpec, _: World) -> int:
    """How often the backbone calls a module in one forward and backward pass."""
    backbone = build_backbone(spec.model.backbone).train()
    with counted() as calls:
        maps = backbone(torch.ones(1, 3, 64, 64, requires_grad=True))
        sum((m.mean() for m in maps.values()), torch.tensor(0.0)).backward()
    return calls[0]


@contextmanager
def counted() -> Iterator[list[int]]:
    """While open, one list item counts the calls of all modules."""
    calls = [0]

    def count(_: nn.Module, __: Any) -> None:
        calls[0] += 1

    hook = register_module_forward_pre_hook(count)
    try:
        yield calls
    finally:
        hook.remove()


def losses(spec: ExperimentSpec, _: World) -> dict[str, float]:
    """Every loss of two images, of all layers, on fixed targets."""
    from loss.batches import random_target

    decoded = run(build_model(spec.model).train(), spec.model, images=2)
    torch.manual_seed(2)  # dropout may have drawn
    targets = [random_target(3, (64, 96), void=True), random_target(2, (64, 96))]
    for target in targets:
        target.labels = target.labels % spec.model.sem_seg_head.num_classes
    texts = torch.randn(2, spec.model.one_former.num_object_queries, spec.model.one_former.hidden_dim)
    return {name: value.item() for name, value in Criterion(spec.model)(decoded, targets, texts).items()}


def segments(spec: ExperimentSpec, _: World) -> list[Any]:
    """Panoptic segments and instances of fixed predictions; masks overlap, scores lie between 0.2 and 0.9."""
    generator = torch.Generator().manual_seed(3)
    class_logits = torch.zeros(8, 5)
    class_logits[torch.arange(8), torch.arange(8) % 4] = torch.linspace(0, 4, 8)
    mask_logits = torch.randn(8, 4, 4, generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2) * 4
    rules = Rules.from_spec(spec.model.test, (True, False, True, False))
    sizes: dict[str, Any] = {"input_size": (64, 64), "size": (64, 64), "original_size": (64, 64)}
    found = panoptic(class_logits, mask_logits, rules=rules, **sizes)
    instances = encoded_instances(class_logits, mask_logits, rules=rules, **sizes)
    return [digest(found.map), [s.class_id for s in found.segments], instances.scores.tolist()]
