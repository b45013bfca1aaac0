"""`${a.b}`: a whole value keeps its type, inside text it is written out, and nothing else is evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from oneformer.errors import UserErrors
from oneformer.spec import ExperimentSpec
from oneformer.spec.load import load_spec


def spec_of(tmp_path: Path, text: str, *overrides: str) -> ExperimentSpec:
    file = tmp_path / "spec.yaml"
    file.write_text(text, encoding="utf-8")
    return load_spec(file, overrides, action="train")


def test_a_whole_value_keeps_its_type(tmp_path: Path) -> None:
    text = "train: {num_epochs: 7, checkpoint_interval: &e '${train.num_epochs}', optim: {milestones: [1, *e]}}"
    spec = spec_of(tmp_path, text)
    assert spec.train.checkpoint_interval == 7
    assert spec.train.optim.milestones == [1, 7]


def test_a_list_can_be_pointed_at(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "inference: {image_size: '${dataset.augmentation.train_crop_size}'}")
    assert spec.inference.image_size == [1024, 1024]


def test_inside_text_values_are_written_out(tmp_path: Path) -> None:
    text = (
        "results_dir: /r\nmodel_name: m\nevaluate: {checkpoint: '${results_dir}/${model_name}/${train.num_epochs}.pth'}"
    )
    assert spec_of(tmp_path, text).evaluate.checkpoint == "/r/m/50.pth"


def test_a_reference_sees_overrides_and_defaults_and_other_references(tmp_path: Path) -> None:
    text = "results_dir: ${model_name}\nevaluate: {checkpoint: '${results_dir}/best.pth'}"
    assert spec_of(tmp_path, text, "model_name=run7").evaluate.checkpoint == "run7/best.pth"


def test_a_reference_can_stand_in_an_override(tmp_path: Path) -> None:
    assert (
        spec_of(tmp_path, "results_dir: here", "evaluate.checkpoint=${results_dir}/x.pth").evaluate.checkpoint
        == "here/x.pth"
    )


def test_an_entry_of_a_table_can_be_pointed_at(tmp_path: Path) -> None:
    text = "dataset: {task_prob_train: {semantic: 1.0}, cutmix_prob: '${dataset.task_prob_train.semantic}'}"
    assert spec_of(tmp_path, text).dataset.cutmix_prob == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("results_dir: ${model_nam}", "did you mean model_name"),
        ("results_dir: ${results_dir}", "circle: results_dir -> results_dir"),
        ("results_dir: ${model_name}\nmodel_name: ${results_dir}", "circle"),
        ("results_dir: a/${b", "unfinished"),
        ("results_dir: ${oc.env:HOME}", "neither the environment nor code"),
        ("results_dir: x/${train.gpu_ids}", "no single value"),
        ("dataset: {val: '${dataset.train}'}", "a whole section"),
        ("results_dir: ${}", "does not exist"),
    ],
)
def test_a_reference_that_leads_nowhere_says_so_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserErrors) as caught:
        spec_of(tmp_path, text + "\n")
    assert said in caught.value.message
    assert "spec.yaml:1:" in caught.value.message


def test_a_failed_reference_brings_no_second_fault_about_its_value(tmp_path: Path) -> None:
    with pytest.raises(UserErrors) as caught:
        spec_of(tmp_path, "train: {num_epochs: '${train.epochz}', gpu_ids: ['${nothing}']}\n")
    assert len(caught.value.errors) == 2
