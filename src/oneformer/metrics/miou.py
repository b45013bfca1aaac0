"""Maps of predicted and true class ids -> one confusion matrix over all images -> mIoU, fwIoU, mAcc, pAcc, per class.

Counts are integers, so sums over images, batches and ranks give the same result in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = -1
"""Class id of truth pixels that are not scored (void and crowd)."""

PERCENT = 100.0


class ConfusionMatrix:
    """Streaming counts (K truth x K prediction) of pixels; all scores are percent, None where nothing was to be scored.

    A class counts in the means when it has pixels in the truth (the rule of the ADE20K and Cityscapes tools and of
    Detectron2); pixels wrongly given to an absent class still cost the class they were taken from.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, predicted: NDArray[np.integer], truth: NDArray[np.integer]) -> float | None:
        """Counts one image; both maps (H, W), truth `IGNORED` where it must not be scored.

        Returns:
            the image's own mean IoU in percent, None when no pixel is scored.
        """
        assert predicted.shape == truth.shape, f"prediction {predicted.shape} and truth {truth.shape} differ in size"
        classes = self.num_classes
        assert not truth.size or (truth.min() >= IGNORED and truth.max() < classes), "a truth class out of range"
        assert not truth.size or (predicted.min() >= 0 and predicted.max() < classes), "a class out of range"
        pairs = (truth.astype(np.int32) - IGNORED) * classes + predicted  # ignored pixels fall into the first row
        rows = np.bincount(pairs.ravel(), minlength=(classes + 1) * classes).reshape(classes + 1, classes)
        counts = rows[1:]  # (K, K)
        self.counts += counts
        return mean_iou(counts)

    def merge(self, counts: Sequence[NDArray[np.int64]]) -> None:
        """Adds the counts of other images."""
        for other in counts:
            self.counts += other

    def compute(self, names: Sequence[str]) -> dict[str, Any]:
        """`mIoU fwIoU mAcc pAcc per_class{name: IoU, Acc, pixels}`, percent; None for classes without a truth pixel."""
        truth, hits, union = _margins(self.counts)
        total = int(truth.sum())
        present = truth > 0
        iou = hits / np.maximum(union, 1)
        accuracy = hits / np.maximum(truth, 1)
        return {
            "mIoU": percent(iou[present].mean()) if total else None,
            "fwIoU": percent((iou * truth).sum() / total) if total else None,
            "mAcc": percent(accuracy[present].mean()) if total else None,
            "pAcc": percent(hits.sum() / total) if total else None,
            "per_class": {
                name: {
                    "IoU": percent(iou[i]) if present[i] else None,
                    "Acc": percent(accuracy[i]) if present[i] else None,
                    "pixels": int(truth[i]),
                }
                for i, name in enumerate(names)
            },
        }


def mean_iou(counts: NDArray[np.int64]) -> float | None:
    """Mean IoU in percent over the classes present in the truth of a (K, K) count; None when there is none."""
    truth, hits, union = _margins(counts)
    present = truth > 0
    return percent((hits[present] / union[present]).mean()) if present.any() else None


def _margins(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Per class: truth pixels, pixels that are right, pixels that are either."""
    truth, hits = counts.sum(axis=1), np.diag(counts)
    return truth, hits, truth + counts.sum(axis=0) - hits


def percent(share: float) -> float:
    """A share 0..1 as a plain float in percent."""
    return float(share) * PERCENT
