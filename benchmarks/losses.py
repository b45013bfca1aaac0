"""The whole training loss, forward and backward, beside Hugging Face transformers' -> times and their ratio in one run.

    python benchmarks/losses.py [--images 2] [--objects 20] [--layers 10] [--size 64] [--rounds 3] [--one-thread]
    python benchmarks/losses.py --growth

Random predictions and truth; both sides do the same work from the same mask embeddings and mask features: the masks
that they need, matching and all losses of every decoder layer. `--growth` measures ours alone with more and more
objects in an image.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers.models.oneformer.modeling_oneformer import OneFormerHungarianMatcher, OneFormerLoss

from _command import parser, run
from _measure import in_turn
from _report import Row
from oneformer.data.sample import Target
from oneformer.loss.total import Criterion
from oneformer.model.decoder import Decoded, Prediction
from oneformer.spec.model import ModelSpec, OneFormerHeadSpec

CLASSES, QUERIES, WIDTH = 133, 150, 256
GROWTH = (10, 30, 100, 300)  # objects; of more than there are queries some find no partner


@dataclass
class Work:
    """One batch: what the network said (leaves with gradients) and the truth in both libraries' shapes."""

    decoded: Decoded
    texts: torch.Tensor
    targets: list[Target]

    @staticmethod
    def random(images: int, objects: int, layers: int, size: int) -> Work:
        def leaf(*shape: int, scale: float = 1.0) -> torch.Tensor:
            return (torch.randn(shape) * scale).requires_grad_()

        predictions = [
            Prediction(leaf(images, QUERIES, CLASSES + 1), leaf(images, QUERIES, WIDTH, scale=3 / WIDTH**0.5))
            for _ in range(layers)
        ]
        targets = []
        for _ in range(images):
            # Blobs of a few pixels, not noise: neighbours mostly belong together, as in real masks.
            coarse = torch.randint(0, objects, (1, 1, size // 4, size // 4)).float()
            numbers = torch.nn.functional.interpolate(coarse, scale_factor=16)[0, 0].to(torch.int16)
            targets.append(Target.from_map(torch.randint(0, CLASSES, (objects,)), numbers))
        features, shape = leaf(images, WIDTH, size, size), (images, QUERIES, WIDTH)
        return Work(Decoded(predictions[0], tuple(predictions[1:]), features, leaf(*shape)), leaf(*shape), targets)

    def leaves(self) -> list[torch.Tensor]:
        """Everything that gets a gradient."""
        said = self.decoded
        parts = [x for layer in (said.last, *said.early) for x in layer]
        return [*parts, said.mask_features, said.queries, self.texts]


def ours(work: Work, spec: ModelSpec) -> Callable[[], torch.Tensor]:
    """Our criterion on the batch."""
    criterion = Criterion(spec)
    return lambda: criterion(work.decoded, work.targets, work.texts)["loss"]


def theirs(work: Work, head: OneFormerHeadSpec) -> Callable[[], torch.Tensor]:
    """transformers' criterion on the batch, its masks made float beforehand, outside of what is timed."""
    weights = {"cross_entropy": head.class_weight, "mask": head.mask_weight, "dice": head.dice_weight}
    weights["contrastive"] = head.contrastive_weight
    matcher = OneFormerHungarianMatcher(
        head.class_weight, head.mask_weight, head.dice_weight, num_points=head.train_num_points
    )
    criterion = OneFormerLoss(
        num_classes=CLASSES,
        matcher=matcher,
        weight_dict=weights,
        eos_coef=head.no_object_weight,
        num_points=head.train_num_points,
        oversample_ratio=head.oversample_ratio,
        importance_sample_ratio=head.importance_sample_ratio,
        contrastive_temperature=head.contrastive_temperature,
    )
    masks = [target.masks.float() for target in work.targets]
    labels = [target.labels for target in work.targets]

    def loss() -> torch.Tensor:
        said = work.decoded
        auxiliary = [{"class_queries_logits": c, "masks_queries_logits": m} for c, m in said.auxiliary]
        parts = criterion(said.mask_logits, said.class_logits, said.queries, masks, labels, work.texts, auxiliary)
        total: torch.Tensor = sum(
            part * weights[name.split("_", 1)[1].rstrip("_0123456789")] for name, part in parts.items()
        )
        return total

    return loss


def both_ways(loss: Callable[[], torch.Tensor], work: Work) -> Callable[[], None]:
    """Forward and backward of one side."""

    def step() -> None:
        for leaf in work.leaves():
            leaf.grad = None
        loss().backward()

    return step


def measure(options: argparse.Namespace) -> list[Row]:
    """One batch, both sides in turn."""
    torch.manual_seed(0)
    if options.growth:
        return growth(options)
    work = Work.random(options.images, options.objects, options.layers, options.size)
    spec = ModelSpec()
    sides = {"ours": ours(work, spec), "theirs": theirs(work, spec.one_former)}
    times = in_turn({name: both_ways(loss, work) for name, loss in sides.items()}, rounds=options.rounds)
    setting = ", ".join(f"{getattr(options, name)} {name}" for name in ("images", "objects", "layers"))
    return [Row(f"{setting}, mask logits {options.size}x{options.size}", times["ours"], times["theirs"])]


def growth(options: argparse.Namespace) -> list[Row]:
    """Ours on one image with more and more objects."""
    works = {objects: Work.random(1, objects, options.layers, options.size) for objects in GROWTH}
    sides = {str(n): both_ways(ours(work, ModelSpec()), work) for n, work in works.items()}
    times = in_turn(sides, rounds=options.rounds)
    rows = []
    for objects in GROWTH:
        spread = times[str(objects)]
        note = f"{spread.median / objects:.1f} ms for an object"
        rows.append(Row(f"1 image, {objects} objects, {options.layers} layers", spread, note=note))
    return rows


if __name__ == "__main__":
    made = parser(__doc__, rounds=3)
    made.add_argument("--growth", action="store_true", help="ours alone, with more and more objects")
    for name, default in {"images": 2, "objects": 20, "layers": 10, "size": 64}.items():
        made.add_argument(f"--{name}", type=int, default=default)
    run(measure, made.parse_args())
