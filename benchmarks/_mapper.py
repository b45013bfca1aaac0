"""COCO panoptic files -> training samples the usual way: a stack of boolean masks, made in the worker.

Written for the comparison, after the description of what OneFormer's own data mapper, NVIDIA TAO's and Hugging Face's
image processor do alike: the photo and the labels are scaled whole, cropped and padded to the final size, there is one
mask for each segment, and all of it travels as it will be used. They differ in two things, which `WAYS` tells. The
rules of the recipe (large-scale jitter, crop, mirroring, SSD's colours) and its chances are ours, so both sides make
samples of the same kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.utils.data import Dataset

from oneformer.data.task import FILLERS, TASKS, object_text
from oneformer.data.tokens import Tokenizer

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SCALES = (0.1, 2.0)
TEXTS = 134
MASKS, MAP, BYTES = "mask by mask", "map, then masks", "map, then masks, floats last"
"""What is scaled, and where floats are made.

Every mask is scaled by itself, as libraries of augmentations do with a list of masks; or one map of ids is, and the
masks are made of what is left of it, as Hugging Face's processor does; or that, and the photo travels as bytes and is
normalised where the batch arrives, as OneFormer's own mapper and model do.
"""
WAYS = (MASKS, MAP, BYTES)


class Library(Protocol):
    """What is needed of a library for images."""

    def read(self, path: Path) -> np.ndarray:
        """uint8 (H, W, 3), red first."""

    def scale(self, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
        """A photo at another size, bilinear."""

    def scale_map(self, ids: np.ndarray, height: int, width: int) -> np.ndarray:
        """A mask or a map of ids at another size, nearest."""

    def recolor(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """SSD's four changes, each with probability a half."""


class OpenCv:
    """OpenCV, on one thread: workers share the machine."""

    def __init__(self) -> None:
        import cv2

        self.cv = cv2

    def read(self, path: Path) -> np.ndarray:
        """See `Library`."""
        self.cv.setNumThreads(0)
        return self.cv.cvtColor(self.cv.imread(str(path)), self.cv.COLOR_BGR2RGB)

    def scale(self, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
        """See `Library`."""
        return self.cv.resize(pixels, (width, height), interpolation=self.cv.INTER_LINEAR)

    def scale_map(self, ids: np.ndarray, height: int, width: int) -> np.ndarray:
        """See `Library`."""
        return self.cv.resize(ids, (width, height), interpolation=self.cv.INTER_NEAREST)

    def recolor(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See `Library`."""
        if rng.random() < 0.5:
            pixels = _affine(pixels, 1.0, rng.uniform(-32, 32))
        first = rng.random() < 0.5
        if first and rng.random() < 0.5:
            pixels = _affine(pixels, rng.uniform(0.5, 1.5), 0.0)
        if rng.random() < 0.5:
            hsv = self.cv.cvtColor(pixels, self.cv.COLOR_RGB2HSV)
            hsv[..., 1] = _affine(hsv[..., 1], rng.uniform(0.5, 1.5), 0.0)
            pixels = self.cv.cvtColor(hsv, self.cv.COLOR_HSV2RGB)
        if rng.random() < 0.5:
            hsv = self.cv.cvtColor(pixels, self.cv.COLOR_RGB2HSV)
            hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(-18, 19)) % 180
            pixels = self.cv.cvtColor(hsv, self.cv.COLOR_HSV2RGB)
        return pixels if first or rng.random() >= 0.5 else _affine(pixels, rng.uniform(0.5, 1.5), 0.0)


class Pillow:
    """Pillow."""

    def read(self, path: Path) -> np.ndarray:
        """See `Library`."""
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))

    def scale(self, pixels: np.ndarray, height: int, width: int) -> np.ndarray:
        """See `Library`."""
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))

    def scale_map(self, ids: np.ndarray, height: int, width: int) -> np.ndarray:
        """See `Library`."""
        return np.asarray(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST))

    def recolor(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See `Library`."""
        if rng.random() < 0.5:
            pixels = _affine(pixels, 1.0, rng.uniform(-32, 32))
        image = Image.fromarray(pixels)
        if rng.random() < 0.5:
            image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.5, 1.5))
        if rng.random() < 0.5:
            image = ImageEnhance.Color(image).enhance(rng.uniform(0.5, 1.5))
        if rng.random() < 0.5:
            hsv = np.array(image.convert("HSV"))
            hsv[..., 0] += np.uint8(rng.integers(-25, 26) % 256)
            image = Image.fromarray(hsv, "HSV").convert("RGB")
        return np.asarray(image)


