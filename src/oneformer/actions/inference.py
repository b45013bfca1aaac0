"""A spec with a weight file and a folder of photos -> label maps, segments, instances and overlays of each photo."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.actions.around import action
from oneformer.actions.plan import Plan
from oneformer.errors import DataError, SpecError, WorkError
from oneformer.runs import RunFolder, StatusLog, run_path
from oneformer.spec.tree import to_dict

if TYPE_CHECKING:
    from oneformer.engines.base import Engine
    from oneformer.predict.files import ImageFiles
    from oneformer.predict.predictor import Photo, Predictor
    from oneformer.predict.ranks import Rank
    from oneformer.predict.writer import PredictionWriter
    from oneformer.spec import ExperimentSpec

log = logging.getLogger(__name__)

NAMED = 10  # broken files named in the final message; the index names all


@dataclass(frozen=True)
class Predictions:
    """What was predicted and where it lies."""

    folder: Path
    tasks: tuple[str, ...]
    images: int
    seconds: float
    files: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON; the photos themselves are in predictions.json."""
        return {
            "folder": str(self.folder),
            "index": str(self.folder / "predictions.json"),
            "tasks": list(self.tasks),
            "images": self.images,
            "seconds": round(self.seconds, 3),
            "files": self.files,
        }

    def table(self) -> str:
        """How many files of each kind were written."""
        from oneformer.report.tables import align

        rows = [(name, str(count)) for name, count in self.files.items()]
        speed = self.images / max(self.seconds, 1e-9)
        head = f"{self.images} images in {self.seconds:.1f} s ({speed:.2f} images/s): {', '.join(self.tasks)}"
        return f"{head}\n\n{align((f'in {self.folder}', 'files'), rows)}"


@action("inference")
def run(spec: ExperimentSpec, *, dry_run: bool = False, cluster: str = "") -> Predictions | Plan | None:
    """Predict every image of `inference.images_dir` with `inference.checkpoint`.

    Images that cannot be read are left out and named at the end; the others are done all the same. After an interrupt
    the JSON files hold what was done (by this process). With several processes all but the first return None.

    Args:
        spec: what is asked for.
        dry_run: tell the files and stop.
        cluster: Ray cluster that does the work: `auto` or an address; see `actions/cluster.py`.

    Raises:
        UserError: the request cannot be fulfilled (no image, no weights).
        WorkError: everything was done but some images could not be read.
    """
    from oneformer.data.sources import fetched, planned
    from oneformer.data.sources.address import is_archive
    from oneformer.predict.files import find_images
    from oneformer.predict.setup import check_request, with_engine

    spec = with_engine(spec, "inference")
    section = spec.inference
    # A cluster has devices of its own.
    here = replace(section, num_gpus=1, num_nodes=1, gpu_ids=[0], accelerator="auto") if cluster else section
    check_request(here, key="inference")
    path = run_path(spec.results_dir, "inference", section_dir=section.results_dir)
    plan, fetches = planned(spec, "inference")
    if not plan.inference.images_dir:
        raise SpecError("no images are named", where="inference.images_dir", hint="set it to a folder or an image file")
    if dry_run and (fetches or is_archive(plan.inference.images_dir)):
        return _plan(plan, None, path, fetches)
    given, spec = spec, plan if dry_run else fetched(spec, "inference")
    section = spec.inference
    found = find_images(section.images_dir, recursive=section.recursive, exclude=path)
    if dry_run:
        return _plan(spec, found, path)
    folder = RunFolder(spec.results_dir, "inference", section_dir=section.results_dir)
    if cluster:
        from oneformer.actions.cluster import predict_on

        return predict_on(cluster, spec, found, folder=folder, given=given)
    return _predict(spec, found, folder, given)


def _predict(spec: ExperimentSpec, found: ImageFiles, folder: RunFolder, given: ExperimentSpec) -> Predictions | None:
    """Predict with the processes that the spec asks for; `given` is the spec as it is written down."""
    from oneformer.predict.ranks import group, is_first
    from oneformer.predict.setup import chosen_tasks, open_engine
    from oneformer.predict.writer import PredictionWriter

    section = spec.inference
    first = is_first(spec, "inference")
    with StatusLog(folder.status, "inference", enabled=first) as status:
        if first:
            folder.write_experiment(to_dict(given))
            log.info("%d images, %d other files passed over", len(found.files), len(found.others))
        with group(spec, "inference", status=status) as rank:
            engine = open_engine(section, device=rank.device)
            tasks = chosen_tasks(section.mode, engine, key="inference.mode")
            about = {"checkpoint": Path(section.checkpoint).name, "passed_over": len(found.others)}
            with PredictionWriter(
                folder.path,
                engine.labels,
                tasks=tasks,
                overlay=section.overlay,
                about=about,
                keep="new" if first else "part",
            ) as writer:
                seconds = predict_all(spec, make_predictor(spec, engine), writer, found=found, rank=rank)
                writer.absorb(rank.gather(writer.part())[1:], order=found.files)
        if not first:
            return None
        status.running(f"Predicted {len(writer.images)} of {len(found.files)} images.")
        raise_failed(writer.failed, found, len(writer.images), writer.folder)
    return Predictions(folder.path, tasks, len(writer.images), seconds, writer.counts())


