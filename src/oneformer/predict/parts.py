"""Parts of a large prediction, a file for each chunk of photos -> the JSON files of the whole, never held in memory.

A part is what one writer knew (`PredictionWriter.part`), as JSON. Parts are in the order of their photos, so that the
whole is one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from oneformer.predict.writer import INDEX, INSTANCES, PANOPTIC, PredictionWriter
from oneformer.runs.atomic import plain, write_atomic, write_text

_PLACES = {"semantic": "semantic/", "panoptic": "panoptic/", "overlay": "overlays/"}


def write_part(path: Path, writer: PredictionWriter) -> None:
    """Keep what a writer knows; the file is whole or not there."""
    write_text(path, json.dumps(plain(writer.part())))


@dataclass
class Merged:
    """What all parts hold together."""

    images: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    """Written files, by place in the folder."""


def merge(writer: PredictionWriter, parts: Sequence[Path]) -> Merged:
    """Write the JSON files of a whole prediction from its parts.

    Args:
        writer: of the whole, for its folder, classes and tasks; it has added no photo itself.
        parts: in the order of their photos.
    """
    found = Merged()
    for part in _each(parts):
        found.images += len(part["images"])
        found.failed += part["failed"]
        for item in part["images"]:
            for kind in _PLACES.keys() & item["outputs"].keys():
                found.files[_PLACES[kind]] = found.files.get(_PLACES[kind], 0) + 1
    images = (image for part in _each(parts) for image in part["images"])
    if "panoptic" in writer.tasks:
        told = (_coco(image) for part in _each(parts) for image in part["images"] if "panoptic" in image["outputs"])
        segments = (row for part in _each(parts) for row in part["panoptic"])
        head = {"categories": writer.categories()}
        _write(writer.folder / PANOPTIC, head, {"images": told, "annotations": segments})
    if "instance" in writer.tasks:
        rows = (row for part in _each(parts) for row in part["instances"])
        write_atomic(writer.folder / INSTANCES, lambda file: _list(file, rows))
    head = {key: value for key, value in writer.content().items() if key not in ("images", "failed")}
    _write(writer.folder / INDEX, plain(head), {"images": images, "failed": iter(found.failed)})
    json_files = {PANOPTIC: "panoptic" in writer.tasks, INSTANCES: "instance" in writer.tasks, INDEX: True}
    found.files |= {name: 1 for name, there in json_files.items() if there}
    return found


def _each(parts: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in parts:
        yield json.loads(path.read_text(encoding="utf-8"))


def _coco(image: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": image["image_id"], "file_name": image["file"], "width": image["width"], "height": image["height"]}


def _write(path: Path, head: Mapping[str, Any], lists: Mapping[str, Iterator[Any]]) -> None:
    def fill(file: IO[bytes]) -> None:
        file.write(json.dumps(head, ensure_ascii=False)[:-1].encode())
        for name, rows in lists.items():
            file.write(f", {json.dumps(name)}: ".encode())
            _list(file, rows)
        file.write(b"}\n")

    write_atomic(path, fill)


def _list(file: IO[bytes], rows: Iterator[Any]) -> None:
    """A JSON list, a row at a time, each on a line of its own."""
    file.write(b"[")
    for number, row in enumerate(rows):
        file.write((",\n" if number else "\n").encode() + json.dumps(row, ensure_ascii=False).encode())
    file.write(b"]")
