"""Records -> the loaders of a fit, each rank its share, from any place of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from oneformer.data.batch import Batch, Parcel
from oneformer.data.labels import LabelMap
from oneformer.data.loader import EpochSampler, Loader, eval_loader, train_loader
from oneformer.data.record import Record

if TYPE_CHECKING:
    from oneformer.spec.data import DatasetSpec
    from oneformer.spec.model import ModelSpec


class DataModule(pl.LightningDataModule):
    """Training and validation batches; `resume_at` names the place to go on from."""

    def __init__(
        self,
        dataset: DatasetSpec,
        labels: LabelMap,
        *,
        train: Sequence[Record],
        val: Sequence[Record],
        model: ModelSpec,
        seed: int,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.labels = labels
        self.records = {"train": train, "val": val}
        self.model_spec = model
        self.seed = seed
        self.resume_at: dict[str, int] | None = None
        self._train: Loader | None = None

    def batches_per_epoch(self, world_size: int) -> int:
        """Training batches of one rank in a whole epoch."""
        samples = -(-len(self.records["train"]) // world_size)
        return -(-samples // self.dataset.train.batch_size)

    @override
    def train_dataloader(self) -> Loader:
        """Batches of this rank, shuffled anew each epoch."""
        self._train = train_loader(
            self.dataset,
            self.labels,
            self.records["train"],
            model=self.model_spec,
            seed=self.seed,
            ranks=self._ranks(),
        )
        self._train.packed = True
        return self._train

    @override
    def val_dataloader(self) -> Loader | list[Any]:
        """Batches of this rank in file order; none when there are no validation images."""
        if not self.records["val"]:
            return []
        loader = eval_loader(self.dataset, self.records["val"], split="val", model=self.model_spec, ranks=self._ranks())
        loader.packed = True
        return loader

    def go_to_place(self) -> None:
        """Let the sampler begin at `resume_at`.

        Called once Lightning has asked the loader for its length: from here on that is the length of the rest.
        """
        if self.resume_at is not None:
            assert self._train is not None and isinstance(self._train.sampler, EpochSampler)
            self._train.sampler.load_state_dict(self.resume_at)
            self.resume_at = None

    @override
    def transfer_batch_to_device(self, batch: Parcel, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch, made on the device; page-locked memory is copied while the GPU works."""
        return batch.to(device, non_blocking=True)

    def _ranks(self) -> tuple[int, int]:
        assert self.trainer is not None
        return self.trainer.global_rank, self.trainer.world_size
