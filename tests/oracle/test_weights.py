"""Weights that go to and come from others, against transformers itself and the published rule of names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.weights.foreign import model_of, write_ours
from oneformer import load
from oneformer.actions.checkpoint import convert
from oneformer.data.sample import prepare_image
from oneformer.engines.torch import TorchEngine
from oneformer.model.weights.checkpoint import read_checkpoint
from oneformer.segments import panoptic
from oneformer.spec.model import ModelSpec
from oracle.hf import TASK_IDS, picture, task_tokens, twins
from oracle.shi_rule import to_hugging_face
from oracle.test_network import TOLERANCE, compare, small_spec, swin_spec

transformers = pytest.importorskip("transformers")
PHOTO = sorted((Path(__file__).resolve().parents[2] / "samples" / "nuclei" / "val" / "images").iterdir())[0]
SIDE = 256  # of the photo, a multiple of 32: nobody scales or pads it


def opened(folder: Path) -> Any:
    """Their network from a folder, which has to hold all it wants and nothing else."""
    model, info = transformers.OneFormerForUniversalSegmentation.from_pretrained(folder, output_loading_info=True)
    assert {key: list(value) for key, value in info.items() if value} == {}
    return model.eval()


def network(path: Path) -> Any:
    return TorchEngine.from_checkpoint(path, precision="fp32", device="cpu").model


def agree(ours: Any, theirs: Any, images: Tensor) -> None:
    for task in TASK_IDS:
        errors = compare(ours, theirs, images, task)
        assert max(errors.values()) < TOLERANCE, (task, errors)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def label_file(folder: Path, count: int) -> Path:
    path = folder / "labels.json"
    path.write_text(json.dumps([{"id": i, "name": f"class {i}", "isthing": i % 2} for i in range(count)]))
    return path


def save_theirs(spec: ModelSpec, folder: Path, *, text: bool = True) -> Any:
    """A folder as transformers saves it, of a network of its own with random weights."""
    _, theirs = twins(spec, is_training=text)
    theirs.save_pretrained(folder)
    return transformers.OneFormerForUniversalSegmentation.from_pretrained(folder, is_training=False).eval()


def saved_by_4(folder: Path) -> None:
    """The same folder as transformers 4 writes it: with tables of relative positions, without the unused norm."""
    state = load_file(folder / "model.safetensors")
    assert any(".attention.self.query." in name for name in state)
    for name in [name for name in state if "bias_table" in name]:
        tokens = ((round(state[name].shape[0] ** 0.5) + 1) // 2) ** 2
        state[name.replace("bias_table", "index")] = torch.randint(0, 9, (tokens, tokens))
    state = {name: tensor for name, tensor in state.items() if ".swin.layernorm." not in name}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def saved_in_memory_names(folder: Path) -> None:
    """The same folder with the names that transformers 5 uses in memory."""
    state = transformers.OneFormerForUniversalSegmentation.from_pretrained(folder, is_training=True).state_dict()
    assert any(".attention.q_proj." in name for name in state)
    save_file({n: t.clone() for n, t in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})


def through_ours(folder: Path, tmp_path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of a folder, and those that came back from ours."""
    convert(str(folder), str(tmp_path / "ours.pth"))
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "back"))
    return load_file(folder / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")


@pytest.mark.parametrize("change", [None, saved_by_4])
def test_a_folder_of_theirs_comes_back_unchanged_and_computes_the_same(
    tmp_path: Path, change: Callable[[Path], None] | None
) -> None:
    theirs = save_theirs(small_spec(), tmp_path / "theirs")
    if change:
        change(tmp_path / "theirs")
    before, after = through_ours(tmp_path / "theirs", tmp_path)
    assert same(before, after)
    agree(network(tmp_path / "ours.pth"), theirs, picture(64, 96))
    agree(network(tmp_path / "theirs"), theirs, picture(64, 96))  # the folder itself


def test_a_folder_with_names_of_transformers_5_is_read_and_leaves_with_those_that_it_saves(tmp_path: Path) -> None:
    theirs = save_theirs(small_spec(), tmp_path / "theirs")
    saved = load_file(tmp_path / "theirs" / "model.safetensors")
    saved_in_memory_names(tmp_path / "theirs")
    _, after = through_ours(tmp_path / "theirs", tmp_path)
    assert same(saved, after)
    agree(network(tmp_path / "ours.pth"), theirs, picture(64, 96))


def test_a_bin_file_without_text_branch_and_processor_is_read(tmp_path: Path) -> None:
    """As the published folders are."""
    theirs = save_theirs(small_spec(), tmp_path / "theirs", text=False)
    state = load_file(tmp_path / "theirs" / "model.safetensors")
    torch.save(state, tmp_path / "theirs" / "pytorch_model.bin")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    agree(network(tmp_path / "theirs"), theirs, picture(64, 96))


def other_backbone(name: str) -> ModelSpec:
    from model.specs import tiny_spec

    spec = tiny_spec(name)
    spec.backbone.resnet.stride_in_1x1 = False
    return spec


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(small_spec(), id="swin"),
        pytest.param(other_backbone("convnext"), id="convnext"),
        pytest.param(other_backbone("resnet50"), id="resnet", marks=pytest.mark.slow),
    ],
)
def test_what_we_write_is_opened_without_a_missing_or_unexpected_key_and_computes_the_same(
    tmp_path: Path, spec: ModelSpec
) -> None:
    write_ours(tmp_path / "ours.pth", model_of(spec, text=spec.backbone.name == "D2SwinTransformer"))
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "folder"))
    agree(network(tmp_path / "ours.pth"), opened(tmp_path / "folder"), picture(64, 96))


