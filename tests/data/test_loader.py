"""Loaders: repeatable whatever the number of workers, restorable in the middle, each photo scored once."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from oneformer.data.batch import Batch, Parcel
from oneformer.data.formats import read_records
from oneformer.data.labels import LabelMap, read_labels
from oneformer.data.loader import EpochSampler, Loader, eval_loader, train_loader
from oneformer.data.record import Record
from oneformer.data.shelf import available
from oneformer.data.task import FILLERS
from oneformer.errors import DataError, SpecError
from oneformer.spec.data import DatasetSpec
from oneformer.spec.model import ModelSpec
from tiny import TinyDataset


@pytest.fixture
def labels(dataset: DatasetSpec) -> LabelMap:
    return read_labels(dataset)


@pytest.fixture
def records(dataset: DatasetSpec, labels: LabelMap) -> list[Record]:
    return read_records(dataset, "train", labels)


@pytest.fixture
def model() -> ModelSpec:
    spec = ModelSpec()
    spec.one_former.num_object_queries, spec.text_encoder.n_ctx = 20, 4
    return spec


def epoch(loader: Loader, number: int) -> list[Batch]:
    loader.sampler.set_epoch(number)
    return list(loader)


def same(a: Batch, b: Batch) -> bool:
    assert a.targets is not None and b.targets is not None and a.text_tokens is not None and b.text_tokens is not None
    return (
        torch.equal(a.images, b.images)
        and a.names == b.names
        and a.tasks == b.tasks
        and torch.equal(a.text_tokens, b.text_tokens)
        and all(
            torch.equal(s.masks, t.masks) and torch.equal(s.labels, t.labels)
            for s, t in zip(a.targets, b.targets, strict=True)
        )
    )


def test_a_training_batch_is_complete(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    dataset.train.batch_size = 5
    batches = epoch(train_loader(dataset, labels, records, model=model, seed=1), 0)
    assert [len(b) for b in batches] == [5, 5, 2]
    assert sorted(name for b in batches for name in b.names) == [f"scene_{i:03d}.png" for i in range(12)]
    for batch in batches:
        assert batch.images.shape[1:] == (3, 64, 64) and batch.task_tokens.shape == (len(batch), 77)
        assert batch.text_index is not None and batch.text_index.shape == (len(batch), 16)
        assert batch.targets is not None and batch.truths is None
        for target, size, image in zip(batch.targets, batch.sizes, batch.images, strict=True):
            outside = torch.ones(64, 64, dtype=torch.bool)
            outside[: size[0], : size[1]] = False
            assert target.void[outside].all() and not image[:, outside].any()
            assert not (target.masks & target.void).any() and target.masks.flatten(1).any(dim=1).all()


def test_workers_do_not_change_the_samples(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    dataset.train.batch_size = 4
    alone = train_loader(dataset, labels, records, model=model, seed=3)
    dataset.train.num_workers = 2
    shared = train_loader(dataset, labels, records, model=model, seed=3)
    for number in (0, 1):
        for a, b in zip(epoch(alone, number), epoch(shared, number), strict=True):
            assert same(a, b)


def test_epochs_and_seeds_differ(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    dataset.train.batch_size = 12
    loader = train_loader(dataset, labels, records, model=model, seed=3)
    other = train_loader(dataset, labels, records, model=model, seed=4)
    first, again, second = epoch(loader, 0)[0], epoch(loader, 0)[0], epoch(loader, 1)[0]
    assert same(first, again) and not same(first, second) and not same(first, epoch(other, 0)[0])


def test_a_loader_can_be_sent_to_spawned_workers(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    loader = train_loader(dataset, labels, records, model=model, seed=3)
    samples, make = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    a, b = make([samples[(0, 5)]]), loader.collate_fn([loader.dataset[(0, 5)]])
    assert same(a.to("cpu"), b.to("cpu"))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_that_are_not_forked_give_the_same(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec, method: str
) -> None:
    dataset.train.batch_size = 4
    alone = epoch(train_loader(dataset, labels, records, model=model, seed=3), 0)
    dataset.train.num_workers = 1
    loader = train_loader(dataset, labels, records, model=model, seed=3)
    loader.multiprocessing_context = method
    for a, b in zip(alone, epoch(loader, 0), strict=True):
        assert same(a, b)


def test_a_loader_hands_parcels_over_where_they_are_asked_for(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    loader = train_loader(dataset, labels, records, model=model, seed=3)
    batches = epoch(loader, 0)
    loader.packed = True
    parcels = epoch(loader, 0)
    assert all(isinstance(p, Parcel) and same(p.to("cpu"), b) for p, b in zip(parcels, batches, strict=True))


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_kept_of_an_epoch_stays_as_it_was_while_memory_is_used_again(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec, packed: bool
) -> None:
    dataset.train.batch_size = 1
    alone = train_loader(dataset, labels, records, model=model, seed=3)
    dataset.train.num_workers = 1
    shared = train_loader(dataset, labels, records, model=model, seed=3)
    shared.packed = packed
    for number in range(3):
        kept = epoch(shared, number)  # more than a worker has blocks
        for a, b in zip(epoch(alone, number), kept, strict=True):
            assert same(a, b.to("cpu"))


@pytest.mark.skipif(not available(), reason="needs anonymous files in memory (Linux)")
def test_a_worker_writes_into_the_same_few_blocks(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    dataset.train.batch_size = 1
    dataset.train.num_workers = 1
    loader = train_loader(dataset, labels, records, model=model, seed=3)
    loader.packed = True
    places = [parcel.pixels.data_ptr() for parcel in loader]
    assert len(places) == 12 and len(set(places)) <= 4


def test_a_batch_that_does_not_fit_a_block_travels_as_before(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    dataset.train.batch_size = 4
    alone = epoch(train_loader(dataset, labels, records, model=model, seed=3), 0)
    dataset.train.num_workers = 1
    loader = train_loader(dataset, labels, records, model=model, seed=3)
    loader.block_bytes = 1
    for a, b in zip(alone, epoch(loader, 0), strict=True):
        assert same(a, b)


def test_an_epoch_that_was_left_early_does_not_disturb_the_next(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    dataset.train.batch_size = 1
    alone = train_loader(dataset, labels, records, model=model, seed=3)
    dataset.train.num_workers = 2
    shared = train_loader(dataset, labels, records, model=model, seed=3)
    for number in range(4):
        shared.sampler.set_epoch(number)
        next(iter(shared))
    for a, b in zip(epoch(alone, 5), epoch(shared, 5), strict=True):
        assert same(a, b)


def test_the_task_draw_follows_the_spec(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    dataset.task_prob_train = {"semantic": 0.5, "instance": 0.5}
    model.task_toggling.semantic_on = False
    loader = train_loader(dataset, labels, records, model=model, seed=0)
    assert {task for batch in epoch(loader, 0) for task in batch.tasks} == {"instance"}


def test_training_goes_on_in_the_middle_of_an_epoch() -> None:
    whole = EpochSampler(seed=5, length=11)
    whole.set_epoch(2)
    order = list(whole)
    assert sorted(index for _, index in order) == list(range(11)) and {e for e, _ in order} == {2}
    whole.advance(4)
    restored = EpochSampler(seed=5, length=11)
    restored.load_state_dict(whole.state_dict())
    restored.set_epoch(2)
    assert len(restored) == 7 and list(restored) == order[4:]
    restored.set_epoch(3)
    assert len(restored) == 11 and len(list(restored)) == 11


def test_a_state_at_the_end_of_an_epoch_starts_the_next() -> None:
    sampler = EpochSampler(seed=5, length=4)
    sampler.advance(4)
    restored = EpochSampler(seed=5, length=4)
    restored.load_state_dict(sampler.state_dict())
    assert restored.epoch == 1 and len(list(restored)) == 4


def test_ranks_share_an_epoch_in_equal_parts() -> None:
    samplers = [EpochSampler(seed=0, length=10, rank=rank, world_size=3) for rank in range(3)]
    shares = [[index for _, index in sampler] for sampler in samplers]
    assert [len(share) for share in shares] == [4, 4, 4]
    assert set(np.concatenate(shares).tolist()) == set(range(10))


def test_a_place_can_be_restored_with_another_number_of_ranks() -> None:
    alone = EpochSampler(seed=0, length=12)
    order = list(alone)
    alone.advance(6)
    pair = [EpochSampler(seed=0, length=12, rank=rank, world_size=2) for rank in range(2)]
    for sampler in pair:
        sampler.load_state_dict(alone.state_dict())
    assert sorted([*pair[0], *pair[1]]) == sorted(order[6:])


def test_more_ranks_than_photos_still_train_in_step() -> None:
    shares = [list(EpochSampler(seed=0, length=2, rank=rank, world_size=5)) for rank in range(5)]
    assert [len(share) for share in shares] == [1] * 5


def test_scoring_sees_each_photo_once_over_all_ranks(
    dataset: DatasetSpec, records: list[Record], model: ModelSpec
) -> None:
    names = []
    for rank in range(5):
        for batch in eval_loader(dataset, records, split="val", model=model, ranks=(rank, 5)):
            names += batch.names
    assert sorted(names) == [f"scene_{i:03d}.png" for i in range(12)]


def test_scoring_gets_the_truth_at_the_photos_own_size(
    dataset: DatasetSpec, records: list[Record], model: ModelSpec
) -> None:
    dataset.test.batch_size = 4
    batches = list(eval_loader(dataset, records, split="test", model=model))
    assert [len(b) for b in batches] == [4, 4, 4]
    batch = batches[0]
    assert batch.sizes[0] == (48, 72) and batch.images.shape == (4, 3, 64, 96)
    assert batch.truths is not None and batch.targets is None and batch.text_tokens is None
    truth = batch.truths[2]
    assert truth.id_map.shape == batch.original_sizes[2] == (64, 96)
    assert [s.area for s in truth.segments] == [int((truth.id_map == s.segment_id).sum()) for s in truth.segments]
    assert truth.segments == records[2].segments, "the tiny set's own areas are right"
    assert any(s.iscrowd for s in truth.segments) and (truth.id_map == 0).any()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_file_is_named_whatever_the_workers(
    broken: TinyDataset, section: object, model: ModelSpec, workers: int
) -> None:
    dataset = section(broken)  # type: ignore[operator]
    dataset.train.num_workers = dataset.val.num_workers = workers
    labels = read_labels(dataset)
    records = read_records(dataset, "train", labels)
    path = Path(records[2].image_path)
    path.write_bytes(path.read_bytes()[:200])
    loaders = (
        train_loader(dataset, labels, records, model=model, seed=0),
        eval_loader(dataset, records, split="val", model=model),
    )
    for loader in loaders:
        with pytest.raises(DataError, match=r"scene_002\.png: the image file is broken") as caught:
            list(loader)
        assert "Traceback" not in caught.value.message and caught.value.exit_code == 2


def test_photos_with_more_objects_than_texts_are_counted_once(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec, caplog: pytest.LogCaptureFixture
) -> None:
    model.one_former.num_object_queries = 5
    with caplog.at_level(logging.WARNING):
        loader = train_loader(dataset, labels, records, model=model, seed=0)
        batches = epoch(loader, 0)
    assert caplog.text.count("12 of 12 photos have more than 1 objects") == 1
    assert all(b.text_index is not None and b.text_index.shape == (1, 1) for b in batches)


def test_queries_must_exceed_the_learned_texts(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    model.one_former.num_object_queries = 4
    with pytest.raises(SpecError, match="4 queries leave no text beside 4"):
        train_loader(dataset, labels, records, model=model, seed=0)


EVERY_CHANGE = {
    "rotation_prob": 0.5, "blur_prob": 0.5, "erase_prob": 0.5, "rotate90_prob": 0.5, "vertical_flip_prob": 0.5,
    "crop_max_class_frac": 0.7,
}  # fmt: skip


def with_everything(dataset: DatasetSpec) -> DatasetSpec:
    dataset.cutmix_prob = 0.6
    for key, value in EVERY_CHANGE.items():
        setattr(dataset.augmentation, key, value)
    return dataset


def test_every_change_gives_the_same_with_any_number_of_workers_and_ranks(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    dataset = with_everything(dataset)
    dataset.train.batch_size = 1
    alone = {b.names[0]: b for b in epoch(train_loader(dataset, labels, records, model=model, seed=3), 1)}
    dataset.train.num_workers = 2
    shares = [epoch(train_loader(dataset, labels, records, model=model, seed=3, ranks=(r, 2)), 1) for r in range(2)]
    assert sorted(b.names[0] for share in shares for b in share) == sorted(alone)
    assert all(same(b, alone[b.names[0]]) for share in shares for b in share)


def test_texts_tell_the_objects_that_are_left(
    dataset: DatasetSpec, labels: LabelMap, records: list[Record], model: ModelSpec
) -> None:
    """Whatever was pasted, erased or cut away: one text for each mask that has a pixel, then the filler."""
    dataset = with_everything(dataset)
    samples = train_loader(dataset, labels, records, model=model, seed=3).dataset
    pasted_over = 0
    for place in range(60):
        one = samples[(place // 12, place % 12)]
        assert one.target is not None and one.target.masks.flatten(1).any(dim=1).all()
        told = [f"a photo with a {labels.names[i]}" for i in sorted(one.target.labels.tolist())]
        assert one.texts[: len(told)] == told[: len(one.texts)] and set(one.texts[len(told) :]) <= {FILLERS[one.task]}
        assert not (one.target.masks & one.target.void).any()
        stuff = [i for i in one.target.labels.tolist() if not labels.is_thing[i]]
        assert len(stuff) == len(set(stuff)), "stuff of two photos is one object"
        pasted_over += len(one.target.labels) > max(len(r.segments) for r in records)
    assert pasted_over, "some have objects of two photos"


def test_a_pasted_photo_has_labels_for_the_task(tiny: TinyDataset, labels: LabelMap, tmp_path: Path) -> None:
    """Of a mixed data set, only photos whose labels fit are pasted into one another."""
    from tiny_formats import write_semantic

    plain = write_semantic(tiny, tmp_path)
    dataset = DatasetSpec(label_map=str(tiny.label_map), cutmix_prob=1.0)
    dataset.train.annotations = [str(tiny.annotations), str(plain.split["annotations"])]
    dataset.train.images = [str(tiny.images), str(tiny.images)]
    dataset.train.panoptic = [str(tiny.panoptic), ""]
    dataset.augmentation.train_crop_size = [64, 64]
    model = ModelSpec()
    records = read_records(dataset, "train", labels)
    samples = train_loader(dataset, labels, records, model=model, seed=0).dataset
    assert {record.source.tasks for record in records} == {("semantic", "instance", "panoptic"), ("semantic",)}
    rng = np.random.default_rng(0)
    for task, expected in (("semantic", 2), ("instance", 1)):
        found = {samples._partner(records[0], task, rng).source.tasks for _ in range(50)}
        assert len(found) == expected and all(task in tasks for tasks in found)


def test_a_broken_photo_that_is_to_be_pasted_is_named(broken: TinyDataset, section: object, model: ModelSpec) -> None:
    dataset = section(broken)  # type: ignore[operator]
    dataset.cutmix_prob = 1.0
    labels = read_labels(dataset)
    records = read_records(dataset, "train", labels)
    path = Path(records[2].image_path)
    path.write_bytes(path.read_bytes()[:200])
    samples = train_loader(dataset, labels, records, model=model, seed=0).dataset
    found = [samples[(e, 0)] for e in range(20)]
    faults = [one for one in found if isinstance(one, DataError)]
    assert faults and len(faults) < 20 and all("scene_002.png" in fault.where for fault in faults)
