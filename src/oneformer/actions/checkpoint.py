"""A weight file of anybody -> what it holds, or the same weights as a file of another kind."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oneformer.errors import CheckpointError, UserError, WorkError
from oneformer.runs.key import plain_files

if TYPE_CHECKING:
    from oneformer.model.weights.checkpoint import CheckpointInfo
    from oneformer.model.weights.found import Found
    from oneformer.model.weights.inspection import Inspection
    from oneformer.model.weights.load import LoadReport

ENDINGS = {".pth": "ours", ".pt": "ours", ".ckpt": "ours", ".pkl": "shi", "": "hf"}
NAMES = {"ours": "a checkpoint of ours", "shi": "SHI-Labs' OneFormer", "hf": "a Hugging Face folder"}


def inspect(file: str) -> Inspection:
    """What a weight file or folder holds; nothing in it is run.

    Raises:
        CheckpointError: it is missing, broken, or would run code.
    """
    from oneformer.model.weights.inspection import inspected

    return inspected(Path(file))


@dataclass(frozen=True)
class Conversion:
    """What a user asks for."""

    source: str
    target: str
    to: str | None = None
    label_map: str | None = None
    experiment_spec: str | None = None
    words: Sequence[str] = ()
    overwrite: bool = False

    @property
    def spec_file(self) -> Path | None:
        """The spec with what the source does not say."""
        return Path(self.experiment_spec) if self.experiment_spec else None


@dataclass(frozen=True)
class Converted:
    """What was written, and what became of each tensor."""

    source: Path
    source_kind: str
    target: Path
    target_kind: str
    report: LoadReport

    def to_dict(self) -> dict[str, Any]:
        """The report in full."""
        told = self.report
        return {
            "source": {"path": str(self.source), "kind": self.source_kind},
            "target": {"path": str(self.target), "kind": self.target_kind},
            "matched": list(told.matched),
            "missing": list(told.missing),
            "unexpected": list(told.unexpected),
            "reshaped": [{"name": n, "from": list(a), "to": list(b)} for n, a, b in told.reshaped],
            "notes": list(told.notes),
        }

    def table(self) -> str:
        """The report with some names of each kind."""
        return f"{self.source} ({self.source_kind})\n{self.report.table()}\nwrote {self.target} ({self.target_kind})"


def convert(source: str, target: str, **wishes: Any) -> Converted:
    """Turn weights of one kind into another.

    Args:
        source: a weight file of any kind, or a Hugging Face folder.
        target: `.pth` for ours, `.pkl` for SHI-Labs, a folder for Hugging Face.
        wishes: `to`, `label_map`, `experiment_spec`, `words` and `overwrite`, see `Conversion`.

    Raises:
        UserError: the source is not what it seems to be, lacks what the target needs, or the target stands already.
        WorkError: the target cannot be written.
    """
    wish = Conversion(source, target, **wishes)
    path = Path(target)
    if path.exists() and not wish.overwrite:
        raise UserError("the target is there already", where=target, hint="take another name, or --overwrite")
    from oneformer.model.weights.found import KINDS, find

    found = find(Path(source))
    kind = target_kind(wish, found)
    info, report = prepared(wish, found, kind)
    writer: Callable[[CheckpointInfo, Path], None] = {"ours": write_ours, "shi": write_shi, "hf": write_hf}[kind]
    with plain_files():  # the way out of an encrypted file, and what other programs read
        writer(info, path)
    return Converted(Path(source), KINDS[found.kind], path, NAMES[kind], report)


def target_kind(wish: Conversion, found: Found) -> str:
    """What to write: what the user said, or what the target's ending says. Raises UserError when that is not clear."""
    path = Path(wish.target)
    is_file = path.suffix in ENDINGS and path.suffix != ""
    if wish.to == "hf" and is_file:
        raise UserError("Hugging Face's kind is a folder, not a file", where=wish.target, hint="name a folder")
    if wish.to in ("ours", "shi") and (not path.suffix or path.is_dir()):
        raise UserError("a file needs an ending", where=wish.target, hint="such as .pth, or .pkl for SHI-Labs")
    if wish.to:
        return wish.to
    kind = "hf" if path.is_dir() else ENDINGS.get(path.suffix)
    if kind is None:
        raise UserError(
            f"no kind of weight file ends in {path.suffix}",
            where=wish.target,
            hint=".pth for ours, .pkl for SHI-Labs, a name without an ending for a Hugging Face folder, or --to",
        )
    if kind == "ours" and found.kind == "ours" and not wish.label_map:
        raise UserError(
            "the source is a checkpoint of ours, so this ending does not tell what the target shall be",
            where=wish.target,
            hint="--to shi for SHI-Labs, --to ours for a copy without training state",
        )
    return kind


