"""A weight file of anybody -> what it holds, as facts for people and for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oneformer.model.weights.describe import describe
from oneformer.model.weights.fit import COMPUTED, TEXT
from oneformer.model.weights.found import Found, find
from oneformer.model.weights.numbers import not_finite
from oneformer.model.weights.settle import check_told
from oneformer.model.weights.sizes import sizes_of
from oneformer.spec.model import ModelSpec

SHOWN = 8  # names that one line lists
MIB = 1 << 20


@dataclass(frozen=True)
class Inspection:
    """What a weight file holds."""

    path: str
    kind: str
    """A key of `found.KINDS`."""
    what: str
    """The kind in words."""
    size_bytes: int
    backbone: str
    """Such as "Swin-T (embed_dim 96, depths 2-2-6-2, window 7)"; empty where there is none."""
    queries: int | None
    classes: int | None
    class_names: list[str]
    things: list[str]
    """Names of the countable classes."""
    parameters: int
    """Numbers in the network's tensors, the text branch and buffers of others not counted."""
    text_parameters: int
    tensors: dict[str, int]
    """Number type -> how many tensors have it."""
    epoch: int | None
    step: int | None
    metrics: dict[str, float]
    not_finite: dict[str, int]
    """Tensor -> how many of its numbers are NaN or infinite."""
    settings: dict[str, Any]
    """What the file says of the network and its images, by key of the spec."""
    without_place: list[str]
    """Tensors that our network has no place for, those apart that it computes itself."""
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """All facts."""
        return asdict(self)

    def table(self) -> str:
        """One line for each fact."""
        rows = {
            "kind": self.what,
            "backbone": self.backbone,
            "queries": str(self.queries or ""),
            "classes": self._classes(),
            "parameters": self._parameters(),
            "tensors": ", ".join(f"{count} {name}" for name, count in self.tensors.items()),
            "trained": self._trained(),
            "images": self._images(),
            "task sentence": "filled up with end tokens, as NVIDIA TAO does" if self._tao() else "",
            "numbers": self._numbers(),
            "not used here": shown(self.without_place),
            "size": f"{self.size_bytes / MIB:.1f} MiB",
        }
        wide = max(map(len, rows))
        lines = [f"  {name:<{wide}}  {text}" for name, text in rows.items() if text]
        return "\n".join([self.path, *lines, *(f"  note: {note}" for note in self.notes)])

    def _classes(self) -> str:
        if self.classes is None:
            return ""
        if not self.class_names:
            return f"{self.classes}, not named"
        stuff = self.classes - len(self.things)
        return f"{self.classes} ({len(self.things)} things, {stuff} stuff): {shown(self.class_names)}"

    def _parameters(self) -> str:
        more = f", and {self.text_parameters:,} of the text branch" if self.text_parameters else ""
        return f"{self.parameters:,}{more}" if self.parameters else ""

    def _trained(self) -> str:
        if not self.step:  # of a converted file nothing is known
            return ""
        scores = [f"{n} {v:.4g}" for n, v in self.metrics.items() if "IoU_" not in n]
        return f"epoch {self.epoch}, step {self.step}{'; ' if scores else ''}{shown(scores)}"

    def _images(self) -> str:
        at = "dataset.augmentation.test_"
        low, high = self.settings.get(at + "min_size"), self.settings.get(at + "max_size")
        mean, std = self.settings.get("dataset.pixel_mean"), self.settings.get("dataset.pixel_std")
        size = f"shorter side {low}, longer at most {high} pixels" if low else ""
        return ", ".join(part for part in (size, f"mean {mean}, deviation {std}" if mean else "") if part)

    def _tao(self) -> bool:
        return self.settings.get("model.text_encoder.task_padding") == "tao"

    def _numbers(self) -> str:
        if not self.not_finite:
            return "all finite"
        named = [f"{name} ({count})" for name, count in self.not_finite.items()]
        return f"NaN or infinite in {len(named)} tensors: {shown(named)}"


def inspected(path: Path) -> Inspection:
    """Look into a weight file or folder of any kind.

    Raises:
        CheckpointError: it is missing, broken, would run code, or contradicts itself.
    """
    found = find(path)
    check_told(found)
    state = found.state or found.left
    sizes = sizes_of(found.state, heads=ModelSpec().one_former.nheads)
    network = {n: t for n, t in state.items() if not n.startswith("criterion.")}
    text = sum(t.numel() for n, t in network.items() if n.startswith(TEXT))
    return Inspection(
        path=str(path),
        kind=found.kind,
        what=found.words,
        size_bytes=size_of(path),
        backbone=backbone_of(found),
        queries=sizes.get("model.one_former.num_object_queries"),
        classes=sizes.get("model.sem_seg_head.num_classes"),
        class_names=list(found.labels.names) if found.labels else [],
        things=[found.labels.names[i] for i in found.labels.thing_ids] if found.labels else [],
        parameters=sum(t.numel() for t in network.values()) - text,
        text_parameters=text,
        tensors=dict(Counter(str(t.dtype).removeprefix("torch.") for t in (found.state | found.left).values())),
        epoch=found.info.epoch if found.info else None,
        step=found.info.step if found.info else None,
        metrics=found.info.metrics if found.info else {},
        not_finite=not_finite(found.state | found.left),
        settings=found.told,
        without_place=sorted(n for n in found.left if not n.endswith(COMPUTED)) if found.state else [],
        notes=list(found.notes) if found.state else [],
    )


def backbone_of(found: Found) -> str:
    """The backbone in words."""
    if not found.state:
        return found.notes[0]
    inner = {name: tensor for name, tensor in found.state.items() if name.startswith("backbone.")}
    return describe(inner) if inner else ""


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [p for p in path.iterdir() if p.is_file()]
    return sum(p.stat().st_size for p in files)


def shown(names: list[str]) -> str:
    """Some of the names."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
