"""The whole training loss, forward and backward, beside Hugging Face transformers' -> times and their ratio in one run.

    python benchmarks/losses.py [--images 2] [--objects 20] [--layers 10] [--size 64] [--rounds 3]

Random predictions and truth; both sides do the same work: matching and all losses of every decoder layer.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from transformers.models.oneformer.modeling_oneformer import OneFormerHungarianMatcher, OneFormerLoss

from oneformer.data.sample import Target
from oneformer.loss.total import Criterion
from oneformer.spec.model import ModelSpec, OneFormerHeadSpec

CLASSES, QUERIES, WIDTH = 133, 150, 256


@dataclass
class Work:
    """One batch: what the network said (leaves with gradients) and the truth in both libraries' shapes."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    queries: torch.Tensor
    texts: torch.Tensor
    targets: list[Target]

    @staticmethod
    def random(images: int, objects: int, layers: int, size: int) -> Work:
        def leaf(*shape: int, scale: float = 1.0) -> torch.Tensor:
            return (torch.randn(shape) * scale).requires_grad_()

        predictions = [
            (leaf(images, QUERIES, CLASSES + 1), leaf(images, QUERIES, size, size, scale=3)) for _ in range(layers)
        ]
        targets = []
        for _ in range(images):
            # Blobs of a few pixels, not noise: neighbours mostly belong together, as in real masks.
            coarse = torch.randint(0, objects, (1, 1, size // 4, size // 4)).float()
            numbers = torch.nn.functional.interpolate(coarse, scale_factor=16)[0, 0].to(torch.int16)
            targets.append(Target.from_map(torch.randint(0, CLASSES, (objects,)), numbers))
        shape = (images, QUERIES, WIDTH)
        return Work(predictions, leaf(*shape), leaf(*shape), targets)


def ours(work: Work, spec: ModelSpec) -> Callable[[], torch.Tensor]:
    """Our criterion on the batch."""
    criterion = Criterion(spec)
    decoded = SimpleNamespace(
        class_logits=work.layers[0][0],
        mask_logits=work.layers[0][1],
        auxiliary=tuple(work.layers[1:]),
        queries=work.queries,
    )
    return lambda: criterion(decoded, work.targets, work.texts)["loss"]


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
    auxiliary = [{"class_queries_logits": c, "masks_queries_logits": m} for c, m in work.layers[1:]]

    def loss() -> torch.Tensor:
        classes, maps = work.layers[0]
        parts = criterion(maps, classes, work.queries, masks, labels, work.texts, auxiliary)
        total: torch.Tensor = sum(
            part * weights[name.split("_", 1)[1].rstrip("_0123456789")] for name, part in parts.items()
        )
        return total

    return loss


def seconds(step: Callable[[], torch.Tensor], work: Work) -> float:
    """Wall time of one forward and backward."""
    leaves = [x for layer in work.layers for x in layer] + [work.queries, work.texts]
    for leaf in leaves:
        leaf.grad = None
    start = time.perf_counter()
    step().backward()
    return time.perf_counter() - start


def measure(*, images: int, objects: int, layers: int, size: int, rounds: int) -> dict[str, float]:
    """Medians in milliseconds of both sides, taken in turn after one warm-up each, and theirs / ours."""
    torch.manual_seed(0)
    work = Work.random(images, objects, layers, size)
    spec = ModelSpec()
    sides = {"oneformer": ours(work, spec), "transformers": theirs(work, spec.one_former)}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, step in sides.items():
            taken = seconds(step, work)
            if turn:
                times[name].append(1000 * taken)
    result = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    return {**result, "times_faster": result["transformers_ms"] / result["oneformer_ms"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"images": 2, "objects": 20, "layers": 10, "size": 64, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = vars(parser.parse_args())
    result = measure(**options)
    setting = ", ".join(f"{options[name]} {name}" for name in ("images", "objects", "layers"))
    setting += f", {QUERIES} queries, mask logits {options['size']}x{options['size']}"
    print(f"training loss, forward and backward: {setting}, {torch.get_num_threads()} threads")
    print(
        f"ours {result['oneformer_ms']:.0f} ms, transformers {result['transformers_ms']:.0f} ms: "
        f"{result['times_faster']:.1f} times faster"
    )


if __name__ == "__main__":
    main()