def test_a_folder_with_dinat_has_the_parameters_of_their_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their DiNAT cannot run (it wants parts that natten has removed), but it can be built: names and shapes are told."""
    write_ours(tmp_path / "ours.pth", model_of(other_backbone("D2DiNAT"), text=False))
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "folder"))
    monkeypatch.setattr("transformers.models.dinat.modeling_dinat.requires_backends", lambda *_: None)
    config = transformers.OneFormerConfig.from_pretrained(tmp_path / "folder")
    with torch.device("meta"):
        theirs = transformers.OneFormerForUniversalSegmentation(config)
    wanted = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    written = {name: tensor.shape for name, tensor in load_file(tmp_path / "folder" / "model.safetensors").items()}
    assert written == wanted
    before, after = through_ours(tmp_path / "folder", tmp_path / "again")
    assert same(before, after)
    dilations = other_backbone("D2DiNAT").backbone.dinat.dilations
    assert config.backbone_config.dilations == dilations
    assert read_checkpoint(tmp_path / "again" / "ours.pth").model.backbone.dinat.dilations == dilations


def test_pre_norm_and_other_choices_arrive_there(tmp_path: Path) -> None:
    spec = small_spec()
    spec.one_former.pre_norm, spec.one_former.use_task_norm, spec.sem_seg_head.common_stride = True, False, 8
    spec.backbone.swin.qkv_bias, spec.backbone.swin.mlp_ratio = False, 2.0
    write_ours(tmp_path / "ours.pth", model_of(spec, text=False))
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "folder"))
    agree(network(tmp_path / "ours.pth"), opened(tmp_path / "folder"), picture(64, 96))


def test_their_text_branch_gets_ours(tmp_path: Path) -> None:
    info = model_of(small_spec())
    write_ours(tmp_path / "ours.pth", info)
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "folder"))
    theirs = transformers.OneFormerForUniversalSegmentation.from_pretrained(tmp_path / "folder", is_training=True)
    missing, unexpected = theirs.load_state_dict(load_file(tmp_path / "folder" / "training.safetensors"), strict=False)
    assert not unexpected
    assert not [name for name in missing if "text_mapper" in name]
    assert torch.equal(theirs.model.text_mapper.prompt_ctx.weight.data, info.state_dict["text.prompt_ctx.weight"])
    assert float(theirs.criterion.logit_scale) == float(info.criterion["criterion.logit_scale"])


def shi_file(spec: ModelSpec, path: Path) -> dict[str, Tensor]:
    """A file in SHI-Labs' layout."""
    write_ours(path.with_name("source.pth"), model_of(spec))
    convert(str(path.with_name("source.pth")), str(path), to="shi")
    return dict(torch.load(path, weights_only=True)["model"])


