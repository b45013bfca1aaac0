"""Specs and schema files of TAO's releases, whose copies of the configuration disagree, load with at most warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oneformer.errors import UserErrors
from oneformer.spec.load import Loaded, load
from oneformer.spec.tao import GONE, RENAMED
from oneformer.spec.tree import leaves, sections

HERE = Path(__file__).resolve().parent
LEAVES: dict[str, dict[str, Any]] = json.loads((HERE / "tao_leaves.json").read_text(encoding="utf-8"))
ACTIONS = ("train", "evaluate", "inference", "export", "quantize", "gen_trt_engine")
# What single releases say beside the packaged schema, in the form of their own files.
PYTORCH_7_0_1 = """
dataset:
  train: {names: [coco, ade], annotations: [a.json, b.json], images: [a, b], panoptic: [c, d]}
  val: {names: city}
  image_size: [1024, 1024]
model:
  backbone: {name: D2DiNAT, dinat: {embed_dim: 192, depths: [3, 4, 18, 5], dilations: null}}
train: {val_check_interval: 0.5, clip_grad_norm_type: 2.0, precision: 16-mixed}
"""
DEPLOY_NEWER = """
model: {precise_msda: true}
evaluate: {task: panoptic}
train:
  checkpointer: {enable_topk: true, monitor: mIoU, mode: max, filename: "m_{epoch}", dirpath: null, save_top_k: 3,
    auto_insert_metric_name: false, replace_periodic: false}
"""
EMPTY_KEYS = """
results_dir:
dataset:
  train: {annotations: , images: , panoptic: , batch_size: 4, num_workers: 4}
  label_map:
  cutmix_prob: 0.0
model: {one_former: {num_object_queries: 250}, sem_seg_head: {num_classes: 150}}
train: {pretrained_model: , pretrained_backbone: null, precision: 16-mixed, iters_per_epoch: -1}
evaluate:
"""
OLD_QUANTIZE = """
model: {backbone: D2SwinTransformer, num_queries: 100}
quantize: {model_path: a.pth, layers: [{module_name: "*", weights: {dtype: int8}}]}
"""


def loaded(tmp_path: Path, text: str, *words: str, action: str = "train") -> Loaded:
    file = tmp_path / "tao.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, words, action=action)


def test_the_dataclasses_of_pytorch_7_0_1(tmp_path: Path) -> None:
    spec = loaded(tmp_path, PYTORCH_7_0_1).spec
    assert spec.dataset.train.names == ["coco", "ade"] and spec.dataset.val.names == "city"
    assert spec.model.backbone.name == "D2DiNAT" and spec.train.val_check_interval == 0.5


def test_the_newer_dataclasses_of_deploy_load_with_a_line_for_each_key_that_is_not_here(tmp_path: Path) -> None:
    found = loaded(tmp_path, DEPLOY_NEWER, action="evaluate")
    assert found.spec.evaluate.task == "panoptic"
    gone = {key for key in GONE if key != "train.checkpointer"}
    assert {w.split()[0] for w in found.warnings} == gone
    assert len(found.warnings) == len(gone)
    assert any("train.keep_checkpoints" in w for w in found.warnings)


def test_a_spec_with_empty_keys_and_no_limit_in_taos_way(tmp_path: Path) -> None:
    found = loaded(tmp_path, EMPTY_KEYS)
    assert found.spec.train.iters_per_epoch is None and found.spec.dataset.train.annotations == ""
    assert found.warnings == []


def test_minus_one_is_no_limit_on_the_command_line_too(tmp_path: Path) -> None:
    assert loaded(tmp_path, "", "train.iters_per_epoch=-1").spec.train.iters_per_epoch is None
    with pytest.raises(UserErrors, match="at least 1"):
        loaded(tmp_path, "", "train.iters_per_epoch=-2")


def test_a_file_that_taos_own_schema_refuses_loads(tmp_path: Path) -> None:
    found = loaded(tmp_path, OLD_QUANTIZE, action="quantize")
    assert found.spec.model.backbone.name == "D2SwinTransformer"
    assert found.spec.model.one_former.num_object_queries == 100
    assert any(w.startswith("model.num_queries is read as") for w in found.warnings)


def test_an_override_of_a_key_that_is_not_here_is_one_warning(tmp_path: Path) -> None:
    assert len(loaded(tmp_path, "", "train.checkpointer.save_top_k=3").warnings) == 1


def test_inference_takes_the_images_that_taos_deploy_container_takes(tmp_path: Path) -> None:
    text = "dataset: {test: {images: photos}}\n"
    assert loaded(tmp_path, text, action="inference").spec.inference.images_dir == "photos"
    assert loaded(tmp_path, text, action="evaluate").spec.inference.images_dir == ""
    assert loaded(tmp_path, text, "inference.images_dir=a", action="inference").spec.inference.images_dir == "a"


def schema(action: str) -> dict[str, Any]:
    """A schema file as TAO packages it: the values stand under `default`, beside a description that says them again."""
    roots = {"train", "quantize", action}
    default: dict[str, Any] = {}
    for key, fact in LEAVES.items():
        if key.split(".")[0] in ACTIONS and key.split(".")[0] not in roots:
            continue
        *parents, name = key.split(".")
        at = default
        for parent in parents:
            at = at.setdefault(parent, {})
        if "default" in fact:
            at[name] = fact["default"]
    maximum = {"type": "int", "default": 1333, "minimum": 32, "maximum": float("inf")}
    return {"type": "object", "properties": {"x": maximum}, "default": default, "required": ["quantize"]}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_schema_file_is_read_as_its_defaults(tmp_path: Path, action: str) -> None:
    text = json.dumps(schema(action))
    assert "Infinity" in text  # as in TAO's files
    found = loaded(tmp_path, text, action=action)
    assert found.spec.model.sem_seg_head.num_classes == 133 and found.spec.train.num_gpus == 8
    assert all("has no effect" in w for w in found.warnings)


def test_no_key_is_both_here_and_gone() -> None:
    known = {*leaves(), *sections()}
    assert not known & {*GONE, *RENAMED} and set(RENAMED.values()) <= known
