"""`oneformer checkpoint`: every kind is recognised, goes through ours unchanged, and what does not fit is told."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.specs import tiny_spec
from model.weights.foreign import (
    CLASSES,
    CONTEXTS,
    changed,
    label_map,
    model_of,
    write_mask2former,
    write_ours,
    write_shi,
    write_tao,
)
from oneformer.actions.checkpoint import convert, inspect
from oneformer.cli import main
from oneformer.data.tokens import Tokenizer
from oneformer.engines.torch import TorchEngine
from oneformer.errors import CheckpointError, UserError, UserErrors
from oneformer.model.weights.checkpoint import read_checkpoint
from oneformer.model.weights.settle import read_model
from oneformer.model.weights.targets import hf_tensors, shi_tensors
from oneformer.segments.types import TASKS

LEAN = model_of(text=False)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Equal names, types, shapes and bytes."""
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def shi(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".pkl":
        arrays = pickle.loads(path.read_bytes())["model"]  # our own file
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    return dict(torch.load(path, weights_only=True)["model"])


def outputs(path: Path, images: Tensor) -> list[Tensor]:
    found = TorchEngine.from_checkpoint(path, precision="fp32", device="cpu").outputs(images, TASKS)
    return [x for task in TASKS for x in (found[task].class_logits, found[task].mask_logits)]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ours(tmp_path_factory.mktemp("ours") / "ours.pth")


@pytest.fixture(scope="module")
def folder(ours: Path) -> Path:
    target = ours.with_name("folder")
    convert(str(ours), str(target))
    return target


def test_every_kind_of_file_is_recognised(tmp_path: Path, ours: Path, folder: Path) -> None:
    write_shi(tmp_path / "shi.pth", LEAN)
    write_shi(tmp_path / "shi.pkl", LEAN)
    write_tao(tmp_path / "tao.pth")
    write_mask2former(tmp_path / "m2f.pth")
    state = read_checkpoint(ours).state_dict
    save_file(state, tmp_path / "bare.safetensors")
    torch.save(
        {"model": {n.removeprefix("backbone."): t for n, t in state.items() if n.startswith("backbone.")}},
        tmp_path / "swin.pth",
    )
    torch.save({"w": torch.ones(3)}, tmp_path / "what.pth")
    expected = {
        ours: "ours", folder: "hf", folder / "model.safetensors": "hf weights", tmp_path / "shi.pth": "shi",
        tmp_path / "shi.pkl": "detectron2", tmp_path / "tao.pth": "tao", tmp_path / "m2f.pth": "mask2former",
        tmp_path / "bare.safetensors": "bare", tmp_path / "swin.pth": "backbone", tmp_path / "what.pth": "unknown",
    }  # fmt: skip
    told = {path: inspect(str(path)) for path in expected}
    assert {path: found.kind for path, found in told.items()} == expected
    for path, found in told.items():
        if found.kind not in ("backbone", "unknown"):
            assert (found.queries, found.classes) == (12, 5), path
            assert found.backbone == "a Swin transformer (embed_dim 16, depths 1-2-1-1, window 4)", path
    assert told[tmp_path / "swin.pth"].backbone.startswith("a Swin transformer")
    assert "3 tensors" not in told[tmp_path / "what.pth"].table()
    for known in (ours, folder):
        assert told[known].class_names == ["cat", "sky", "dog", "sea", "car"]
        assert told[known].things == ["cat", "dog", "car"]
    assert told[tmp_path / "tao.pth"].settings["model.text_encoder.task_padding"] == "tao"


def test_inspect_tells_facts_as_text_and_as_json(ours: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "inspect", str(ours)]) == 0
    text = capsys.readouterr().out
    for words in ("a checkpoint of ours", "12", "5 (3 things, 2 stuff): cat, sky, dog, sea, car", "all finite", "MiB"):
        assert words in text
    assert main(["checkpoint", "inspect", str(ours), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    state = model_of().state_dict
    text_branch = sum(t.numel() for n, t in state.items() if n.startswith("text."))
    assert facts["text_parameters"] == text_branch
    assert facts["parameters"] == sum(t.numel() for t in state.values()) - text_branch
    assert facts["tensors"] == {"float32": len(state) + 1}
    assert facts["size_bytes"] == ours.stat().st_size
    assert facts["settings"]["dataset.pixel_mean"] == [123.675, 116.28, 103.53]


def test_nan_and_infinity_are_told_by_inspect_and_refused_by_everything_else(tmp_path: Path) -> None:
    info = LEAN
    bias = info.state_dict["decoder.class_embed.bias"].clone()
    bias[1], bias[2] = float("nan"), float("inf")
    path = write_ours(tmp_path / "nan.pth", changed(info, decoder__class_embed__bias=bias))
    assert inspect(str(path)).not_finite == {"decoder.class_embed.bias": 2}
    for work in (lambda: convert(str(path), str(tmp_path / "x.pkl")), lambda: TorchEngine.from_checkpoint(path)):
        with pytest.raises(
            CheckpointError, match=r"decoder\.class_embed\.bias holds 2 numbers that are NaN or infinite"
        ):
            work()


def test_hf_to_ours_to_hf_changes_no_tensor(tmp_path: Path, folder: Path) -> None:
    convert(str(folder), str(tmp_path / "ours.pth"))
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "back"))
    before = load_file(folder / "model.safetensors") | load_file(folder / "training.safetensors")
    assert same(before, load_file(tmp_path / "back" / "model.safetensors"))
    assert same(read_model(folder).state_dict, read_model(tmp_path / "back").state_dict)
    files = {
        name: (tmp_path / "back" / name).read_text()
        for name in ("config.json", "class_info.json", "preprocessor_config.json")
    }
    assert files == {name: (folder / name).read_text() for name in files}


