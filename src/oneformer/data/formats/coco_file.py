"""What COCO's annotation files share -> the images of a file, their paths and sizes, and the classes it lists."""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from oneformer.data.decode import SUFFIXES, image_size
from oneformer.data.files import Faults, is_file
from oneformer.data.formats.folders import NO_IMAGE, Folder
from oneformer.data.formats.part import Part
from oneformer.data.json_lists import listed, read_object
from oneformer.data.task import TASKS
from oneformer.errors import DataError, UserError

WHAT = "annotation file"
Entry = dict[str, Any]
USED = ("id", "file_name", "img_path", "width", "height")  # what is kept of an image's entry


class CocoFile:
    """One annotation file with its image folder; what is wrong is added to `faults`."""

    def __init__(self, part: Part, images: Path, faults: Faults) -> None:
        self.path = part.annotations
        self.key = part.key
        self.contiguous_id = part.contiguous_id
        self.folder = Folder(images)
        self.faults = faults
        self.content = read_object(self.path, what=WHAT)
        self.images = self._images(self.listed("images"))
        self.used: set[str] = set()
        self._ids: set[int | str] = set()

    def listed(self, name: str) -> Iterable[Any]:
        """One of the file's lists. Raises DataError when it is not there."""
        found = listed(self.content, name)
        if found is None:
            hint = "a COCO file has the lists images, annotations and categories"
            raise DataError(f"the annotation file has no list '{name}'", where=self.path, hint=hint)
        return found

    def _images(self, entries: Iterable[Any]) -> dict[int | str, Entry]:
        images: dict[int | str, Entry] = {}
        for place, entry in enumerate(entries):
            if not isinstance(entry, dict) or not is_id(entry.get("id")):
                self.faults.add("an image has no id (number or text)", f"images[{place}]")
            elif not isinstance(entry.get("img_path") or entry.get("file_name"), str):
                self.faults.add("an image has no file_name", f"images[{place}], id {entry['id']}")
            elif entry["id"] in images:
                self.faults.add("two images have the same id", entry["id"], kind="duplicate_id")
            else:
                images[entry["id"]] = {name: entry[name] for name in USED if name in entry}
        return images

    def image_of(self, annotation: Entry, place: int) -> Entry | None:
        """The image that an annotation belongs to."""
        if not is_id(annotation["image_id"]) or annotation["image_id"] not in self.images:
            item = f"annotations[{place}], image_id {annotation['image_id']!r}"
            self.faults.add("an annotation belongs to no image", item, kind="unknown_image")
            return None
        return self.images[annotation["image_id"]]

    def photo(self, image: Entry) -> tuple[str, int, int] | None:
        """(path, width, height) of an image, None when its file or its size is at fault.

        `img_path` wins over `file_name`; it may be absolute, everything else has to stay below the image folder.
        """
        name = image.get("img_path") or image["file_name"]
        self.used.add(name)
        if image.get("img_path") and Path(name).is_absolute():
            path = name if is_file(Path(name)) else None
            if path is None:
                self.faults.add("there is no file at img_path", name, kind="missing_file")
        else:
            path = self.inside(self.folder, name, what=NO_IMAGE)
        if path is None:
            return None
        width, height = image.get("width"), image.get("height")
        if width is None and height is None:
            try:
                width, height = image_size(path)
            except UserError as error:
                self.faults.add("an image file cannot be read", path, hint=error.what, kind="unreadable_file")
                return None
        if is_int(width) and is_int(height) and min(width, height) > 0:
            return path, width, height
        item = f"image id {image['id']}: {width!r} and {height!r}"
        self.faults.add("width and height are not whole numbers above 0", item)
        return None

    def inside(self, folder: Folder, name: object, *, what: str) -> str | None:
        """The path of an existing file below a folder."""
        if not isinstance(name, str) or not name:
            self.faults.add("a file_name is not text", repr(name))
            return None
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            hint = "file names are relative to the folder and have no '..'"
            self.faults.add("a file_name leads out of its folder", name, hint=hint)
            return None
        name = str(PurePosixPath(name))
        if not folder.has(name):
            self.faults.add(what, folder.root / name, kind="missing_file")
            return None
        return str(folder.root / name)

    def explain(self, what: str, folder: Folder, name: str) -> None:
        """Once all files were looked for: say where the missing ones lie, if anywhere near."""
        if gone := self.faults.items(what):
            hint, kind = folder.level_hint(f"{self.key}.{name}", os.path.relpath(str(gone[0]), folder.root))
            self.faults.explain(what, hint, kind=kind)

    def note_unused(self, folder: Folder, name: str, used: set[str], suffixes: tuple[str, ...] = SUFFIXES) -> None:
        """Count the files of a folder that the annotation file does not name."""
        for extra in folder.unused(used, suffixes):
            what = f"a file of {self.key}.{name} is not in the annotation file"
            self.faults.add(what, extra, kind="unused_file", warning=True)

    def own_id(self, annotation: Any, place: int, *, required: bool = False) -> None:
        """Where annotations have an id of their own, it has to be unique."""
        if not isinstance(annotation, dict):
            return
        own = annotation.get("id")
        if is_id(own):
            if own in self._ids:
                self.faults.add("two annotations have the same id", own, kind="duplicate_id")
            self._ids.add(own)
        elif required:
            self.faults.add("an annotation has no id", f"annotations[{place}]")

    def no_category(self) -> str:
        """Advice for a category that is not in the label map."""
        hint = "add it to the label map, or take its segments out of the annotations"
        return hint if self.contiguous_id else f"{hint}; dataset.contiguous_id is false, so ids are used as they are"

    def tasks(self, otherwise: tuple[str, ...]) -> tuple[str, ...]:
        """The tasks that `info.tasks` of the file, which `dataset convert` writes, says the labels are enough for."""
        info = self.content.get("info")
        told = info.get("tasks") if isinstance(info, dict) else None
        if told is None:
            return otherwise
        if not isinstance(told, list) or not told or not set(map(str, told)) <= set(TASKS):
            self.faults.add("info.tasks is not a list of tasks", repr(told), hint=f"tasks are {', '.join(TASKS)}")
            return otherwise
        return tuple(task for task in TASKS if task in told)


def listed_categories(content: Any) -> list[Any] | None:
    """The file's own list of classes, None when it has none."""
    found = listed(content, "categories")
    return None if found is None else list(found)


def listed_annotations(content: Any) -> Iterator[Entry]:
    """The file's annotations that have a form at all; the others are named by the reader."""
    return (a for a in listed(content, "annotations") or () if isinstance(a, dict))


def is_int(value: object) -> TypeGuard[int]:
    """A whole number, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_id(value: object) -> TypeGuard[int | str]:
    """A whole number or some text."""
    return is_int(value) or (isinstance(value, str) and bool(value))
