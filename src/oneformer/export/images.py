"""A spec -> the images on which a checkpoint and its exported file are compared, ready for the network."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer.data.batch import Batch, collate
from oneformer.data.decode import SUFFIXES, read_image
from oneformer.data.formats import read_records
from oneformer.data.labels import LabelMap, read_labels
from oneformer.data.loader import eval_loader
from oneformer.data.sample import Norm, Sample, planes, scale_image
from oneformer.data.sizes import Sizes
from oneformer.data.tokens import task_tokenizer
from oneformer.engines.base import EngineInfo
from oneformer.errors import DataError, UserError
from oneformer.spec import DatasetSpec, ExperimentSpec

log = logging.getLogger(__name__)

GENERATED_SIZES = ((480, 640), (640, 480), (512, 512), (360, 640))  # (height, width) in turn


@dataclass(frozen=True)
class Images:
    """Batches of one image each; with their truths when `scored`."""

    batches: Sequence[Batch]
    source: str
    """Where they come from, for people."""
    scored: bool = False


def choose_images(spec: ExperimentSpec, info: EngineInfo, labels: LabelMap) -> Images:
    """At most `export.parity_images` images, from the first of the places that `export.parity_images_dir` lists.

    Args:
        spec: its export, dataset and inference sections are used.
        info: of the exported file; where that fixes the size, images are fitted into it.
        labels: of the checkpoint: annotations with other classes give no scores.

    Raises:
        DataError: a folder that the spec names for this holds no image, or a broken one.
    """
    count = spec.export.parity_images
    if spec.export.parity_images_dir:
        return _of_folder(Path(spec.export.parity_images_dir), info, count)
    for split in ("test", "val"):
        if getattr(spec.dataset, split).annotations:
            try:
                return _annotated(spec.dataset, split, info, labels, count=count)
            except UserError as error:
                log.warning("dataset.%s is not used for the comparison: %s", split, error.message)
    if spec.inference.images_dir and Path(spec.inference.images_dir).is_dir():
        return _of_folder(Path(spec.inference.images_dir), info, count)
    scenes = (generated(GENERATED_SIZES[i % len(GENERATED_SIZES)], seed=i) for i in range(count))
    batches = [ready(pixels, info, name=f"generated_{i}") for i, pixels in enumerate(scenes)]
    return Images(batches, f"{count} generated images; export.parity_images_dir names real ones")


def _annotated(dataset: DatasetSpec, split: str, info: EngineInfo, labels: LabelMap, *, count: int) -> Images:
    """The first images of a split, in file order. Raises UserError when they are no use for this checkpoint."""
    given = read_labels(dataset, splits=(split,))
    if (given.names, given.is_thing) != (labels.names, labels.is_thing):
        raise DataError("its classes are not those of the checkpoint")
    records = read_records(dataset, split, given)[:count]
    sizes = replace(dataset.augmentation, test_min_size=info.test_min_size, test_max_size=info.test_max_size)
    part = replace(getattr(dataset, split), batch_size=1, num_workers=0)
    as_trained = replace(
        dataset,
        pixel_mean=list(info.pixel_mean),
        pixel_std=list(info.pixel_std),
        augmentation=sizes,
        **{split: part},
    )
    batches = list(eval_loader(as_trained, records, split=split, model=info.model, fit=info.input_size))
    return Images(batches, f"the first {len(batches)} images of dataset.{split}", scored=True)


def _of_folder(folder: Path, info: EngineInfo, count: int) -> Images:
    files = list(islice(_images_in(folder), count))
    if not files:
        raise DataError("the folder holds no image", where=str(folder), hint=f"images end in {', '.join(SUFFIXES)}")
    return Images([ready(read_image(file), info, name=file.name) for file in files], f"{len(files)} images of {folder}")


def _images_in(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
    elif folder.is_dir():
        yield from sorted(p for p in folder.rglob("*") if p.name.lower().endswith(SUFFIXES))


def ready(pixels: NDArray[np.uint8], info: EngineInfo, *, name: str) -> Batch:
    """A photo uint8 (H0, W0, 3) -> a batch of one, as the predictor makes it."""
    sizes = Sizes(info.test_min_size, info.test_max_size, fit=info.input_size)
    height, width = pixels.shape[:2]
    limits = sizes.limits(height, width)
    scaled = scale_image(pixels, **limits)
    size = (scaled.shape[0], scaled.shape[1])
    sample = Sample(planes(scaled), size, (height, width), "panoptic", [], None, None, name, 0)
    tokenizer = task_tokenizer(info.model.text_encoder)
    step = 1 if info.input_size else info.size_divisibility
    parcel = collate(
        [sample],
        norm=Norm(tuple(info.pixel_mean), tuple(info.pixel_std)),
        task_tokenizer=tokenizer,
        text_tokenizer=tokenizer,
        size_divisibility=step,
        pad_to=info.input_size,
    )
    return parcel.to("cpu")


def generated(size: tuple[int, int], *, seed: int) -> NDArray[np.uint8]:
    """A scene uint8 (H, W, 3) with a horizon, disks and boxes of many sizes, stripes and noise: nothing is flat."""
    rng = np.random.default_rng(seed)
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    sky, ground = rng.uniform(60, 220, (2, 3))
    horizon = height * rng.uniform(0.3, 0.6)
    photo = np.where((rows < horizon)[..., None], sky + 40 * (rows / height)[..., None], ground)  # (H, W, 3)
    photo += 20 * np.sin(columns / rng.uniform(4, 20))[..., None]
    for _ in range(24):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        radius = rng.uniform(0.01, 0.15) * min(size)
        if rng.random() < 0.5:
            where = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        else:
            where = (abs(rows - y) < radius) & (abs(columns - x) < radius * rng.uniform(0.3, 3))
        photo[where] = rng.uniform(0, 255, 3)
    return np.clip(photo + rng.normal(0, 6, photo.shape), 0, 255).astype(np.uint8)