def make_predictor(spec: ExperimentSpec, engine: Engine) -> Predictor:
    """The engine with the spec's thresholds, and its sizes where it sets some."""
    from oneformer.data.sizes import Sizes
    from oneformer.predict.predictor import Predictor
    from oneformer.segments import Rules

    info = engine.info
    fit = (spec.inference.image_size[1], spec.inference.image_size[0]) if spec.inference.image_size else None
    if fit and info.input_size and fit != info.input_size:
        height, width = info.input_size
        raise SpecError(
            f"the exported file takes images of [{width}, {height}] only",
            where="inference.image_size",
            hint="leave it empty, or export with export.dynamic_size=true",
        )
    sizes = Sizes(info.test_min_size, info.test_max_size, fit=fit)
    return Predictor(engine, rules=Rules.from_spec(spec.model.test, engine.labels.is_thing), sizes=sizes)


def predict_all(
    spec: ExperimentSpec, predictor: Predictor, writer: PredictionWriter, *, found: ImageFiles, rank: Rank
) -> float:
    """Predict and write this process's share of the photos, read ahead by one batch; returns the seconds it took."""
    from oneformer.data.loader import share
    from oneformer.predict.progress import Progress

    names = named(found.files)
    batch_size = spec.inference.batch_size if spec.inference.batch_size > 0 else spec.dataset.test.batch_size
    own = share(found.files, batch_size=batch_size, rank=rank.number, world_size=rank.world_size)
    mine = replace(found, files=tuple(own))
    with Progress("inference", len(mine.files), quiet=not rank.first) as progress:
        for batch in read_ahead(mine, batch_size=batch_size, max_mpx=spec.dataset.max_image_mpx):
            predict_batch(predictor, writer, batch, names)
            progress.add(len(batch))
        return progress.seconds


def named(files: Sequence[str]) -> dict[str, tuple[str, int]]:
    """File -> the name of its results and its number in the JSON files; they depend on all files together."""
    from oneformer.predict.files import distinct_names, image_ids

    stems = distinct_names(files)
    return dict(zip(files, zip(stems.values(), image_ids(list(stems.values())), strict=True), strict=True))


def predict_batch(
    predictor: Predictor,
    writer: PredictionWriter,
    batch: Sequence[tuple[str, Photo | DataError]],
    names: Mapping[str, tuple[str, int]],
) -> None:
    """Predict and write some photos; those that could not be read are noted."""
    from oneformer.predict.result import Result

    photos: list[tuple[str, Photo]] = []
    for file, photo in batch:
        if isinstance(photo, DataError):
            log.warning("left out: %s", photo.message)
            writer.fail(file, photo.what)
        else:
            photos.append((file, photo))
    start = time.perf_counter()
    parts = predictor.segment([photo for _, photo in photos], writer.tasks)
    each = (time.perf_counter() - start) / max(1, len(photos))
    for (file, photo), part in zip(photos, parts, strict=True):
        limit = predictor.rules.object_mask_threshold
        result = Result(photo, predictor.labels, part, name=file, min_score=limit)
        stem, number = names[file]
        writer.add(result, file=file, stem=stem, image_id=number, seconds=each)


def read_ahead(
    found: ImageFiles, *, batch_size: int, max_mpx: float
) -> Iterator[Sequence[tuple[str, Photo | DataError]]]:
    """Batches of (file, photo or what is wrong with it), the next one decoded in a thread while this one is used."""
    from concurrent.futures import ThreadPoolExecutor

    def read(start: int) -> list[tuple[str, Photo | DataError]]:
        return [(file, _photo(found.root / file, max_mpx)) for file in found.files[start : start + batch_size]]

    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(read, 0)
        for start in range(0, len(found.files), batch_size):
            batch = coming.result()
            if start + batch_size < len(found.files):
                coming = pool.submit(read, start + batch_size)
            yield batch


def _photo(path: Path, max_mpx: float) -> Photo | DataError:
    from oneformer.data.decode import read_image

    try:
        return read_image(path, max_mpx=max_mpx)
    except DataError as error:
        return error


def raise_failed(failed: Sequence[dict[str, Any]], found: ImageFiles, done: int, folder: Path) -> None:
    """Raises WorkError when photos could not be read, with the first of them."""
    if not failed:
        return
    lines = [f"{item['file']}: {item['reason']}" for item in failed[:NAMED]]
    more = len(failed) - len(lines)
    rest = f"\n  and {more} more" if more else ""
    raise WorkError(
        f"{len(failed)} of {len(found.files)} images could not be read:\n  " + "\n  ".join(lines) + rest,
        where=str(found.root),
        hint=f"the other {done} are done, see {folder / 'predictions.json'}",
    )


def _plan(spec: ExperimentSpec, found: ImageFiles | None, folder: Path, fetches: Sequence[str] = ()) -> Plan:
    section = spec.inference
    images = section.images_dir
    if found is not None:
        images = f"{found.root} ({len(found.files)} images, {len(found.others)} other files passed over)"
    wanted = {
        "semantic/": ("semantic", "all"),
        "panoptic/": ("panoptic", "all"),
        "panoptic.json": ("panoptic", "all"),
        "instances.json": ("instance", "all"),
    }
    names = ["experiment.yaml", "status.json", *(name for name, modes in wanted.items() if section.mode in modes)]
    names += [*(["overlays/"] if section.overlay else []), "predictions.json"]
    return Plan({"checkpoint": section.checkpoint, "images": images}, [str(folder / name) for name in names], fetches)


if __name__ == "__main__":
    from oneformer.actions.plan import run_as_rank

    run_as_rank(run)
