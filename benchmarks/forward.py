"""Images -> class and mask logits: ours beside Hugging Face transformers' with equal weights, float32 and bfloat16.

    python benchmarks/forward.py [--network swin_t] [--size 512] [--rounds 5] [--one-thread]
    python benchmarks/forward.py --growth

Also all three tasks of one photo beside one task, which share the image features. In bfloat16 a side is compared with
itself in float32: how many queries keep their class, and how many mask logits their sign. The weights are random, so
that logits lie nearer to zero than a trained network's and flip more easily. `--growth` measures ours alone on images
of more and more pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from _command import parser, run
from _measure import floor_ms, in_turn, operations, product
from _network import NETWORKS, picture, twins
from _report import Row
from oneformer.data.task import TASKS
from oneformer.data.tokens import Tokenizer

Forward = Callable[[], tuple[Tensor, Tensor]]
SIDES = (256, 384, 512, 768, 1024)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def ours(model: Any, image: Tensor, tasks: list[Tensor], dtype: torch.dtype) -> Forward:
    """Class and mask logits of the last task; the image features are computed once for all."""

    def forward() -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            features = model.features(image)
            memory = model.memory(features) if len(tasks) > 1 else None
            outputs = [model.decode(features, tokens[None], auxiliary=False, memory=memory) for tokens in tasks]
        return outputs[-1].class_logits, outputs[-1].mask_logits

    return forward


def theirs(model: Any, image: Tensor, task: Tensor, dtype: torch.dtype) -> Forward:
    """transformers' class and mask logits."""

    def forward() -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            out = model(image, task[None], output_auxiliary_logits=False)
        return out.class_queries_logits, out.masks_queries_logits

    return forward


def agreement(one: Forward, other: Forward) -> str:
    """How many queries have the same class, and how many mask logits the same sign."""
    (classes, masks), (other_classes, other_masks) = one(), other()
    same_class = (classes.argmax(-1) == other_classes.argmax(-1)).float().mean().item()
    same_sign = ((masks > 0) == (other_masks > 0)).float().mean().item()
    return f"{same_class:.1%} of classes, {same_sign:.1%} of mask signs"


@torch.inference_mode()
def measure(options: argparse.Namespace) -> list[Row]:
    """Every precision, and three tasks."""
    if options.growth:
        return growth(options)
    title, spec = NETWORKS[options.network]
    model, peer = twins(spec())
    image = picture(options.size, options.size)
    tokens = [Tokenizer().task_tokens(task) for task in TASKS]
    sides: dict[str, Callable[[], object]] = {}
    for name, dtype in PRECISIONS.items():
        sides[f"ours {name}"] = ours(model, image, tokens[:1], dtype)
        sides[f"theirs {name}"] = theirs(peer, image, tokens[0], dtype)
        sides[f"product {name}"] = product(dtype)[0]
    sides["three tasks"] = ours(model, image, tokens, torch.float32)
    times = in_turn(sides, rounds=options.rounds)
    count = operations(sides["ours fp32"])
    notes = {
        "fp32": f"equal to transformers: {agreement(sides['ours fp32'], sides['theirs fp32'])}",
        "bf16": f"equal to fp32: {agreement(sides['ours bf16'], sides['ours fp32'])}; "
        f"transformers': {agreement(sides['theirs bf16'], sides['theirs fp32'])}",
    }
    rows = [
        Row(
            f"{title}, {options.size}x{options.size}, {name}",
            times[f"ours {name}"],
            times[f"theirs {name}"],
            floor=floor_ms(count, times[f"product {name}"]),
            note=f"{count / 1e9:.0f} GFLOP; {notes[name]}",
        )
        for name in PRECISIONS
    ]
    rows.append(Row("three tasks of one photo, fp32", times["three tasks"], times["ours fp32"], "ours, one task"))
    return rows


def growth(options: argparse.Namespace) -> list[Row]:
    """Ours in float32 on images of more and more pixels."""
    title, spec = NETWORKS[options.network]
    model, _ = twins(spec())
    tokens = [Tokenizer().task_tokens(TASKS[0])]
    images = [picture(side, side) for side in SIDES]
    sides = {str(image.shape[2]): ours(model, image, tokens, torch.float32) for image in images}
    times = in_turn(sides, rounds=options.rounds)
    return [
        Row(
            f"{title}, {side}x{side}, fp32",
            times[str(side)],
            note=f"{1e6 * times[str(side)].median / side**2:.0f} ns for a pixel",
        )
        for side in SIDES
    ]


if __name__ == "__main__":
    made = parser(__doc__, rounds=5)
    made.add_argument("--network", choices=NETWORKS, default="swin_t")
    made.add_argument("--growth", action="store_true", help="ours alone, on larger and larger images")
    made.add_argument("--size", type=int, default=512)
    run(measure, made.parse_args())