@pytest.mark.parametrize(
    ("backbone", "ending"),
    [
        ("D2SwinTransformer", ".pth"),
        ("D2SwinTransformer", ".pkl"),
        ("D2DiNAT", ".pth"),
        pytest.param("convnext", ".pkl", marks=pytest.mark.slow),
        pytest.param("resnet50", ".pkl", marks=pytest.mark.slow),
    ],
)
def test_shi_to_ours_to_shi_changes_no_tensor(tmp_path: Path, ending: str, backbone: str) -> None:
    spec = tiny_spec(backbone)
    before = write_shi(tmp_path / f"a{ending}", model_of(spec, text=ending == ".pth"))
    dilations = json.dumps(spec.backbone.dinat.dilations)
    words = [CONTEXTS, *([f"model.backbone.dinat.dilations={dilations}"] if backbone == "D2DiNAT" else [])]
    convert(str(tmp_path / f"a{ending}"), str(tmp_path / "ours.pth"), label_map=str(label_map(tmp_path)), words=words)
    assert read_checkpoint(tmp_path / "ours.pth").model.backbone.name == backbone
    convert(str(tmp_path / "ours.pth"), str(tmp_path / f"b{ending}"), to="shi")
    assert same(before, shi(tmp_path / f"b{ending}"))


def test_numbers_of_other_widths_pass_unchanged(tmp_path: Path) -> None:
    info = LEAN
    half = replace(info, state_dict={n: t.half() for n, t in info.state_dict.items()})
    write_ours(tmp_path / "half.pth", half)
    convert(str(tmp_path / "half.pth"), str(tmp_path / "folder"))
    assert json.loads((tmp_path / "folder" / "config.json").read_text())["torch_dtype"] == "float16"
    assert same(read_model(tmp_path / "folder").state_dict, half.state_dict)


def test_a_folder_is_opened_like_its_checkpoint(ours: Path, folder: Path) -> None:
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    for a, b in zip(outputs(ours, images), outputs(folder, images), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(a.abs().max()))
    a, b = read_model(ours), read_model(folder)
    assert a.labels == b.labels
    for section in ("sem_seg_head", "one_former", "test", "task_toggling"):
        assert getattr(a.model, section) == getattr(b.model, section)
    assert a.model.backbone.swin == b.model.backbone.swin
    assert a.model.text_encoder == b.model.text_encoder
    assert (a.pixel_mean, a.pixel_std, a.test_min_size, a.test_max_size) == (
        b.pixel_mean, b.pixel_std, b.test_min_size, b.test_max_size,
    )  # fmt: skip


