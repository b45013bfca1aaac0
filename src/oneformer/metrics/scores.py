"""The scores of an evaluation -> the content of metrics.json and the flat names of status lines, all in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HEADLINES = ("mIoU", "PQ", "AP")


@dataclass(frozen=True)
class Scores:
    """What was measured per task, None for a task that was not evaluated; percent, None where nothing was to be scored.

    Args:
        semantic: mIoU fwIoU mAcc pAcc per_class{name: IoU Acc pixels}.
        panoptic: all things stuff {PQ SQ RQ n} and per_class{name: PQ SQ RQ tp fp fn isthing}.
        instance: AP AP50 AP75 APs APm APl per_class{name: the same, n}.
        image_scores: per task, (image name, score) in the order of the names: mean IoU for semantic, PQ for panoptic,
            and, where nothing else was scored, the mean best IoU of the objects for instance.
            Images without anything to score are left out.
        apart: the scores of each data set by its name, where several were scored together.
    """

    semantic: Mapping[str, Any] | None = None
    panoptic: Mapping[str, Any] | None = None
    instance: Mapping[str, Any] | None = None
    image_scores: Mapping[str, Sequence[tuple[str, float]]] = field(default_factory=dict)
    apart: Mapping[str, Scores] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """metrics.json: one entry per evaluated task, plain JSON types, no NaN; of several data sets `datasets` too."""
        tasks = {"semantic": self.semantic, "panoptic": self.panoptic, "instance": self.instance}
        found = {task: dict(scores) for task, scores in tasks.items() if scores is not None}
        apart = {name: scores.to_dict() for name, scores in self.apart.items()}
        return {**found, "datasets": apart} if apart else found

    def kpi(self, prefix: str = "") -> dict[str, float]:
        """Flat names for status lines, logs and choosing the best checkpoint; what could not be scored is left out.

        `mIoU ACC_all IoU_<class>`, `PQ PQ_things PQ_stuff`, `AP`, each after `prefix`; white space in class names
        becomes `_`. Of several data sets `mIoU/<name>` and the like are those of one.
        """
        found: dict[str, float | None] = {}
        if self.semantic is not None:
            found |= {"mIoU": self.semantic["mIoU"], "ACC_all": self.semantic["pAcc"]}
        if self.panoptic is not None:
            found |= {"PQ": self.panoptic["all"]["PQ"]}
            found |= {f"PQ_{group}": self.panoptic[group]["PQ"] for group in ("things", "stuff")}
        if self.instance is not None:
            found["AP"] = self.instance["AP"]
        if self.semantic is not None:
            for name, values in self.semantic["per_class"].items():
                found[f"IoU_{'_'.join(name.split())}"] = values["IoU"]
        for name, scores in self.apart.items():
            own = scores.kpi()
            found |= {f"{metric}/{name}": own[metric] for metric in HEADLINES if metric in own}
        return {f"{prefix}{name}": value for name, value in found.items() if value is not None}

    def worst_first(self, task: str) -> list[tuple[str, float]]:
        """The images of a task by rising score, by name among equals."""
        return sorted(self.image_scores.get(task, ()), key=lambda item: (item[1], item[0]))