def shi_goes_the_same_way_by_the_published_rule(spec: ModelSpec, tmp_path: Path, images: Tensor) -> None:
    """SHI -> ours -> SHI and HF, against SHI -> HF by the rule; and both networks compute the same."""
    state = shi_file(spec, tmp_path / "shi.pth")
    labels = str(label_file(tmp_path, spec.sem_seg_head.num_classes))
    convert(str(tmp_path / "shi.pth"), str(tmp_path / "ours.pth"), label_map=labels)
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "again.pth"), to="shi")
    assert same(state, dict(torch.load(tmp_path / "again.pth", weights_only=True)["model"]))
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "folder"))
    by_rule = to_hugging_face(state)
    ours = load_file(tmp_path / "folder" / "model.safetensors") | load_file(
        tmp_path / "folder" / "training.safetensors"
    )
    known = {
        name for name in by_rule.keys() ^ ours.keys() if "relative_position_index" in name or "swin.layernorm" in name
    }
    assert by_rule.keys() ^ ours.keys() == known
    assert all(torch.equal(by_rule[name], ours[name]) for name in by_rule.keys() & ours.keys())
    theirs = opened(tmp_path / "folder")
    theirs.load_state_dict({n: t for n, t in by_rule.items() if n in theirs.state_dict()}, strict=False)
    agree(network(tmp_path / "ours.pth"), theirs, images)


def test_shi_files_are_read_by_the_published_rule(tmp_path: Path) -> None:
    shi_goes_the_same_way_by_the_published_rule(small_spec(), tmp_path, picture(64, 96))


def test_task_sentences_padded_as_tao_does_reach_the_network_as_tao_feeds_them(tmp_path: Path) -> None:
    """Against their network, which is given the end tokens by hand."""
    spec = small_spec()
    spec.text_encoder.task_padding = "tao"
    write_ours(tmp_path / "ours.pth", model_of(spec, text=False))
    engine = TorchEngine.from_checkpoint(tmp_path / "ours.pth", precision="fp32", device="cpu")
    plain = small_spec()
    write_ours(tmp_path / "plain.pth", model_of(plain, text=False))
    convert(str(tmp_path / "plain.pth"), str(tmp_path / "folder"))
    theirs, images = opened(tmp_path / "folder"), picture(64, 96)
    for task, tokens in engine.task_tokens.items():
        padded = torch.where(task_tokens(task) == 0, 49407.0, task_tokens(task))
        assert torch.equal(tokens, padded[0])
        with torch.inference_mode():
            want = theirs(images, padded).class_queries_logits
        got = engine.outputs(images, (task,))[task].class_logits
        assert (got - want).abs().max() < TOLERANCE * want.abs().max()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(ours, the folder of it) for photos of the sample's size; class scores pulled apart so that segments appear."""
    tmp_path = tmp_path_factory.mktemp("pair")
    info = model_of(small_spec(), text=False)
    info.model.test.object_mask_threshold = info.model.test.overlap_threshold = 0.3
    info.state_dict["decoder.class_embed.weight"] *= 3
    object.__setattr__(info, "test_min_size", SIDE)
    object.__setattr__(info, "test_max_size", 2 * SIDE)
    write_ours(tmp_path / "ours.pth", info)
    convert(str(tmp_path / "ours.pth"), str(tmp_path / "folder"))
    return tmp_path / "ours.pth", tmp_path / "folder"


