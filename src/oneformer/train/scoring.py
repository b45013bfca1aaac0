"""Validation batches -> scores of every task, exact over all ranks; image features are computed once for all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from oneformer.data.batch import Batch
from oneformer.data.labels import LabelMap
from oneformer.data.tokens import task_tokenizer
from oneformer.metrics.apart import ApartEvaluator
from oneformer.metrics.scores import Scores
from oneformer.segments.types import Outputs

if TYPE_CHECKING:
    from oneformer.model.oneformer import OneFormer
    from oneformer.spec.model import TestSpec, TextEncoderSpec


class Scoring:
    """Scores of one validation after another.

    Args:
        labels: the classes.
        tasks: what to score; each image is scored on every one.
        test: thresholds of post-processing.
        text: how long task sentences are and what fills them up.
        sets: the data set of each validation image, in file order; several are scored apart too.
        batch_size: of the validation batches.
    """

    def __init__(
        self,
        labels: LabelMap,
        *,
        tasks: Sequence[str],
        test: TestSpec,
        text: TextEncoderSpec,
        sets: Sequence[str] = (),
        batch_size: int = 1,
    ) -> None:
        self._batch_size = batch_size
        self.tasks = tuple(tasks)
        tokenizer = task_tokenizer(text)
        self._tokens = {task: tokenizer.task_tokens(task) for task in self.tasks}  # float32 (77,) each
        self._evaluator = ApartEvaluator(labels, tasks=self.tasks, test=test, sets=sets)
        self.scores: Scores | None = None

    def start(self) -> None:
        """Forget the validation before."""
        several = torch.distributed.is_initialized()
        rank, world_size = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if several else (0, 1)
        self._evaluator.start(rank, world_size, batch_size=self._batch_size)

    @torch.no_grad()
    def count(self, model: OneFormer, batch: Batch) -> None:
        """Run the network on one batch for every task and count what it says."""
        features = model.features(batch.images)
        memory = model.memory(features) if len(self._tokens) > 1 else None
        for task, tokens in self._tokens.items():
            task_tokens = tokens.to(batch.images.device).expand(len(batch), -1)  # (B, 77)
            decoded = model.decode(features, task_tokens, memory=memory)
            outputs = Outputs(decoded.class_logits.float(), decoded.mask_logits.float())
            self._evaluator.update(task, outputs, batch)

    def finish(self) -> dict[str, float]:
        """Scores over all ranks by kpi name; the same on every rank."""
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            states: list[object] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(states, self._evaluator.state())
            self._evaluator.merge(states)  # type: ignore[arg-type]
        self.scores = self._evaluator.compute()
        return self.scores.kpi()
