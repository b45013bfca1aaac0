"""The story of `oneformer export`, from the command line to the last file, and what the other commands do with it."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from PIL import Image

import oneformer
from export.operators import unfit
from exported import SIZE, tiny_export
from oneformer.cli import main
from oneformer.export import files
from predict.fake import LABELS

Fake = Callable[..., list[Path]]


def run(*words: str | Path) -> tuple[int, str, str]:
    """One command -> exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(w) for w in words])
    return code, out.getvalue(), err.getvalue()


def status(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]


def written(change: float = 0.0) -> Fake:
    """In the place of `write_graph`: the tiny export's file, with one bias off by `change`; tracing takes long."""

    def fake(model: Any, about: Any, section: Any, draft: Path, *, simplify: bool) -> list[Path]:
        graph = ir.load(tiny_export().onnx)
        if change and (simplify or not section.simplify):
            bias = next(v for n, v in graph.graph.initializers.items() if n.endswith("class_embed.bias"))
            bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(change), name=bias.name)  # type: ignore[union-attr]
        ir.save(graph, draft)
        draft.with_suffix(".json").write_text("{}")
        return [draft, draft.with_suffix(".json")]

    return fake


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return [*tiny_export().words, f"results_dir={tmp_path}"]


def test_the_files_of_the_contract_are_written() -> None:
    done = tiny_export()
    assert done.code == 0, done.err
    names = {p.name for p in done.folder.iterdir()}
    assert names == {"model.onnx", "model.json", "parity.json", "experiment.yaml", "status.json"}
    lines = status(done.folder)
    assert (lines[0]["status"], lines[-1]["status"]) == ("STARTED", "SUCCESS")


