"""Batches: padding after normalising, each distinct text once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oneformer.data.batch import collate, padded_size
from oneformer.data.sample import VOID, Sample, Target
from oneformer.data.tokens import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


def sample(size: tuple[int, int], texts: list[str], name: str, *, task: str = "panoptic") -> Sample:
    object_map = torch.zeros(size, dtype=torch.int16)
    object_map[0, 0] = VOID
    target = Target.from_map(torch.tensor([4]), object_map)
    return Sample(torch.ones(3, *size), size, (9, 9), task, texts, target, None, name, 7)


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
