"""Weight and graph files -> how fast each is, what memory it takes, and how far it agrees with the first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.errors import CheckpointError, DataError, UserError, WorkError

if TYPE_CHECKING:
    from oneformer.predict.timing import Job, Timing

WHERE = "oneformer benchmark"
WORKER = "oneformer.predict.timing"


@dataclass(frozen=True)
class Row:
    """One file: its times, and what it makes of the same photos as the first file."""

    name: str
    timing: Timing
    pixels: float | None
    """Share of the pixels with the first file's class; None where no task gives maps."""
    segments: float | None
    """Share of the first file's segments that are found again: same class, more than half in common."""

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {"name": self.name, **asdict(self.timing), "same_pixels": self.pixels, "same_segments": self.segments}


@dataclass(frozen=True)
class Benchmark:
    """The rows, and what they were measured on."""

    rows: Sequence[Row]
    about: str

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {"about": self.about, "rows": [row.to_dict() for row in self.rows]}

    def table(self) -> str:
        """One line for each file."""
        from oneformer.report.tables import align

        head = (
            "file", "engine", "input", "ms", "slowest", "images/s", "start s", "file MiB", "memory MiB", "same pixels",
            "same segments",
        )  # fmt: skip
        rows = [
            (
                row.name,
                row.timing.engine.partition("(")[0].removesuffix("Engine") + f" {_how(row.timing)}",
                "x".join(map(str, row.timing.input_size)) if row.timing.input_size else "by photo",
                *(f"{value:.1f}" for value in (row.timing.latency_ms, row.timing.slowest_ms)),
                *(f"{value:.2f}" for value in (row.timing.images_per_s, row.timing.open_s)),
                *(f"{value:.0f}" for value in (row.timing.size_mib, row.timing.peak_mib)),
                *("-" if share is None else f"{share:.2%}" for share in (row.pixels, row.segments)),
            )
            for row in self.rows
        ]
        return f"{align(head, rows, text_columns=3)}\n\n{self.about}"


def _how(timing: Timing) -> str:
    """Device and precision, from the engine's own name."""
    return ", ".join(timing.engine.rstrip(")").split(", ")[1:3])


def run(files: Sequence[str], *, images: str | None = None, task: str | None = None, **options: Any) -> Benchmark:
    """Measure each file in a process of its own, all of them on the same photos.

    Args:
        files: `FILE`, or `FILE@ENGINE` or `FILE@ENGINE:PRECISION`; the first is what the others are compared with.
        images: folder of photos; generated scenes where left out.
        task: what the network is asked for; `panoptic` where left out.
        options: `count`, `batch`, `rounds`, `threads`, `precision`, `device`, `size`, as they were typed.

    Raises:
        UserError: a file, photo or option is wrong.
        WorkError: a process broke down.
    """
    jobs = jobs_of(files, photos_in(images, whole(options, "count", 8)), task or "panoptic", options)
    with tempfile.TemporaryDirectory(prefix="oneformer-benchmark-") as folder:
        maps = [Path(folder) / f"{i}.npz" for i in range(len(jobs))]
        timings = measured(jobs, maps)
        shares = [agreement(maps[0], path, len(jobs[0].photos) or jobs[0].count) for path in maps]
    names = short_names(files)
    rows = [Row(name, timing, *both) for name, timing, both in zip(names, timings, shares, strict=True)]
    return Benchmark(rows, told(jobs[0], timings[0], images))


def jobs_of(files: Sequence[str], photos: Sequence[str], task: str, options: Mapping[str, Any]) -> list[Job]:
    """What is to be measured. Raises UserError for a file that is not there or an option that makes no sense."""
    from oneformer.engines.open import checked_kind, chosen_engine
    from oneformer.model.weights.load import beside
    from oneformer.predict.timing import Job

    if not files:
        raise UserError("no file is named", where=WHERE, hint="for example: oneformer benchmark best.pth model.onnx")
    common = Job(
        "",
        device=options.get("device") or "auto",
        threads=whole(options, "threads", 0),
        tasks=(task,),
        photos=tuple(photos),
        count=whole(options, "count", 8),
        size=size_of(options.get("size")),
        batch=whole(options, "batch", 1),
        rounds=whole(options, "rounds", 5),
    )
    jobs = []
    for word in files:
        name, engine, precision = parts_of(word)
        path = checked_kind(name)
        chosen_engine(path, engine)
        if not path.exists():
            raise CheckpointError("the weight file does not exist", where=name, hint=beside(path.parent))
        precision = precision or options.get("precision") or "auto"
        jobs.append(replace(common, file=str(path), engine=engine, precision=precision))
    return jobs


def parts_of(word: str) -> tuple[str, str, str]:
    """`FILE@ENGINE:PRECISION` -> its parts, `auto` and nothing for those that are left out."""
    if "@" not in word or Path(word).exists():
        return word, "auto", ""
    name, _, how = word.rpartition("@")
    engine, _, precision = how.partition(":")
    return name, engine or "auto", precision


def whole(options: Mapping[str, Any], key: str, usual: int) -> int:
    """The number that an option gives. Raises UserError for anything but a positive whole number."""
    text = options.get(key)
    if text is None:
        return usual
    if not str(text).isdecimal() or int(text) < 1:
        raise UserError(f"--{key} is {text}, but has to be a whole number of at least 1", where=WHERE)
    return int(text)


