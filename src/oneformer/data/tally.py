"""What was seen in each record -> the numbers of a split: sizes, classes, objects and areas, in bounded memory."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oneformer.data.inspect import Seen
from oneformer.data.labels import LabelMap

# COCO's bounds between small, medium and large objects, in pixels.
SMALL, MEDIUM = 32**2, 96**2


@dataclass
class ClassTally:
    """One class: photos with it, objects, pixels, and objects by COCO's three sizes."""

    images: int = 0
    objects: int = 0
    pixels: int = 0
    small: int = 0
    medium: int = 0
    large: int = 0


@dataclass
class Tally:
    """One split. A record costs 24 bytes here, whatever it holds."""

    labels: LabelMap
    split: str = ""
    images: int = 0
    broken: int = 0
    unlabelled: int = 0
    """Pixels without a label."""
    pixels: int = 0
    tasks: tuple[str, ...] = ()
    classes: dict[int, ClassTally] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    """Classes that the annotations of unusable records list."""
    widths: array[int] = field(default_factory=lambda: array("I"))
    heights: array[int] = field(default_factory=lambda: array("I"))
    objects: array[int] = field(default_factory=lambda: array("I"))
    digests: array[int] = field(default_factory=lambda: array("Q"))

    def add(self, seen: Seen) -> None:
        """Count one record."""
        self.images += 1
        self.digests.append(seen.digest)
        if seen.fault is not None:
            self.broken += 1
            return
        width, height = seen.size
        self.widths.append(width)
        self.heights.append(height)
        self.objects.append(len(seen.areas))
        self.pixels += width * height
        self.unlabelled += width * height - seen.labelled
        for class_id, objects, pixels in seen.classes:
            own = self.classes.setdefault(class_id, ClassTally())
            own.images += 1
            own.objects += objects
            own.pixels += pixels
        for class_id, area in seen.areas:
            own = self.classes[class_id]
            own.small += area < SMALL
            own.medium += SMALL <= area < MEDIUM
            own.large += area >= MEDIUM

    def absent(self) -> list[str]:
        """Names of the classes that never occur."""
        return [n for i, n in enumerate(self.labels.names) if i not in self.classes and i not in self.told]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON; sides and objects per photo as [smallest, median, largest]."""
        return {
            "images": self.images,
            "broken": self.broken,
            "tasks": list(self.tasks),
            "width": spread(self.widths),
            "height": spread(self.heights),
            "objects_per_image": spread(self.objects),
            "unlabelled": round(self.unlabelled / self.pixels, 6) if self.pixels else None,
            "classes": {
                self.labels.names[i]: {
                    "isthing": self.labels.is_thing[i],
                    **vars(self.classes.get(i, ClassTally())),
                    "share": round(self.classes[i].pixels / self.pixels, 6) if i in self.classes else 0.0,
                }
                for i in range(self.labels.num_classes)
            },
        }


def spread(values: array[int]) -> list[int] | None:
    """[smallest, median, largest]; None without values."""
    if not values:
        return None
    numbers = np.frombuffer(values, np.uint32)
    return [int(numbers.min()), int(np.median(numbers)), int(numbers.max())]
