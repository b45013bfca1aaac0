"""Network outputs -> results at the photo's size: time of ours and of Hugging Face transformers, in turn, as a ratio.

    .venv/bin/python benchmarks/postprocess.py [--rounds 5] [--threads 2]

Q=150 queries, K=133 classes, 160x160 masks of a 640x640 input that holds a 640x480 photo in its upper 480 rows. Two
kinds of
outputs: `undecided` (an untrained network: every query spreads over all classes, the worst case) and `decided` (a
    trained one: twenty
confident segments, the other queries "no object"). transformers resizes class scores (semantic) or keeps no crop of
the padding, so the results differ (see tests/segments for ours against the published rule); what is compared is the
time to get one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import interpolate

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


def peer() -> object | None:
    """transformers' image processor without its constructor, which would fetch class names; None when not installed."""
    try:
        from transformers.models.oneformer import image_processing_pil_oneformer as module
    except ImportError:
        return None
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


def tasks(classes: Tensor, masks: Tensor, processor: object | None) -> dict[str, tuple[Callable, Callable | None]]:
    """Per task, our function and the peer's."""
    rules = Rules(tuple(i < THINGS for i in range(K)), object_mask_threshold=0.5, overlap_threshold=0.8, topk=100)
    theirs: dict[str, Callable] = {}
    if processor is not None:
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
    pairs: dict[str, tuple[Callable, Callable | None]] = {t: (ours[t], theirs.get(t)) for t in ours}
    pairs["instance as RLE"] = (lambda: encoded_instances(classes, masks, **SIZES, rules=rules), theirs.get("instance"))
    return pairs


def milliseconds(functions: list[Callable], rounds: int) -> list[float]:
    """Median processor time of each, run in turn; processor time, because other programs share the machine."""
    spent: list[list[float]] = [[] for _ in functions]
    for i in range(rounds + 1):
        for times, function in zip(spent, functions, strict=True):
            start = time.process_time()
            function()
            if i > 0:  # the first round warms up
                times.append(1e3 * (time.process_time() - start))
    return [statistics.median(times) for times in spent]


def main() -> None:
    parser = argparse.ArgumentParser(description="post-processing: ours against transformers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    processor = peer()
    print(f"{'outputs':<10} {'task':<16} {'ours ms':>8} {'HF ms':>8} {'ours / HF':>10}")
    for kind in ("decided", "undecided"):
        for task, (ours, theirs) in tasks(*outputs(kind), processor).items():
            functions = [ours] if theirs is None else [ours, theirs]
            times = milliseconds(functions, args.rounds)
            rest = f"{times[1]:>8.0f} {times[0] / times[1]:>10.2f}" if theirs is not None else f"{'-':>8} {'-':>10}"
            print(f"{kind:<10} {task:<16} {times[0]:>8.0f} {rest}")


if __name__ == "__main__":
    main()
