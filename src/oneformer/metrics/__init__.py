"""Segments and truth -> scores (mIoU, PQ, AP), in percent.

`Evaluator` takes outputs and batches and knows the three metrics: `ConfusionMatrix` (miou), `PanopticQuality` (pq)
and `MaskAP` (ap). `Scores` is what metrics.json and the status lines show.
"""

from __future__ import annotations

from oneformer.metrics.ap import MaskAP
from oneformer.metrics.evaluator import Evaluator
from oneformer.metrics.miou import ConfusionMatrix
from oneformer.metrics.pq import MapSegments, PanopticQuality
from oneformer.metrics.scores import Scores

__all__ = ["ConfusionMatrix", "Evaluator", "MapSegments", "MaskAP", "PanopticQuality", "Scores"]
