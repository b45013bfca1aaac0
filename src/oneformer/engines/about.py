"""What an exported file says beside its graph <-> JSON: classes, normalisation, sizes, task tokens, origin.

The text lies inside the graph file under the name `oneformer` and beside it as `<stem>.json`; the one inside wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oneformer import __version__
from oneformer.data.labels import LabelMap
from oneformer.engines.base import EngineInfo
from oneformer.errors import CheckpointError, UserError
from oneformer.segments.types import TASKS
from oneformer.spec.model import ModelSpec
from oneformer.spec.tree import from_dict, to_dict

FORMAT = 1
"""Layout that this version writes and reads."""
KEY = "oneformer"
INPUTS = ("images", "task_tokens")
OUTPUTS = ("pred_logits", "pred_masks")


@dataclass(frozen=True)
class About:
    """Everything a reader of a graph needs to know that the graph does not tell."""

    labels: LabelMap
    info: EngineInfo
    """As for a checkpoint; the sizes that the graph fixes come from the graph."""
    task_tokens: dict[str, list[float]]
    """Task -> what goes into `task_tokens` for it, as many numbers as the text encoder has tokens."""
    task: str = "semantic"
    """What the exporter named as the usual task."""
    precision: str = "fp32"
    embed_preprocess: bool = False
    """Images go in as RGB bytes (B, H, W, 3), masks come out at the input's size."""
    origin: dict[str, Any] = field(default_factory=dict)
    """Checkpoint, its epoch and step, versions: for people."""

    def to_dict(self) -> dict[str, Any]:
        """The content of model.json."""
        labels, info = self.labels, self.info
        dtype, layout = ("uint8", "BHWC") if self.embed_preprocess else ("float32", "BCHW")
        rows = zip(labels.category_ids, labels.names, labels.is_thing, labels.colors, strict=True)
        return {
            "format": FORMAT,
            "oneformer": __version__,
            "origin": self.origin,
            "classes": [
                {"class_id": i, "category_id": c, "name": n, "isthing": int(t), "color": list(rgb)}
                for i, (c, n, t, rgb) in enumerate(rows)
            ],
            "thing_ids": list(labels.thing_ids),
            "images": {
                "dtype": dtype,
                "layout": layout,
                "channels": "RGB",
                "embed_preprocess": self.embed_preprocess,
            },
            "normalisation": {"mean": list(info.pixel_mean), "std": list(info.pixel_std)},
            "sizes": {
                "test_min_size": info.test_min_size,
                "test_max_size": info.test_max_size,
                "size_divisibility": info.size_divisibility,
            },
            "task": self.task,
            "task_tokens": self.task_tokens,
            "precision": self.precision,
            "trained": {"epoch": info.epoch, "step": info.step, "metrics": info.metrics},
            "model": to_dict(info.model),
        }

    def to_json(self) -> str:
        """`to_dict` on one line, for the graph file itself."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


def read_about(path: Path, embedded: str | None) -> About:
    """What the file says of itself, or what `<stem>.json` beside it says.

    Raises:
        CheckpointError: neither is there, or what is there cannot be understood.
    """
    beside = path.with_suffix(".json")
    if embedded is None and not beside.is_file():
        raise CheckpointError(
            "the graph says nothing of its classes and sizes, and there is no description beside it",
            where=str(path),
            hint=f"put the {beside.name} that oneformer export wrote beside it, or export it again",
        )
    where = str(path if embedded is not None else beside)
    try:
        return parse(json.loads(embedded if embedded is not None else beside.read_text(encoding="utf-8")))
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what, hint = f"the description of the graph is broken: {_told(error)}", "export the checkpoint again"
        raise CheckpointError(what, where=where, hint=hint) from error


def is_about(path: Path) -> bool:
    """Whether a file is a description of a graph, and no other JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"oneformer", "classes", "task_tokens"} <= content.keys()


def _told(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]!r}"
    if isinstance(error, TypeError | AttributeError):
        return "a value is of another kind than it has to be"
    return error.what if isinstance(error, UserError) else str(error)


def parse(stored: Mapping[str, Any]) -> About:
    """The inverse of `About.to_dict`. Raises KeyError, TypeError, ValueError or UserError."""
    if not isinstance(stored, Mapping):
        raise ValueError("it is no JSON object")
    if stored.get("format") != FORMAT:
        raise CheckpointError(f"it has format {stored.get('format')}, this version reads format {FORMAT}")
    classes = stored["classes"]
    labels = LabelMap.from_dict(
        {
            "names": [c["name"] for c in classes],
            "is_thing": [c["isthing"] for c in classes],
            "colors": [c["color"] for c in classes],
            "category_ids": [c["category_id"] for c in classes],
        }
    )
    model = from_dict(ModelSpec, stored["model"], where="model")
    trained, sizes, scale = stored["trained"], stored["sizes"], stored["normalisation"]
    info = EngineInfo(
        pixel_mean=tuple(float(x) for x in scale["mean"]),
        pixel_std=tuple(float(x) for x in scale["std"]),
        test_min_size=int(sizes["test_min_size"]),
        test_max_size=int(sizes["test_max_size"]),
        model=model,
        epoch=int(trained["epoch"]),
        step=int(trained["step"]),
        metrics={str(k): float(v) for k, v in trained["metrics"].items()},
    )
    tokens = {task: [float(x) for x in stored["task_tokens"][task]] for task in TASKS}
    if {len(row) for row in tokens.values()} != {model.text_encoder.context_length}:
        raise ValueError("the task tokens are not as many as the text encoder takes")
    return About(
        labels=labels,
        info=info,
        task_tokens=tokens,
        task=str(stored["task"]),
        precision=str(stored["precision"]),
        embed_preprocess=bool(stored["images"]["embed_preprocess"]),
        origin=dict(stored["origin"]),
    )
