"""Batches: padding after normalising, each distinct text once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oneformer.data import batch as batches
from oneformer.data.batch import Batch, padded_size
from oneformer.data.sample import BACKGROUND, VOID, Norm, Sample, Target
from oneformer.data.tokens import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


def sample(size: tuple[int, int], texts: list[str], name: str, *, task: str = "panoptic") -> Sample:
    object_map = torch.zeros(size, dtype=torch.int16)
    object_map[0, 0] = VOID
    target = Target.from_map(torch.tensor([4]), object_map)
    return Sample(torch.full((3, *size), 3, dtype=torch.uint8), size, (9, 9), task, texts, target, None, name, 7)


PLAIN = Norm((1.0, 1.0, 1.0), (2.0, 2.0, 2.0))  # makes 1 of 3


def collate(samples: list[Sample], **options: object) -> Batch:
    return batches.collate(samples, norm=PLAIN, **options).to("cpu")  # type: ignore[arg-type]


def test_images_are_padded_with_zero_and_targets_with_void(tokenizer: Tokenizer) -> None:
    samples = [sample((20, 40), ["a"], "a.png"), sample((33, 10), ["b"], "b.png")]
    batch = collate(samples, task_tokenizer=tokenizer, text_tokenizer=tokenizer)
    assert batch.images.shape == (2, 3, 64, 64) and len(batch) == 2
    assert batch.images[0, :, :20, :40].eq(1).all() and batch.images[0].sum() == 3 * 20 * 40
    assert batch.targets is not None
    target = batch.targets[1]
    assert target.masks.shape == (1, 64, 64) and target.masks.sum() == 33 * 10 - 1
    assert target.void.sum() == 64 * 64 - 33 * 10 + 1
    assert batch.sizes == [(20, 40), (33, 10)] and batch.names == ["a.png", "b.png"] and batch.image_ids == [7, 7]


def test_a_fixed_shape_can_be_asked_for(tokenizer: Tokenizer) -> None:
    batch = collate(
        [sample((20, 40), ["a"], "a")], task_tokenizer=tokenizer, text_tokenizer=tokenizer, pad_to=(100, 128)
    )
    assert batch.images.shape == (1, 3, 128, 128)
    assert padded_size([(5, 7), (6, 3)], size_divisibility=1) == (6, 7)


def test_each_distinct_text_is_encoded_once(tokenizer: Tokenizer) -> None:
    first, second = ["a cat", "a cat", "x"], ["x", "a dog", "a cat"]
    batch = collate(
        [sample((8, 8), first, "1"), sample((8, 8), second, "2", task="semantic")],
        task_tokenizer=tokenizer,
        text_tokenizer=Tokenizer(12),
    )
    assert batch.text_tokens is not None and batch.text_index is not None
    assert batch.text_tokens.shape == (3, 12) and batch.text_tokens.dtype == torch.int64
    assert batch.text_index.tolist() == [[0, 0, 1], [1, 2, 0]]
    expanded = batch.text_tokens[batch.text_index]  # (B, Q - n_ctx, T)
    assert expanded[1, 1].tolist() == Tokenizer(12).encode("a dog")
    assert torch.equal(batch.task_tokens[1], tokenizer.task_tokens("semantic"))


def test_moving_a_batch_keeps_everything(tokenizer: Tokenizer) -> None:
    batch = collate([sample((8, 8), ["a"], "1")], task_tokenizer=tokenizer, text_tokenizer=tokenizer)
    moved = batch.to("cpu")
    assert torch.equal(moved.images, batch.images) and moved.targets is not None and batch.targets is not None
    assert torch.equal(moved.targets[0].masks, batch.targets[0].masks) and moved.names == batch.names
    on_meta = batch.to("meta")
    assert on_meta.images.device.type == "meta" and on_meta.targets is not None
    assert on_meta.targets[0].labels.device.type == "meta" and on_meta.task_tokens.device.type == "meta"


def test_samples_without_texts_and_targets_make_a_batch_for_scoring(tokenizer: Tokenizer) -> None:
    plain = sample((8, 8), [], "1")
    plain.target = None
    batch = collate([plain], task_tokenizer=tokenizer, text_tokenizer=tokenizer)
    assert batch.text_tokens is None and batch.targets is None and batch.truths is None
    assert np.prod(batch.task_tokens.shape) == 77


def test_pixels_are_normalised_per_channel_to_the_last_bit(tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    one = sample((20, 30), ["a"], "1")
    one.image = torch.from_numpy(rng.integers(0, 256, (3, 20, 30)).astype(np.uint8))
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    parcel = batches.collate([one], norm=Norm(mean, std), task_tokenizer=tokenizer, text_tokenizer=tokenizer)
    expected = (one.image.float() - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert torch.equal(parcel.to("cpu").images[0, :, :20, :30], expected)


def test_a_parcel_is_small_and_holds_few_tensors(tokenizer: Tokenizer) -> None:
    """Bytes and numbers without padding: what a worker sends of each tensor is a file of its own."""
    samples = [sample((20 + i, 40), ["a"], str(i)) for i in range(8)]
    parcel = batches.collate(samples, norm=PLAIN, task_tokenizer=tokenizer, text_tokenizer=tokenizer, pad_to=(512, 512))
    area = sum(h * w for h, w in parcel.sizes)
    assert parcel.pixels.nbytes == 3 * area and parcel.numbers is not None and parcel.numbers.nbytes == 2 * area
    assert sum(isinstance(value, torch.Tensor) for value in vars(parcel).values()) == 2
    batch = parcel.to("cpu")
    assert batch.images.shape == (8, 3, 512, 512) and len(parcel) == len(batch) == 8


def test_maps_of_different_types_and_overlapping_objects_arrive_as_they_were(tokenizer: Tokenizer) -> None:
    rng = np.random.default_rng(0)
    samples = [sample((12, 15), ["a"], "1"), sample((15, 9), ["b"], "2")]
    numbers = [
        torch.from_numpy(rng.integers(VOID, 3, s.size).astype(t))
        for s, t in zip(samples, (np.int16, np.int32), strict=True)
    ]
    members = torch.tensor([[True, False, True], [False, True, True]])
    samples[0].target = Target.from_map(torch.tensor([4, 4, 1]), numbers[0])
    samples[1].target = Target.from_map(torch.tensor([2, 0]), numbers[1], members)
    batch = collate(samples, task_tokenizer=tokenizer, text_tokenizer=tokenizer)
    assert batch.targets is not None
    for one, target in zip(samples, batch.targets, strict=True):
        assert one.target is not None
        expected = one.target.padded(32, 32)
        assert torch.equal(target.labels, expected.labels) and torch.equal(target.masks, expected.masks)
        assert torch.equal(target.void, expected.void)
    assert batch.targets[0].object_map is not None and (batch.targets[0].object_map == BACKGROUND).any()


def test_a_parcel_can_be_unpacked_on_another_device(tokenizer: Tokenizer) -> None:
    parcel = batches.collate(
        [sample((8, 8), ["a"], "1")], norm=PLAIN, task_tokenizer=tokenizer, text_tokenizer=tokenizer
    )
    batch = parcel.to("meta")
    assert batch.images.device.type == "meta" and batch.images.shape == (1, 3, 32, 32)
    assert batch.targets is not None and batch.targets[0].masks.device.type == "meta"
