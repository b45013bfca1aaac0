"""What the builder is told, by the stand-in of the library: limits, caches, GPUs, and every way to fail."""

from __future__ import annotations

import logging
import types
from pathlib import Path
from typing import Any

import pytest

from oneformer.engines.tensorrt_library import Library
from oneformer.errors import SpecError, UserError, WorkError
from oneformer.trt.build import Wish, build
from trt.fake_library import Engine, ILogger, Runtime, fake_library
from trt.small_graph import small_model, small_onnx

PROFILE = {
    "images": ((1, 3, 64, 96), (2, 3, 64, 96), (4, 3, 64, 96)),
    "task_tokens": ((1, 77), (2, 77), (4, 77)),
}


def library(name: str = "tensorrt") -> Library:
    return Library(name, fake_library(name), "11.4.0")


def wish(**more: Any) -> Wish:
    return Wish(**{"profile": PROFILE, "workspace_mib": 512, **more})


def head(plan: Any) -> dict[str, Any]:
    engine = Runtime(None).deserialize_cuda_engine(bytes(plan))
    assert isinstance(engine, Engine)
    return engine.head


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that other tests ran have taken our log to stderr; here pytest is to hear it."""
    monkeypatch.setattr(logging.getLogger("oneformer"), "propagate", True)


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    return small_onnx(tmp_path / "small.onnx")


def test_the_library_gets_profile_and_workspace(onnx: Path) -> None:
    done = build(library(), onnx, wish())
    assert head(done.plan)["profile"]["images"] == [[1, 3, 64, 96], [2, 3, 64, 96], [4, 3, 64, 96]]
    assert head(done.plan)["workspace"] == 512 * 2**20
    assert done.inputs == {"images": (None, 3, 64, 96), "task_tokens": (None, 77)}
    assert done.outputs["pred_logits"] == (None, 12, 5)
    assert done.layers == len(small_model().graph) and done.seconds > 0


@pytest.mark.parametrize("exact", [True, False])
def test_float32_is_exact_when_it_shall_be(onnx: Path, exact: bool) -> None:
    assert head(build(library(), onnx, wish(exact=exact)).plan)["tf32"] is not exact


def test_a_profile_that_does_not_fit_is_a_failure_in_the_library_s_words(onnx: Path) -> None:
    wrong = {**PROFILE, "images": ((1, 3, 32, 96), (2, 3, 64, 96), (4, 3, 64, 96))}
    with pytest.raises(WorkError, match=r"cannot build(.|\n)*the profile does not fit"):
        build(library(), onnx, wish(profile=wrong))


def test_operators_that_the_library_does_not_know_are_named(tmp_path: Path) -> None:
    import onnx_ir as ir

    model = small_model()
    node = next(n for n in model.graph if n.op_type == "Conv")
    model.graph.append(ir.node("NonZero", [node.outputs[0]], name="decoder/NonZero"))
    ir.save(model, tmp_path / "bad.onnx")
    with pytest.raises(WorkError, match="does not understand the graph: decoder/NonZero: no importer"):
        build(library(), tmp_path / "bad.onnx", wish())


def test_the_timing_cache_is_begun_read_and_written(onnx: Path, tmp_path: Path) -> None:
    cache = tmp_path / "deep" / "timing.cache"
    build(library(), onnx, wish(timing_cache=cache))
    assert cache.read_bytes() == b"kernel "
    build(library(), onnx, wish(timing_cache=cache))
    assert cache.read_bytes() == b"kernel kernel "


def test_the_cache_of_another_gpu_is_not_used(onnx: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"of another GPU")
    build(library(), onnx, wish(timing_cache=cache))
    assert cache.read_bytes() == b"kernel " and "another GPU or version" in caplog.text


def test_rtx_has_no_timing_cache_and_says_so(onnx: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build(library("tensorrt_rtx"), onnx, wish(timing_cache=tmp_path / "timing.cache"))
    assert "gen_trt_engine.timing_cache has no effect" in caplog.text and not (tmp_path / "timing.cache").exists()


def test_rtx_builds_for_the_gpus_that_are_named(onnx: Path) -> None:
    done = build(library("tensorrt_rtx"), onnx, wish(gpus=("8.9", "12.0", "8.9")))
    assert done.gpus == ("8.9", "12.0") and head(done.plan)["gpus"] == ["SM89", "SM120"]
    assert head(build(library("tensorrt_rtx"), onnx, wish()).plan)["gpus"] == []


def test_gpus_that_rtx_does_not_know_are_refused_with_those_it_knows(onnx: Path) -> None:
    with pytest.raises(SpecError, match=r"9\.0(.|\n)*8\.6, 8\.9, 12\.0"):
        build(library("tensorrt_rtx"), onnx, wish(gpus=("9.0",)))


def test_the_other_library_builds_for_the_gpu_it_finds(onnx: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert build(library(), onnx, wish(gpus=("8.9",))).gpus == ()
    assert "gpus has no effect" in caplog.text


@pytest.mark.parametrize("verbose", [True, False])
def test_verbose_lets_the_library_speak(onnx: Path, verbose: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="oneformer"):
        build(library(), onnx, wish(verbose=verbose))
    assert ("TensorRT: built" in caplog.text) is verbose


def test_without_a_gpu_the_library_that_needs_one_says_so(onnx: Path) -> None:
    def none(logger: Any) -> Any:
        logger.log(ILogger.ERROR, "Error Code 6: CUDA initialization failure: Cuda error 35")
        raise TypeError("factory function returned nullptr")

    full = library()
    full.module.Builder = none
    with pytest.raises(UserError, match=r"finds no NVIDIA GPU(.|\n)*tensorrt_rtx") as told:
        build(full, onnx, wish())
    assert told.value.exit_code == 2


def test_a_builder_that_gives_nothing_is_a_failure(onnx: Path) -> None:
    rtx = library("tensorrt_rtx")
    rtx.module.Builder = type("Silent", (rtx.module.Builder,), {"build_serialized_network": lambda *_: None})
    with pytest.raises(WorkError, match="gives no reason"):
        build(rtx, onnx, wish())


def test_a_workspace_that_is_too_small_is_told_with_what_is_needed(onnx: Path) -> None:
    rtx = library("tensorrt_rtx")

    def full(builder: Any, network: Any, config: Any) -> None:
        builder.logger.log(ILogger.ERROR, "Error Code 2: OutOfMemory (Requested size was 1227767244 bytes.)")

    rtx.module.Builder = type("Full", (rtx.module.Builder,), {"build_serialized_network": full})
    with pytest.raises(WorkError, match=r"OutOfMemory(.|\n)*tensorrt\.workspace_size=1171"):
        build(rtx, onnx, wish())


def test_modules_are_made_anew_for_each_library() -> None:
    assert isinstance(library().module, types.ModuleType) and library().module is not library().module
