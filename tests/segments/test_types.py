"""Outputs keep class and mask logits together."""

from __future__ import annotations

import pytest
import torch

from oneformer.segments import TASKS, Outputs, Rules
from oneformer.spec.model import TestSpec


def test_outputs_split_into_images_and_join_again() -> None:
    outputs = Outputs(torch.rand(3, 5, 4), torch.rand(3, 5, 8, 8))
    again = Outputs.cat(list(outputs))
    assert len(outputs) == 3
    assert outputs.num_classes == 3
    assert torch.equal(again.class_logits, outputs.class_logits)
    assert torch.equal(again.mask_logits, outputs.mask_logits)


def test_outputs_of_different_images_are_refused() -> None:
    with pytest.raises(AssertionError, match="disagree"):
        Outputs(torch.rand(2, 5, 4), torch.rand(3, 5, 8, 8))


def test_the_rules_are_the_specs() -> None:
    spec = TestSpec(object_mask_threshold=0.3, overlap_threshold=0.6, test_topk_per_image=7, mask_threshold=0.4)
    assert Rules.from_spec(spec, [True, False]) == Rules((True, False), 0.3, 0.6, 7, 0.4)


def test_the_order_of_the_tasks_is_fixed() -> None:
    assert TASKS == ("semantic", "instance", "panoptic")
