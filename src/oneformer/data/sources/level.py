"""A folder that came out of an archive -> the folder in it that annotations mean: people pack wrapper folders along."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from oneformer.data.decode import SUFFIXES
from oneformer.data.files import examples, is_file
from oneformer.errors import DataError

NAMES = 32  # file names of the annotations that are looked for
FOLDERS = 5000  # folders that are looked into
WINDOW = 8 << 20  # bytes read at each end of a large annotation file
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\\x00-\x1f]|\\.){1,1000}")')


def unwrapped(root: Path) -> Path:
    """Down through folders that hold nothing but one folder."""
    for _ in range(20):
        items = [item for item in root.iterdir() if not item.name.startswith(".")]
        if len(items) != 1 or not items[0].is_dir():
            break
        root = items[0]
    return root


def file_names(annotations: Path) -> list[str]:
    """A few of the file names that annotations tell: in a COCO file, or the label files below a folder without ending.

    Of a large file its two ends are read, where images and masks are named.
    """
    if annotations.is_dir():
        found: list[str] = []
        for folder, folders, files in os.walk(annotations):
            folders.sort()
            here = PurePosixPath(Path(folder).relative_to(annotations).as_posix())
            found += [str((here / name).with_suffix("")) for name in sorted(files) if not name.startswith(".")]
            if len(found) >= NAMES:
                break
        return found[:NAMES]
    if not is_file(annotations) or annotations.suffix.lower() != ".json" or not annotations.stat().st_size:
        return []
    with annotations.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        names = [*_named(text[:WINDOW])]
        if len(text) > WINDOW:
            names += _named(text[max(WINDOW, len(text) - WINDOW) :])
    names = list(dict.fromkeys(names))
    half = NAMES // 2
    return names if len(names) <= NAMES else names[:half] + names[-half:]


def _named(text: bytes) -> Iterator[str]:
    for found in _FILE_NAME.finditer(text):
        try:
            name = json.loads(found[1])
        except ValueError:
            continue
        if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts:
            yield name


def find_level(root: Path, names: Sequence[str], *, hints: Sequence[str] = (), key: str = "", told: str = "") -> Path:
    """The folder at or below `root` in which most of the names are; `root` without its wrappers when none is anywhere.

    Args:
        root: where to look; nearer folders are preferred among equals at different depths.
        names: relative file names; those without an ending fit an image of any ending.
        hints: parts of folder names that decide between folders of one depth that fit equally well.
        key: the key that names the folder, for the message.
        told: what the user called it.

    Raises:
        DataError: two folders fit equally well.
    """
    if not names:
        return unwrapped(root)
    best: list[tuple[int, int, Path]] = []
    for folder in _below(root):
        count = sum(_has(folder, name) for name in names)
        if count:
            best.append((-count, len(folder.relative_to(root).parts), folder))
            if not best[-1][1] and count == len(names):
                return root
    if not best:
        return unwrapped(root)
    best.sort(key=lambda item: item[:2])
    equal = [folder for count, depth, folder in best if (count, depth) == best[0][:2]]
    if len(equal) > 1:
        liked = [f for f in equal if any(hint in f.relative_to(root).as_posix().lower() for hint in hints)]
        equal = liked if len(liked) == 1 else equal
    if len(equal) > 1:
        shown = examples(folder.relative_to(root).as_posix() for folder in equal)
        hint = f"unpack it, and set {key} to one of them"
        raise DataError(f"several of its folders hold the files: {shown}", where=told, hint=hint, kind="wrong_level")
    return equal[0]


def _below(root: Path) -> Iterator[Path]:
    """The folder and those below it, level by level."""
    queue, count = [root], 0
    while queue and count < FOLDERS:
        folder = queue.pop(0)
        count += 1
        yield folder
        with os.scandir(folder) as items:
            queue += sorted(Path(item.path) for item in items if item.is_dir(follow_symlinks=False))


def _has(folder: Path, name: str) -> bool:
    if PurePosixPath(name).suffix.lower() in SUFFIXES:
        return is_file(folder / name)
    return is_file(folder / name) or any(is_file(folder / f"{name}{suffix}") for suffix in SUFFIXES)
