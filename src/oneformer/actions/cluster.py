"""A spec, photos and a Ray cluster -> their predictions, by workers that may come and go: one result for each photo.

The photos are handed out in chunks, two at a time to each worker, so that nothing piles up however many there are. A
worker writes the results of a chunk and then, in one step, a file that says what is in it (`parts/`). Only what has
such a file counts: a chunk whose worker was lost is done again and writes the same files once more, and a start after
an interrupt goes on with the chunks that have none. Every machine sees photos, weights and results at the same paths.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.errors import MissingExtra, SpecError, UserError, WorkError
from oneformer.runs.atomic import plain, write_json
from oneformer.runs.key import reading_key, using
from oneformer.spec.tree import from_dict, to_dict

if TYPE_CHECKING:
    from oneformer.actions.inference import Predictions
    from oneformer.predict.files import ImageFiles
    from oneformer.runs import RunFolder
    from oneformer.spec import ExperimentSpec, InferenceSpec, TrainSpec

log = logging.getLogger(__name__)

PARTS, RUN, MODEL = "parts", "run.json", "model.json"
CHUNK = 32
"""Photos that are lost at most when a worker is: few enough to be done again, enough to keep a worker busy."""
AHEAD = 2
TRIES = 4
"""Workers that may end over one chunk before it is taken to be the chunk's fault."""
LATE_S = 60.0
"""A chunk that takes so long is given to an idle worker too: its own may be on a machine that is gone."""
# What does not change the results.
_FREE = ("num_gpus", "num_nodes", "gpu_ids", "accelerator", "threads", "results_dir", "trt_engine")


@dataclass(frozen=True)
class Chunk:
    """Photos that are done together."""

    number: int
    files: tuple[str, ...]
    names: dict[str, tuple[str, int]]
    """File -> the name of its results and its number."""


class Worker:
    """What runs on the cluster: it opens the model with its first chunk and keeps it.

    Args:
        spec: the spec in plain types.
        root: folder of the photos.
        folder: folder of the results.
    """

    def __init__(self, spec: dict[str, Any], root: str, folder: str) -> None:
        from oneformer.spec import ExperimentSpec

        self.spec = from_dict(ExperimentSpec, spec)
        self.root, self.folder = Path(root), Path(folder)
        self.opened: Any = None

    def do(self, chunk: Chunk) -> dict[str, Any]:
        """Predict a chunk and say so in `parts/`; how many photos it had, or the user's fault in plain types."""
        try:
            with using(self.spec.encryption_key):
                return {"number": chunk.number, "images": self._do(chunk)}
        except UserError as error:
            return {"fault": [error.what, error.where, error.hint], "failed": isinstance(error, WorkError)}

    def _do(self, chunk: Chunk) -> int:
        from oneformer.actions.inference import predict_batch, read_ahead
        from oneformer.predict.files import ImageFiles
        from oneformer.predict.parts import write_part
        from oneformer.predict.writer import PredictionWriter

        predictor, tasks = self._open()
        writer = PredictionWriter(
            self.folder, predictor.labels, tasks=tasks, overlay=self.spec.inference.overlay, keep="part"
        )
        photos = ImageFiles(self.root, chunk.files)
        for batch in read_ahead(photos, batch_size=_batch(self.spec), max_mpx=self.spec.dataset.max_image_mpx):
            predict_batch(predictor, writer, batch, chunk.names)
        write_part(_part(self.folder, chunk.number), writer)
        return len(chunk.files)

    def _open(self) -> Any:
        if self.opened is None:
            from oneformer.actions.inference import make_predictor
            from oneformer.predict.setup import chosen_tasks, open_engine
            from oneformer.train.devices import choose_devices

            section = self.spec.inference
            engine = open_engine(section, device=str(choose_devices(section, key="inference").device))
            tasks = chosen_tasks(section.mode, engine, key="inference.mode")
            self.opened = make_predictor(self.spec, engine), tasks
            write_json(self.folder / PARTS / MODEL, {"labels": engine.labels.to_dict(), "tasks": list(tasks)})
        return self.opened


def _batch(spec: ExperimentSpec) -> int:
    return spec.inference.batch_size if spec.inference.batch_size > 0 else spec.dataset.test.batch_size


def _part(folder: Path, number: int) -> Path:
    return folder / PARTS / f"{number:07d}.json"


