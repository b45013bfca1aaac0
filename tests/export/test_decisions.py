"""Two programs that decide otherwise at masks of zero are told from two that compute something else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor

from exported import SIZE, export_words, tiny_export
from oneformer.cli import main
from oneformer.engines.open import open_engine
from oneformer.engines.torch import TorchEngine
from oneformer.export.decisions import Teller, following
from oneformer.export.images import Images, generated, ready
from oneformer.export.parity import TOLERANCE, Parity, compare
from oneformer.model.decoder import Decoder

PLACES = 12 * (SIZE[0] // 32) * (SIZE[1] // 32)  # queries and tokens of the coarsest map, which the one layer looks at


def network(scale: float = 1.0) -> TorchEngine:
    """The tiny network with masks of both signs, `scale` times as large: without the part that all places share."""
    engine = TorchEngine.from_checkpoint(tiny_export().checkpoint, precision="fp32", device="cpu")
    with torch.no_grad():
        shared = engine.model.features(photo(engine)).mask_features.mean((0, 2, 3))  # (C',)
        shared /= shared.norm()
        last = engine.model.decoder.mask_embed.layers[-1]
        last.weight.sub_(shared[:, None] * (shared @ last.weight)).mul_(scale)
        last.bias.sub_(shared * (shared @ last.bias)).mul_(scale)
    return engine


def file_of(engine: TorchEngine, path: Path, *, add: float = 0.0) -> Path:
    """The tiny export with the masks of `engine`, and class logits off by `add`."""
    before = TorchEngine.from_checkpoint(tiny_export().checkpoint, device="cpu").model.decoder.mask_embed.layers[-1]
    after = engine.model.decoder.mask_embed.layers[-1]
    change = [(before.weight.T, after.weight.T), (before.bias, after.bias)]  # tidying has turned weights around
    graph = ir.load(tiny_export().onnx)
    changed = 0
    for name, value in graph.graph.initializers.items():
        assert value.const_value is not None
        numbers = value.const_value.numpy()
        for old, new in change:
            if np.array_equal(numbers, old.detach().numpy()):
                value.const_value = ir.tensor(new.detach().contiguous().numpy(), name=name)
                changed += 1
        if name.endswith("class_embed.bias"):
            value.const_value = ir.tensor(numbers + np.float32(add), name=name)
    assert changed >= len(change)
    ir.save(graph, path)
    return path


def photo(engine: TorchEngine) -> Tensor:
    return ready(generated(SIZE, seed=1), engine.info, name="").images


def own_decisions(engine: TorchEngine, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Tensor], Tensor]:
    """Which places the network closes, and its masks there."""
    seen: list[Tensor] = []
    own = Decoder.closed_places

    def watched(decoder: Decoder, masks: Tensor) -> Tensor:
        seen.append(masks)
        return own(decoder, masks)

    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "closed_places", watched)
        engine.outputs(images, ["panoptic"])
    return [masks < 0 for masks in seen], seen[0]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_file_tells_the_decisions_behind_its_outputs(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = network()
    check_told(mine, file_of(mine, tmp_path / "model.onnx"), runtime, monkeypatch)


@pytest.mark.slow  # tracing takes fifteen seconds
@pytest.mark.parametrize(("format", "name"), [("torch", "model.pt2"), ("openvino", "model.xml")])
def test_so_do_files_of_the_other_formats(
    format: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = network()
    content = torch.load(tiny_export().checkpoint, weights_only=True)
    content["state_dict"] |= {f"model.{name}": value for name, value in mine.model.state_dict().items()}
    torch.save(content, tmp_path / "masks.pth")
    words = [*export_words(tiny_export().data, tmp_path / "masks.pth"), f"results_dir={tmp_path}"]
    assert main(["export", *words, f"export.format={format}"]) == 0
    check_told(mine, tmp_path / "export" / name, "auto", monkeypatch)


def check_told(mine: TorchEngine, file: Path, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = open_engine(file, runtime, precision="fp32", device="cpu")
    images = photo(mine)
    told = Teller(theirs)(images, "panoptic")  # type: ignore[arg-type]
    given = theirs.outputs(images, ["panoptic"])["panoptic"]
    torch.testing.assert_close(told.outputs.class_logits, given.class_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(told.outputs.mask_logits, given.mask_logits, rtol=0, atol=1e-5)
    closed, masks = own_decisions(mine, images, monkeypatch)
    sure = masks.abs() > TOLERANCE
    assert len(told.closed) == len(closed) == 1
    assert 0 < int(closed[0].sum()) < PLACES and int(sure.sum()) > 0.9 * PLACES
    assert torch.equal(told.closed[0][sure], closed[0][sure])


def test_a_network_follows_the_decisions_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = network()
    images = photo(engine)
    closed, masks = own_decisions(engine, images, monkeypatch)
    alone = engine.outputs(images, ["panoptic"])["panoptic"].class_logits
    with following(engine.model.decoder, closed) as same:
        assert torch.equal(engine.outputs(images, ["panoptic"])["panoptic"].class_logits, alone)
    assert (same.places, same.differ, same.farthest) == (PLACES, 0, 0.0)
    with following(engine.model.decoder, [~closed[0]]) as other:
        assert not torch.allclose(engine.outputs(images, ["panoptic"])["panoptic"].class_logits, alone, atol=TOLERANCE)
    assert (other.differ, other.farthest) == (PLACES, float(masks.abs().max()))
    assert torch.equal(engine.outputs(images, ["panoptic"])["panoptic"].class_logits, alone)


def compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, scale: float, add: float = 0.0) -> Parity:
    """A network that decides every place otherwise, beside its file; `scale` is that of masks, `add` spoils the file."""
    mine = network(scale)
    theirs = open_engine(file_of(mine, tmp_path / "model.onnx", add=add), precision="fp32", device="cpu")
    monkeypatch.setattr(Decoder, "closed_places", lambda _, masks: masks > 0)
    batch = ready(generated(SIZE, seed=1), theirs.info, name="")
    return compare(mine, theirs, Images([batch], "a scene"), tasks=("semantic", "panoptic"), exact=True)


def test_other_decisions_at_masks_of_zero_are_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compared(tmp_path, monkeypatch, scale=1e-4)
    assert found.outputs["pred_logits"].largest > TOLERANCE, "the decisions changed nothing"
    assert found.settled is not None and found.settled.runs == 2
    assert found.settled.decisions.differ == found.settled.decisions.places == 2 * PLACES
    assert 0 < found.settled.decisions.farthest < TOLERANCE
    assert found.settled.outputs["pred_logits"].largest < 1e-5
    assert found.faults == []
    assert found.to_dict()["same_decisions"]["decided_otherwise"] == 2 * PLACES


def test_other_decisions_at_clear_masks_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_, last = compared(tmp_path, monkeypatch, scale=1.0).faults
    assert first.startswith("pred_logits differ by up to")
    assert last.startswith("places are closed or open otherwise at mask logits of up to")


def test_the_same_decisions_do_not_excuse_another_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = compared(tmp_path, monkeypatch, scale=1e-4, add=2 * TOLERANCE).faults
    assert any(fault.endswith("where queries look at the same places") for fault in faults)


def test_a_file_without_the_comparisons_is_judged_as_it_is(tmp_path: Path) -> None:
    mine = network()
    graph = ir.load(file_of(mine, tmp_path / "model.onnx", add=2 * TOLERANCE))
    for node in graph.graph:
        node.name = f"renamed/{node.name}"
    ir.save(graph, tmp_path / "model.onnx")
    theirs = open_engine(tmp_path / "model.onnx", precision="fp32", device="cpu")
    with pytest.raises(LookupError, match="0 comparisons of masks with zero, 1 were expected"):
        Teller(theirs)  # type: ignore[arg-type]
    batch = ready(generated(SIZE, seed=1), theirs.info, name="")
    found = compare(mine, theirs, Images([batch], "a scene"), tasks=("panoptic",), exact=True)
    assert found.settled is None and len(found.faults) == 1
