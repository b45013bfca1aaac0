"""A spec whose data lies anywhere -> the same spec with paths of this machine, everything fetched and unpacked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from oneformer.data.files import as_list, raise_all
from oneformer.data.formats.part import set_names
from oneformer.data.sources.address import is_remote
from oneformer.data.sources.fetch import Fetcher
from oneformer.data.sources.level import file_names, find_level, unwrapped
from oneformer.data.sources.roots import FOLDERS, Roots, filled
from oneformer.errors import UserError, without_secrets
from oneformer.spec.tree import get, with_value

if TYPE_CHECKING:
    from oneformer.spec import ExperimentSpec, SplitSpec
    from oneformer.spec.sources import SourcesSpec

# Parts of the names of folders, where several of an archive hold the files that annotations name.
USUAL = {"images": ("image", "photo", "img"), "panoptic": ("panoptic", "mask", "label", "annotation")}
COLUMNS = ("annotations", *USUAL)


def fetched(spec: ExperimentSpec, action: str) -> ExperimentSpec:
    """The spec with every path that the action reads on this machine; its other sections are the same objects.

    Roots (`dataset.sources`) fill the keys that are empty. Archives are unpacked, addresses fetched, and of what was
    packed with wrapper folders around it the folder is taken that the annotations mean. Plain paths stay as they are.

    Raises:
        UserError: everything that cannot be had, told together.
    """
    errors: list[UserError] = []
    fetcher = Fetcher(spec.dataset.sources)
    spec = filled(spec, action, Roots(fetcher, errors))
    raise_all(errors)
    here = _Here(fetcher, errors)
    dataset = replace(spec.dataset)
    for split in _read(spec, action):
        setattr(dataset, split, here.split(getattr(dataset, split), f"dataset.{split}"))
    if action != "inference":  # there, the checkpoint has the classes
        dataset.label_map = here.path(dataset.label_map, "dataset.label_map")
    # What the roots say is said now.
    dataset.sources = replace(
        dataset.sources, train_datasets="", eval_dataset="", inference_dataset="", calibration_dataset=""
    )
    spec = replace(spec, dataset=dataset)
    for key in _folders(action):
        spec = with_value(spec, key, here.path(get(spec, key), key))
    raise_all(errors)
    return spec


def planned(spec: ExperimentSpec, action: str) -> tuple[ExperimentSpec, list[str]]:
    """The spec with the keys that roots would fill, and the addresses that would be fetched; nothing is.

    Raises:
        UserError: a root on this machine lacks something.
    """
    errors: list[UserError] = []
    spec = filled(spec, action, Roots(Fetcher(spec.dataset.sources), errors, look=False))
    raise_all(errors)
    values = [getattr(getattr(spec.dataset, s), name) for s in _read(spec, action) for name in COLUMNS]
    values += [] if action == "inference" else [spec.dataset.label_map]
    values += [get(spec, key) for key in _folders(action)]
    return spec, list(dict.fromkeys(text for value in values for text in as_list(value) if is_remote(text)))


def fetched_paths(texts: Sequence[str], settings: SourcesSpec, *, key: str) -> list[str]:
    """Single paths or addresses of annotations, as `fetched` has them. Raises UserError."""
    errors: list[UserError] = []
    here = _Here(Fetcher(settings), errors)
    found = [here.labels(text, key) for text in texts]
    raise_all(errors)
    return found


def _folders(action: str) -> tuple[str, ...]:
    """Keys of the folders of images without labels that an action reads."""
    rooted = FOLDERS[action][:1] if action in FOLDERS else ()
    return (*rooted, f"{action}.parity_images_dir") if action in ("export", "gen_trt_engine") else rooted


def _read(spec: ExperimentSpec, action: str) -> tuple[str, ...]:
    """The splits that an action reads."""
    dataset = spec.dataset
    if action == "inference":
        return ()
    named = tuple(split for split in ("train", "val", "test") if as_list(getattr(dataset, split).annotations))
    if action == "train":
        return tuple(split for split in named if split != "test")
    scored = tuple(split for split in named if split != "train")[-1:]
    if action == "quantize":
        # Ranges are measured on training images where no others are named.
        measured = spec.quantize.mode == "static_ptq" and not dataset.quant_calibration_dataset.images_dir
        return (*(split for split in named if split == "train" and measured), *scored)
    return scored if action in ("evaluate", "export", "gen_trt_engine") else named


class _Here:
    """Brings values of a spec to this machine; what cannot be had is added to `errors` and becomes an empty text."""

    def __init__(self, fetcher: Fetcher, errors: list[UserError]) -> None:
        self.fetcher = fetcher
        self.errors = errors

    def path(self, text: str, key: str) -> str:
        """A file or folder."""
        if not text:
            return ""
        try:
            return self.fetcher.local(text, key=key)
        except UserError as error:
            self.errors += getattr(error, "errors", [error])
            return ""

    def labels(self, text: str, key: str) -> str:
        """Annotations, without wrapper folders; the file itself where an archive holds nothing but one."""
        path = self.path(text, key)
        if not path or not self.fetcher.made(Path(path)) or not Path(path).is_dir():
            return path
        inner = unwrapped(Path(path))
        items = [item for item in inner.iterdir() if not item.name.startswith(".")]
        single = len(items) == 1 and items[0].suffix.lower() in (".json", ".parquet")
        return str(items[0] if single else inner)

    def images(self, text: str, key: str, labels: Sequence[str]) -> str:
        """A folder of images or masks: the one that the annotations mean."""
        path = self.path(text, key)
        if not path or not self.fetcher.made(Path(path)) or not Path(path).is_dir():
            return path
        names = [name for label in labels if label for name in file_names(Path(label))]
        try:
            return str(
                find_level(Path(path), names, hints=USUAL[key.rpartition(".")[2]], key=key, told=without_secrets(text))
            )
        except UserError as error:
            self.errors.append(error)
            return ""

    def split(self, section: SplitSpec, key: str) -> SplitSpec:
        """One split."""
        labels = [self.labels(text, f"{key}.annotations") for text in _listed(section.annotations)]
        here = replace(section, annotations=_as_before(section.annotations, labels))
        texts = _listed(section.annotations)
        if len(texts) > 1 and not key.endswith(".train"):  # folders of the cache are no names
            here.names = set_names(texts, as_list(section.names))
        for name in USUAL:
            texts = _listed(getattr(section, name))
            # One folder may serve several annotation files.
            theirs = [labels] if len(texts) == 1 else [[label] for label in labels]
            paths = [self.images(t, f"{key}.{name}", own) for t, own in zip(texts, theirs, strict=False)]
            setattr(here, name, _as_before(getattr(section, name), paths))
        return here


def _listed(value: str | list[str]) -> list[str]:
    """A value as a list; in a list, an empty text stands for a data set that needs none."""
    return list(value) if isinstance(value, list) else [value] if value else []


def _as_before(value: str | list[str], paths: list[str]) -> str | list[str]:
    """The paths in the shape of the value."""
    return paths if isinstance(value, list) else (paths or [""])[0]
