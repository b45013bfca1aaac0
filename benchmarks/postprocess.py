"""Network outputs -> results at the photo's size: time of ours and of Hugging Face transformers, in turn, as a ratio.

    python benchmarks/postprocess.py [--rounds 5] [--one-thread]

Q=150 queries, K=133 classes, 160x160 masks of a 640x640 input that holds a 640x480 photo in its upper 480 rows. Two
kinds of outputs: `undecided` (an untrained network: every query spreads over all classes, the worst case) and `decided`
(a trained one: twenty confident segments, the other queries "no object"). transformers resizes class scores (semantic)
or keeps no crop of the padding, so the results differ (see tests/segments for ours against the published rule); what is
compared is the time to get one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers.models.oneformer import image_processing_pil_oneformer as module

from _command import parser, run
from _measure import in_turn
from _report import Row
from oneformer.segments import Rules, encoded_instances, instances, panoptic, semantic_map

Q, K, SIDE = 150, 133, 160
SIZES = {"input_size": (640, 640), "size": (480, 640), "original_size": (480, 640)}
THINGS = 80


def outputs(kind: str) -> tuple[Tensor, Tensor]:
    """Class logits (Q, K+1) and smooth mask logits (Q, h, w)."""
    rng = torch.Generator().manual_seed(0)
    masks = interpolate(torch.randn(1, Q, 8, 8, generator=rng) * 6 - 4, (SIDE, SIDE), mode="bicubic")[0]
    classes = torch.randn(Q, K + 1, generator=rng)
    if kind == "decided":
        classes[:, K] += 8
        classes[:20, K] -= 10
        classes[torch.arange(20), torch.randint(0, K, (20,), generator=rng)] += 9
    return classes, masks


def peer() -> Any:
    """transformers' image processor without its constructor, which would fetch class names."""
    if not hasattr(module, "tvF"):
        # Its resize is torchvision's. Without torchvision, torch's own stands in, without the antialiasing that
        # torchvision would add: the faster of the two, so the peer is not put at a disadvantage.
        def resize(masks: Tensor, *, size: tuple[int, int], interpolation: str) -> Tensor:
            return interpolate(masks, size, mode=interpolation, align_corners=False)

        module.tvF = SimpleNamespace(resize=resize, InterpolationMode=SimpleNamespace(BILINEAR="bilinear"))
    processor = object.__new__(module.OneFormerImageProcessorPil)
    processor.metadata = {"thing_ids": list(range(THINGS))}
    processor.class_info_file = "coco"
    return processor


def tasks(classes: Tensor, masks: Tensor, processor: Any) -> dict[str, tuple[Callable, Callable]]:
    """Per task, our function and the peer's."""
    rules = Rules(tuple(i < THINGS for i in range(K)), object_mask_threshold=0.5, overlap_threshold=0.8, topk=100)
    batch = SimpleNamespace(class_queries_logits=classes[None], masks_queries_logits=masks[None])
    target = {"target_sizes": [SIZES["original_size"]]}
    theirs = {
        "semantic": lambda: processor.post_process_semantic_segmentation(batch, **target),
        "panoptic": lambda: processor.post_process_panoptic_segmentation(
            batch, label_ids_to_fuse=set(range(THINGS, K)), **target
        ),
        "instance": lambda: processor.post_process_instance_segmentation(
            batch, task_type="panoptic", is_demo=False, **target
        ),
    }
    ours = {
        "semantic": lambda: semantic_map(classes, masks, **SIZES),
        "panoptic": lambda: panoptic(classes, masks, **SIZES, rules=rules),
        "instance": lambda: instances(classes, masks, **SIZES, rules=rules),
    }
    pairs = {task: (ours[task], theirs[task]) for task in ours}
    pairs["instance as RLE"] = (lambda: encoded_instances(classes, masks, **SIZES, rules=rules), theirs["instance"])
    return pairs


def measure(options: argparse.Namespace) -> list[Row]:
    """Every task on both kinds of outputs, and the three tasks together."""
    processor = peer()
    rows = []
    for kind in ("decided", "undecided"):
        pairs = tasks(*outputs(kind), processor)
        three = [pairs[task] for task in ("semantic", "panoptic", "instance")]
        pairs["three tasks"] = tuple(partial(all_of, [pair[side] for pair in three]) for side in (0, 1))
        for task, (ours, theirs) in pairs.items():
            times = in_turn({"ours": ours, "theirs": theirs}, rounds=options.rounds)
            rows.append(Row(f"{task}, {kind}", times["ours"], times["theirs"]))
    return rows


def all_of(functions: list[Callable]) -> None:
    """One after the other."""
    for function in functions:
        function()


if __name__ == "__main__":
    run(measure, parser(__doc__, rounds=5).parse_args())