def prepared(wish: Conversion, found: Found, kind: str) -> tuple[CheckpointInfo, LoadReport]:
    """The model as it will be written, checked, and the report."""
    from oneformer.data.labels import read_labels
    from oneformer.model.weights.fit import check_fit, compared, completed, tidied
    from oneformer.model.weights.notes import notes_on
    from oneformer.model.weights.numbers import check_numbers
    from oneformer.model.weights.relabel import placeholder, relabelled
    from oneformer.model.weights.settle import described, settled

    if not found.state:
        raise CheckpointError(
            f"this is {found.words}, not a whole model: {found.notes[0]}",
            where=wish.source,
            hint="backbones are for train.pretrained_backbone",
        )
    spec = settled(found, wish.spec_file, wish.words)
    label_map = wish.label_map or spec.dataset.label_map
    if not (label_map or found.labels) and kind != "shi":
        raise UserError(
            f"the file does not name its {spec.model.sem_seg_head.num_classes} classes",
            where=wish.source,
            hint="--label-map FILE: a JSON list of {id, name, isthing}, in the order of the classes",
        )
    labels = found.labels or placeholder(spec.model.sem_seg_head.num_classes)
    info = described(found, spec, labels)
    check_numbers(found.state, where=wish.source)
    report = compared(info, found.left)
    check_fit(info, report, task_may_miss=found.kind == "mask2former", where=wish.source)
    info = tidied(info, report)
    if report.missing:
        info = completed(info, report)
    notes = [*found.notes, *report.notes, *notes_on(found, info, kind, report)]
    if label_map:
        given = read_labels(replace(spec.dataset, label_map=label_map), splits=())
        changed = relabelled(info, given, named=found.labels is not None, where=wish.source)
        info, notes = changed.info, [*notes, *changed.notes]
        report = replace(report, reshaped=changed.reshaped)
    return info, replace(report, notes=tuple(notes))


def write_ours(info: CheckpointInfo, path: Path) -> None:
    """A checkpoint of ours, without training state."""
    from oneformer.model.weights.targets import ours_content
    from oneformer.train.checkpoint import write_checkpoint

    write_checkpoint(ours_content(info), path)


def write_shi(info: CheckpointInfo, path: Path) -> None:
    """SHI-Labs' tensors: numpy arrays in a pickle, as detectron2's model zoo has them, or a file of torch's."""
    import torch

    from oneformer.model.weights.targets import shi_tensors
    from oneformer.runs.atomic import write_atomic
    from oneformer.train.checkpoint import write_checkpoint

    tensors = {name: tensor.detach().contiguous() for name, tensor in shi_tensors(info).items()}
    if path.suffix != ".pkl":
        write_checkpoint({"model": {name: tensor.clone() for name, tensor in tensors.items()}}, path)
        return
    if any(tensor.dtype == torch.bfloat16 for tensor in tensors.values()):
        raise CheckpointError(
            "the weights are bfloat16, which numpy does not have", where=str(path), hint="write a .pth with --to shi"
        )
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    write_atomic(path, lambda file: pickle.dump({"model": arrays, "__author__": "oneformer"}, file, protocol=4))


def write_hf(info: CheckpointInfo, folder: Path) -> None:
    """A Hugging Face folder, there as a whole or not at all; one that stands there is replaced."""
    from oneformer.model.weights.hf_folder import is_hf
    from oneformer.model.weights.hf_write import write_hf_folder

    if folder.is_file():
        raise UserError("a file stands where the folder shall be", where=str(folder))
    there = list(folder.iterdir()) if folder.is_dir() else []
    if there and not (is_hf(folder) and all(path.is_file() for path in there)):
        raise UserError(
            "the folder holds other things than a model", where=str(folder), hint="name a new folder, or an empty one"
        )
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        part.mkdir(parents=True)
        write_hf_folder(info, part)
        if folder.exists():
            folder.replace(old)
        part.replace(folder)
    except OSError as error:
        raise WorkError(f"the folder cannot be written: {error.strerror or error}", where=str(folder)) from error
    finally:
        with suppress(OSError):
            if old.exists() and not folder.exists():  # the new one did not come to stand there
                old.replace(folder)
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
