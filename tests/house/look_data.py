"""A spec -> the classes, batches and loaders that the `dataset` section makes."""

from __future__ import annotations

from typing import Any
from unittest import mock

from house.world import World, digest
from oneformer.data.batch import Batch
from oneformer.data.formats import read_records
from oneformer.data.labels import LabelMap, read_labels
from oneformer.data.loader import Loader, eval_loader, train_loader
from oneformer.spec import ExperimentSpec


def classes(spec: ExperimentSpec, _: World) -> LabelMap:
    """The class table."""
    return read_labels(spec.dataset)


def training(spec: ExperimentSpec, world: World) -> list[Any]:
    """Every batch of six epochs, so that whatever has a chance to happen does."""
    loader = train_batches(spec)
    found = []
    for epoch in range(6):
        loader.sampler.set_epoch(epoch)
        found += [shown(batch) for batch in loader]
    return found


def train_batches(spec: ExperimentSpec) -> Loader:
    """The loader of training."""
    labels = read_labels(spec.dataset)
    records = read_records(spec.dataset, "train", labels)
    return train_loader(spec.dataset, labels, records, model=spec.model, seed=spec.train.seed)


def eval_batches(spec: ExperimentSpec, split: str) -> Loader:
    """The loader of scoring."""
    labels = read_labels(spec.dataset)
    records = read_records(spec.dataset, split, labels)
    return eval_loader(spec.dataset, records, split=split, model=spec.model)


def validation(spec: ExperimentSpec, _: World) -> list[Any]:
    """Every batch of the validation split."""
    return [shown(batch) for batch in eval_batches(spec, "val")]


def test(spec: ExperimentSpec, _: World) -> list[Any]:
    """Every batch of the test split."""
    return [shown(batch) for batch in eval_batches(spec, "test")]


test.__test__ = False  # type: ignore[attr-defined]  # not a test of its own


def loaders(spec: ExperimentSpec, _: World) -> list[Any]:
    """Processes and page-locked memory of each split's loader, as on a machine with a GPU."""
    with mock.patch("torch.cuda.is_available", lambda: True):
        found = [train_batches(spec), eval_batches(spec, "val"), eval_batches(spec, "test")]
    return [(loader.num_workers, loader.pin_memory) for loader in found]


def shown(batch: Batch) -> list[Any]:
    """A batch as plain values."""
    parts: list[Any] = [batch.images, batch.task_tokens, batch.text_tokens, batch.text_index]
    parts += [[t.labels, t.masks] for t in batch.targets or []]
    parts += [[t.id_map, t.segments] for t in batch.truths or []]
    return [batch.names, batch.tasks, batch.sizes, tuple(batch.images.shape), digest(parts)]