def predict_on(
    cluster: str, spec: ExperimentSpec, found: ImageFiles, *, folder: RunFolder, given: ExperimentSpec
) -> Predictions:
    """Predict all photos on a Ray cluster and write the JSON files of the whole.

    Args:
        cluster: `auto`, or the address of a cluster.
        spec: what the workers get.
        found: the photos.
        folder: of the results.
        given: the spec as it is written down.

    Raises:
        UserError: there is no Ray or no such cluster, or it has not what is asked for.
        WorkError: a chunk ends every worker it is given to, or photos could not be read.
    """
    from oneformer.actions.inference import Predictions, raise_failed
    from oneformer.data.labels import LabelMap
    from oneformer.predict.parts import merge
    from oneformer.predict.writer import PredictionWriter
    from oneformer.runs import StatusLog

    ray = connected(cluster)
    kind, count = workers(spec, ray.cluster_resources())
    path = folder.path.absolute()
    with StatusLog(folder.status, "inference") as status:
        folder.write_experiment(to_dict(given))
        chunks = _chunks(found.files, max(1, CHUNK // _batch(spec)) * _batch(spec))
        _agree(spec, found, path, len(chunks))
        left = [chunk for chunk in chunks if not _part(path, chunk.number).is_file()]
        log.info("%d images, %d of %d chunks are left", len(found.files), len(left), len(chunks))
        began = time.monotonic()
        if left:
            actor = ray.remote(**kind)(Worker)
            told = to_dict(_for_worker(spec)), str(found.root.absolute()), str(path)
            _Run(ray, lambda: actor.remote(*told), min(count, len(left)), left).run()
        seconds = time.monotonic() - began
        known = json.loads((path / PARTS / MODEL).read_text(encoding="utf-8"))
        about = {"checkpoint": Path(spec.inference.checkpoint).name, "passed_over": len(found.others)}
        labels, tasks = LabelMap.from_dict(known["labels"]), tuple(known["tasks"])
        writer = PredictionWriter(path, labels, tasks=tasks, overlay=spec.inference.overlay, keep="part", about=about)
        whole = merge(writer, [_part(path, chunk.number) for chunk in chunks])
        shutil.rmtree(path / PARTS)
        status.running(f"Predicted {whole.images} of {len(found.files)} images.")
        raise_failed(whole.failed, found, whole.images, path)
    return Predictions(path, tasks, whole.images, seconds, whole.files)


def connected(cluster: str) -> Any:
    """Ray, joined to a cluster; `auto` is the one that this machine belongs to. Raises UserError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", extra="ray", needed_for="--cluster") from error
    if not ray.is_initialized():
        try:
            ray.init(address=cluster, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            hint = "ray start --head starts one on this machine, ray start --address=HOST:6379 joins one"
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"there is no Ray cluster: {reason}", where=f"--cluster {cluster}", hint=hint) from error
    return ray


def workers(spec: ExperimentSpec, there: dict[str, float]) -> tuple[dict[str, float], int]:
    """What each worker holds and how many there are: as many as there is room for, or as the spec asks for.

    Raises:
        SpecError: the cluster has less than is asked for.
    """
    section = spec.inference
    each, asked, room = share(section, there, threads=section.threads, key="inference")
    return each, room if asked == 1 else asked


def share(
    section: InferenceSpec | TrainSpec, there: Mapping[str, float], *, threads: int, key: str
) -> tuple[dict[str, float], int, int]:
    """What each worker holds, how many the spec asks for, and how many the cluster has room for.

    Args:
        section: the action's.
        there: what the cluster has.
        threads: processors of a worker without a GPU.
        key: the action, for the message.

    Raises:
        SpecError: the cluster has less than is asked for.
    """
    gpus = int(there.get("GPU", 0))
    on_gpu = section.accelerator == "gpu" or (section.accelerator == "auto" and gpus > 0)
    each: dict[str, float] = {"num_gpus": 1, "num_cpus": 1} if on_gpu else {"num_cpus": max(1, threads)}
    room = min(int(there.get("CPU", 0) // each["num_cpus"]), gpus if on_gpu else 10**9)
    asked = max(section.num_gpus, len(section.gpu_ids)) * section.num_nodes
    what = "GPUs" if on_gpu else f"workers of {each['num_cpus']} processors"
    if room < asked:
        raise SpecError(f"{asked} {what} are asked for, the cluster has room for {room}", where=f"{key}.num_gpus")
    return each, asked, room


def _for_worker(spec: ExperimentSpec) -> ExperimentSpec:
    """One device, and paths that do not depend on where a worker is started."""
    section = spec.inference
    file = section.checkpoint if "://" in section.checkpoint else str(Path(section.checkpoint).absolute())
    alone = replace(section, num_gpus=1, num_nodes=1, gpu_ids=[0], checkpoint=file, trt_engine="")
    return replace(spec, inference=alone, encryption_key=reading_key())


def _chunks(files: Sequence[str], size: int) -> list[Chunk]:
    from oneformer.actions.inference import named

    names = named(files)
    cut: Iterator[Sequence[str]] = (files[start : start + size] for start in range(0, len(files), size))
    return [Chunk(n, tuple(part), {file: names[file] for file in part}) for n, part in enumerate(cut)]


def _agree(spec: ExperimentSpec, found: ImageFiles, folder: Path, chunks: int) -> None:
    """Forget the chunks of an earlier start that was about something else."""
    section = {key: value for key, value in to_dict(spec)["inference"].items() if key not in _FREE}
    file = Path(spec.inference.checkpoint)
    weights = [file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else []
    about = {"inference": section, "test": to_dict(spec)["model"]["test"], "weights": weights, "chunks": chunks}
    about["files"] = hashlib.sha256("\n".join(found.files).encode()).hexdigest()
    place = folder / PARTS / RUN
    try:
        before = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before != plain(about):
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        write_json(place, about)


@dataclass
class _Run:
    """Hands chunks to workers until all are done."""

    ray: Any
    start: Callable[[], Any]
    """Starts a worker; it begins when there is room for it."""
    count: int
    chunks: Sequence[Chunk]
    actors: list[Any] = field(default_factory=list)
    waits: deque[Chunk] = field(default_factory=deque)
    flying: dict[Any, tuple[Any, Chunk, float]] = field(default_factory=dict)
    """Reference -> the worker, its chunk, and since when."""
    done: set[int] = field(default_factory=set)
    tries: Counter[int] = field(default_factory=Counter)

    def run(self) -> None:
        """Until every chunk is done. Raises UserError or WorkError, see `predict_on`."""
        from oneformer.predict.progress import Progress

        self.waits.extend(self.chunks)
        self.actors = [self.start() for _ in range(self.count)]
        try:
            with Progress("inference", sum(len(chunk.files) for chunk in self.chunks)) as progress:
                while len(self.done) < len(self.chunks):
                    self._hand_out()
                    ready, _ = self.ray.wait(list(self.flying), num_returns=1, timeout=1.0)
                    for reference in ready:
                        progress.add(self._take(reference))
        finally:
            for actor in self.actors:
                self.ray.kill(actor)

    def _hand_out(self) -> None:
        for actor in self.actors:
            while self.waits and self._load(actor) < AHEAD:
                self._give(actor, self.waits.popleft())
            if not self.waits and not self._load(actor) and (late := self._late()):
                self._give(actor, late)

    def _load(self, actor: Any) -> int:
        return sum(other is actor for other, _, _ in self.flying.values())

    def _give(self, actor: Any, chunk: Chunk) -> None:
        self.flying[actor.do.remote(chunk)] = actor, chunk, time.monotonic()

    def _late(self) -> Chunk | None:
        """A chunk that one worker alone has had for long."""
        copies = Counter(chunk.number for _, chunk, _ in self.flying.values())
        for _, chunk, since in self.flying.values():
            if copies[chunk.number] == 1 and time.monotonic() - since > LATE_S:
                return chunk
        return None

    def _take(self, reference: Any) -> int:
        """Photos that are done by what a worker has answered."""
        actor, chunk, _ = self.flying.pop(reference)
        try:
            told = self.ray.get(reference)
        except self.ray.exceptions.RayActorError as error:
            self._lost(actor, chunk, error)
            return 0
        except self.ray.exceptions.RayTaskError as error:
            raise WorkError(f"a worker failed: {str(error.cause or error).strip()}", where=chunk.files[0]) from error
        if "fault" in told:
            what, where, hint = told["fault"]
            raise (WorkError if told["failed"] else UserError)(what, where=where, hint=hint)
        if chunk.number in self.done:
            return 0
        self.done.add(chunk.number)
        return len(chunk.files)

    def _lost(self, actor: Any, chunk: Chunk, error: Exception) -> None:
        """Give a chunk whose worker is gone to another one, and start a new worker in the lost one's place."""
        self.actors = [self.start() if other is actor else other for other in self.actors]
        self.tries[chunk.number] += 1
        if self.tries[chunk.number] >= TRIES:
            last = str(error).strip().splitlines()
            hint = f"one of its images may be at fault: {chunk.files[0]} to {chunk.files[-1]}"
            raise WorkError(f"{TRIES} workers ended over one chunk, the last: {last[0] if last else error}", hint=hint)
        copy = any(other.number == chunk.number for _, other, _ in self.flying.values())
        if chunk.number not in self.done and not copy:
            log.warning("a worker is gone: its %d images are done again", len(chunk.files))
            self.waits.appendleft(chunk)
