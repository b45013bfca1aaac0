"""What is written by `make docs` is what it would write now: schemas, pages, who reads each key."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from house.pages import ROOT
from oneformer.actions.verbs import VERBS
from oneformer.spec.tree import leaves


def build() -> ModuleType:
    """The script that writes them, as a module."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "reference" / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FILES: dict[Path, str] = build().files()


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_generated_file_is_as_it_would_be_written(path: Path) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == FILES[path], "run `make docs`"


def test_no_other_file_lies_among_them() -> None:
    folders = {(ROOT / path).parent for path in FILES} - {ROOT / "src" / "oneformer"}
    found = {path.relative_to(ROOT) for folder in folders for path in folder.iterdir() if path.is_file()}
    assert found - set(FILES) == {Path("docs/reference/build.py")}


def test_the_pages_have_every_key_and_command() -> None:
    keys, commands = FILES[Path("docs/reference/spec.md")], FILES[Path("docs/reference/cli.md")]
    assert [key for key in leaves() if f"| `{key.rpartition('.')[2]}` |" not in keys] == []
    assert [name for name in VERBS if f"## oneformer {name}\n" not in commands] == []


def test_writing_again_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build().main(tmp_path)
    assert capsys.readouterr().out.count("wrote ") == len(FILES)
    build().main(tmp_path)
    assert capsys.readouterr().out == ""
