"""One weight or graph file and photos -> seconds, memory, and the maps it makes of them; in a process of its own.

Peak memory and threads belong to a process, so each file that is measured gets a fresh one (`python -m` this module
with a `Job` as JSON on stdin; it writes a `Timing` as JSON and the maps as .npz).
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oneformer.data.decode import read_image
from oneformer.engines.base import Engine
from oneformer.engines.open import open_engine
from oneformer.errors import UserError
from oneformer.export.images import GENERATED_SIZES, generated, ready
from oneformer.predict.predictor import Predictor
from oneformer.segments.types import Outputs

MIB = 2**20
KIB_UNITS = 1 if sys.platform == "darwin" else 1024  # bytes of one unit of ru_maxrss


@dataclass(frozen=True)
class Job:
    """What is to be measured, and how."""

    file: str
    engine: str = "auto"
    precision: str = "auto"
    device: str = "auto"
    threads: int = 0
    tasks: tuple[str, ...] = ("panoptic",)
    """What is asked of each batch; several tasks share the image's features where the file allows it."""
    photos: tuple[str, ...] = ()
    count: int = 8
    """Scenes that are generated where no photos are named."""
    size: tuple[int, int] | None = None
    """Height and width that photos are fitted into; None leaves them as the file asks."""
    batch: int = 1
    rounds: int = 5
    """How often all photos are run."""
    warmup: float = 1.0
    """Seconds of calls before the clock counts, two calls of each shape at least."""


@dataclass(frozen=True)
class Timing:
    """What was measured."""

    file: str
    engine: str
    """As the engine names itself."""
    size_mib: float
    open_s: float
    """From the file to the end of the first call."""
    latency_ms: float
    """Median of a call: one batch, all tasks, without reading and post-processing."""
    slowest_ms: float
    images_per_s: float
    peak_mib: float
    """What opening and running the file added to the process."""
    gpu_mib: float | None
    """What PyTorch held of the GPU at most; None where another library runs the file."""
    input_size: tuple[int, int] | None
    """Height and width, where they are the same for all batches."""
    fixed: bool
    """Whether the file itself fixes them."""
    batch: int
    threads: int


def measure(job: Job, maps: Path) -> Timing:
    """Open, warm up, run; write the maps of every photo to `maps`.

    Raises:
        UserError: the file cannot be opened or run that way, or a photo is broken.
    """
    images = photos_of(job)
    before = peak_bytes()
    start = time.perf_counter()
    engine = open_engine(job.file, job.engine, precision=job.precision, device=job.device, threads=job.threads)
    fixed = engine.info.input_size is not None
    if job.size and not fixed:
        engine.info = replace(engine.info, input_size=job.size)
    batches = batches_of(images, engine, job.batch)
    call(engine, batches[0], job.tasks)
    opened = time.perf_counter() - start
    warm_up(engine, batches, job)
    calls = [timed(engine, batch, job.tasks) for _ in range(job.rounds) for batch in batches]
    peak = peak_bytes() - before
    write_maps(maps, Predictor(engine), images, job.tasks)
    shapes = {tuple(batch.shape[2:]) for batch in batches}
    return Timing(
        file=job.file,
        engine=repr(engine),
        size_mib=bytes_of(Path(job.file)) / MIB,
        open_s=opened,
        latency_ms=1000 * statistics.median(calls),
        slowest_ms=1000 * max(calls),
        images_per_s=job.rounds * len(images) / sum(calls),
        peak_mib=max(0, peak) / MIB,
        gpu_mib=torch.cuda.max_memory_allocated() / MIB if torch.cuda.is_initialized() else None,
        input_size=shapes.pop() if len(shapes) == 1 else None,  # type: ignore[arg-type]
        fixed=fixed,
        batch=job.batch,
        threads=job.threads or torch.get_num_threads(),
    )


def photos_of(job: Job) -> list[NDArray[np.uint8]]:
    """The photos, or generated scenes, uint8 (H, W, 3)."""
    if job.photos:
        return [read_image(path) for path in job.photos]
    return [generated(GENERATED_SIZES[i % len(GENERATED_SIZES)], seed=i) for i in range(job.count)]


def batches_of(images: Sequence[NDArray[np.uint8]], engine: Engine, size: int) -> list[Tensor]:
    """Normalised batches (B, 3, H, W) of at most `size` images of one shape; the last of each shape may be smaller."""
    groups: dict[tuple[int, ...], list[Tensor]] = {}
    for pixels in images:
        image = ready(pixels, engine.info, name="").images
        groups.setdefault(tuple(image.shape), []).append(image)
    return [part for same in groups.values() for part in torch.cat(same).split(size)]


def warm_up(engine: Engine, batches: Sequence[Tensor], job: Job) -> None:
    """Calls that nobody times: libraries choose kernels, allocate and compile in the first ones of each shape."""
    shapes = {batch.shape: batch for batch in batches}
    started = time.perf_counter()
    turn = 0
    while turn < 2 or time.perf_counter() - started < job.warmup:
        for batch in shapes.values():
            call(engine, batch, job.tasks)
        turn += 1


def call(engine: Engine, batch: Tensor, tasks: Sequence[str]) -> dict[str, Outputs]:
    """The outputs of one batch, complete and on the CPU."""
    return {task: outputs.to("cpu") for task, outputs in engine.outputs(batch, tasks).items()}


def timed(engine: Engine, batch: Tensor, tasks: Sequence[str]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call(engine, batch, tasks)
    return time.perf_counter() - start


def write_maps(path: Path, predictor: Predictor, images: Sequence[NDArray[np.uint8]], tasks: Sequence[str]) -> None:
    """What becomes of each photo at its own size: class ids, segment ids, and the segments' classes."""
    arrays: dict[str, NDArray[Any]] = {}
    for i, photo in enumerate(images):
        parts = predictor.segment([photo], tasks)[0]
        if parts.semantic is not None:
            arrays[f"semantic_{i}"] = parts.semantic
        if parts.panoptic is not None:
            arrays[f"panoptic_{i}"] = parts.panoptic.map
            arrays[f"segments_{i}"] = np.array([(s.id, s.class_id) for s in parts.panoptic.segments]).reshape(-1, 2)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB_UNITS


def bytes_of(file: Path) -> int:
    """Size of a file and of the weights beside it, or of a folder."""
    if file.is_dir():
        return sum(p.stat().st_size for p in file.rglob("*") if p.is_file())
    beside = (file.with_suffix(".bin"),) if file.suffix.lower() == ".xml" else (file.with_name(f"{file.name}.data"),)
    return sum(p.stat().st_size for p in (file, *beside) if p.is_file())


def main() -> int:
    """As a process: the job on stdin, the timing or the fault on stdout."""
    asked = json.load(sys.stdin)
    maps = Path(asked.pop("maps"))
    asked |= {key: tuple(asked[key]) for key in ("tasks", "photos")}
    asked["size"] = tuple(asked["size"]) if asked["size"] else None
    try:
        told: dict[str, Any] = asdict(measure(Job(**asked), maps))
    except UserError as error:
        told = {"fault": error.what, "where": error.where, "hint": error.hint, "exit_code": error.exit_code}
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
