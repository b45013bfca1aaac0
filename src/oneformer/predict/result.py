"""The segments of one photo -> a result to look at, to read and to save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oneformer.errors import UserError
from oneformer.report import draw
from oneformer.segments.rle import decode

if TYPE_CHECKING:
    from PIL import Image

    from oneformer.data.labels import LabelMap
    from oneformer.segments.rle import Rle
    from oneformer.segments.types import EncodedInstances, PanopticResult

DRAW_ORDER = ("panoptic", "instance", "semantic")  # the richest picture first


@dataclass(frozen=True)
class Parts:
    """What was computed for one photo; None for tasks that were not asked for."""

    semantic: NDArray[np.integer] | None = None
    panoptic: PanopticResult | None = None
    instance: EncodedInstances | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that were asked for."""
        return tuple(task for task in ("semantic", "instance", "panoptic") if getattr(self, task) is not None)


class Masks(Sequence[NDArray[np.bool_]]):
    """Run-length encoded masks that are decoded one at a time, when they are looked at."""

    def __init__(self, rles: Sequence[Rle]) -> None:
        self.rles = rles

    def __len__(self) -> int:
        return len(self.rles)

    def __getitem__(self, index: Any) -> Any:
        return decode(self.rles[index])


class Result:
    """What the model sees in one photo, at the photo's own size.

    Only what belongs to the tasks asked for can be read; the rest raises a UserError that says which task gives it.

    Args:
        photo: uint8 (H, W, 3), upright.
        labels: the model's classes.
        parts: what was computed.
        name: the photo's file name, used to name saved files.
        min_score: instances below it are not drawn (they stay in `instances`).
    """

    def __init__(
        self, photo: NDArray[np.uint8], labels: LabelMap, parts: Parts, *, name: str = "image", min_score: float = 0.0
    ) -> None:
        self.photo = photo
        self.labels = labels
        self.parts = parts
        self.name = name
        self.min_score = min_score

    def __repr__(self) -> str:
        height, width = self.size
        return f"Result({self.name!r}, {width}x{height}, tasks={self.tasks})"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the photo in pixels."""
        return int(self.photo.shape[0]), int(self.photo.shape[1])

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks this result holds."""
        return self.parts.tasks

    @property
    def semantic_map(self) -> NDArray[np.integer]:
        """(H, W): the class id of each pixel (place in `labels.names`). Needs task semantic."""
        return self._need(self.parts.semantic, "semantic_map", "semantic")

    @property
    def panoptic_map(self) -> NDArray[np.int32]:
        """(H, W) int32: the id of each pixel's segment, 0 where there is none. Needs task panoptic."""
        return self._need(self.parts.panoptic, "panoptic_map", "panoptic").map

    @property
    def segments(self) -> list[dict[str, Any]]:
        """One dict per id of `panoptic_map`: id, class_id, category_id, name, score, area (pixels), isthing.

        Needs task panoptic.
        """
        found = self._need(self.parts.panoptic, "segments", "panoptic").segments
        return [
            {"id": s.id, **self._class(s.class_id), "score": s.score, "area": s.area, "isthing": s.isthing}
            for s in found
        ]

    @property
    def instances(self) -> list[dict[str, Any]]:
        """One dict per object, best first: class_id, category_id, name, score, box, area (pixels), mask (H, W) bool.

        A box is [x0, y0, x1, y1] in pixels, half-open. Needs task instance.
        """
        found = self.encoded_instances
        return [
            {
                **self._class(int(found.class_ids[i])),
                "score": float(found.scores[i]),
                "box": [float(v) for v in found.boxes[i]],
                "area": int(np.count_nonzero(mask)),
                "mask": mask,
            }
            for i, mask in enumerate(Masks(found.rles))
        ]

    @property
    def encoded_instances(self) -> EncodedInstances:
        """The instances with run-length encoded masks, far smaller than `instances`. Needs task instance."""
        return self._need(self.parts.instance, "instances", "instance")

    def plot(self, task: str = "", *, legend: bool = False) -> Image.Image:
        """The photo with its segments drawn on it, at its own size.

        With `legend` a strip that names the colours is added below. Without `task` the richest of the tasks asked for
        is drawn: panoptic, then instance, then semantic.
        """
        task = task or next(t for t in DRAW_ORDER if t in self.tasks)
        picture = self.draw(task).image
        if not legend:
            return picture
        entries = [(self.labels.names[c], self.labels.colors[c]) for c in self._classes_in(task)]
        return draw.stack([picture, draw.legend(entries, width=picture.width)]) if entries else picture

    def draw(self, task: str) -> draw.Drawing:
        """The drawing of one task, with the number of labels that found no room."""
        if task == "semantic":
            return draw.semantic(self.photo, self.semantic_map, self.labels)
        if task == "panoptic":
            found = self._need(self.parts.panoptic, "a panoptic drawing", "panoptic")
            return draw.panoptic(self.photo, found.map, {s.id: s.class_id for s in found.segments}, self.labels)
        if task != "instance":
            raise UserError(f"unknown task {task!r}", hint="tasks are semantic, instance, panoptic")
        things = self._need(self.parts.instance, "an instance drawing", "instance")
        return draw.instances(
            self.photo,
            Masks(things.rles),
            things.class_ids.tolist(),
            self.labels,
            scores=things.scores.tolist(),
            look=draw.Look(min_score=self.min_score),
        )

    def save(self, folder: str | Path, *, overlay: bool = True) -> Path:
        """Write this photo's results into a folder, beside those of photos saved there before; returns the folder.

        The files are those of `oneformer inference`: `semantic/<stem>.png`, `panoptic/<stem>.png` with `panoptic.json`,
        `instances.json`, `overlays/<stem>.jpg` and the index `predictions.json`.
        """
        from oneformer.predict.writer import PredictionWriter

        with PredictionWriter(folder, self.labels, tasks=self.tasks, overlay=overlay, keep="add") as writer:
            writer.add(self, file=self.name)
        return Path(folder)

    def _classes_in(self, task: str) -> Sequence[int]:
        if task == "semantic":
            found = np.unique(self.semantic_map).tolist()
        elif task == "panoptic":
            found = sorted({s["class_id"] for s in self.segments})
        else:
            found = sorted({i["class_id"] for i in self.instances if i["score"] >= self.min_score})
        return [c for c in found if 0 <= c < self.labels.num_classes]

    def _class(self, class_id: int) -> dict[str, Any]:
        return {
            "class_id": class_id,
            "category_id": self.labels.category_ids[class_id],
            "name": self.labels.names[class_id],
        }

    def _need(self, part: Any, what: str, task: str) -> Any:
        if part is None:
            raise UserError(
                f"this result holds no {what}: it was made for {', '.join(self.tasks)}",
                hint=f'ask for it: model.predict(image, task="{task}"), or several tasks in a tuple',
            )
        return part
