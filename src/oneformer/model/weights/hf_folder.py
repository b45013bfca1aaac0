"""A folder that Hugging Face transformers saved a OneFormer in -> its tensors, its classes, and what its files say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from oneformer.data.labels import LabelMap, labels_of
from oneformer.errors import CheckpointError
from oneformer.model.weights.hf_config import spec_keys
from oneformer.model.weights.load import read_state_dict
from oneformer.spec.tree import leaves

CONFIG, PREPROCESSOR, PROCESSOR, CLASSES = (
    "config.json", "preprocessor_config.json", "processor_config.json", "class_info.json"
)  # fmt: skip
OURS = "oneformer"  # in the processor's file: thresholds and tasks, for which theirs has no key
TRAINING = "training.safetensors"  # ours: the text branch, which transformers looks for in training only
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
MOST_JSON = 1 << 24  # bytes; a config.json has a few thousand
DIGITS = 6  # of pixel values, which these files divide by 255


@dataclass(frozen=True)
class HfFolder:
    """What such a folder holds."""

    state: dict[str, Tensor]
    """Under their names."""
    told: dict[str, Any]
    """Dotted keys of our spec -> what the folder says, unchecked."""
    labels: LabelMap
    notes: tuple[str, ...]
    """What it does not say, and what was assumed."""


def is_hf(path: Path) -> bool:
    """Whether the path is a folder with a config.json."""
    return (path / CONFIG).is_file()


def read_hf_folder(path: Path) -> HfFolder:
    """Read config, processor, classes and weights; weights may be in several parts.

    Raises:
        CheckpointError: a file is missing, broken or of another model, or lies outside the folder.
    """
    config = read_json(path / CONFIG)
    told = spec_keys(config, where=str(path / CONFIG))
    processor = image_processor(path)
    told |= pixels(processor, where=str(path)) | ours_in(processor)
    labels, notes = classes(path, config, processor)
    told["model.sem_seg_head.num_classes"] = labels.num_classes
    return HfFolder(read_weights(path), told, labels, (*notes, *missing_files(path)))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError for anything else."""
    try:
        if path.stat().st_size > MOST_JSON:
            raise ValueError("it is far too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the file cannot be read: {error}", where=str(path)) from error
    return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of one weight file, or of all parts that an index names, and those that only training needs."""
    state: dict[str, Tensor] = read_state_dict(path / TRAINING) if (path / TRAINING).is_file() else {}
    for name in WEIGHTS:
        index = path / f"{name}.index.json"
        files = [name] if (path / name).is_file() else parts(index) if index.is_file() else []
        for file in files:
            state |= read_state_dict(path / file)
        if files:
            return state
    raise CheckpointError(f"the folder holds neither {' nor '.join(WEIGHTS)}", where=str(path))


def parts(index: Path) -> list[str]:
    """Names of the weight files that an index lists. Raises CheckpointError when one lies elsewhere."""
    table = read_json(index).get("weight_map")
    names = sorted({str(v) for v in table.values()}) if isinstance(table, dict) else []
    outside = [name for name in names if Path(name).name != name]
    if outside or not names:
        raise CheckpointError(
            f"it names {outside[0]!r} as a part" if outside else "it names no parts", where=str(index)
        )
    return names


def image_processor(path: Path) -> dict[str, Any]:
    """How images are prepared: a file of its own, or a part of transformers 5's processor_config.json."""
    if (path / PREPROCESSOR).is_file():
        return read_json(path / PREPROCESSOR)
    if (path / PROCESSOR).is_file():
        inner = read_json(path / PROCESSOR).get("image_processor")
        if isinstance(inner, dict):
            return inner
    return {}


def pixels(processor: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Mean, deviation (0..255) and sizes as keys of our spec."""
    found: dict[str, Any] = {}
    try:
        scale = float(processor.get("rescale_factor", 1 / 255)) if processor.get("do_rescale", True) else 1.0
        if processor.get("do_normalize", True):
            for ours, theirs in (("pixel_mean", "image_mean"), ("pixel_std", "image_std")):
                if theirs in processor:
                    found[f"dataset.{ours}"] = [round(float(x) / scale, DIGITS) for x in processor[theirs]]
        else:
            found |= {"dataset.pixel_mean": [0.0] * 3, "dataset.pixel_std": [round(1 / scale, DIGITS)] * 3}
        size = processor.get("size") if processor.get("do_resize", True) else None
        size = {"shortest_edge": size} if isinstance(size, int) else size or {}
        for ours, edge in (("test_min_size", "shortest_edge"), ("test_max_size", "longest_edge")):
            value = size.get(edge) or (processor.get("max_size") if edge == "longest_edge" else None)
            if value is not None:
                found[f"dataset.augmentation.{ours}"] = int(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError, AttributeError) as error:
        raise CheckpointError(f"its image processor is broken: {error}", where=where) from error
    return found


def ours_in(processor: Mapping[str, Any]) -> dict[str, Any]:
    """What a folder that we wrote says of thresholds and tasks, as keys of our spec."""
    sections = processor.get(OURS)
    found = {
        f"model.{section}.{key}": value
        for section, values in (sections.items() if isinstance(sections, dict) else ())
        for key, value in (values.items() if isinstance(values, dict) else ())
    }
    return {key: value for key, value in found.items() if key in leaves()}


def classes(path: Path, config: Mapping[str, Any], processor: Mapping[str, Any]) -> tuple[LabelMap, tuple[str, ...]]:
    """The class list: names from config.json, things from the processor's metadata or the class file.

    Raises:
        CheckpointError: there is no list of names.
        UserErrors: names or colours that cannot be used.
    """
    names = config.get("id2label")
    if not isinstance(names, dict) or not names or set(names) != {str(i) for i in range(len(names))}:
        raise CheckpointError("id2label is no list of classes numbered from 0", where=str(path / CONFIG))
    ordered = unique([str(names[str(i)]) for i in range(len(names))])
    info, metadata = class_info(path, processor), processor.get("metadata")
    things = metadata.get("thing_ids") if isinstance(metadata, dict) else None
    entries: list[dict[str, Any]] = [{"id": i, "name": name} for i, name in enumerate(ordered)]
    for i, entry in enumerate(entries):
        said = info.get(str(i), {})
        if said:
            entry |= {key: said[key] for key in ("id", "isthing", "color") if key in said}
        elif isinstance(things, list):
            entry["isthing"] = int(i in things)
    silent = not info and not isinstance(things, list)
    note = "no file says which classes are things and which are stuff: all are taken for things (see --label-map)"
    return labels_of(entries, where=path), (note,) if silent else ()


def class_info(path: Path, processor: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The class file that the processor names, or ours; {} when there is none in the folder."""
    named = processor.get("class_info_file")
    for name in (named, CLASSES):
        if isinstance(name, str) and name and Path(name).name == name and (path / name).is_file():
            return {str(k): v for k, v in read_json(path / name).items() if isinstance(v, dict)}
    return {}


def unique(names: list[str]) -> list[str]:
    """The names, with a number behind those that stand there twice: ours are told apart by name."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return out


def missing_files(path: Path) -> tuple[str, ...]:
    """A note where nothing says how images are prepared."""
    if (path / PREPROCESSOR).is_file() or (path / PROCESSOR).is_file():
        return ()
    return (f"there is no {PREPROCESSOR}: the pixel values and sizes are the published ones",)
