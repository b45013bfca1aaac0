"""Rules 5 and 6: what the documents and the shipped specs say is true: names, commands, keys, files, messages, links."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from house.pages import ROOT, Page, pages
from house.sandbox import Sandbox, write_sandbox
from oneformer import cli
from oneformer.data.categories import parse_categories
from oneformer.errors import UserError
from oneformer.spec.load import PRESETS, load
from oneformer.spec.tree import leaves, sections

PAGES = pages()
NAMES = [page.name for page in PAGES]
# Their commands are run, from the first to the last, with tiny data at the paths they name.
RUN = [n for n in NAMES if n in ("README.md", "docs/concepts/spec.md") or n.startswith(("docs/guides/", "skills/"))]
FOLDERS = ("src", "docs", "tests", "examples", "specs", "samples", "benchmarks")
ROOT_KEYS = {key.partition(".")[0] for key in leaves() if "." in key}
FILE = re.compile(r".*\.(json|onnx|pt2|py|yaml|md|pth|xml|engine|csv|html|jpg|png|css)$")
KEY = re.compile(r"[a-z_]+(\.[a-z0-9_]+)+")


def page(name: str) -> Page:
    return next(p for p in PAGES if p.name == name)


def test_the_readme_lists_the_commands_of_the_cli() -> None:
    table = re.findall(r"^\| `([\w -]+)` \| (.+) \|$", page("README.md").text, re.MULTILINE)
    assert [row for row in table if row[0].split()[0] in {v.split()[0] for v in cli.VERBS}] == [
        (name, verb.help) for name, verb in cli.VERBS.items()
    ]


@pytest.mark.parametrize("action", ["train", "evaluate", "inference"])
@pytest.mark.parametrize("path", sorted((ROOT / "specs").rglob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_spec_loads(path: Path, action: str) -> None:
    assert load(path, action=action).warnings == []


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_loads_by_name_and_as_a_file(path: Path) -> None:
    by_name = load(None, [f"preset={path.stem}"], action="train").spec
    as_file = load(path, action="train").spec
    assert by_name.preset == path.stem
    as_file.preset = path.stem
    assert as_file == by_name


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    dead = []
    for link in page(name).links:
        if re.match(r"https?://|mailto:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page(name).path.parent / target).resolve() if target else page(name).path
        if not path.exists() or (anchor and anchor not in Page(path).anchors):
            dead.append(link)
    assert not dead


def test_the_index_of_the_documents_has_them_all() -> None:
    index = page("docs/README.md")
    listed = {(index.path.parent / link).resolve() for link in index.links}
    folders = [ROOT / "docs" / name for name in ("guides", "concepts")]
    assert {path for folder in folders for path in folder.glob("*.md")} <= listed


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_named_exist(name: str) -> None:
    gone = []
    for span in page(name).spans:
        path = span.split("::")[0].rstrip("/")
        if not re.fullmatch(r"[\w./*-]+", path) or "/" not in path:
            continue
        here = path.split("/")[0] in FOLDERS
        room = path.endswith(".py")
        if (here or room) and not any(next(base.glob(path), None) for base in (ROOT, ROOT / "src" / "oneformer")):
            gone.append(span)
    assert not gone


@pytest.mark.parametrize("name", NAMES)
def test_keys_that_are_named_exist(name: str) -> None:
    known = {*leaves(), *sections()}
    tables = tuple(f"{key}." for key, leaf in leaves().items() if isinstance(leaf.default, dict))
    wrong = []
    for span in page(name).spans:
        key = span.partition("=")[0].strip().rstrip(":").replace("<split>", "train")
        if not KEY.fullmatch(key) or key.split(".")[0] not in ROOT_KEYS or FILE.fullmatch(key):
            continue
        if key not in known and not key.startswith(tables):
            wrong.append(span)
    assert not wrong


@pytest.mark.parametrize("name", NAMES)
def test_commands_within_the_text_are_commands(name: str) -> None:
    for span in page(name).spans:
        if span.startswith("oneformer ") and not re.search(r"ACTION|KEY|FILE|…|\.\.\.", span):
            verb = " ".join(span.split()[1:3])
            assert verb in cli.VERBS or verb.split()[0] in {v.split()[0] for v in cli.VERBS}, span


@pytest.mark.parametrize("name", NAMES)
def test_commands_of_other_programs_are_sound(name: str) -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    for program, *words in page(name).commands():
        if program == "make":
            assert words[0] in targets, words
        elif program == "pip":
            named = re.findall(r"\[([\w,]+)\]", " ".join(words))
            assert words[0] == "install" and all(e in extras for part in named for e in part.split(",")), words
        elif program in ("python", ".venv/bin/python"):
            assert words[0] == "-m" or (ROOT / words[0]).is_file(), words
        else:
            assert program in ("oneformer", "tensorboard", "torchrun", "git", "source", "cd"), program


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_understood(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its words, and its spec with every key in it; nothing is run."""
    commands = [words[1:] for words in page(name).commands() if words[0] == "oneformer"]
    if not commands:
        return

    def load_only(asked: Any) -> int:
        load(asked.spec, asked.words, action=asked.verb)
        return cli.DONE

    write_sandbox(tmp_path, page(name), data=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_act", load_only)
    monkeypatch.setattr(cli, "_function", lambda verb: lambda **_: None)
    for words in commands:
        assert cli.main(words) == cli.DONE, f"{shlex.join(words)}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("name", RUN)
def test_the_page_works_from_the_first_to_the_last_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    box = Sandbox(tmp_path, page(name))
    if not box.has_work():
        return
    box.write()
    monkeypatch.chdir(tmp_path)
    for block in page(name).blocks:
        fault = box.run(block)
        assert not fault, f"{fault}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_data_can_be_read(name: str) -> None:
    for block in page(name).blocks:
        if block.language == "json":
            content = json.loads(block.text)
            categories = content.get("categories") if isinstance(content, dict) else content
            errors: list[UserError] = []
            assert parse_categories(name, categories, errors) and not errors
        elif block.language == "yaml":
            YAML(typ="safe").load(block.text)
        elif block.language == "python":
            ast.parse(block.text)


def test_messages_of_the_troubleshooting_page_are_ours() -> None:
    said = texts_of_the_source()
    quoted = re.findall(r"\*\*`([^`]+)`\*\*", page("docs/guides/troubleshooting.md").text)
    assert len(quoted) > 15
    for message in quoted:
        pattern = ".*".join(re.escape(part) for part in message.split("…"))
        assert any(re.search(pattern, text, re.DOTALL) for text in said), f"no such message: {message}"


def texts_of_the_source() -> list[str]:
    """Every text in the source, with `…` for what is filled in."""
    found = []
    for path in (ROOT / "src" / "oneformer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%\.?\d*[sdf]", "…", node.value))
    return found


def test_the_picture_of_the_readme_is_small() -> None:
    picture = next(link for link in page("README.md").links if link.startswith("docs/images/"))
    assert (ROOT / picture).stat().st_size < 300_000