def test_the_graph_is_the_contracts_and_fits_every_reader() -> None:
    model = onnx.load(tiny_export().onnx)

    def ports(values: Any) -> dict[str, list[Any]]:
        return {
            v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
            for v in values
            if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        }

    height, width = SIZE
    assert ports(model.graph.input) == {"images": ["batch", 3, height, width], "task_tokens": ["batch", 77]}
    masks = ["batch", 12, height // 4, width // 4]
    assert ports(model.graph.output) == {"pred_logits": ["batch", 12, 5], "pred_masks": masks}
    assert model.opset_import[0].version >= 17
    assert json.loads(model.metadata_props[0].value) == tiny_export().json("model.json")
    assert unfit(tiny_export().onnx) == []
    text = model.SerializeToString()
    assert b"/src/oneformer" not in text and str(tiny_export().root).encode() not in text


def test_the_proof_says_what_was_compared_and_how_it_came_out() -> None:
    proof = tiny_export().json("parity.json")
    assert proof["passed"] and proof["faults"] == []
    assert proof["images"] == "the first 4 images of dataset.val"
    assert set(proof["outputs"]) == {"pred_logits", "pred_masks"}
    for output in proof["outputs"].values():
        assert 0 < output["mean"] <= output["largest"] < 1e-3 and output["largest_value"] > 0.1
    assert proof["semantic"] == {"pixels": 4 * SIZE[0] * SIZE[1], "same": 1.0}
    assert proof["panoptic"]["same"] == 1.0 and proof["panoptic"]["segments"] > 0
    assert set(proof["scores"]) == {"mIoU", "PQ", "AP"}
    assert all(abs(s["difference"]) < 0.1 for s in proof["scores"].values())
    assert json.loads(tiny_export().out)["parity"] == proof


def test_the_description_holds_classes_sizes_normalisation_and_task_tokens() -> None:
    about = tiny_export().json("model.json")
    assert [c["name"] for c in about["classes"]] == list(LABELS.names)
    assert [c["category_id"] for c in about["classes"]] == list(LABELS.category_ids)
    assert about["thing_ids"] == list(LABELS.thing_ids)
    assert about["normalisation"]["mean"] == [123.675, 116.28, 103.53]
    assert about["sizes"] == {"test_min_size": 64, "test_max_size": 128, "size_divisibility": 32}
    assert about["task_tokens"]["panoptic"][:7] == [49406, 518, 10549, 533, 1072, 24755, 49407]
    assert about["origin"]["checkpoint"] == "oneformer_model_best.pth"
    assert str(tiny_export().root) not in json.dumps(about)


def test_evaluate_and_inference_take_the_file_and_see_what_the_checkpoint_sees(
    words: list[str], tmp_path: Path
) -> None:
    done = tiny_export()
    found = {}
    for name, file in (("checkpoint", done.checkpoint), ("graph", done.onnx)):
        folders = [f"evaluate.results_dir={tmp_path / name}", f"inference.results_dir={tmp_path / name / 'photos'}"]
        more = [*words, *folders, "dataset.augmentation.test_min_size=64", "dataset.val.num_workers=0"]
        code, _, err = run("evaluate", *more, f"evaluate.checkpoint={file}", "evaluate.report_images=2")
        assert code == 0, err
        code, _, err = run(
            "inference", *more, f"inference.checkpoint={file}", "inference.mode=all",
            f"inference.images_dir={done.data.images}", "inference.batch_size=3",
        )  # fmt: skip
        assert code == 0, err
        maps = [np.asarray(Image.open(p)) for p in sorted((tmp_path / name / "photos" / "panoptic").glob("*.png"))]
        found[name] = (json.loads((tmp_path / name / "metrics.json").read_text()), np.stack(maps))
    assert found["graph"][0]["panoptic"]["all"] == found["checkpoint"][0]["panoptic"]["all"]
    assert found["graph"][0]["semantic"]["mIoU"] == pytest.approx(found["checkpoint"][0]["semantic"]["mIoU"], abs=0.1)
    assert (found["graph"][1] == found["checkpoint"][1]).all()


def test_load_opens_the_file_and_scales_photos_into_its_size() -> None:
    model = oneformer.load(tiny_export().onnx, device="cpu")
    result = model.predict(np.full((37, 80, 3), 90, np.uint8), task=("semantic", "panoptic", "instance"))
    assert result.semantic_map.shape == result.panoptic_map.shape == (37, 80)
    outputs = model.outputs(torch.zeros(3, 3, *SIZE), "semantic")
    assert outputs.class_logits.shape == (3, 12, 5) and outputs.mask_logits.shape == (3, 12, 16, 24)


def test_a_file_in_the_way_stays_and_is_named(words: list[str], tmp_path: Path) -> None:
    target = tmp_path / "export" / "model.onnx"
    target.parent.mkdir()
    target.write_bytes(b"mine")
    code, _, err = run("export", *words)
    assert code == 2 and "export.overwrite=true" in err and str(target) in err
    assert target.read_bytes() == b"mine" and [p.name for p in target.parent.iterdir()] == ["model.onnx"]


def test_overwriting_replaces_the_file(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "write_graph", written())
    target = tmp_path / "export" / "model.onnx"
    target.parent.mkdir()
    target.write_bytes(b"mine")
    assert run("export", *words, "export.overwrite=true")[0] == 0
    assert target.read_bytes() != b"mine"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("export.checkpoint=", "no weight file"),
        ("export.checkpoint=/no/such.pth", "does not exist"),
        ("export.checkpoint={onnx}", "an export already"),
        ("export.onnx_file={root}", "a folder in the place"),
        ("export.onnx_file={tmp}/m.engine", "ends in .onnx"),
        ("export.format=openvino export.onnx_file={tmp}/m.onnx", "ends in .xml"),
        ("export.batch_size=0", "export.batch_size"),
        ("export.format=torch export.half=true", "export.half"),
        ("export.dynamic_size=true export.input_width=100", "32"),
    ],
)
def test_wrong_requests_are_refused_and_leave_nothing(word: str, said: str, words: list[str], tmp_path: Path) -> None:
    target = tmp_path / "folder.onnx"
    target.mkdir()
    more = word.format(onnx=tiny_export().onnx, root=target, tmp=tmp_path).split()
    code, out, err = run("export", *words, *more)
    assert code == 2 and said in err and out == ""
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.onnx/*"))


@pytest.mark.parametrize(
    ("package", "format", "extra"), [("onnxscript", "onnx", "onnx"), ("openvino", "openvino", "openvino")]
)
def test_a_missing_extra_is_one_line_with_the_command(
    package: str, format: str, extra: str, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = run("export", *words, f"export.format={format}")
    assert code == 2 and package in err and f'pip install "oneformer[{extra}]"' in err
    assert not (tmp_path / "export").exists()


def test_the_photos_to_compare_on_may_lie_in_an_archive(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "write_graph", written())
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "photo.png", "wrapper/photo.png")
    more = (f"export.parity_images_dir={tmp_path / 'photos.tar.gz'}", f"dataset.sources.cache_dir={tmp_path / 'cache'}")
    code, out, err = run("export", *words, *more)
    assert code == 0, err
    assert "compared on 1 images of" in out
    assert json.loads((tmp_path / "export/parity.json").read_text())["images"].startswith("1 images of")


def test_a_file_that_computes_something_else_is_not_kept(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "write_graph", written(change=0.5))
    code, out, err = run("export", *words, "export.simplify=false")
    assert code == 1 and "does not compute the same" in err and "export.accept_parity=true" in err and out == ""
    folder = tmp_path / "export"
    assert {p.name for p in folder.iterdir()} == {"parity.json", "experiment.yaml", "status.json"}
    proof = json.loads((folder / "parity.json").read_text())
    assert not proof["passed"] and proof["outputs"]["pred_logits"]["largest"] == pytest.approx(0.5, abs=1e-3)
    assert status(folder)[-1]["status"] == "FAILURE"


def test_it_is_kept_when_the_user_accepts_it(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "write_graph", written(change=0.5))
    code, out, _ = run("export", *words, "export.simplify=false", "export.accept_parity=true")
    assert code == 0 and "NOT the same" in out
    assert (tmp_path / "export" / "model.onnx").is_file()


def test_a_simplified_graph_that_differs_is_written_again_as_it_came(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "write_graph", written(change=0.5))
    code, _, err = run("export", *words)
    assert code == 0 and "trying without" in err
    assert json.loads((tmp_path / "export" / "parity.json").read_text())["passed"]


def test_a_full_disk_leaves_no_file_under_the_final_name(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> list[Path]:
        draft: Path = args[3]
        draft.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_graph", full)
    code, _, err = run("export", *words)
    assert code == 1 and "No space left on device" in err and "model.onnx" in err
    assert {p.name for p in (tmp_path / "export").iterdir()} == {"experiment.yaml", "status.json"}


def test_a_target_that_cannot_be_written_is_named_before_anything_is_traced(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    code, _, err = run("export", *words, f"export.onnx_file={tmp_path / 'file' / 'model.onnx'}")
    assert code in (1, 2) and "cannot be written" in err and "model.onnx" in err


def test_a_dry_run_names_the_files_and_writes_nothing(words: list[str], tmp_path: Path) -> None:
    code, out, err = run("export", "--dry-run", *words, "export.format=openvino")
    assert code == 0, err
    for name in ("model.xml", "model.bin", "model.json", "parity.json"):
        assert f"would write  {tmp_path / 'export' / name}" in out
    assert not (tmp_path / "export").exists()


def test_the_dots_of_a_broken_export_are_swept(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any, **options: Any) -> list[Path]:
        shutil.copy(tiny_export().onnx, args[3])
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_graph", stopped)
    assert run("export", *words)[0] == 130
    assert {p.name for p in (tmp_path / "export").iterdir()} == {"experiment.yaml", "status.json"}
