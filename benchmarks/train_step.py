"""One training step beside Hugging Face transformers' with equal weights and inputs -> times and ratio in one run.

    python benchmarks/train_step.py [--images 2] [--size 256] [--objects 10] [--rounds 3] [--bf16] [--small]

Forward with texts, all losses of every decoder layer, backward, clipping, and a fused AdamW step on both sides. Sizes
are Swin-T's with 150 queries, or with --small those of a network of a tenth. There is no dropout, so that the losses
can be compared: they differ by the random points they look at and by what the text branches do differently.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from oneformer.data.sample import Target
from oneformer.data.task import TASKS, texts_for
from oneformer.data.tokens import Tokenizer
from oneformer.loss.total import Criterion
from oneformer.spec import ModelSpec, OneFormerHeadSpec, OptimSpec, SemSegHeadSpec, TrainSpec
from oneformer.spec.backbone import BackboneSpec, SwinSpec
from oneformer.train.clip import clip_gradients
from oneformer.train.optim import build_optimizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from oracle.hf import picture, twins  # the mapping between both libraries is kept with the oracles

CLASSES = 133
SWIN_T = SwinSpec(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], window_size=7, drop_path_rate=0.0)
NARROW = SwinSpec(embed_dim=24, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], window_size=7, drop_path_rate=0.0)


@dataclass
class Work:
    """A batch as both sides want it."""

    images: torch.Tensor
    task_tokens: torch.Tensor
    distinct: torch.Tensor
    index: torch.Tensor
    targets: list[Target]

    @staticmethod
    def random(images: int, size: int, objects: int, *, num_texts: int) -> Work:
        """Blobs of random classes on structured noise, with the texts that belong to them."""
        tokenizer = Tokenizer()
        names = [f"thing number {i}" for i in range(CLASSES)]
        targets, texts = [], []
        for number in range(images):
            coarse = torch.randint(0, objects, (1, 1, size // 16, size // 16)).float()
            owners = torch.nn.functional.interpolate(coarse, scale_factor=16)[0, 0].to(torch.int16)
            labels = torch.randint(0, CLASSES, (objects,))
            targets.append(Target.from_map(labels, owners))
            texts.append(texts_for(TASKS[number % 3], labels.tolist(), names, num_texts=num_texts))
        distinct = sorted({text for row in texts for text in row})
        return Work(
            images=picture(size, size, batch=images),
            task_tokens=torch.stack([tokenizer.task_tokens(TASKS[i % 3]) for i in range(images)]),
            distinct=tokenizer.encode_all(distinct),
            index=torch.tensor([[distinct.index(text) for text in row] for row in texts]),
            targets=targets,
        )


def ours(model: Any, spec: ModelSpec, work: Work) -> Callable[[], float]:
    """Our step; returns its loss."""
    train = TrainSpec(optim=OptimSpec(lr=1e-5))
    criterion = Criterion(spec)
    optimizer = build_optimizer(train.optim, model, criterion)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step() -> float:
        optimizer.zero_grad()
        decoded = model.decode(model.features(work.images), work.task_tokens)
        loss = criterion(decoded, work.targets, model.encode_texts(work.distinct, work.index))["loss"]
        loss.backward()
        clip_gradients(parameters, train)
        optimizer.step()
        return loss.item()

    return step


def theirs(model: Any, work: Work) -> Callable[[], float]:
    """transformers' step; returns its loss. Masks are made float beforehand, outside of what is timed."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)
    batch = {
        "pixel_values": work.images,
        "task_inputs": work.task_tokens,
        "text_inputs": work.distinct[work.index],
        "mask_labels": [target.masks.float() for target in work.targets],
        "class_labels": [target.labels for target in work.targets],
    }

    def step() -> float:
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def measure(*, images: int, size: int, objects: int, rounds: int, bf16: bool, small: bool) -> dict[str, float]:
    """Medians in ms of both sides, taken in turn after one warm-up each, theirs / ours, and the first losses."""
    torch.manual_seed(0)
    head = OneFormerHeadSpec(dropout=0.0, **({"num_object_queries": 50, "dec_layers": 4} if small else {}))
    spec = ModelSpec(
        sem_seg_head=SemSegHeadSpec(num_classes=CLASSES, transformer_enc_layers=1 if small else 6),
        one_former=head,
        backbone=BackboneSpec(name="D2SwinTransformer", swin=NARROW if small else SWIN_T),
    )
    work = Work.random(images, size, objects, num_texts=head.num_object_queries - spec.text_encoder.n_ctx)
    model, peer = (side.train() for side in twins(spec, is_training=True))
    sides = {"oneformer": ours(model, spec, work), "transformers": theirs(peer, work)}
    times: dict[str, list[float]] = {name: [] for name in sides}
    result: dict[str, float] = {}
    for turn in range(rounds + 1):
        for name, step in sides.items():
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = step()
            if turn:
                times[name].append(1000 * (time.perf_counter() - start))
            else:
                result[f"{name}_loss"] = loss
    result |= {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    return {**result, "times_faster": result["transformers_ms"] / result["oneformer_ms"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"images": 2, "size": 256, "objects": 10, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--small", action="store_true")
    options = vars(parser.parse_args())
    result = measure(**options)
    setting = f"{options['images']} images of {options['size']}x{options['size']}, {options['objects']} objects each"
    kind = ("a small network" if options["small"] else "Swin-T, 150 queries") + (
        ", bf16" if options["bf16"] else ", fp32"
    )
    print(f"training step, {kind}: {setting}, {torch.get_num_threads()} threads")
    print(f"first loss: ours {result['oneformer_loss']:.3f}, transformers {result['transformers_loss']:.3f}")
    print(
        f"ours {result['oneformer_ms']:.0f} ms, transformers {result['transformers_ms']:.0f} ms: "
        f"{result['times_faster']:.2f} times faster"
    )


if __name__ == "__main__":
    main()
