"""Contrastive loss on one process: its value, its learned scale, and that one image alone teaches nothing."""

from __future__ import annotations

import math

import pytest
import torch

from loss.batches import leaf
from loss.reference import contrastive_term
from oneformer.loss.contrast import contrastive_loss, gather_counts


def test_the_loss_equals_a_computation_pair_by_pair() -> None:
    torch.manual_seed(0)
    queries, texts, scale = torch.randn(4, 3, 8), torch.randn(4, 3, 8), torch.tensor(math.log(1 / 0.07))
    loss = contrastive_loss(queries, texts, scale, batches=[4])
    expected = contrastive_term(queries.double().numpy(), texts.double().numpy(), 1 / 0.07)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_one_image_alone_has_a_loss_and_gradients_of_exactly_zero() -> None:
    queries, texts, scale = leaf(1, 3, 8), leaf(1, 3, 8), torch.tensor(2.6, requires_grad=True)
    loss = contrastive_loss(queries, texts, scale, batches=[1])
    assert loss.item() == 0
    for grad in torch.autograd.grad(loss, (queries, texts, scale)):
        assert not grad.any()


def test_two_images_teach_queries_texts_and_the_scale() -> None:
    torch.manual_seed(0)
    queries, texts, scale = leaf(2, 3, 8), leaf(2, 3, 8), torch.tensor(2.6, requires_grad=True)
    loss = contrastive_loss(queries, texts, scale, batches=[2])
    assert loss.item() > 0
    for grad in torch.autograd.grad(loss, (queries, texts, scale)):
        assert grad.any()


def test_the_scale_stops_at_a_hundred() -> None:
    torch.manual_seed(0)
    queries, texts = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    at_limit = contrastive_loss(queries, texts, torch.tensor(math.log(100.0)), batches=[3])
    beyond = contrastive_loss(queries, texts, torch.tensor(9.0), batches=[3])
    torch.testing.assert_close(beyond, at_limit)


def test_the_gradient_equals_finite_differences() -> None:
    torch.manual_seed(0)
    inputs = (leaf(3, 2, 2, dtype=torch.float64), leaf(3, 2, 2, dtype=torch.float64))
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, t, s: contrastive_loss(q, t, s, batches=[3]), (*inputs, scale))


def test_counts_of_one_process_are_its_own() -> None:
    assert gather_counts([3, 2], torch.device("cpu")) == [[3, 2]]
