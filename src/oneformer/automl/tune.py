"""A search -> `oneformer automl tune`: thresholds of post-processing that suit its best checkpoint, without training.

The network runs once over the validation images and its outputs are kept in memory; each try is post-processing alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from oneformer.actions.plan import Plan
from oneformer.automl import thresholds
from oneformer.automl.results import Winner, to_evaluate, winner_of
from oneformer.errors import UserError

if TYPE_CHECKING:
    from oneformer.data.batch import Batch
    from oneformer.data.labels import LabelMap
    from oneformer.segments.types import Outputs
    from oneformer.spec import ExperimentSpec
    from oneformer.spec.model import TestSpec

KEPT_BYTES = 2**30
"""Of outputs; as many images are looked at as fit into this."""


@dataclass(frozen=True)
class Thresholds:
    """What was found, as it lies in `thresholds.json`."""

    told: Mapping[str, Any]
    file: str

    def to_dict(self) -> dict[str, Any]:
        """The file's content and its path."""
        return {**self.told, "file": self.file}

    def table(self) -> str:
        """Scores before and after on both halves, then the keys."""
        from oneformer.report.tables import align

        told = self.told
        rows = [
            (
                told["scores"][task],
                *(f"{told[when][half][task]:.4g}" for half in ("chosen_by", "told_by") for when in ("before", "after")),
            )
            for task in told["before"]["told_by"]
        ]
        head = ("score", "before", "after", "before", "after")
        count = told["images"]
        lines = [
            f"trial {told['trial']}: {told['tried']} tries, chosen by {count['chosen_by']} of the validation images "
            f"(left), told by {count['told_by']} others (right)",
            align(head, rows, text_columns=1),
        ]
        lines += [f"{key}: {told['own'][key]} -> {value}" for key, value in told["found"].items()]
        if not told["found"]:
            lines.append("nothing is better than the spec's own thresholds")
        elif told["handed_over"]:
            lines.append("export-best hands them over")
        else:
            lines.append("they do not hold on the other images, so that the spec's own stay")
        return "\n".join([*lines, self.file])


def tune(spec: ExperimentSpec, *, dry_run: bool = False) -> Thresholds | Plan:
    """Choose thresholds for the best trial by every second validation image, and tell by the others their worth.

    Raises:
        UserError: no trial has a score, or the network knows neither panoptic nor instance segmentation.
        WorkError: the checkpoint has changed since its score was recorded.
    """
    with winner_of(spec) as winner:
        folder = winner.study.folder
        if dry_run:
            return Plan({"checkpoint": str(winner.file)}, [str(folder / thresholds.FILE)])
        began = time.monotonic()
        kept = _kept(winner)
        found = thresholds.tuned(kept.own, kept.tasks, kept.scored)
        facts = {
            "trial": winner.trial.id,
            "digest": winner.record.digest,
            "images": {"chosen_by": -(-kept.images // 2), "told_by": kept.images // 2},
            "scores": {task: kept.metric(task) for task in kept.tasks},
            "seconds": round(time.monotonic() - began, 1),
        }
        return Thresholds(thresholds.write(folder, found, facts), str(folder / thresholds.FILE))


@dataclass
class Kept:
    """What the network gave for the images."""

    own: TestSpec
    tasks: tuple[str, ...]
    labels: LabelMap
    panoptic_metric: str
    batches: list[tuple[Batch, Mapping[str, Outputs]]]
    images: int = 0

    def metric(self, task: str) -> str:
        """The score of a task."""
        return self.panoptic_metric if task == "panoptic" else "AP"

    def scored(self, test: TestSpec, tasks: tuple[str, ...], half: int) -> dict[str, float]:
        """Task -> its score on every second image: those at even places (half 0) or odd ones (half 1)."""
        from oneformer.metrics.evaluator import Evaluator

        evaluator, start = Evaluator(self.labels, tasks=tasks, test=test), 0
        for batch, outputs in self.batches:
            places = [place for place in range(len(batch)) if (start + place) % 2 == half]
            start += len(batch)
            for task in tasks:
                evaluator.update(task, outputs[task], batch, only=places)
        found = evaluator.compute().kpi()
        return {task: found.get(self.metric(task), 0.0) for task in tasks}


def _kept(winner: Winner) -> Kept:
    """Run the network over the validation images, as many as can be kept."""
    import torch

    from oneformer.actions.evaluate import as_trained, labelled_tasks, read_data
    from oneformer.data.loader import eval_loader
    from oneformer.data.sources import fetched
    from oneformer.predict.setup import chosen_tasks, open_engine
    from oneformer.train.devices import choose_devices

    spec = fetched(to_evaluate(winner, thresholds.FILE), "evaluate")
    labels, records = read_data(spec.dataset, "test", thorough=False)
    engine = open_engine(spec.evaluate, device=str(choose_devices(spec.evaluate, key="evaluate").device))
    known = labelled_tasks(chosen_tasks("all", engine, key="evaluate.task"), records, split="test")
    tasks = tuple(task for task in known if task != "semantic")
    if not tasks or len(records) < 2:
        what = "thresholds are those of panoptic and instance segmentation, and the validation images have neither"
        raise UserError(
            what if records[1:] else "two validation images are needed, one to choose by and one to tell by"
        )
    metric = winner.brain.goal.metric
    kept = Kept(spec.model.test, tasks, labels, metric if metric.startswith("PQ") else "PQ", [])
    size = 0
    for batch in eval_loader(as_trained(spec.dataset, engine), records, split="test", model=engine.info.model):
        with torch.inference_mode():
            outputs = {task: found.to("cpu") for task, found in engine.outputs(batch.images, tasks).items()}
        more = sum(part.nbytes for found in outputs.values() for part in (found.class_logits, found.mask_logits))
        if kept.images >= 2 and size + more > KEPT_BYTES:
            break
        shape_only = torch.empty(1).expand(batch.images.shape)  # scores need the padded size, not the pixels
        kept.batches.append((replace(batch, images=shape_only), outputs))
        kept.images, size = kept.images + len(batch), size + more
    return kept
