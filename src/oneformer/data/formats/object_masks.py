"""Photos with one mask picture for each object -> records, in the two ways in which such folders come.

    root/<photo>/images/<photo>.png     as the 2018 Data Science Bowl ships its nuclei
    root/<photo>/masks/*.png

    images/<photo>.png                  photos in a folder of their own
    root/<photo>/*.png

A mask's class is the folder it lies in below `masks` or `<photo>` (`masks/nucleus/1.png`); without such folders it is
the label map's only thing. Masks may overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.data.decode import SUFFIXES
from oneformer.data.files import Faults, examples
from oneformer.data.formats.folders import LABEL_SUFFIXES, NO_IMAGE, NO_LABELS, files_below, natural
from oneformer.data.formats.part import Part, need_folder
from oneformer.data.formats.shape_records import note_absent_stuff, rest_class, tasks_for
from oneformer.data.record import Record, SegmentInfo, Source
from oneformer.data.shapes import MaskFiles
from oneformer.errors import DataError

if TYPE_CHECKING:
    from oneformer.data.labels import LabelMap

NO_CLASS = "masks have no class: the label map has not one thing, so they belong into folders named after classes"
UNKNOWN = "a folder of masks is named after no class of the label map"


def categories(part: Part) -> tuple[list[Any] | None, set[int]]:
    """See `Format`: the names of the folders that masks lie in, or a single thing `object`."""
    names: dict[str, None] = {}
    for item in _items(part, Faults(part.annotations)):
        names |= {mask.rpartition("/")[0]: None for mask in item.masks}
    found = sorted(filter(None, names)) or ["object"]
    return [{"name": name} for name in found], set()


def read(part: Part, labels: LabelMap, faults: Faults) -> Iterator[Record]:
    """See `Format`; a photo without any mask is a record without objects."""
    rest = rest_class(part, labels)
    source = Source("object_masks", MaskFiles(labels.thing_ids, rest), tasks_for(labels, rest))
    only = labels.thing_ids[0] if len(labels.thing_ids) == 1 else None
    class_of: dict[str, int | None] = {"": only, **{name: i for i, name in enumerate(labels.names)}}
    used: set[int] = set()
    for item in _items(part, faults):
        segments: list[SegmentInfo] = []
        for mask in item.masks:
            name = mask.rpartition("/")[0]
            class_id = class_of.get(name)
            if class_id is None:
                hint = f"classes are {examples(labels.names)}"
                faults.add(UNKNOWN if name else NO_CLASS, f"{item.folder}/{mask}", hint=hint, kind="unknown_category")
                break
            used.add(class_id)
            segments.append(SegmentInfo(len(segments) + 1, class_id, False, 0))
        if len(segments) == len(item.masks):
            yield Record(item.name, item.image, item.folder, 0, 0, tuple(segments), source, item.masks)
    note_absent_stuff(labels, used, rest, faults)


@dataclass(frozen=True)
class _Item:
    """One photo, the folder of its masks, and their paths below it."""

    name: str
    image: str
    folder: str
    masks: tuple[str, ...]


def _items(part: Part, faults: Faults) -> Iterator[_Item]:
    root = need_folder(part, "annotations")
    if part.images:
        images = need_folder(part, "images")
        photos = {stem.replace("/", "_"): images / name for stem, name in files_below(images).items()}
    folders = sorted(
        (p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: natural(p.name)
    )
    if not folders:
        hint = f"{root} holds {examples(sorted(p.name for p in root.iterdir()))}"
        raise DataError("the folder has no folder for each photo", where=str(root), hint=hint, kind="wrong_level")
    seen = set()
    for folder in folders:
        inner = folder / "masks" if (folder / "masks").is_dir() else folder
        if part.images:
            photo = photos.get(folder.name)
        else:
            own = sorted(p for p in (folder / "images").glob("*") if p.suffix.lower() in SUFFIXES)
            photo = own[0] if own else None
            if len(own) > 1:
                faults.add("a photo's folder holds several photos", folder, kind="duplicate_id")
        if photo is None:
            faults.add(NO_IMAGE, folder, hint=_level(root), kind="missing_file")
            continue
        seen.add(folder.name)
        masks = tuple(files_below(inner, LABEL_SUFFIXES).values())
        yield _Item(folder.name, str(photo), str(inner), masks)
    for stem, path in photos.items() if part.images else ():
        if stem not in seen:
            faults.add(NO_LABELS, path, kind="unlabelled_image", warning=True)


def _level(root: Path) -> str:
    """Advice when the photos' folders lie one level deeper."""
    for below in sorted(p for p in root.iterdir() if p.is_dir()):
        if any((inner / "masks").is_dir() for inner in below.iterdir() if inner.is_dir()):
            return f"the photos' folders lie in {below}: name that folder"
    return "the photo lies in <folder>/images, or name the folder of the photos by images"
