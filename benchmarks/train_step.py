"""One training step beside Hugging Face transformers' with equal weights and inputs -> times, peak memory, ratios.

    python benchmarks/train_step.py [--images 1] [--size 512] [--objects 10] [--rounds 3] [--one-thread]

Forward with texts, all losses of every decoder layer, backward, clipping, and a fused AdamW step on both sides, in
float32 and under bfloat16 autocast. There is no dropout, so that the losses can be compared: they differ by the random
points they look at and by what the text branches do differently. Peak memory is that of a process of its own that does
two steps, Python and the libraries included.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from _command import parser, run
from _measure import floor_ms, in_turn, memory_of, operations, peak_memory_mib, product
from _network import Work, hf_config, randomise, swin_t, twins
from _report import Row
from oneformer.loss.total import Criterion
from oneformer.model.oneformer import build_model
from oneformer.spec import ModelSpec, OptimSpec, TrainSpec
from oneformer.train.clip import clip_gradients
from oneformer.train.optim import build_optimizer

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
ALIKE = 0.02  # of the loss: what other random points change; more means that the two sides do different work


def ours(model: Any, spec: ModelSpec, work: Work, dtype: torch.dtype) -> Callable[[], float]:
    """Our step; returns its loss."""
    train = TrainSpec(optim=OptimSpec(lr=1e-5))
    criterion = Criterion(spec)
    optimizer = build_optimizer(train.optim, model, criterion)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            decoded = model.decode(model.features(work.images), work.task_tokens)
            loss = criterion(decoded, work.targets, model.encode_texts(work.distinct, work.index))["loss"]
        loss.backward()
        clip_gradients(parameters, train)
        optimizer.step()
        return loss.item()

    return step


def theirs(model: Any, work: Work, dtype: torch.dtype) -> Callable[[], float]:
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
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def batch(options: argparse.Namespace, spec: ModelSpec) -> Work:
    """The same random batch in every process."""
    torch.manual_seed(0)
    num_texts = spec.one_former.num_object_queries - spec.text_encoder.n_ctx
    return Work.random(options.images, options.size, options.objects, num_texts=num_texts)


def measure(options: argparse.Namespace) -> list[Row]:
    """Time and peak memory in both precisions."""
    spec = swin_t()
    work = batch(options, spec)
    work_of = [f"--{name}={getattr(options, name)}" for name in ("images", "size", "objects")]
    rows, memory = [], []
    for name, dtype in PRECISIONS.items():
        model, peer = (side.train() for side in twins(spec, is_training=True))
        steps = {"ours": ours(model, spec, work, dtype), "theirs": theirs(peer, work, dtype)}
        losses = {side: step() for side, step in steps.items()}
        if abs(losses["ours"] / losses["theirs"] - 1) > ALIKE:
            raise SystemExit(f"the two sides do different work: their losses are {losses}")
        times = in_turn({**steps, "product": product(dtype)[0]}, rounds=options.rounds, warm_up=0)
        count = operations(steps["ours"])
        title = f"{options.images} image of {options.size}x{options.size}, {options.objects} objects, {name}"
        rows.append(
            Row(
                f"Swin-T step, {title}",
                times["ours"],
                times["theirs"],
                floor=floor_ms(count, times["product"]),
                note=f"{count / 1e9:.0f} GFLOP; loss {losses['ours']:.0f}, transformers' {losses['theirs']:.0f}",
            )
        )
        held = {
            side: memory_of(__file__, side, "--precision", name, *work_of, large_pages=side == "ours") for side in steps
        }
        memory.append(Row(f"peak memory of it, {name}", held["ours"], held["theirs"], unit="MiB"))
    return rows + memory


def memory(options: argparse.Namespace) -> None:
    """Two steps of one side, then the most memory held."""
    spec = swin_t()
    work, dtype = batch(options, spec), PRECISIONS[options.precision]
    if options.memory_of == "ours":
        model = build_model(spec)
        randomise(model)
        step = ours(model.train(), spec, work, dtype)
    else:
        from transformers import OneFormerForUniversalSegmentation

        step = theirs(OneFormerForUniversalSegmentation(hf_config(spec, is_training=True)).train(), work, dtype)
    step()
    step()
    print(peak_memory_mib())


if __name__ == "__main__":
    made = parser(__doc__, rounds=3)
    for name, default in {"images": 1, "size": 512, "objects": 10}.items():
        made.add_argument(f"--{name}", type=int, default=default)
    made.add_argument("--memory-of", choices=("ours", "theirs"), help="only tell the peak memory of this side")
    made.add_argument("--precision", choices=tuple(PRECISIONS), default="fp32", help="with --memory-of")
    options = made.parse_args()
    if options.memory_of:
        memory(options)
    else:
        run(measure, options)