def test_their_processor_prepares_a_photo_and_the_task_as_we_do(pair: tuple[Path, Path]) -> None:
    ours, folder = pair
    info = read_checkpoint(ours)
    processor = transformers.OneFormerProcessor.from_pretrained(folder)
    with Image.open(PHOTO) as photo:
        for task in TASK_IDS:
            inputs = processor(images=photo.convert("RGB"), task_inputs=[task], return_tensors="pt")
            assert torch.equal(inputs["task_inputs"].float(), task_tokens(task))
        pixels = np.asarray(photo.convert("RGB"))
    mine, _ = prepare_image(pixels, mean=info.pixel_mean, std=info.pixel_std, min_size=SIDE, max_size=2 * SIDE)
    assert inputs["pixel_values"].shape == (1, 3, SIDE, SIDE)
    assert torch.allclose(inputs["pixel_values"][0], mine, atol=1e-5)
    assert processor.image_processor.metadata["thing_ids"] == list(info.labels.thing_ids)
    assert processor.image_processor.num_text == 16


def test_their_network_gives_our_panoptic_map_when_the_same_rule_is_applied(pair: tuple[Path, Path]) -> None:
    ours, folder = pair
    predictor = load(ours, precision="fp32", device="cpu")
    mine = predictor.predict(PHOTO, task="panoptic")
    processor, theirs = transformers.OneFormerProcessor.from_pretrained(folder), opened(folder)
    with Image.open(PHOTO) as photo:
        inputs = processor(images=photo.convert("RGB"), task_inputs=["panoptic"], return_tensors="pt")
    with torch.inference_mode():
        out = theirs(inputs["pixel_values"], inputs["task_inputs"].float())
    size = (SIDE, SIDE)
    found = panoptic(
        out.class_queries_logits[0], out.masks_queries_logits[0],
        input_size=size, size=size, original_size=size, rules=predictor.rules,
    )  # fmt: skip
    assert len(mine.segments) >= 3
    assert [(s.id, s.class_id, s.isthing) for s in found.segments] == [
        (s["id"], s["class_id"], s["isthing"]) for s in mine.segments
    ]
    assert (found.map == mine.panoptic_map).mean() > 0.999


class Resize:
    """In the place of torchvision, which transformers' own rule needs and this environment must not have."""

    class InterpolationMode:
        BILINEAR = "bilinear"

    @staticmethod
    def resize(masks: Tensor, *, size: tuple[int, int], interpolation: str) -> Tensor:
        return torch.nn.functional.interpolate(masks, size=size, mode=interpolation, align_corners=False)


def test_their_pipeline_works_on_a_photo(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, folder = pair
    pipe = transformers.pipeline("image-segmentation", model=str(folder))
    assert "Pil" in type(pipe.image_processor).__name__
    names = read_checkpoint(ours).labels.names
    found = pipe(str(PHOTO), subtask="semantic")
    mine = load(ours, precision="fp32", device="cpu").predict(PHOTO, task="semantic").semantic_map
    theirs = np.zeros_like(mine)
    for part in found:
        theirs[np.asarray(part["mask"]) > 0] = names.index(part["label"])
    assert (theirs == mine).mean() > 0.99  # they resize scores, we resize masks
    module = "transformers.models.oneformer.image_processing_pil_oneformer"
    monkeypatch.setattr(f"{module}.tvF", Resize, raising=False)
    for task in ("panoptic", "instance"):
        segments = pipe(str(PHOTO), subtask=task, threshold=0.3)
        assert segments
        assert {part["label"] for part in segments} <= set(names)
        assert all(part["mask"].size == (SIDE, SIDE) for part in segments)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["Swin-T", "Swin-L"])
def test_full_size_networks_go_through_both_layouts_unchanged(tmp_path: Path, size: str) -> None:
    spec, images = swin_spec(size), picture(256, 320)
    theirs = save_theirs(spec, tmp_path / "theirs")
    before, after = through_ours(tmp_path / "theirs", tmp_path)
    assert same(before, after)
    agree(network(tmp_path / "ours.pth"), theirs, images)
    del theirs, before, after
    for path in ("theirs", "back"):
        for file in (tmp_path / path).iterdir():
            file.unlink()
    (tmp_path / "ours.pth").unlink()
    shi_goes_the_same_way_by_the_published_rule(spec, tmp_path, images)
