"""Short names of the command line and Hydra's signs, as TAO's users type them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oneformer.errors import UserErrors
from oneformer.spec.load import load, load_spec
from oneformer.spec.shorthand import NAMES, names_of, targets
from oneformer.spec.tree import get, leaves

# TAO's two lists, the second that of its deploy container.
MAIN = {
    "num_epochs": "train.num_epochs", "batch_size": "dataset.train.batch_size",
    "train_batch_size": "dataset.train.batch_size", "val_batch_size": "dataset.val.batch_size",
    "test_batch_size": "dataset.test.batch_size", "learning_rate": "train.optim.lr",
    "num_classes": "model.sem_seg_head.num_classes", "contiguous_id": "dataset.contiguous_id",
    "image_size": "dataset.image_size", "train_min_size": "dataset.augmentation.train_min_size",
    "train_max_size": "dataset.augmentation.train_max_size", "train_crop_size": "dataset.augmentation.train_crop_size",
    "test_min_size": "dataset.augmentation.test_min_size", "test_max_size": "dataset.augmentation.test_max_size",
    "pretrained_model": "train.pretrained_model", "pretrained_backbone": "train.pretrained_backbone",
    "resume_checkpoint": "train.resume_training_checkpoint_path", "export_onnx": "export.onnx_file",
    "export_width": "export.input_width", "export_height": "export.input_height", "export_task": "export.task",
    "inference_images": "inference.images_dir", "inference_mode": "inference.mode",
    "quant_backend": "quantize.backend", "quant_model_path": "quantize.model_path",
    "calibration_images": "dataset.quant_calibration_dataset.images_dir",
}  # fmt: skip
DEPLOY = {
    "trt_data_type": "gen_trt_engine.tensorrt.data_type", "trt_engine": "gen_trt_engine.trt_engine",
    "batch_size": "dataset.val.batch_size", "val_batch_size": "dataset.val.batch_size",
    "test_batch_size": "dataset.test.batch_size", "num_classes": "model.sem_seg_head.num_classes",
    "contiguous_id": "dataset.contiguous_id", "export_task": "export.task",
    "trt_min_batch_size": "gen_trt_engine.tensorrt.min_batch_size",
    "trt_opt_batch_size": "gen_trt_engine.tensorrt.opt_batch_size",
    "trt_max_batch_size": "gen_trt_engine.tensorrt.max_batch_size",
}  # fmt: skip
# A value for each that is not the default, and what must be set with it.
VALUES: dict[str, tuple[str, Any]] = {
    "num_epochs": ("7", 7), "learning_rate": ("3e-4", 3e-4), "num_classes": ("5", 5), "contiguous_id": ("false", False),
    "image_size": ("512", 512), "train_min_size": ("[640]", [640]), "train_max_size": ("2000", 2000),
    "train_crop_size": ("[512,640]", [512, 640]), "test_min_size": ("640", 640), "test_max_size": ("2000", 2000),
    "export_width": ("320", 320), "export_height": ("320", 320), "export_task": ("panoptic", "panoptic"),
    "inference_mode": ("instance", "instance"), "quant_backend": ("modelopt.onnx", "modelopt.onnx"),
    "trt_data_type": ("fp32", "fp32"), "trt_max_batch_size": ("4", 4), "trt_opt_batch_size": ("1", 1),
    "trt_min_batch_size": ("1", 1),
}  # fmt: skip


def value_for(name: str) -> tuple[str, Any]:
    return VALUES.get(name, ("4", 4) if name.endswith("batch_size") else ("a/b", "a/b"))


@pytest.mark.parametrize("name", MAIN)
def test_each_of_taos_26_names_sets_its_key(name: str) -> None:
    said, value = value_for(name)
    spec = load_spec(None, [f"{name}={said}"], action="train")
    assert get(spec, MAIN[name]) == value
    assert len(MAIN) == 26


@pytest.mark.parametrize("name", DEPLOY)
@pytest.mark.parametrize("action", ["gen_trt_engine", "evaluate", "inference"])
def test_each_of_the_11_names_of_taos_deploy_sets_its_key(name: str, action: str) -> None:
    said, value = value_for(name)
    spec = load_spec(None, [f"{name}={said}"], action=action)
    assert get(spec, DEPLOY[name]) == value
    assert len(DEPLOY) == 11


def test_the_table_has_taos_names_and_no_other() -> None:
    assert set(NAMES) == {*MAIN, *DEPLOY}
    assert not set(NAMES) & set(leaves())


@pytest.mark.parametrize(
    ("action", "word", "key", "value"),
    [
        ("evaluate", "batch_size=4", "evaluate.batch_size", 4),
        ("inference", "batch_size=4", "inference.batch_size", 4),
        ("export", "batch_size=4", "export.batch_size", 4),
        ("gen_trt_engine", "batch_size=4", "gen_trt_engine.batch_size", 4),
        ("evaluate", "trt_engine=a.engine", "evaluate.trt_engine", "a.engine"),
        ("inference", "trt_engine=a.engine", "inference.trt_engine", "a.engine"),
        ("inference", "image_size=512", "inference.image_size", [512, 512]),
        ("inference", "image_size=[640,480]", "inference.image_size", [640, 480]),
        ("export", "image_size=[640,480]", "export.input_height", 480),
        ("export", "image_size=512", "export.input_width", 512),
    ],
)
def test_a_name_also_sets_what_acts_in_the_action(action: str, word: str, key: str, value: Any) -> None:
    assert get(load_spec(None, [word], action=action), key) == value
    assert word.partition("=")[0] in names_of(key)


def test_the_last_of_a_short_and_a_long_name_wins() -> None:
    assert load_spec(None, ["num_epochs=3", "train.num_epochs=4"], action="train").train.num_epochs == 4
    assert load_spec(None, ["train.num_epochs=4", "num_epochs=3"], action="train").train.num_epochs == 3


def test_a_wrong_value_names_the_key_and_the_word() -> None:
    with pytest.raises(UserErrors) as caught:
        load(None, ["num_epochs=many"], action="train")
    assert "train.num_epochs is the text 'many'" in caught.value.message
    assert "command line, num_epochs" in caught.value.message


def test_a_short_name_is_none_within_a_file(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("num_epochs: 3\n", encoding="utf-8")
    with pytest.raises(UserErrors, match=r"did you mean train\.num_epochs"):
        load(file, action="train")


def test_every_target_is_a_key() -> None:
    actions = ("train", "evaluate", "inference", "export", "quantize", "gen_trt_engine")
    assert {key for name in NAMES for action in actions for key in targets(name, action)} <= set(leaves())


FILE = """
train: {num_epochs: 9, freeze: [backbone], optim: {lr: 2e-4}}
dataset: {task_prob_train: {semantic: 1.0}}
"""


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["+train.num_epochs=3"], "train.num_epochs", 3),
        (["++train.num_epochs=3"], "train.num_epochs", 3),
        (["~train.num_epochs"], "train.num_epochs", 50),
        (["~train.optim.lr=2e-4"], "train.optim.lr", 1e-4),
        (["~train.optim"], "train.optim.lr", 1e-4),
        (["~train.freeze", "train.freeze=[text]"], "train.freeze", ["text"]),
        (["~num_epochs"], "train.num_epochs", 50),
        (["results_dir='my results'"], "results_dir", "my results"),
        (['results_dir="a,b"'], "results_dir", "a,b"),
        (["train.freeze=[backbone,'sem_seg_head']"], "train.freeze", ["backbone", "sem_seg_head"]),
        (["train.freeze=[]"], "train.freeze", []),
        (["dataset.task_prob_train={semantic:0.5,panoptic:0.5}"], "dataset.task_prob_train",
         {"semantic": 0.5, "panoptic": 0.5}),
        (["+dataset.task_prob_train.panoptic=0.0"], "dataset.task_prob_train", {"semantic": 1.0, "panoptic": 0.0}),
        (["wandb.enable=True"], "wandb.enable", True),
        (["train.optim.max_iter=null"], "train.optim.max_iter", None),
        (["dataset.train.images=[s3://a/b,/c]"], "dataset.train.images", ["s3://a/b", "/c"]),
        (["evaluate.checkpoint=${results_dir}/a.pth", "results_dir=out"], "evaluate.checkpoint", "out/a.pth"),
    ],
)  # fmt: skip
def test_overrides_in_the_form_of_hydra_work(tmp_path: Path, words: list[str], key: str, value: Any) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(FILE, encoding="utf-8")
    assert get(load_spec(file, words, action="train"), key) == value


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("~train.num_epoch", "did you mean train.num_epochs"),
        ("~train.num_epochs=8", "train.num_epochs is 9, so '~train.num_epochs=8' takes nothing away"),
        ("+train.num_epoch=3", "did you mean train.num_epochs"),
        ("+++train.num_epochs=3", "there is no key +train"),
    ],
)
def test_what_a_sign_cannot_do_is_one_fault(tmp_path: Path, word: str, said: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(FILE, encoding="utf-8")
    with pytest.raises(UserErrors) as caught:
        load(file, [word], action="train")
    assert len(caught.value.errors) == 1 and said in caught.value.message
