"""The networks as published, through the exporter and every engine: the same numbers, whatever size and batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.operators import unfit
from oneformer.actions.export import Exported, run
from oneformer.data.labels import LabelMap
from oneformer.engines.base import Engine
from oneformer.engines.open import open_engine
from oneformer.export.images import generated, ready
from oneformer.export.parity import TOLERANCE, Settled, both_outputs, count
from oneformer.segments import semantic_map
from oneformer.spec.load import load_spec
from story.tiny_model import write_random_checkpoint

pytestmark = pytest.mark.slow

NETWORKS = {
    "swin_t": ("preset=swin_t",),
    "r50": ("preset=r50",),
    "convnext_t": (  # ConvNeXt paper, section 3
        "preset=convnext_l",
        "model.backbone.convnext.embed_dim=96",
        "model.backbone.convnext.depths=[3,3,9,3]",
        "model.one_former.num_object_queries=150",
    ),
}
SIZES = ((640, 640), (512, 1024))
CLASSES = 150  # ADE20K's


def many_labels() -> LabelMap:
    """As many classes as ADE20K has, two thirds of them things."""
    ids = tuple(range(CLASSES))
    return LabelMap(tuple(f"class {i}" for i in ids), tuple(i % 3 > 0 for i in ids), ((9, 9, 9),) * CLASSES, ids)


class Case:
    """One published network with random weights, exported in one size; its engines are opened one at a time."""

    def __init__(self, folder: Path, network: str, size: tuple[int, int]) -> None:
        height, width = size
        words = [*NETWORKS[network], f"model.sem_seg_head.num_classes={CLASSES}"]
        self.checkpoint = write_random_checkpoint(folder / "model.pth", *words, labels=many_labels())
        words += [f"export.checkpoint={self.checkpoint}", f"results_dir={folder}", "export.parity_images=2"]
        words += [f"export.input_height={height}", f"export.input_width={width}"]
        done = run(load_spec(None, words, action="export"))
        assert isinstance(done, Exported)
        self.done = done
        self.reference = open_engine(self.checkpoint, precision="fp32", device="cpu")

    def engine(self, name: str, precision: str) -> Engine:
        return open_engine(self.done.files[0], name, precision=precision, device="cpu")

    def images(self, engine: Engine, count: int) -> torch.Tensor:
        return torch.cat([ready(generated((480, 640), seed=i), engine.info, name="").images for i in range(count)])


@pytest.fixture(
    scope="module", params=[(n, s) for n in NETWORKS for s in SIZES], ids=lambda p: f"{p[0]}-{p[1][0]}x{p[1][1]}"
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("full"), *request.param)


def test_the_export_proves_itself(case: Case) -> None:
    parity = case.done.parity
    assert not parity.faults
    for name, difference in parity.outputs.items():
        print(f"{name}: {difference.to_dict()}")
    settled = parity.settled
    for difference in (settled.outputs if settled else parity.outputs).values():
        assert difference.total / difference.count <= TOLERANCE / 10
    if settled:
        print(settled.told())
        assert settled.decisions.differ < 1e-4 * settled.decisions.places  # a handful, whatever the size
    assert {path.name for path in case.done.files} == {"model.onnx", "model.json"}
    assert unfit(case.done.files[0]) == []


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_engines_agree_with_the_checkpoint(case: Case, name: str, batch: int) -> None:
    engine = case.engine(name, "fp32")
    images = case.images(engine, batch)
    want, got = (one.outputs(images, ["panoptic"])["panoptic"] for one in (case.reference, engine))
    apart = both_outputs()
    count(apart, want, got)
    print(f"{name}, batch {batch}: { ({n: d.largest for n, d in apart.items()}) }")
    if any(d.largest > TOLERANCE for d in apart.values()):
        settled = Settled.between(case.reference, engine)
        assert settled is not None
        settled.add(images, "panoptic", got)
        print(settled.told())
        assert settled.faults == []


def test_bfloat16_keeps_the_class_of_most_pixels(case: Case) -> None:
    engine = case.engine("openvino", "bf16")
    images = case.images(engine, 1)
    maps = []
    for one in (case.reference, engine):
        outputs = one.outputs(images, ["semantic"])["semantic"]
        size = (int(images.shape[2]), int(images.shape[3]))
        maps.append(
            semantic_map(
                outputs.class_logits[0], outputs.mask_logits[0], input_size=size, size=size, original_size=size
            )
        )
    agreement = float(np.mean(maps[0] == maps[1]))
    print(f"bf16: {agreement:.2%} of the pixels keep their class")
    assert agreement > 0.9
