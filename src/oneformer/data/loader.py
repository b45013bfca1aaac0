"""Records -> batches: data sets, the order of samples, and the loaders of training and evaluation."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from oneformer.data.annotation import open_annotated
from oneformer.data.augment import Augment, happens
from oneformer.data.batch import Parcel, collate
from oneformer.data.labels import LabelMap
from oneformer.data.mix import Cut, pasted
from oneformer.data.parallel import keep_memory
from oneformer.data.record import Record, RecordTable
from oneformer.data.reuse import Pool
from oneformer.data.sample import BACKGROUND, VOID, Norm, Sample, Truth, make_target, planes, scale_image
from oneformer.data.shelf import PAGE, Shelf, available, stand_at
from oneformer.data.sizes import Sizes
from oneformer.data.task import TASKS, all_texts, allowed_tasks, draw_task, probabilities_by_labels, texts_for
from oneformer.data.tokens import Tokenizer, task_tokenizer
from oneformer.errors import DataError, SpecError

if TYPE_CHECKING:
    from oneformer.spec.data import DatasetSpec
    from oneformer.spec.model import ModelSpec

Key = tuple[int, int]  # (epoch, index of the record)
PARTNER_TRIES = 10
# Blocks of a worker beside those it reads ahead: the one it fills, and one that waits for the device.
SPARE_BLOCKS = 2


class TrainSamples(Dataset[Sample | DataError]):
    """Training samples by (epoch, index): the same key gives the same sample, whichever worker makes it.

    A fault of a file is returned, not raised: torch would wrap it into a message of its own on the way out of a worker.
    """

    def __init__(
        self, dataset: DatasetSpec, labels: LabelMap, records: Sequence[Record], *, model: ModelSpec, seed: int
    ) -> None:
        self.records = RecordTable(records)
        self.labels = labels
        self.augment = Augment(dataset)
        self.cutmix_prob = dataset.cutmix_prob
        self.max_mpx = dataset.max_image_mpx
        self.num_texts = num_texts(model)
        labelled = dict.fromkeys(record.source.tasks for record in records)
        allowed = allowed_tasks(model.task_toggling)
        self.probabilities = probabilities_by_labels(dataset.task_prob_train, allowed, labelled)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> Sample | DataError:
        try:
            return self._sample(*key)
        except DataError as error:
            return error

    def _sample(self, epoch: int, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, epoch, index])
        record = self.records[index]
        task = draw_task(self.probabilities[record.source.tasks], rng)
        cut, original_size = self._cut(record, rng)
        if happens(self.cutmix_prob, rng) and (partner := self._partner(record, task, rng)) is not None:
            cut = pasted(cut, self._cut(partner, rng)[0], rng)
        rest = BACKGROUND if record.source.rest_is_background else VOID
        # Of what can be seen of the labels, which is less than the map where the photo was enlarged.
        target = make_target(cut.ids.seen, cut.segments, self.labels, task=task, regions=cut.regions, rest=rest)
        texts = texts_for(task, target.labels.tolist(), self.labels.names, num_texts=self.num_texts)
        return Sample(
            image=cut.pixels,
            size=cut.ids.shape,
            original_size=original_size,
            task=task,
            texts=texts,
            target=target.spread(cut.ids),
            truth=None,
            name=Path(record.image_path).name,
            image_id=record.image_id,
        )

    def _cut(self, record: Record, rng: np.random.Generator) -> tuple[Cut, tuple[int, int]]:
        """What augmentation leaves of a photo, and the photo's (height, width)."""
        with open_annotated(record, max_mpx=self.max_mpx) as (photo, labelled):
            kept = self.augment(photo, labelled.index, classes=labelled.classes(), rng=rng)
        return Cut(kept.pixels, kept.ids, labelled.segments, labelled.regions), photo.size

    def _partner(self, record: Record, task: str, rng: np.random.Generator) -> Record | None:
        """A photo to paste from: one with labels for the task, and whose unlabelled pixels mean the same.

        None when a few draws find none.
        """
        for _ in range(PARTNER_TRIES):
            other = self.records[int(rng.integers(len(self.records)))]
            alike = other.source.rest_is_background == record.source.rest_is_background
            if alike and task in other.source.tasks:
                return other
        return None


