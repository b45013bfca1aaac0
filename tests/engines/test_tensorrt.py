"""TensorRT engines: the file and its description, and how it is run, by the stand-in of the library on the CPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from oneformer.engines.open import open_engine
from oneformer.engines.tensorrt import TensorrtEngine
from oneformer.engines.tensorrt import chosen_gpu as real_choice
from oneformer.engines.tensorrt_file import Built, beside, description
from oneformer.engines.tensorrt_library import Library, find_library
from oneformer.errors import CheckpointError, UserError
from oneformer.runs.atomic import write_json
from oneformer.segments.types import TASKS
from oneformer.spec.engine import GenTrtEngineSpec, TensorrtSpec
from oneformer.trt.build import Wish, build
from oneformer.trt.graph import read_graph
from oneformer.trt.profile import profile
from trt.fake_library import Context, fake_library, on_the_cpu
from trt.small_graph import about, described, small_onnx


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in is installed, and the CPU takes the place of the GPU."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_library())
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with on_the_cpu():
        yield


def write_engine(file: Path, **options: Any) -> Path:
    """An engine of the small graph with its description, and the ONNX file beside it."""
    limits = {"min_batch_size": 1, "opt_batch_size": 2, "max_batch_size": 4} | options.pop("limits", {})
    onnx = small_onnx(file.with_suffix(".onnx"), **options)
    graph = read_graph(onnx)
    sizes = profile(graph.ports, graph.about, GenTrtEngineSpec(tensorrt=TensorrtSpec(**limits)))
    done = build(Library("tensorrt", fake_library(), "11.4.0"), onnx, Wish(sizes, 64))
    file.write_bytes(done.plan)
    built = Built("tensorrt", "11.4.0", file.stat().st_size, done.inputs, done.outputs, sizes)
    write_json(beside(file), description(graph.about, built))
    return file


@pytest.fixture
def engine_file(tmp_path: Path) -> Path:
    return write_engine(tmp_path / "model.engine")


def images(count: int, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(2))


def same(engine: Any, onnx: Path, batch: torch.Tensor) -> None:
    want, got = open_engine(onnx).outputs(batch, TASKS), engine.outputs(batch, TASKS)
    for task in TASKS:
        assert got[task].class_logits.shape[0] == len(batch)
        for name in ("class_logits", "mask_logits"):
            assert torch.allclose(getattr(got[task], name), getattr(want[task], name), atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 7, 9])
def test_any_number_of_images_goes_through(engine_file: Path, count: int) -> None:
    engine = open_engine(engine_file)
    assert isinstance(engine, TensorrtEngine) and (engine.least, engine.most) == (1, 4)
    same(engine, engine_file.with_suffix(".onnx"), images(count))


def test_batches_are_cut_and_filled_to_what_the_engine_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(
        write_engine(tmp_path / "m.plan", limits={"min_batch_size": 2, "opt_batch_size": 2, "max_batch_size": 3})
    )
    seen, told = [], Context.set_input_shape

    def noted(context: Context, name: str, shape: tuple[int, ...]) -> bool:
        seen.append((name, shape[0]))
        return told(context, name, shape)

    monkeypatch.setattr(Context, "set_input_shape", noted)
    found = engine.outputs(images(4), ["panoptic"])["panoptic"]
    assert seen == [("images", 3), ("task_tokens", 3), ("images", 2), ("task_tokens", 2)]
    assert found.class_logits.shape == (4, 12, 5)


def test_a_fixed_batch_and_bytes_are_taken(tmp_path: Path) -> None:
    file = write_engine(
        tmp_path / "m.engine", batch=3, limits={"min_batch_size": 1, "opt_batch_size": 1, "max_batch_size": 1}
    )
    same(open_engine(file), file.with_suffix(".onnx"), images(4))


def test_open_sizes_are_taken_within_the_profile(tmp_path: Path) -> None:
    file = write_engine(tmp_path / "m.engine", size=None, limits={"max_size": [160, 96]})
    engine = open_engine(file)
    assert engine.info.input_size is None
    same(engine, file.with_suffix(".onnx"), images(2, (96, 128)))
    with pytest.raises(UserError, match="built for heights from 64 to 96, these images have 128"):
        engine.outputs(images(1, (128, 96)), ["semantic"])
    with pytest.raises(UserError, match="multiples of 32"):
        engine.outputs(images(1, (70, 96)), ["semantic"])


def test_another_size_than_the_fixed_one_is_refused(engine_file: Path) -> None:
    with pytest.raises(UserError, match="height 64 and width 96"):
        open_engine(engine_file).outputs(images(1, (96, 96)), ["semantic"])


def test_what_the_library_refuses_is_told_in_its_words(engine_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(engine_file)
    monkeypatch.setattr(Context, "execute_async_v3", lambda *_: False)
    with pytest.raises(UserError, match=r"TensorRT 11\.4\.0 failed on the network") as told:
        engine.outputs(images(1), ["semantic"])
    assert told.value.exit_code == 1


def test_the_precision_is_that_of_the_build(engine_file: Path) -> None:
    assert open_engine(engine_file, precision="fp32").precision == "fp32"
    with pytest.raises(UserError, match=r"computes in fp32(.|\n)*data_type=fp16"):
        open_engine(engine_file, precision="fp16")


def test_the_export_s_description_is_enough_for_an_engine_that_another_program_built(engine_file: Path) -> None:
    beside(engine_file).unlink()
    write_json(engine_file.with_suffix(".json"), about().to_dict())
    same(open_engine(engine_file), engine_file.with_suffix(".onnx"), images(2))


def test_a_lost_description_is_named(engine_file: Path) -> None:
    beside(engine_file).unlink()
    with pytest.raises(CheckpointError, match=r"model\.engine\.json"):
        open_engine(engine_file)


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1}', '{"format": 2}', "{"])
def test_a_broken_description_is_named(engine_file: Path, text: str) -> None:
    beside(engine_file).write_text(text)
    with pytest.raises(CheckpointError, match=r"(?s)model\.engine\.json.*is broken"):
        open_engine(engine_file)


def test_a_broken_part_of_ours_in_it_is_named(engine_file: Path) -> None:
    stored = json.loads(beside(engine_file).read_text())
    stored["tensorrt"]["profile"] = {"images": 3}
    beside(engine_file).write_text(json.dumps(stored))
    with pytest.raises(CheckpointError, match="is broken"):
        open_engine(engine_file)


def test_a_file_that_was_cut_or_replaced_is_told_before_any_library_sees_it(engine_file: Path) -> None:
    engine_file.write_bytes(engine_file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"has \d+ bytes, the engine that model\.engine\.json describes has \d+"):
        open_engine(engine_file)


def test_garbage_of_the_right_size_is_refused_by_the_library(engine_file: Path) -> None:
    engine_file.write_bytes(b"x" * engine_file.stat().st_size)
    with pytest.raises(CheckpointError, match=r"does not take the engine: magic tag(.|\n)*gen_trt_engine"):
        open_engine(engine_file)


def test_another_model_s_description_is_noticed(engine_file: Path) -> None:
    from dataclasses import replace

    former = replace(about().info.model.one_former, num_object_queries=99)
    info = replace(about().info, model=replace(about().info.model, one_former=former))
    stored = json.loads(beside(engine_file).read_text())
    text = {**described(info=info).to_dict(), "tensorrt": stored["tensorrt"]}
    beside(engine_file).write_text(json.dumps(text))
    with pytest.raises(CheckpointError, match="has 12 queries, its description has 99"):
        open_engine(engine_file)


def test_an_engine_of_the_other_library_is_not_given_to_this_one(engine_file: Path) -> None:
    stored = json.loads(beside(engine_file).read_text())
    stored["tensorrt"]["library"] = "tensorrt_rtx"
    beside(engine_file).write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"TensorRT-RTX, which is not installed(.|\n)*oneformer\[tensorrt\]") as told:
        open_engine(engine_file)
    assert told.value.exit_code == 2


def test_libraries_are_found_in_order_and_old_ones_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_library(needed_for="x").told == "TensorRT 11.4.0"
    monkeypatch.setitem(sys.modules, "tensorrt", fake_library(version="8.6.1"))
    with pytest.raises(UserError, match=r"TensorRT 8\.6\.1 is too old"):
        find_library(needed_for="x")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_library("tensorrt_rtx", "1.7.1"))
    found = find_library(needed_for="x")
    assert found.rtx and found.told == "TensorRT-RTX 1.7.1"
    with pytest.raises(UserError, match=r"^x needs TensorRT, which is not installed"):
        find_library("tensorrt", needed_for="x")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(UserError, match="TensorRT or TensorRT-RTX, which is not installed"):
        find_library(needed_for="x")


def test_a_package_whose_shared_libraries_are_missing_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvonnxparser.so.11: cannot open')")
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be loaded here \(libnvonnxparser"):
        find_library(needed_for="x")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_without_a_gpu_it_says_what_works_instead(engine_file: Path) -> None:
    with pytest.raises(UserError, match=r"torch sees none here(.|\n)*ONNX file") as told:
        real_choice("auto", engine_file)
    assert told.value.exit_code == 2


def test_a_gpu_is_taken_by_its_number(engine_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert [str(real_choice(d, engine_file)) for d in ("auto", "cuda", "cuda:0")] == ["cuda:1", "cuda:1", "cuda:0"]
    for wrong in ("cpu", "cuda:2", "cuda:x"):
        with pytest.raises(UserError, match="auto, cuda or cuda:N"):
            real_choice(wrong, engine_file)
