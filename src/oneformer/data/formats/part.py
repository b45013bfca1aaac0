"""One split of the spec -> its parts: one for each annotation path, with the format that its files are in."""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from oneformer.data.files import as_list, examples, missing, raise_all
from oneformer.errors import DataError, SpecError, UserError

if TYPE_CHECKING:
    from oneformer.spec.data import DatasetSpec

IMAGE_FOLDERS = ("images", "leftImg8bit")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz")


@dataclass(frozen=True)
class Part:
    """One data set of a split: where its files lie and how they are read. Empty paths were not given."""

    key: str
    """The split's place in the spec, for messages."""
    format: str
    annotations: str
    images: str = ""
    panoptic: str = ""
    contiguous_id: bool = True
    background: str = ""
    void_values: tuple[int, ...] = (255,)
    max_mpx: float = 200.0
    name: str = ""
    """Of one data set of several that are scored apart."""


def split_parts(dataset: DatasetSpec, split: str) -> list[Part]:
    """The parts of one split, in the order of its annotations; none when it names no annotations.

    Raises SpecError or UserErrors when lists do not pair up, DataError when files have no known format.
    """
    section, key = getattr(dataset, split), f"dataset.{split}"
    annotations = as_list(section.annotations)
    columns = {name: _column(getattr(section, name)) for name in ("images", "panoptic")}
    errors: list[UserError] = []
    for name, paths in columns.items():
        if annotations and len(paths) not in (0, 1, len(annotations)):
            what = f"{len(paths)} folders are given for {len(annotations)} annotation files"
            errors.append(SpecError(what, where=f"{key}.{name}", hint="give one folder, or one for each file"))
    raise_all(errors)
    # Nothing is scored on training images.
    names = set_names(annotations, as_list(section.names)) if split != "train" and len(annotations) > 1 else []
    parts = []
    for place, path in enumerate(annotations):
        images, panoptic = (paths[place if len(paths) > 1 else 0] if paths else "" for paths in columns.values())
        named = section.format if section.format != "auto" else detect(path, images=images, panoptic=panoptic, key=key)
        settings = (dataset.contiguous_id, dataset.background, tuple(dataset.void_values), dataset.max_image_mpx)
        name = names[place] if names else ""
        parts.append(Part(key, named, path, images, panoptic, *settings, name))
    return parts


def set_names(annotations: Sequence[str], given: Sequence[str] = ()) -> list[str]:
    """A name for each data set: the given one, else that of the folder its annotations lie in; no two are the same."""
    names: list[str] = []
    for place, path in enumerate(annotations):
        parts = [part for part in re.split(r"[/\\]", path.partition("?")[0]) if part not in ("", ".", "..")]
        folder = parts[-2:-1] if Path(path.partition("?")[0]).suffix else parts[-1:]
        name = given[place] if len(given) == len(annotations) else (list(given) or folder or ["dataset"])[0]
        names.append(name if name not in names else f"{name}_{place}")
    return names


def _column(value: str | list[str]) -> list[str]:
    """One path or several; in a list an empty one stands for a part that needs none."""
    return [str(path) for path in value] if isinstance(value, list) and any(value) else as_list(value)


def detect(path: str, *, images: str = "", panoptic: str = "", key: str = "dataset") -> str:
    """The format of the annotations at `path`, by what the files are. Raises DataError when none fits."""
    where = Path(path)
    if where.is_dir():
        return _of_folder(where, images, key)
    if where.suffix.lower() == ".parquet":
        return "parquet"
    if where.suffix.lower() in ARCHIVES and where.is_file():
        raise DataError(f"{key}.annotations is an archive", where=path, hint="unpack it and name the file inside")
    if not where.exists() and where.suffix.lower() != ".json":
        raise missing(where, what=f"path {key}.annotations")
    # Nothing but COCO's files keeps a whole data set in one JSON file.
    return "coco_instances" if not panoptic and where.is_file() and _lists_shapes(where) else "coco_panoptic"


def _lists_shapes(path: Path) -> bool:
    """Whether a COCO file tells shapes ("segmentation") rather than segments of a PNG; read only as far as needed."""
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text.find(b'"segments_info"') < 0 <= text.find(b'"segmentation"')


def _of_folder(root: Path, images: str, key: str) -> str:
    files, folders = _sample(root)
    found = _by_layout(root, files) or _by_ending({Path(name).suffix.lower() for name in files})
    if found == "semantic_png":
        if _is_ade20k(root):
            return "ade20k"
        # Pictures in a folder for each photo are masks of single objects.
        flat = any(Path(name).parent == Path() for name in files)
        if images and not flat and Path(images).is_dir() and folders & {p.stem for p in Path(images).iterdir()}:
            return "object_masks"
    if not found:
        hint = f"{root} holds {examples(sorted(p.name for p in root.iterdir()))}; set {key}.format"
        raise DataError("no known format of annotations fits this folder", where=str(root), hint=hint)
    return found


def _by_layout(root: Path, files: list[str]) -> str:
    """The format whose published names of files and folders these are; empty without one."""
    if any("_gtFine_" in name or "_gtCoarse_" in name for name in files):
        return "cityscapes"
    inner = [(root / name).is_dir() for name in ("instances", "labels")]
    if all(inner):
        return "mapillary"
    if any(inner):
        above = [root, *list(root.absolute().parents)[:2]]
        if any(next(folder.glob("config*.json"), None) for folder in above):
            return "mapillary"
    return "object_masks" if any("masks" in Path(name).parts[:-1] for name in files) else ""


def _by_ending(endings: set[str]) -> str:
    """The format whose label files end so; empty without one."""
    names = {".parquet": "parquet", ".txt": "yolo_seg", ".json": "labelme"}
    names |= dict.fromkeys((".png", ".tif", ".bmp"), "semantic_png")
    return next((name for ending, name in names.items() if ending in endings), "")


def _is_ade20k(root: Path) -> bool:
    """.../annotations/training beside .../objectInfo150.txt or .../annotations_instance."""
    top = root.parent.parent
    return root.parent.name == "annotations" and (
        (top / "objectInfo150.txt").is_file() or (top / "annotations_instance").is_dir()
    )


def _sample(root: Path, most: int = 200) -> tuple[list[str], set[str]]:
    """A few of the files below a folder, as paths relative to it, and the names of its folders."""
    found: list[str] = []
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    queue = [root]
    while queue and len(found) < most:
        folder = queue.pop(0)
        items = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        found += [p.relative_to(root).as_posix() for p in items if p.is_file()][: most // 4]
        queue += [p for p in items if p.is_dir()][:20]
    return found, {p.name for p in folders}


def need_folder(part: Part, name: str) -> Path:
    """The folder that `images`, `panoptic` or `annotations` of a part names. Raises SpecError or DataError."""
    path, key = getattr(part, name), f"{part.key}.{name}"
    if not path:
        raise SpecError("no path is given", where=key, hint=f"set {key}")
    if not Path(path).exists():
        raise missing(path, what=f"folder {key}")
    if not Path(path).is_dir():
        hint = "unpack it and name the folder" if path.endswith(ARCHIVES) else "name the folder"
        raise DataError(f"{key} is a file, not a folder", where=path, hint=hint)
    return Path(path)


def need_folders(part: Part, *names: str) -> list[Path]:
    """Several of them; every fault at once."""
    errors: list[UserError] = []
    folders = []
    for name in names:
        try:
            folders.append(need_folder(part, name))
        except UserError as error:
            errors.append(error)
    raise_all(errors)
    return folders