def _affine(pixels: np.ndarray, factor: float, shift: float) -> np.ndarray:
    return np.clip(pixels.astype(np.float32) * factor + shift, 0, 255).astype(np.uint8)


@dataclass
class MaskSamples(Dataset[dict[str, Any]]):
    """One sample for each annotation: `image` float32 (3, H, W), `masks` bool (N, H, W), `labels`, tokens of texts.

    Args:
        folder: COCO panoptic data: images/, panoptic/, annotations.json.
        library: what images are read and scaled with.
        way: one of `WAYS`.
        colors: change colours.
        side: of the crop.
    """

    folder: Path
    library: Library
    way: str
    colors: bool
    side: int

    def __post_init__(self) -> None:
        content = json.loads((self.folder / "annotations.json").read_text(encoding="utf-8"))
        self.annotations = content["annotations"]
        self.names = {image["id"]: image["file_name"] for image in content["images"]}
        self.classes = {category["id"]: i for i, category in enumerate(content["categories"])}
        self.words = [category["name"] for category in content["categories"]]
        self.tokenizer = Tokenizer()

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng()
        annotation, side = self.annotations[index], self.side
        photo = self.library.read(self.folder / "images" / self.names[annotation["image_id"]])
        colored = self.library.read(self.folder / "panoptic" / annotation["file_name"]).astype(np.int32)
        ids = colored[..., 0] + 256 * colored[..., 1] + 65536 * colored[..., 2]  # (H, W)
        factor = side * rng.uniform(*SCALES) / max(ids.shape)
        height, width = (max(1, round(length * factor)) for length in ids.shape)
        top, left = (int(rng.integers(0, max(0, length - side) + 1)) for length in (height, width))
        crop = np.s_[top : top + side, left : left + side]
        step = -1 if rng.random() < 0.5 else 1

        photo = self.library.scale(photo, height, width)[crop][:, ::step]
        photo = self.library.recolor(np.ascontiguousarray(photo), rng) if self.colors else photo
        segments = [s for s in annotation["segments_info"] if not s["iscrowd"]]
        masks = self._masks(ids, segments, (height, width), lambda whole: whole[crop][:, ::step])
        kept = [(mask, s["category_id"]) for mask, s in zip(masks, segments, strict=True) if mask.any()]

        image = torch.as_tensor(np.ascontiguousarray(photo.transpose(2, 0, 1)))
        border = (0, side - image.shape[2], 0, side - image.shape[1])
        image = torch.nn.functional.pad(image if self.way == BYTES else normalised(image), border)
        stack = torch.zeros(0, side, side, dtype=torch.bool)
        if kept:
            stack = torch.from_numpy(np.stack([mask for mask, _ in kept]))
            if stack.shape[1:] != (side, side):
                stack = torch.nn.functional.pad(stack, border)
        labels = [self.classes[category] for _, category in kept]
        task = TASKS[int(rng.integers(3))]
        texts = [object_text(self.words[label]) for label in labels][:TEXTS]
        texts += [FILLERS[task]] * (TEXTS - len(texts))
        return {
            "image": image,
            "masks": stack,
            "labels": torch.tensor(labels),
            "texts": self.tokenizer.encode_all(texts),
            "task": self.tokenizer.task_tokens(task),
        }

    def _masks(
        self,
        ids: np.ndarray,
        segments: Sequence[dict[str, Any]],
        size: tuple[int, int],
        cut: Callable[[np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        """What is left of each segment's mask at another size (height, width), cut out; of a map it is padded too."""
        if self.way == MASKS:
            each = ((ids == s["id"]).astype(np.uint8) for s in segments)
            return [cut(self.library.scale_map(mask, *size).astype(bool)) for mask in each]
        left = cut(self.library.scale_map(ids, *size))
        whole = np.zeros((self.side, self.side), np.int32)  # no segment has the id 0
        whole[: left.shape[0], : left.shape[1]] = left
        return [whole == s["id"] for s in segments]


def normalised(image: torch.Tensor) -> torch.Tensor:
    """uint8 (..., 3, H, W) -> float32."""
    return (image.float() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def stacked(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Samples -> a batch: what has one shape stacked, masks and labels as lists."""
    batch: dict[str, Any] = {name: torch.stack([s[name] for s in samples]) for name in ("image", "texts", "task")}
    return batch | {name: [s[name] for s in samples] for name in ("masks", "labels")}


def finished(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch as the network takes it: floats where bytes have travelled."""
    image = batch["image"]
    return batch if image.is_floating_point() else batch | {"image": normalised(image)}
