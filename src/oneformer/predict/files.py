"""A folder or file named by the user -> the images in it in natural order, and a distinct name for each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oneformer.data.decode import SUFFIXES
from oneformer.data.files import examples, missing
from oneformer.errors import DataError


@dataclass(frozen=True)
class ImageFiles:
    """What lies in a folder: its images (paths relative to `root`, `/` between parts) and what was passed over."""

    root: Path
    files: tuple[str, ...]
    others: tuple[str, ...] = ()


def find_images(where: str | Path, *, recursive: bool = True, exclude: Path | None = None) -> ImageFiles:
    """List the images of a folder, or the single image itself.

    Hidden files and folders and the folder `exclude` (the results, when they lie inside) are not looked at. Linked
    folders are followed once. Raises DataError when the path does not exist or holds no image.
    """
    root = Path(where)
    if root.is_file():
        return ImageFiles(root.parent, (root.name,))
    if not root.is_dir():
        raise missing(root, what="image folder")
    images: list[str] = []
    others: list[str] = []
    for name in _walk(root, recursive=recursive, exclude=exclude):
        (images if name.lower().endswith(SUFFIXES) else others).append(name)
    if not images:
        raise DataError(
            f"the folder holds no image (other files: {len(others)}{', ' + examples(others) if others else ''})",
            where=str(root),
            hint=f"images end in {', '.join(SUFFIXES)}"
            + ("" if recursive else "; inference.recursive=true also looks into sub-folders"),
        )
    return ImageFiles(root, tuple(sorted(images, key=natural)), tuple(sorted(others, key=natural)))


def _walk(root: Path, *, recursive: bool, exclude: Path | None) -> list[str]:
    banned = exclude.resolve() if exclude else None
    seen: set[Path] = set()
    names = []
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder)
        real = here.resolve()
        if real in seen or real == banned:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if recursive and not f.startswith("."))
        names += [(here / f).relative_to(root).as_posix() for f in files if not f.startswith(".")]
    return names


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which `image9` comes before `image10`."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(p), p) if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts]


def distinct_names(files: Sequence[str]) -> dict[str, str]:
    """File -> the stem of its results, different for every file whatever the case (some file systems ignore it).

    A file whose stem no other shares keeps it. The others get their folders and ending into the name
    (`sub/a.png` -> `sub_a_png`), and a number where even that is taken. The same files always get the same names.
    """
    count = Counter(_stem(f).casefold() for f in files)
    names = {f: _stem(f) for f in files if count[_stem(f).casefold()] == 1}
    taken = {name.casefold() for name in names.values()}
    for file in files:
        if file in names:
            continue
        path = Path(file)
        wanted = "_".join([*path.parts[:-1], path.stem, path.suffix.lstrip(".").lower()])
        name, number = wanted, 2
        while name.casefold() in taken:
            name, number = f"{wanted}_{number}", number + 1
        taken.add(name.casefold())
        names[file] = name
    return {file: names[file] for file in files}


def image_ids(names: Sequence[str]) -> list[int]:
    """Ids for the JSON files: the numbers in the names when every name is one (as COCO's are), else 1, 2, 3 ..."""
    if all(name.isascii() and name.isdecimal() for name in names):
        numbers = [int(name) for name in names]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(names) + 1))


def _stem(file: str) -> str:
    return Path(file).stem
