"""What an editor shows: a real YAML language server, fetched from npm, reads our files and finds the schema by their first line."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oneformer.runs.editor import schema_line
from oneformer.schema.inputs import ACTIONS, INPUTS
from oneformer.schema.templates import template
from oneformer.spec.load import PRESETS
from schema.language_server import LanguageServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "yaml-language-server@1.25.0"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("npm")
    if not npm:
        pytest.skip("npm is not installed")
    done = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", PACKAGE], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"npm could not install {PACKAGE}: {done.stderr[-200:]}")
    with LanguageServer(str(folder / "node_modules" / ".bin" / "yaml-language-server"), "--stdio") as found:
        yield found


def test_what_ships_has_no_fault(server: LanguageServer) -> None:
    skill = ROOT / "skills" / "oneformer" / "references"  # their first line names the schema beside them
    files = [
        *sorted((ROOT / "specs").glob("*.yaml")),
        *sorted(PRESETS.glob("*.yaml")),
        *sorted(skill.glob("spec_*.yaml")),
    ]
    assert len(files) > 30
    assert {file.name: found for file in files if (found := server.faults(file))} == {}


@pytest.mark.parametrize("minimal", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_template_lacks_only_what_it_asks_for(
    server: LanguageServer, tmp_path: Path, action: str, minimal: bool
) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(template(action, minimal=minimal), encoding="utf-8")
    found = server.faults(file)
    assert found, "an empty template is no spec yet"
    filled = file.with_name("filled.yaml")
    text = file.read_text(encoding="utf-8")
    needs = [one.keys[0].rpartition(".")[2] for one in INPUTS[action] if one.always]
    for name in set(needs):
        text = text.replace(f'  {name}: ""', f"  {name}: some/where")
    filled.write_text(text, encoding="utf-8")
    # Keys that change nothing are struck through, not wrong.
    assert [fault for fault in server.faults(filled) if "deprecated" not in fault.lower()] == []


FAULTY = """dataset:
  train: {batch_size: 0}
  task_prob_train: {semantic: 2}
train:
  num_epochs: many
  precision: fp8
  optim: {lrr: 1}
  num_gpus: ${evaluate.num_gpus}
  max_minutes: 3
"""


def test_each_fault_is_shown_in_its_line(server: LanguageServer, tmp_path: Path) -> None:
    file = tmp_path / "faulty.yaml"
    file.write_text(schema_line() + FAULTY, encoding="utf-8")
    assert sorted({int(fault.split(":")[0]) for fault in server.faults(file)}) == [3, 4, 6, 7, 8]


def test_keys_are_offered_and_told(server: LanguageServer, tmp_path: Path) -> None:
    file = tmp_path / "typing.yaml"
    file.write_text(schema_line() + "train:\n  precision: fp32\n  \n", encoding="utf-8")
    server.faults(file)
    offered = server.completions(file, 4, 3)
    assert {"num_epochs", "optim", "ema"} <= set(offered)
    assert {"fp32", "bf16"} <= set(server.completions(file, 3, 14))
    assert "Number format of the forward pass" in server.hover(file, 3, 5)
