"""Roots of data sets -> the keys of the spec that they fill: NVIDIA TAO's table of actions, sources and file names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from oneformer.data.files import as_list, examples
from oneformer.data.sources.address import ARCHIVES, is_remote
from oneformer.data.sources.fetch import Fetcher, joined, tried
from oneformer.errors import DataError, UserError, without_secrets
from oneformer.spec.tree import get, with_value

if TYPE_CHECKING:
    from oneformer.spec import DatasetSpec, ExperimentSpec, SplitSpec

# Key of a split -> the names it may have in a root, TAO's first.
FILES = {
    "images": (*(f"images{ending}" for ending in ARCHIVES), "images"),
    "annotations": ("annotations.json",),
    "panoptic": (*(f"images_panoptic{ending}" for ending in ARCHIVES), "images_panoptic", "panoptic"),
}
LABEL_MAP = ("label_map.json",)
# TAO's service names it by the format of the labels when it predicts.
PANOPTIC_LABEL_MAP = ("label_map_panoptic.json", *LABEL_MAP)
NEEDED = ("images", "annotations")
# Action -> which root fills which split.
SPLITS: dict[str, dict[str, str]] = {
    "train": {"train": "train_datasets", "val": "eval_dataset"},
    "evaluate": {"test": "eval_dataset"},
    "inference": {},
    "quantize": {"train": "train_datasets", "val": "eval_dataset"},
    "dataset": {"train": "train_datasets", "val": "eval_dataset"},
    "export": {"test": "eval_dataset"},
    "gen_trt_engine": {"test": "eval_dataset"},
}
# Action -> key of a folder of images without labels, and which root fills it.
FOLDERS = {
    "inference": ("inference.images_dir", "inference_dataset"),
    "quantize": ("dataset.quant_calibration_dataset.images_dir", "calibration_dataset"),
    "gen_trt_engine": ("gen_trt_engine.tensorrt.calibration_dir", "calibration_dataset"),
}


@dataclass
class Roots:
    """Looks into roots; of those elsewhere, unless `look` is set, TAO's own names are taken without looking."""

    fetcher: Fetcher
    errors: list[UserError]
    look: bool = True
    known: dict[str, list[str] | None] = field(default_factory=dict)

    def names(self, root: str, key: str) -> list[str] | None:
        """What lies in a root; None when that is not known."""
        if not self.look and is_remote(root):
            return None
        if root not in self.known:
            asked = (*(name for names in FILES.values() for name in names), *PANOPTIC_LABEL_MAP)
            self.known[root] = tried(self.errors, lambda: self.fetcher.holdings(root, key=key, ask=asked))
        return self.known[root]

    def pick(self, root: str, names: Sequence[str] | None, choices: Sequence[str]) -> str:
        """The place of the first of the choices that is there; empty when none is."""
        name = choices[0] if names is None else next((choice for choice in choices if choice in names), "")
        return joined(root, name) if name else ""


def filled(spec: ExperimentSpec, action: str, roots: Roots) -> ExperimentSpec:
    """The spec with the keys that the roots of `dataset.sources` fill for an action; what is set already stays.

    Faults of the roots are added to `roots.errors`.
    """
    sources, dataset = spec.dataset.sources, replace(spec.dataset)
    for split, source in SPLITS.get(action, {}).items():
        if places := as_list(getattr(sources, source)):
            own = _split(getattr(dataset, split), places, roots, key=f"dataset.sources.{source}")
            setattr(dataset, split, own)
    dataset.label_map = dataset.label_map or _label_map(dataset, action, roots)
    spec = replace(spec, dataset=dataset)
    key, source = FOLDERS.get(action, ("", ""))
    if key and getattr(sources, source) and not get(spec, key):
        spec = with_value(spec, key, _images(getattr(sources, source), source, roots))
    return spec


def _split(section: SplitSpec, places: list[str], roots: Roots, *, key: str) -> SplitSpec:
    """One split with its empty keys filled."""
    empty = [name for name in FILES if not as_list(getattr(section, name))]
    if section.format not in ("auto", "coco_panoptic") and "panoptic" in empty:
        empty.remove("panoptic")
    found: dict[str, list[str]] = {name: [] for name in empty}
    for place in places:
        names = roots.names(place, key) if empty else None
        for name in empty:
            path = roots.pick(place, names, FILES[name])
            found[name].append(path)
            if not path and name in NEEDED:
                what = f"the root of the data set holds no {name} ({' or '.join(FILES[name][:1])})"
                hint = f"it holds {examples(names or [])}"
                told = without_secrets(place)
                roots.errors.append(DataError(what, where=f"{key} {told}", hint=hint, kind="missing_file"))
    whole = replace(section)
    for name, paths in found.items():
        if any(paths):
            setattr(whole, name, paths[0] if len(places) == 1 else paths)
    return whole


def _label_map(dataset: DatasetSpec, action: str, roots: Roots) -> str:
    """The label map of the first root that has one: of the training data, else of the evaluation data."""
    panoptic = action == "inference" and dataset.train.format in ("auto", "coco_panoptic")
    if action not in SPLITS:
        return ""
    for source in ("train_datasets", "eval_dataset"):
        for place in as_list(getattr(dataset.sources, source))[:1]:
            names = roots.names(place, f"dataset.sources.{source}")
            choices = PANOPTIC_LABEL_MAP if panoptic and names is not None else LABEL_MAP
            if found := roots.pick(place, names, choices):
                return found
    return ""


def _images(root: str, source: str, roots: Roots) -> str:
    """The images of a root that has no labels."""
    key = f"dataset.sources.{source}"
    names = roots.names(root, key)
    found = roots.pick(root, names, FILES["images"])
    if not found:
        hint = f"it holds {examples(names or [])}"
        what = f"the root of the data set holds no images ({FILES['images'][0]})"
        roots.errors.append(DataError(what, where=f"{key} {without_secrets(root)}", hint=hint, kind="missing_file"))
    return found