def test_weights_in_several_parts_are_read(tmp_path: Path, folder: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for name in ("config.json", "class_info.json", "preprocessor_config.json"):
        (parts / name).write_text((folder / name).read_text())
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    held = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, inside in held.items():
        save_file({name: state[name] for name in inside}, parts / file)
    table = {name: file for file, inside in held.items() for name in inside}
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    text = {n: t for n, t in read_model(folder).state_dict.items() if not n.startswith("text.")}
    assert same(read_model(parts).state_dict, text)
    table[names[0]] = "../elsewhere.safetensors"
    (parts / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    with pytest.raises(CheckpointError, match=r"names '../elsewhere\.safetensors' as a part"):
        read_model(parts)


def test_tao_brings_its_settings_and_its_padding(tmp_path: Path) -> None:
    write_tao(tmp_path / "tao.pth")
    done = convert(str(tmp_path / "tao.pth"), str(tmp_path / "ours.pth"), label_map=str(label_map(tmp_path)))
    assert any("end tokens" in note for note in done.report.notes)
    info = read_checkpoint(tmp_path / "ours.pth")
    assert info.model.text_encoder.task_padding == "tao"
    assert (info.model.one_former.nheads, info.test_min_size, info.pixel_mean) == (4, 96, (100, 101, 102))
    assert same(info.state_dict, model_of().state_dict)
    engine = TorchEngine.from_checkpoint(tmp_path / "ours.pth", precision="fp32", device="cpu")
    assert engine.task_tokens["instance"].tolist() == [49406, 518, 10549, 533, 34572] + [49407] * 72
    assert Tokenizer().task_tokens("instance").tolist() == [49406, 518, 10549, 533, 34572, 49407] + [0] * 71


@pytest.mark.parametrize("target", ["folder", "shi"])
def test_the_padding_of_tao_is_folded_in_where_others_pad_with_zeros(tmp_path: Path, target: str) -> None:
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    write_tao(tmp_path / "tao.pth", LEAN)
    labels = str(label_map(tmp_path))
    convert(str(tmp_path / "tao.pth"), str(tmp_path / "ours.pth"), label_map=labels)
    back = tmp_path / "folder"
    if target == "folder":
        convert(str(tmp_path / "ours.pth"), str(back))
    else:
        convert(str(tmp_path / "ours.pth"), str(tmp_path / "x.pkl"))
        back = tmp_path / "back.pth"
        convert(str(tmp_path / "x.pkl"), str(back), label_map=labels, words=[CONTEXTS])
    assert read_model(back).model.text_encoder.task_padding == "clip"
    for a, b in zip(outputs(tmp_path / "ours.pth", images), outputs(back, images), strict=True):
        assert (a - b).abs().max() < 1e-4 * a.abs().max()


def test_a_mask2former_gives_what_fits_and_the_rest_is_said_to_be_new(tmp_path: Path) -> None:
    write_mask2former(tmp_path / "m2f.pth")
    done = convert(
        str(tmp_path / "m2f.pth"),
        str(tmp_path / "ours.pth"),
        label_map=str(label_map(tmp_path)),
        words=[CONTEXTS],
    )
    assert all(name.startswith(("task.", "decoder.initialiser.")) for name in done.report.missing)
    assert done.report.unexpected == ("sem_seg_head.predictor.query_feat.weight",)
    told = " ".join(done.report.notes)
    assert f"{len(done.report.missing)} tensors that make queries of the task are new" in told
    assert "query_feat" in told
    assert "train the model before use" in told
    state, source = read_checkpoint(tmp_path / "ours.pth").state_dict, model_of(text=False).state_dict
    assert state.keys() == source.keys()
    assert all(torch.equal(state[name], source[name]) for name in done.report.matched)


NEW = [CLASSES[2], {"id": 20, "name": "bird", "isthing": 1}, CLASSES[0]]


def test_rows_of_classes_with_equal_names_are_kept_and_the_others_start_afresh(tmp_path: Path, ours: Path) -> None:
    target = tmp_path / "new.pth"
    done = convert(str(ours), str(target), label_map=str(label_map(tmp_path, NEW)))
    old, new = read_checkpoint(ours), read_checkpoint(target)
    assert new.labels.names == ("dog", "bird", "cat")
    assert (new.model.sem_seg_head.num_classes, new.metrics) == (3, {})
    for name in ("decoder.class_embed.weight", "decoder.class_embed.bias"):
        before, after = old.state_dict[name], new.state_dict[name]
        assert torch.equal(after[[0, 2, 3]], before[[2, 0, 5]])  # dog, cat, no object
        assert not any(torch.equal(after[1], row) for row in before)
    told = " ".join(done.report.notes)
    assert "2 classes keep their rows of the class head; 1 start afresh: bird; 3 are gone: sky, sea, car" in told
    assert [name for name, _, _ in done.report.reshaped] == ["decoder.class_embed.weight", "decoder.class_embed.bias"]
    rest = [n for n in old.state_dict if "class_embed" not in n]
    assert all(torch.equal(old.state_dict[n], new.state_dict[n]) for n in rest)
    again = tmp_path / "again.pth"
    convert(str(ours), str(again), label_map=str(label_map(tmp_path, NEW)))
    assert same(new.state_dict, read_checkpoint(again).state_dict)


def test_what_a_file_does_not_say_is_asked_for(tmp_path: Path) -> None:
    write_shi(tmp_path / "shi.pth", LEAN)
    source, target = str(tmp_path / "shi.pth"), str(tmp_path / "x.pth")
    with pytest.raises(UserError, match="does not name its 5 classes") as error:
        convert(source, target, words=[CONTEXTS])
    assert "--label-map" in error.value.hint
    with pytest.raises(CheckpointError, match="5 classes without names, the label map has 3"):
        convert(source, target, label_map=str(label_map(tmp_path, NEW)), words=[CONTEXTS])
    with pytest.raises(UserErrors, match="num_object_queries is 99, but the weights have 12"):
        convert(source, target, label_map=str(label_map(tmp_path)), words=["model.one_former.num_object_queries=99"])
    convert(source, target, label_map=str(label_map(tmp_path)), words=[CONTEXTS])
    assert read_checkpoint(tmp_path / "x.pth").model.one_former.nheads == 4  # told by the 4 points of each head
    save_file(LEAN.state_dict, tmp_path / "bare.safetensors")
    done = convert(str(tmp_path / "bare.safetensors"), str(tmp_path / "bare.pkl"), words=[CONTEXTS])
    assert "model.one_former.nheads is 8: the file does not tell" in done.report.notes


def test_a_spec_says_what_the_file_does_not(tmp_path: Path) -> None:
    write_shi(tmp_path / "shi.pth", LEAN)
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"model: {{one_former: {{dropout: 0.2}}, test: {{object_mask_threshold: 0.8}}}}\n"
        f"dataset: {{label_map: {label_map(tmp_path)}, augmentation: {{test_min_size: 640, test_max_size: 2560}}}}\n"
    )
    words = ["model.test.overlap_threshold=0.7", CONTEXTS]
    convert(str(tmp_path / "shi.pth"), str(tmp_path / "x.pth"), experiment_spec=str(spec), words=words)
    info = read_checkpoint(tmp_path / "x.pth")
    assert (info.model.one_former.dropout, info.test_min_size, info.test_max_size) == (0.2, 640, 2560)
    assert (info.model.test.object_mask_threshold, info.model.test.overlap_threshold) == (0.8, 0.7)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x.onnx"], "no kind of weight file ends in .onnx"),
        (["x.pth"], "does not tell what the target shall be"),
        (["x.pth", "--to", "hf"], "a folder, not a file"),
        (["x", "--to", "shi"], "a file needs an ending"),
        (["here.pth", "--to", "ours"], "the target is there already"),
        (["x.pkl", "--label-map", "none.json"], "none.json"),
        (["x.pkl", "model.one_former.heads=4"], "there is no key model.one_former.heads"),
    ],
)
def test_unclear_or_wrong_requests_are_answered(
    tmp_path: Path, ours: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here.pth").write_text("precious")
    assert main(["checkpoint", "convert", str(ours), str(tmp_path / words[0]), *words[1:]]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert [p.name for p in tmp_path.iterdir()] == ["here.pth"]
    assert (tmp_path / "here.pth").read_text() == "precious"


def test_the_report_is_printed_and_there_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shi(tmp_path / "shi.pth", LEAN)
    words = ["checkpoint", "convert", str(tmp_path / "shi.pth"), str(tmp_path / "x.pth"), CONTEXTS]
    words += ["--label-map", str(label_map(tmp_path))]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "tensors loaded\n" in text
    assert f"wrote {tmp_path / 'x.pth'} (a checkpoint of ours)" in text
    assert main([*words, "--overwrite", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["source"]["kind"] == "a OneFormer of SHI-Labs"
    assert len(told["matched"]) == len(LEAN.state_dict)
    assert told["missing"] == told["reshaped"] == []
    assert told["unexpected"] == []


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(
    tmp_path: Path, ours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "config.json").write_text("old")
    (target / "old.txt").write_text("old")

    def full(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        with pytest.raises(UserError, match="No space left") as error:
            convert(str(ours), str(target), overwrite=True)
    assert error.value.exit_code == 1
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert sorted(p.name for p in target.iterdir()) == ["config.json", "old.txt"]
    convert(str(ours), str(target), overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert not (target / "old.txt").exists()


def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path: Path, ours: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "config.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "photos"):
        (folder / "mine.jpg").write_text("precious")
        with pytest.raises(UserError, match="other things than a model"):
            convert(str(ours), str(folder), overwrite=True)
        assert (folder / "mine.jpg").read_text() == "precious"
    convert(str(ours), str(tmp_path / "model_v1.0"), to="hf")
    assert (tmp_path / "model_v1.0" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sem_seg_head": {"mask_position": True}}, "mask_position is True"),
        ({"one_former": {"position_turns": 6.0}}, "position_turns is 6"),
        ({"sem_seg_head": {"pixel_decoder_name": "BasePixelDecoder"}}, "pixel_decoder"),
        ({"backbone": {"name": "vit"}}, "backbone.name is 'vit'"),
    ],
    ids=["mask_position", "position_turns", "pixel_decoder", "vit"],
)
def test_what_others_cannot_compute_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    spec = tiny_spec()
    for section, values in change.items():
        for key, value in values.items():
            setattr(getattr(spec, section), key, value)
    info = model_of(spec, text=False)
    with pytest.raises(CheckpointError, match=said.replace(".", r"\.")):
        hf_tensors(info)
    with pytest.raises(CheckpointError, match=said.replace(".", r"\.")):
        shi_tensors(info)


def test_all_that_others_lack_is_named_at_once() -> None:
    spec = tiny_spec()
    spec.sem_seg_head.mask_position, spec.one_former.position_turns = True, 6.0
    for write in (hf_tensors, shi_tensors):
        with pytest.raises(CheckpointError, match=r"mask_position is True; .*position_turns is 6"):
            write(model_of(spec, text=False))


def test_a_target_that_cannot_hold_the_model_is_not_begun(tmp_path: Path) -> None:
    spec = tiny_spec()
    spec.sem_seg_head.mask_position = True
    path = write_ours(tmp_path / "ours.pth", model_of(spec, text=False))
    for target in ("folder", "x.pkl"):
        with pytest.raises(CheckpointError, match="mask_position"):
            convert(str(path), str(tmp_path / target))
    assert [p.name for p in tmp_path.iterdir()] == ["ours.pth"]


def test_a_file_that_fits_nothing_says_what_it_seems_to_be(tmp_path: Path) -> None:
    state = {n: t for n, t in LEAN.state_dict.items() if n.startswith("backbone.")}
    torch.save({"model": {n.removeprefix("backbone."): t for n, t in state.items()}}, tmp_path / "swin.pth")
    with pytest.raises(CheckpointError, match="this is a backbone, not a whole model: a Swin transformer") as error:
        convert(str(tmp_path / "swin.pth"), str(tmp_path / "x.pkl"))
    assert "train.pretrained_backbone" in error.value.hint
    torch.save({"state_dict": {"layer.weight": torch.ones(2)}}, tmp_path / "what.pth")
    with pytest.raises(
        CheckpointError, match=r"no model that is known here, not a whole model: 1 tensors such as layer"
    ):
        convert(str(tmp_path / "what.pth"), str(tmp_path / "x.pkl"))
    tensors = write_shi(tmp_path / "part.pth", LEAN)
    del tensors["sem_seg_head.predictor.class_transformer.decoder.norm.bias"]
    torch.save({"model": tensors}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"1 are missing.*decoder\.initialiser\.norm\.bias is missing"):
        convert(str(tmp_path / "part.pth"), str(tmp_path / "x.pkl"), words=[CONTEXTS])


def test_what_has_no_place_here_is_named_and_goes_back_with_the_rest(tmp_path: Path) -> None:
    tensors = write_shi(tmp_path / "a.pth", LEAN) | {"backbone.head.weight": torch.ones(3)}
    torch.save({"model": tensors}, tmp_path / "a.pth")
    labels = str(label_map(tmp_path))
    done = convert(str(tmp_path / "a.pth"), str(tmp_path / "ours.pth"), label_map=labels, words=[CONTEXTS])
    assert done.report.unexpected == ("backbone.head.weight",)
    assert "kept aside" in done.report.notes[-1]
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "b.pth"), to="shi")
    assert same(tensors, shi(tmp_path / "b.pth"))
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "folder"))  # no business of another layout
    assert not [name for name in load_file(tmp_path / "folder" / "model.safetensors") if ".head." in name]
