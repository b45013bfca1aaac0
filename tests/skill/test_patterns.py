"""The table of error patterns: each row is proved by tests that are named here, and says what the program says."""

from __future__ import annotations

import ast
import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from house.pages import ROOT
from house.test_docs import texts_of_the_source
from oneformer import cli
from oneformer.actions import doctor
from oneformer.skill.patterns import PATTERNS, table
from story.tiny_model import write_tiny_checkpoint
from tiny import write_tiny_dataset
from two_layers import two_layers

# Row -> the tests that prove it.
PROOFS = {
    "Memory runs out in training or validation": (
        "train/test_memory.py::test_a_fit_without_memory_ends_with_what_fits_and_a_failure_in_its_status",
        "train/test_memory.py::test_what_is_told_to_fit_does_and_one_more_does_not",
    ),
    "The system kills a process without a message": (
        "skill/test_patterns.py::test_the_limit_of_a_container_is_told",
        "train/test_memory.py::test_a_trial_is_alone_takes_no_weights_and_counts_as_too_large_when_it_is_killed",
    ),
    "An archive has folders packed around the files": (
        "data/sources/test_level.py::test_the_folder_with_the_named_files_is_taken",
        "data/sources/test_roots.py::test_a_wrapper_folder_that_was_unpacked_by_hand_is_found_by_the_check",
    ),
    "`default_specs` passes over `results_dir` or `-e`": (
        "schema/test_templates.py::test_a_spec_and_overrides_take_the_place_of_the_defaults",
        "schema/test_templates.py::test_the_command_takes_a_spec_a_folder_and_the_short_form",
    ),
    "A precision such as `fp32` is refused": (
        "spec/test_load.py::test_every_spelling_of_a_precision_means_what_it_says",
        "train/test_precision.py::test_fp16_is_refused_on_a_cpu",
    ),
    "A checkpoint loads only when safety is switched off": (
        "train/test_checkpoint.py::test_content_is_made_plain_and_loads_without_running_code",
        "model/weights/test_hostile.py::test_no_code_is_run_and_nothing_is_written",
    ),
    "A class id lies beyond the number of classes": (
        "story/test_templates.py::"
        "test_a_number_of_classes_that_the_label_map_does_not_have_ends_training_before_its_first_step",
        "data/test_labels.py::test_a_class_count_that_does_not_fit_is_said_with_both_numbers",
    ),
    "Inference finds no images and reports success": (
        "story/test_evaluate_inference.py::test_an_empty_folder_is_a_wrong_request_and_leaves_nothing",
    ),
    "The target of an export exists": ("story/test_export.py::test_a_file_in_the_way_stays_and_is_named",),
    "The label map has moved since training": (
        "skill/test_patterns.py::test_a_checkpoint_needs_no_label_map",
        "story/test_evaluate_inference.py::test_a_checkpoint_of_other_classes_is_refused_with_the_differences",
    ),
    "Training is slow": (
        "train/test_progress.py::test_a_training_on_slow_files_says_what_helps",
        "train/test_precision.py::test_auto_is_bf16_only_where_the_processor_has_it",
    ),
}


def test_each_row_is_proved_by_tests_that_exist() -> None:
    assert [pattern.name for pattern in PATTERNS] == list(PROOFS)
    for nodes in PROOFS.values():
        for node in nodes:
            file, _, name = node.partition("::")
            tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
            assert name in {one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}, node


def test_what_a_row_quotes_is_said_by_the_program() -> None:
    said = texts_of_the_source()
    quoted = [text for one in PATTERNS for text in re.findall(r"`([a-z][^`]* [^`]*)`", one.here)]
    quoted = [text for text in quoted if not text.startswith(("oneformer ", "pip "))]
    assert len(quoted) >= 8
    for message in quoted:
        pattern = ".*".join(re.escape(part) for part in message.split("…"))
        assert any(re.search(pattern, text, re.DOTALL) for text in said), f"no such message: {message}"


@pytest.mark.parametrize("page", ["docs/guides/troubleshooting.md", "skills/oneformer/SKILL.md"])
def test_the_table_stands_in_guide_and_skill(page: str) -> None:
    assert table() in (ROOT / page).read_text(encoding="utf-8"), "run `make docs`"


def test_the_limit_of_a_container_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "container_limit", lambda: 3 * 2**30)
    assert doctor.run().facts["memory and disk"]["memory limit"] == "3.0 GiB for this container"
    monkeypatch.setattr(doctor, "container_limit", lambda: 0)
    assert "memory limit" not in doctor.run().facts["memory and disk"]


@pytest.mark.parametrize("action", ["inference", "export", "quantize"])
def test_a_checkpoint_needs_no_label_map(action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file that training was told to take its classes from is gone, and nothing is put in its place."""
    weights = write_tiny_checkpoint(tmp_path / "model.pth")
    photos = write_tiny_dataset(tmp_path / "data", images=1).images
    words = [f"dataset.label_map={tmp_path / 'gone.json'}", f"results_dir={tmp_path}"]
    words += {
        "inference": [f"inference.checkpoint={weights}", f"inference.images_dir={photos}", "inference.accelerator=cpu"],
        "export": [f"export.checkpoint={weights}", "export.input_width=64", "export.input_height=64"],
        "quantize": [f"quantize.model_path={weights}", "quantize.device=cpu"],
    }[action]
    with two_layers() if action == "export" else nullcontext():
        assert cli.main([action, *words]) == cli.DONE, capsys.readouterr().err