def size_of(text: str | None) -> tuple[int, int] | None:
    """`480x640` -> (480, 640). Raises UserError."""
    if not text:
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()) or any(not n or n % 32 for n in (int(height), int(width))):
        hint = "for example 640x640: height and width in pixels, multiples of 32"
        raise UserError(f"--size is {text}", where=WHERE, hint=hint)
    return int(height), int(width)


def photos_in(folder: str | None, count: int) -> list[str]:
    """The first photos of a folder. Raises DataError when it holds none."""
    from oneformer.data.decode import SUFFIXES

    if not folder:
        return []
    found = sorted(str(p) for p in Path(folder).glob("*") if p.name.lower().endswith(SUFFIXES))
    if not found:
        raise DataError("the folder holds no image", where=folder, hint=f"images end in {', '.join(SUFFIXES)}")
    return found[:count]


def measured(jobs: Sequence[Job], maps: Sequence[Path]) -> list[Timing]:
    """The timings in the order of the jobs; files of open size get the size of the first that fixes it."""
    from oneformer.engines.open import CHECKPOINTS

    size = jobs[0].size
    found: dict[int, Timing] = {}
    late = sorted(range(len(jobs)), key=lambda i: Path(jobs[i].file).suffix.lower() in (*CHECKPOINTS, ""))  # any size
    for i in late:
        found[i] = measure(replace(jobs[i], size=size), maps[i])
        size = size or (found[i].input_size if found[i].fixed else None)
    for i, timing in found.items():
        if size and not timing.fixed and timing.input_size != size:  # an open graph before the first fixed one
            found[i] = measure(replace(jobs[i], size=size), maps[i])
    return [found[i] for i in range(len(jobs))]


def measure(job: Job, maps: Path) -> Timing:
    """One file, in a process of its own. Raises UserError with what it says, WorkError when it says nothing."""
    from oneformer.predict.timing import Timing

    sent = json.dumps({**asdict(job), "maps": str(maps)})
    env = {**os.environ, "OMP_NUM_THREADS": str(job.threads)} if job.threads else None
    done = subprocess.run([sys.executable, "-m", WORKER], input=sent, capture_output=True, text=True, env=env)  # noqa: PLW1510
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WorkError(f"the process that measured it ended with code {done.returncode}: {last}"[:300], where=job.file)
    found = json.loads(lines[-1])
    if "fault" in found:
        raise UserError(
            found["fault"], where=found["where"] or job.file, hint=found["hint"], exit_code=found["exit_code"]
        )
    found["input_size"] = found["input_size"] and tuple(found["input_size"])
    return Timing(**found)


def agreement(first: Path, other: Path, count: int) -> tuple[float | None, float | None]:
    """Shares of pixels and of segments that two files' maps have in common; None where there are no such maps."""
    import numpy as np

    from oneformer.metrics.pq import MapSegments, match

    pixels: list[float] = []
    found = np.zeros(2)
    with np.load(first) as mine, np.load(other) as yours:
        for i in range(count):
            if f"semantic_{i}" in mine:
                pixels.append(float(np.mean(mine[f"semantic_{i}"] == yours[f"semantic_{i}"])))
            if f"panoptic_{i}" in mine:
                maps = [(side[f"panoptic_{i}"], side[f"segments_{i}"]) for side in (mine, yours)]
                pixels.append(float(np.mean(classes_of(*maps[0]) == classes_of(*maps[1]))))
                (true, known), (guess, told) = ((m, MapSegments.of(s[:, 0], s[:, 1])) for m, s in maps)
                classes = 1 + max((int(s[:, 1].max()) for _, s in maps if len(s)), default=0)
                matched = match(guess, told, true, known, num_classes=classes)
                found += len(maps[0][1]), int(matched[:, 1].sum())
    share = float(found[1] / found[0]) if found[0] else None
    return (float(np.mean(pixels)) if pixels else None), share


def classes_of(segment_map: Any, segments: Any) -> Any:
    """Segment ids (H, W) and rows of (id, class) -> class ids, -1 where there is no segment."""
    import numpy as np

    table = np.full(int(segment_map.max(initial=0)) + 1, -1)
    for segment_id, class_id in segments:
        table[segment_id] = class_id
    return table[segment_map]


def short_names(files: Sequence[str]) -> list[str]:
    """What the table calls the files: their names, or the words as given where names are the same."""
    names = [Path(word).name for word in files]
    return [name if names.count(name) == 1 else word for name, word in zip(names, files, strict=True)]


def told(job: Job, timing: Timing, folder: str | None) -> str:
    """What was measured, in words."""
    images = f"{len(job.photos)} photos of {folder}" if job.photos else f"{job.count} generated images"
    return (
        f"{images}, task {', '.join(job.tasks)}, batches of {job.batch}, {timing.threads} threads on the CPU. ms: the"
        f" median of {job.rounds} calls for each batch, network alone; slowest: the longest call. start: from the file"
        " to the first result. memory: what the file added to its process. Agreement is with the first file."
    )
