"""Network outputs -> semantic maps, instances and panoptic segments at the photo's own size.

The three tasks have one rule each (`semantic`, `instance`, `panoptic`), all on one way of resizing masks (`resize`);
`rle` holds COCO's run-length form of masks and `types` what goes in and comes out. Everything is computed where the
logits are and ends on the CPU. The rules are OneFormer's published inference; deviations are named in the functions
that make them.
"""

from __future__ import annotations

from oneformer.segments.instance import encoded_instances, instances
from oneformer.segments.panoptic import panoptic
from oneformer.segments.resize import Size
from oneformer.segments.semantic import semantic_map
from oneformer.segments.types import (
    TASKS,
    VOID_ID,
    EncodedInstances,
    Instances,
    Outputs,
    PanopticResult,
    Rules,
    Segment,
)

__all__ = [
    "TASKS",
    "VOID_ID",
    "EncodedInstances",
    "Instances",
    "Outputs",
    "PanopticResult",
    "Rules",
    "Segment",
    "Size",
    "encoded_instances",
    "instances",
    "panoptic",
    "semantic_map",
]
