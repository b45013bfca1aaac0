"""A spec -> the photos that value ranges are measured on, ready for the network; every one passes with every task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oneformer.data.decode import SUFFIXES, read_image
from oneformer.data.files import missing
from oneformer.data.formats import read_records
from oneformer.data.labels import read_labels
from oneformer.data.task import allowed_tasks
from oneformer.engines.about import INPUTS
from oneformer.engines.base import Engine
from oneformer.engines.graph import GraphEngine
from oneformer.errors import DataError, SpecError
from oneformer.export.images import ready
from oneformer.spec import ExperimentSpec

KEY = "dataset.quant_calibration_dataset.images_dir"


@dataclass(frozen=True)
class Calibration:
    """Photos to measure on."""

    files: Sequence[Path]
    source: str
    """Where they come from, for people."""
    tasks: tuple[str, ...]
    max_mpx: float

    def images(self, engine: Engine) -> Iterator[Tensor]:
        """Normalised float32 (1, 3, H, W), one photo at a time, of the size that the engine takes."""
        for file in self.files:
            yield ready(read_image(file, max_mpx=self.max_mpx), engine.info, name=file.name).images

    def feeds(self, engine: GraphEngine) -> Iterator[dict[str, Any]]:
        """Inputs of a graph by name, as arrays: each photo with the tokens of each task in turn."""
        for images in self.images(engine):
            pixels = engine.as_input(images)
            pixels = pixels.expand(engine.batch_size or 1, *pixels.shape[1:])
            for task in self.tasks:
                tokens = engine.task_tokens[task].expand(len(pixels), -1)
                arrays = (np.ascontiguousarray(value.numpy()) for value in (pixels, tokens))
                yield dict(zip(INPUTS, arrays, strict=True))

    def __str__(self) -> str:
        return f"{len(self.files)} images of {self.source}, each with the tasks {', '.join(self.tasks)}"


def calibration(spec: ExperimentSpec, engine: Engine) -> Calibration:
    """`quantize.calibration_images` photos of the calibration folder, or where none is named of the training data.

    Raises:
        SpecError: neither is named.
        DataError: the folder is missing or holds no image.
    """
    folder = spec.dataset.quant_calibration_dataset.images_dir
    if folder:
        files, source = images_of(Path(folder)), folder
    elif spec.dataset.train.annotations:
        labels = read_labels(spec.dataset, splits=("train",))
        records = read_records(spec.dataset, "train", labels)
        files, source = [Path(record.image_path) for record in records], "dataset.train"
    else:
        hint = "name a folder of some dozens of photos like those the model will see"
        raise SpecError("static quantization measures on images, and none are named", where=KEY, hint=hint)
    count = min(spec.quantize.calibration_images, len(files))
    places = np.linspace(0, len(files) - 1, count).round().astype(int)
    tasks = allowed_tasks(engine.info.model.task_toggling)
    return Calibration([files[i] for i in places], source, tasks, spec.dataset.max_image_mpx)


def images_of(folder: Path) -> list[Path]:
    """The images in a folder and the folders below it, by name. Raises DataError when there are none."""
    if not folder.is_dir():
        raise missing(folder, what="calibration folder")
    files = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(SUFFIXES) and path.is_file())
    if not files:
        hint = f"images end in {', '.join(SUFFIXES)}"
        raise DataError("the calibration folder holds no image", where=str(folder), hint=hint)
    return files


@torch.inference_mode()
def pass_through(engine: Engine, photos: Calibration) -> None:
    """Run every photo with every task through the network, for whoever watches its layers."""
    for images in photos.images(engine):
        engine.outputs(images, photos.tasks)