class EvaluationSamples(Dataset[Sample | DataError]):
    """Samples for scoring: the photo as in inference, the truth at the photo's own size; `fit` as in `Sizes`."""

    def __init__(self, dataset: DatasetSpec, records: Sequence[Record], *, fit: tuple[int, int] | None = None) -> None:
        self.records = RecordTable(records)
        self.sizes = Sizes(dataset.augmentation.test_min_size, dataset.augmentation.test_max_size, fit)
        self.max_mpx = dataset.max_image_mpx

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample | DataError:
        try:
            return self._sample(self.records[index])
        except DataError as error:
            return error

    def _sample(self, record: Record) -> Sample:
        with open_annotated(record, max_mpx=self.max_mpx) as (photo, labelled):
            pixels = scale_image(photo.pixels(), **self.sizes.limits(*photo.size))
        return Sample(
            image=planes(pixels),
            size=(pixels.shape[0], pixels.shape[1]),
            original_size=photo.size,
            task="panoptic",
            texts=[],
            target=None,
            truth=Truth.of(labelled, record.source.tasks),
            name=Path(record.image_path).name,
            image_id=record.image_id,
        )


class EpochSampler(Sampler[Key]):
    """The order of one rank's training samples: shuffled anew each epoch, restorable to any place.

    All ranks shuffle alike and take every `world_size`-th sample, so each sample is seen once per epoch; the first ones
    again where `length` is no multiple of `world_size`, since ranks must make equally many steps. Workers read ahead,
    so the sampler cannot know what was trained on: whoever trains says so with `advance`.
    """

    def __init__(self, seed: int, length: int, rank: int = 0, world_size: int = 1) -> None:
        assert length > 0 and 0 <= rank < world_size
        self.seed, self.length, self.rank, self.world_size = seed, length, rank, world_size
        self.epoch = 0
        self.done = 0

    def __len__(self) -> int:
        """Samples of this rank that the epoch still has; all of them unless a place in the epoch was restored."""
        return -(-self.length // self.world_size) - self.done

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        count = -(-self.length // self.world_size)
        own = np.resize(order, count * self.world_size)[self.rank :: self.world_size]
        epoch = self.epoch
        return iter([(epoch, int(index)) for index in own[self.done :]])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives; another one than the present starts at its beginning."""
        if epoch != self.epoch:
            self.epoch, self.done = epoch, 0

    def advance(self, samples: int) -> None:
        """Note that this rank has trained on so many more samples of the epoch."""
        self.done += samples

    def state_dict(self) -> dict[str, int]:
        """The epoch and how many samples all ranks together have trained on in it."""
        return {"epoch": self.epoch, "done": self.done * self.world_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken, also with another number of ranks."""
        self.epoch = int(state["epoch"])
        self.done = int(state["done"]) // self.world_size
        if self.done >= -(-self.length // self.world_size):
            self.epoch, self.done = self.epoch + 1, 0


class Loader(DataLoader[Any]):
    """A DataLoader of batches whose workers send parcels, and faults of files, to be raised as they are.

    `packed` hands the parcels over: whoever takes them makes the batches, on the device that needs them.
    """

    packed = False

    def __init__(self, *args: Any, block_bytes: int = 0, **options: Any) -> None:
        """As torch's; `block_bytes` is how many bytes of pixels and numbers a batch has at most, 0 if nobody knows."""
        super().__init__(*args, **options)
        self._pool = Pool()
        self.block_bytes = block_bytes

    def __iter__(self) -> Any:
        if self._iterator is None and self.num_workers and self.block_bytes and available():
            # New workers get a new shelf: what those before them had taken is not given back any more.
            shelf = Shelf(self.num_workers, (self.prefetch_factor or 0) + SPARE_BLOCKS, self.block_bytes)
            self.worker_init_fn = partial(_begin, shelf)
        for parcel in super().__iter__():
            if isinstance(parcel, DataError):
                # Nothing may hold the workers any longer (so a new error, not `parcel`, whose traceback would hold this
                # frame): they end at once now, while ended by the garbage collector each takes five seconds.
                self._iterator = None
                raise DataError(parcel.what, where=parcel.where, hint=parcel.hint)
            parcel.pool = self._pool
            made = [parcel if self.packed else parcel.to("cpu")]
            del parcel  # held here, its memory would be taken until the next one has come
            yield made.pop()


def train_loader(
    dataset: DatasetSpec,
    labels: LabelMap,
    records: Sequence[Record],
    *,
    model: ModelSpec,
    seed: int,
    ranks: tuple[int, int] = (0, 1),
) -> Loader:
    """Batches of training samples for one rank; `ranks` is (rank, number of ranks).

    `loader.sampler` is the EpochSampler: call `set_epoch` before each epoch. All batches have the crop's shape (rounded
    up to the size divisibility), the last one of an epoch may hold fewer samples.
    """
    samples = TrainSamples(dataset, labels, records, model=model, seed=seed)
    text_tokenizer = Tokenizer(dataset.max_seq_len)
    text_tokenizer.encode_all(all_texts(labels.names))
    _say_cut_texts(records, samples)
    height, width = dataset.augmentation.train_crop_size
    return _loader(
        samples,
        dataset,
        "train",
        sampler=EpochSampler(seed, len(samples), *ranks),
        batch_size=dataset.train.batch_size,
        # Three bytes of pixels and a number of two.
        block_bytes=5 * int(height) * int(width) * dataset.train.batch_size + PAGE,
        collate_fn=partial(
            collate_or_fault,
            norm=Norm.of(dataset),
            task_tokenizer=_task_tokenizer(model),
            text_tokenizer=text_tokenizer,
            size_divisibility=model.one_former.size_divisibility,
            pad_to=(int(height), int(width)),
        ),
    )


def eval_loader(
    dataset: DatasetSpec,
    records: Sequence[Record],
    *,
    split: str,
    model: ModelSpec,
    fit: tuple[int, int] | None = None,
    ranks: tuple[int, int] = (0, 1),
) -> Loader:
    """Batches for scoring, in file order, with truths; each record on one rank, see `share`.

    `split` ("val" or "test") gives the workers and the batch size. With `fit` (height, width) photos are fitted into
    this frame and every batch has its size.
    """
    batch_size = getattr(dataset, split).batch_size
    own = share(records, batch_size=batch_size, rank=ranks[0], world_size=ranks[1])
    tokenizer = _task_tokenizer(model)
    return _loader(
        EvaluationSamples(dataset, own, fit=fit),
        dataset,
        split,
        sampler=None,
        batch_size=batch_size,
        collate_fn=partial(
            collate_or_fault,
            norm=Norm.of(dataset),
            task_tokenizer=tokenizer,
            text_tokenizer=tokenizer,
            size_divisibility=1 if fit else model.one_former.size_divisibility,
            pad_to=fit,
        ),
    )


def share(items: Sequence[Any], *, batch_size: int, rank: int, world_size: int) -> list[Any]:
    """What one of several processes scores or predicts: every `world_size`-th batch of those that one would make.

    An image is padded to the largest of its batch, so only with the same batches are the results the same to the last
    digit, whatever the number of processes. Each item is in one share; shares differ by one batch at most.
    """
    starts = range(rank * batch_size, len(items), world_size * batch_size)
    return [item for start in starts for item in items[start : start + batch_size]]


def _loader(samples: Dataset[Any], dataset: DatasetSpec, split: str, **options: Any) -> Loader:
    workers = getattr(dataset, split).num_workers
    return Loader(
        samples,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=partial(_begin, None),
        pin_memory=dataset.pin_memory and torch.cuda.is_available(),
        **options,
    )


def _begin(shelf: Shelf | None, worker: int) -> None:
    """What a worker does first."""
    keep_memory()
    if shelf is not None:
        stand_at(shelf, worker)


def collate_or_fault(samples: Sequence[Sample | DataError], **options: Any) -> Parcel | DataError:
    """`collate`, or the first fault among the samples."""
    faults = [s for s in samples if isinstance(s, DataError)]
    return faults[0] if faults else collate([s for s in samples if isinstance(s, Sample)], **options)


def num_texts(model: ModelSpec) -> int:
    """Texts per photo: queries less learned text contexts. Raises SpecError when none is left."""
    queries, contexts = model.one_former.num_object_queries, model.text_encoder.n_ctx
    if queries <= contexts:
        raise SpecError(
            f"{queries} queries leave no text beside {contexts} learned contexts",
            where="model.one_former.num_object_queries",
            hint="raise it above model.text_encoder.n_ctx",
        )
    return queries - contexts


def _task_tokenizer(model: ModelSpec) -> Tokenizer:
    tokenizer = task_tokenizer(model.text_encoder)
    for task in TASKS:
        tokenizer.task_tokens(task)
    return tokenizer


def _say_cut_texts(records: Sequence[Record], samples: TrainSamples) -> None:
    """Log once how many photos have more objects than texts (or queries to find them)."""
    many = sum(sum(not s.iscrowd for s in record.segments) > samples.num_texts for record in records)
    if many:
        text = "%d of %d photos have more than %d objects, the rest gets no text: more queries would help"
        logging.getLogger(__name__).warning(text, many, len(records), samples.num_texts)
