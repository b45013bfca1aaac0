"""The best checkpoint of a training -> its scores, and its size and latency where a search asks for them."""

from __future__ import annotations

import statistics
from collections.abc import Collection
from pathlib import Path

from oneformer.engines.torch import TorchEngine
from oneformer.predict.timing import MIB, Job, batches_of, photos_of, timed, warm_up

CALLS = 9


def measured(checkpoint: Path, wanted: Collection[str], *, device: str) -> dict[str, float]:
    """Every score that the checkpoint was written with, and of `wanted` what is measured on the network itself.

    Args:
        checkpoint: of `oneformer train`.
        wanted: `size_mib` is that of the weights in float32 without the text branch, which only training needs;
            `latency_ms` the median of nine calls with one generated photo, without reading and post-processing.
        device: where the network runs, as `oneformer.load` takes it.
    """
    engine = TorchEngine.from_checkpoint(checkpoint, precision="fp32", device=device)
    found = dict(engine.info.metrics)
    if "size_mib" in wanted:
        found["size_mib"] = 4 * sum(p.numel() for p in engine.model.parameters()) / MIB
    if "latency_ms" in wanted:
        job = Job(str(checkpoint), count=1, rounds=CALLS, warmup=0.0)
        (batch,) = batches_of(photos_of(job), engine, 1)
        warm_up(engine, [batch], job)
        found["latency_ms"] = 1000 * statistics.median(timed(engine, batch, job.tasks) for _ in range(CALLS))
    return found
