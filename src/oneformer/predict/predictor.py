"""A weight file -> a Predictor: photos in, segments at the photos' own size out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from oneformer.data.batch import padded_size
from oneformer.data.decode import MAX_MPX, read_image, to_rgb
from oneformer.data.sample import prepare_image
from oneformer.data.sizes import Sizes
from oneformer.engines.open import open_engine
from oneformer.errors import DataError, UserError
from oneformer.predict.result import Parts, Result
from oneformer.runs.key import using
from oneformer.segments import encoded_instances, panoptic, semantic_map
from oneformer.segments.types import TASKS, Outputs, Rules

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap
    from oneformer.engines.base import Engine

Photo = NDArray[np.uint8]


def load(
    path: str | Path,
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    threads: int = 0,
    key: str = "",
) -> Predictor:
    """Open a weight file for prediction.

    Args:
        path: a checkpoint of `oneformer train` (.pth), a file of `oneformer export` (.onnx, OpenVINO's .xml, .pt2), or
            a Hugging Face folder of a OneFormer.
        engine: what runs it: `torch`, `onnxruntime`, `openvino`, `program`, or `auto`: what fits the file.
        precision: number format of the forward pass: `fp32`, `bf16`, `fp16`, or `auto`: what is fast on the device.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`: a GPU when there is one.
        threads: threads on the CPU; 0 takes as many as torch does.
        key: opens an encrypted file; empty takes that of ONEFORMER_ENCRYPTION_KEY.

    Raises:
        UserError: the file is missing or of a kind this version does not open, or the engine or device does not exist.
    """
    with using(key):
        return Predictor(open_engine(path, engine, precision=precision, device=device, threads=threads))


class Predictor:
    """A model ready to look at photos. `load` makes one.

    Args:
        engine: what computes the outputs.
        rules: thresholds of the post-processing; the checkpoint's own when None.
        sizes: scaling of the photos; the checkpoint's own when None. Where the file fixes its input's size, photos are
            fitted into that.
    """

    def __init__(self, engine: Engine, *, rules: Rules | None = None, sizes: Sizes | None = None) -> None:
        self.engine = engine
        self.rules = rules or Rules.from_spec(engine.info.test, engine.labels.is_thing)
        self.sizes = sizes or Sizes(engine.info.test_min_size, engine.info.test_max_size)
        if engine.info.input_size:
            self.sizes = replace(self.sizes, fit=engine.info.input_size)

    def __repr__(self) -> str:
        return f"Predictor({self.labels.num_classes} classes, {self.engine})"

    @property
    def labels(self) -> LabelMap:
        """The model's classes."""
        return self.engine.labels

    def predict(self, images: Any, task: str | Sequence[str] = "panoptic", *, batch_size: int = 1) -> Any:
        """Segment one photo, or each of a list.

        Args:
            images: a path, a PIL image, a uint8 array (H, W, 3) in RGB order, or a list of these.
            task: `semantic`, `instance`, `panoptic`, or several of them: the image features are computed once.
            batch_size: photos of a list that go through the network together (when they have one shape).

        Returns:
            a Result, or a list of them in the order of `images`.
        """
        tasks = checked_tasks(task)
        if not isinstance(images, list | tuple):
            return next(self.stream([images], tasks))
        return list(self.stream(images, tasks, batch_size=batch_size))

    def stream(
        self, images: Sequence[Any], task: str | Sequence[str] = "panoptic", *, batch_size: int = 1
    ) -> Iterator[Result]:
        """Like `predict` for a list, one result at a time: at most `batch_size` photos are in memory."""
        tasks = checked_tasks(task)
        for start in range(0, len(images), max(1, batch_size)):
            part = images[start : start + max(1, batch_size)]
            photos = [open_photo(image, number=start + i) for i, image in enumerate(part)]
            for (name, photo), parts in zip(photos, self.segment([p for _, p in photos], tasks), strict=True):
                yield Result(photo, self.labels, parts, name=name, min_score=self.rules.object_mask_threshold)

    def outputs(self, images: Any, task: str | Sequence[str] = "panoptic") -> Any:
        """The network's own outputs, before any decision.

        Args:
            images: float32 (B, 3, H, W), normalised with the checkpoint's mean and deviation, H and W multiples of 32
                (for a graph of fixed size: that size).

        Returns:
            `Outputs` with class logits (B, Q, K+1) and mask logits (B, Q, H/4, W/4); a dict of them for several tasks.
        """
        tensor = torch.as_tensor(images)
        if tensor.ndim != 4 or tensor.shape[1] != 3 or tensor.dtype != torch.float32:
            got = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
            raise UserError(
                f"outputs() takes normalised float32 (B, 3, H, W), got {got}", hint="for photos use predict()"
            )
        tasks = checked_tasks(task)
        found = self.engine.outputs(tensor, tasks)
        return found[tasks[0]] if isinstance(task, str) else found

    def segment(self, photos: Sequence[Photo], tasks: Sequence[str]) -> list[Parts]:
        """Photos uint8 (H, W, 3) -> their segments.

        Only photos of one network shape share a batch: nobody's padding, and so nobody's result, depends on the others.
        """
        info = self.engine.info
        ready = [
            prepare_image(p, mean=info.pixel_mean, std=info.pixel_std, **self.sizes.limits(*p.shape[:2]))
            for p in photos
        ]
        groups: dict[tuple[int, int], list[int]] = {}
        for i, (_, size) in enumerate(ready):
            padded = info.input_size or padded_size([size], size_divisibility=info.size_divisibility)
            groups.setdefault(padded, []).append(i)
        parts: list[Parts | None] = [None] * len(photos)
        for (height, width), members in groups.items():
            batch = torch.zeros(len(members), 3, height, width)  # (B, 3, H, W)
            for row, i in enumerate(members):
                image, (h, w) = ready[i]
                batch[row, :, :h, :w] = image
            outputs = self.engine.outputs(batch, tasks)
            for row, i in enumerate(members):
                sizes = {"input_size": (height, width), "size": ready[i][1], "original_size": photos[i].shape[:2]}
                parts[i] = self.parts(outputs, row, sizes)
        return [p for p in parts if p is not None]

    def parts(self, outputs: dict[str, Outputs], row: int, sizes: dict[str, Any]) -> Parts:
        """The outputs of one image of a batch -> its segments at the photo's own size.

        Args:
            outputs: per task, for the batch.
            row: the image's place in it.
            sizes: input_size (padded), size (within it) and original_size, each (height, width).
        """
        logits = {task: (out.class_logits[row], out.mask_logits[row]) for task, out in outputs.items()}
        return Parts(
            semantic=semantic_map(*logits["semantic"], **sizes) if "semantic" in logits else None,
            panoptic=panoptic(*logits["panoptic"], **sizes, rules=self.rules) if "panoptic" in logits else None,
            instance=encoded_instances(*logits["instance"], **sizes, rules=self.rules)
            if "instance" in logits
            else None,
        )


def checked_tasks(task: str | Sequence[str]) -> tuple[str, ...]:
    """The tasks in the fixed order. Raises UserError for none or an unknown one, with the nearest."""
    asked = (task,) if isinstance(task, str) else tuple(task)
    for name in asked:
        if name not in TASKS:
            near = difflib.get_close_matches(str(name), TASKS, n=1)
            guess = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(
                f"there is no task {name!r}{guess}", hint=f"tasks are {', '.join(TASKS)}, or a tuple of them"
            )
    if not asked:
        raise UserError("no task was asked for", hint=f"tasks are {', '.join(TASKS)}, or a tuple of them")
    return tuple(t for t in TASKS if t in asked)


def open_photo(image: Any, *, number: int = 0, max_mpx: float = MAX_MPX) -> tuple[str, Photo]:
    """What a user calls an image -> its name and pixels uint8 (H, W, 3). Raises UserError for anything else."""
    name = f"image_{number}"
    if isinstance(image, str | Path):
        return Path(image).name, read_image(image, max_mpx=max_mpx)
    if isinstance(image, Image.Image):
        given = Path(str(getattr(image, "filename", "") or "")).name
        try:
            return given or name, np.asarray(to_rgb(ImageOps.exif_transpose(image), where=given or name))
        except (OSError, SyntaxError) as error:  # Pillow decodes when pixels are first asked for
            raise DataError(f"the image is broken: {error}", where=given or name) from None
    hint = "give a path, a PIL image, or a uint8 array (H, W, 3) in RGB order"
    if not isinstance(image, np.ndarray):
        also = "; tensors go to outputs()" if isinstance(image, torch.Tensor) else ""
        raise UserError(f"a {type(image).__name__} is no image", where=name, hint=hint + also)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UserError(f"an array of {image.dtype} {image.shape} is no image", where=name, hint=hint)
    return name, np.ascontiguousarray(image)
