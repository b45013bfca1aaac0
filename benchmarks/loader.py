"""Photos and masks -> training batches: our loader beside the usual way, times and memory in one run.

    python benchmarks/loader.py [FOLDER] [--side 1024] [--workers 1 2] [--batch 4] [--rounds 5]

FOLDER holds COCO panoptic data (images/, panoptic/, annotations.json, label_map.json); the photos that ship here
without one. The usual way makes a stack of boolean masks in the worker (`_mapper.py`), with OpenCV where that is
installed, and with Pillow. Both sides run the same recipe of large-scale jitter and take turns, an epoch each,
each through its own worker processes, up to the batch as the losses take it. Milliseconds are wall time for a photo;
processor time of all processes, and the memory that one worker has for itself at most (in an epoch that is not timed),
are rows of their own where the system tells them (/proc).
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from _command import parser, run
from _mapper import BYTES, MASKS, WAYS, Library, MaskSamples, OpenCv, Pillow, finished, stacked
from _measure import Spread
from _report import Row
from oneformer.data.formats import read_records
from oneformer.data.labels import read_labels
from oneformer.data.loader import EpochSampler, train_loader
from oneformer.spec.data import AugmentationSpec, DatasetSpec, SplitSpec
from oneformer.spec.model import ModelSpec

PHOTOS = Path(__file__).resolve().parent.parent / "samples" / "photos"
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass
class Side:
    """A loader that is timed: milliseconds for a photo of each epoch, and the most memory of a worker."""

    loader: DataLoader[Any]
    photos: int
    finish: Callable[[Any], Any] = lambda batch: batch  # what is left to do for a batch in the main process
    wall_ms: list[float] = field(default_factory=list)
    processor_ms: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)

    def warm_up(self) -> None:
        """An epoch that is not timed, with an eye on the workers' memory."""
        batches = iter(self.loader)
        first = next(batches)  # the workers are there now
        self.workers = [w.pid for w in getattr(self.loader._iterator, "_workers", [])]
        with most_memory(self.workers) as memory:
            for batch in chain([first], batches):
                self.finish(batch)
        self.memory_mib.append(memory[0])

    def epoch(self, number: int) -> None:
        """Go through all batches once, timed."""
        if isinstance(self.loader.sampler, EpochSampler):
            self.loader.sampler.set_epoch(number)
        spent, start = processor_s(self.workers), time.perf_counter()
        count = 0
        for batch in self.loader:
            self.finish(batch)
            count += 1
        wall, spent = time.perf_counter() - start, processor_s(self.workers) - spent
        assert count == len(self.loader)
        self.wall_ms.append(1000 * wall / self.photos)
        self.processor_ms.append(1000 * spent / self.photos)


@contextmanager
def most_memory(workers: list[int]) -> Iterator[list[float]]:
    """Watches what each worker has for itself: its private pages and its part of shared ones that hold tensors."""
    most, stop = [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            most[0] = max([most[0], *(own_mib(pid) for pid in workers)])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield most
    stop.set()
    thread.join()


def own_mib(pid: int) -> float:
    """Private memory and shared tensors of a process; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    except OSError:
        return 0.0
    kib = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
    return (kib["Private_Clean"] + kib["Private_Dirty"] + kib.get("Pss_Shmem", 0)) / 1024


def processor_s(workers: list[int]) -> float:
    """Processor time of this process and of its workers so far; 0 for workers that the system does not tell of."""
    total = time.process_time()
    for pid in workers:
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists():
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def ours(options: argparse.Namespace, workers: int, colors: bool) -> Side:
    """Our loader of training."""
    folder: Path = options.folder
    part = SplitSpec(
        batch_size=options.batch,
        num_workers=workers,
        images=str(folder / "images"),
        annotations=str(folder / "annotations.json"),
        panoptic=str(folder / "panoptic"),
    )
    changes = AugmentationSpec(train_crop_size=[options.side] * 2, color_jitter_prob=0.5 if colors else 0.0)
    dataset = DatasetSpec(train=part, label_map=str(folder / "label_map.json"), augmentation=changes, pin_memory=False)
    labels = read_labels(dataset, splits=("train",))
    records = read_records(dataset, "train", labels)
    return Side(train_loader(dataset, labels, records, model=ModelSpec(), seed=0), len(records))


def theirs(options: argparse.Namespace, workers: int, library: Library, way: str, colors: bool) -> Side:
    """The usual way."""
    samples = MaskSamples(options.folder, library, way, colors, options.side)
    loader = DataLoader(
        samples,
        batch_size=options.batch,
        shuffle=True,
        num_workers=workers,
        collate_fn=stacked,
        persistent_workers=workers > 0,
    )
    return Side(loader, len(samples), finished)


def libraries() -> dict[str, Library]:
    """Those that are installed."""
    found: dict[str, Library] = {"Pillow": Pillow()}
    try:
        return {"OpenCV": OpenCv(), **found}
    except ImportError:
        print("OpenCV is not installed (pip install opencv-python-headless): compared with Pillow only")
        return found


def sides(options: argparse.Namespace, workers: int, *, colors: bool) -> dict[str, Callable[[], Side]]:
    """Ours, and each way of doing it without us."""
    made: dict[str, Callable[[], Side]] = {"ours": partial(ours, options, workers, colors)}
    for name, library in libraries().items():
        for way in WAYS if name == "OpenCV" else (MASKS, BYTES):
            made[f"{name}, {way}"] = partial(theirs, options, workers, library, way, colors)
    return made


def measure(options: argparse.Namespace) -> list[Row]:
    """Every number of workers with and without colours, all sides in turn."""
    torch.set_num_threads(1)
    rows = []
    for colors in (recipe == "colours" for recipe in options.recipes):
        for workers in options.workers:
            made = {name: make() for name, make in sides(options, workers, colors=colors).items()}
            for side in made.values():
                side.warm_up()
            for turn in range(options.rounds):
                for side in made.values():
                    side.epoch(1 + turn)
            rows += compared(made, options, workers, colors=colors)
    return rows


def compared(made: dict[str, Side], options: argparse.Namespace, workers: int, *, colors: bool) -> list[Row]:
    """Rows of one setting."""
    mine, rows = made["ours"], []
    recipe = "jitter and colours" if colors else "jitter"
    work = f"{recipe}, crop {options.side}, {workers} worker{'s' * (workers != 1)}"
    for name, side in made.items():
        if name == "ours":
            continue
        for what, unit in (("wall_ms", "ms"), ("processor_ms", "ms"), ("memory_mib", "MiB")):
            own, other = (Spread.of(getattr(one, what)) for one in (mine, side))
            if own.median and other.median:  # a worker of a short epoch may end before anybody looks at its memory
                title = {"wall_ms": work, "processor_ms": f"{work}, processor time", "memory_mib": f"{work}, memory"}
                speed = f"{1000 / own.median:.0f} photos/s, {1000 / other.median:.0f}" if what == "wall_ms" else ""
                rows.append(Row(f"{title[what]}: {name}", own, other, "usual way", unit, note=speed))
    return rows


if __name__ == "__main__":
    made = parser(__doc__, rounds=5)
    made.add_argument("folder", nargs="?", type=Path, default=PHOTOS, help="COCO panoptic data")
    made.add_argument("--side", type=int, default=1024, help="of the crop")
    made.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers of worker processes")
    recipes = ["jitter", "colours"]
    made.add_argument("--recipes", nargs="+", choices=recipes, default=recipes, help="with colours changed, or not")
    made.add_argument("--batch", type=int, default=4, help="photos in a batch")
    run(measure, made.parse_args())
