"""Where torchmetrics counts otherwise than COCO's and Cityscapes' tools, as docs/concepts/evaluation.md says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from oneformer.metrics.miou import ConfusionMatrix
from oneformer.metrics.pq import MapSegments, PanopticQuality

detection = pytest.importorskip("torchmetrics.detection")
classification = pytest.importorskip("torchmetrics.classification")
NAMES = ("thing", "stuff")


def test_a_class_that_is_only_predicted_lowers_their_mean_iou_by_itself() -> None:
    truth, predicted = np.array([[0, 0, 0, 0]]), np.array([[0, 0, 1, 1]])
    confusion = ConfusionMatrix(2)
    confusion.update(predicted, truth)
    theirs = classification.MulticlassJaccardIndex(num_classes=2)(torch.tensor(predicted), torch.tensor(truth))
    assert confusion.compute(NAMES)["mIoU"] == 50
    assert 100 * float(theirs) == 25


def test_where_every_predicted_class_occurs_their_mean_iou_is_ours() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 5, (40, 50)), rng.integers(0, 5, (40, 50))
    confusion = ConfusionMatrix(5)
    confusion.update(predicted, truth)
    theirs = classification.MulticlassJaccardIndex(num_classes=5)(torch.tensor(predicted), torch.tensor(truth))
    assert confusion.compute("abcde")["mIoU"] == pytest.approx(100 * float(theirs), rel=1e-5)


def test_pixels_left_void_by_the_prediction_count_in_our_union_and_not_in_theirs() -> None:
    """4 of 10 pixels are found and 6 are left void: COCO's tool sees an IoU of 0.4, a miss and a false alarm."""
    truth, predicted = np.ones((1, 10), np.int32), np.array([[5] * 4 + [0] * 6], dtype=np.int32)
    quality = PanopticQuality((True, False))
    quality.update(predicted, MapSegments.of([5], [0]), truth=truth, truth_segments=MapSegments.of([1], [0]))
    theirs = detection.PanopticQuality(things={0}, stuffs={1}, allow_unknown_preds_category=True)
    void = 9
    found = torch.tensor([[[[0, 5]] * 4 + [[void, 0]] * 6]])
    assert quality.compute(NAMES)["all"]["PQ"] == 0
    assert float(theirs(found, torch.tensor([[[[0, 1]] * 10]]))) == 1
