"""Folders of photos and of label files -> the pairs that belong together, and what has no partner."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from oneformer.data.decode import SUFFIXES
from oneformer.data.files import Faults, examples, is_file

LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
NO_IMAGE = "there is no image file"
NO_LABELS = "an image has no labels and is left out"


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which `image9` comes before `image10`."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(p), p) if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts]


def files_below(root: Path, suffixes: tuple[str, ...] = SUFFIXES) -> dict[str, str]:
    """The files of some endings below a folder, in natural order: path without ending -> path, both relative.

    Hidden files and folders are passed over. Of two files that differ in their ending only, the first counts.
    """
    names: list[str] = []
    for folder, folders, files in os.walk(root, followlinks=False):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        here = PurePosixPath(os.path.relpath(folder, root).replace(os.sep, "/"))
        names += [(here / f).as_posix() for f in files if not f.startswith(".") and f.lower().endswith(suffixes)]
    found: dict[str, str] = {}
    for name in sorted(names, key=natural):
        found.setdefault(str(PurePosixPath(name).with_suffix("")), name)
    return found


def sibling(path: Path, old: str, *new: str) -> Path | None:
    """The folder that `path` becomes when its last part named `old` is replaced by one of `new`; None without one."""
    parts = list(path.parts)
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] == old:
            for name in new:
                other = Path(*parts[:place], name, *parts[place + 1 :])
                if other.is_dir():
                    return other
            return None
    return None


def pair(images: Path, labels: Path, faults: Faults, *, key: str, suffixes: tuple[str, ...]) -> Iterator[Pair]:
    """Each label file with the image of the same name; a fixed end of the labels' names (`x_mask.png`) is recognised.

    Labels without an image are faults, images without labels are counted.
    """
    photos, masks = files_below(images), files_below(labels, suffixes)
    ending = _common_ending(photos, masks)
    used = set()
    for stem, name in masks.items():
        own = stem.removesuffix(ending) if ending else stem
        if own in photos:
            used.add(own)
            yield Pair(own, str(images / photos[own]), str(labels / name))
        else:
            faults.add(NO_IMAGE, images / f"{own}.*", kind="missing_file")
    if faults.items(NO_IMAGE):
        hint, kind = _explained(images, photos, masks, key=key)
        faults.explain(NO_IMAGE, hint, kind=kind)
    for stem in photos:
        if stem not in used:
            faults.add(NO_LABELS, photos[stem], kind="unlabelled_image", warning=True)


@dataclass(frozen=True)
class Pair:
    """A photo and its labels; `stem` is the photo's path below its folder, without the ending."""

    stem: str
    image: str
    labels: str


def _common_ending(photos: Iterable[str], masks: Iterable[str]) -> str:
    """What every label's name has behind the image's name (`_mask`); empty when the names are equal, or nothing is."""
    known = set(photos)
    first = next(iter(masks), "")
    if not first or first in known:
        return ""
    for length in range(len(first) - 1, 0, -1):
        ending = first[length:]
        if first[:length] in known and re.match(r"[_\-.]", ending):
            return ending
    return ""


def _explained(images: Path, photos: dict[str, str], masks: dict[str, str], *, key: str) -> tuple[str, str]:
    """(hint, kind) for labels without images: one level too high or too deep, or what is there instead."""
    leaves: dict[str, str] = {}
    for stem in photos:
        leaves.setdefault(PurePosixPath(stem).name, stem)
    for stem in masks:
        other = leaves.get(PurePosixPath(stem).name)
        if other is not None and other != stem:
            folder = images / PurePosixPath(other).parent
            return f"{PurePosixPath(stem).name} lies in {folder}: set {key}.images to that folder", "wrong_level"
    return f"{images} holds {examples(photos.values())}", "missing_file"


def _folders_below(root: Path, *, deep: int = 3, most: int = 300) -> Iterator[Path]:
    """The folders below one, those nearer first; as many as people wrap around each other."""
    level = [root]
    for _ in range(deep):
        level = [below for folder in level for below in sorted(folder.iterdir()) if below.is_dir()][:most]
        yield from level


@dataclass
class Folder:
    """Which files lie below a folder; each subfolder is listed once instead of asking for every file."""

    root: Path
    listed: dict[str, set[str]] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether a file of this relative path is there."""
        parent, _, leaf = name.rpartition("/")
        if parent not in self.listed:
            try:
                self.listed[parent] = {item.name for item in (self.root / parent).iterdir()}
            except (OSError, ValueError):  # no such folder, or a name that none can have
                self.listed[parent] = set()
        return leaf in self.listed[parent]

    def unused(self, used: set[str], suffixes: tuple[str, ...]) -> list[str]:
        """The files with one of the endings in the folders that were looked into, less those that are `used`."""
        names = [f"{parent}/{leaf}" if parent else leaf for parent, leaves in self.listed.items() for leaf in leaves]
        return sorted(name for name in names if name not in used and name.lower().endswith(suffixes))

    def level_hint(self, key: str, name: str) -> tuple[str, str]:
        """Advice and the fault's kind when the missing file lies deeper or its name repeats the folder's."""
        leaf = PurePosixPath(name).name
        for below in _folders_below(self.root):
            if is_file(below / name) or is_file(below / leaf):
                return f"{leaf} lies in {below}: set {key} to that folder", "wrong_level"
        for other in (self.root / leaf, self.root.parent / name):
            if is_file(other):
                return f"{leaf} lies in {other.parent}", "wrong_level"
        return f"{self.root} holds {examples(sorted(p.name for p in self.root.iterdir()))}", "missing_file"
