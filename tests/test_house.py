"""The rules of the house as tests: levels, sizes, imports, room descriptions, and no setting without effect.

Rule 4 goes on in `tests/house/test_effects.py` and `test_reads.py`; rules 5 and 6, that documents and shipped specs are
true, are `tests/house/test_docs.py`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "oneformer"
LEVELS = {
    "errors": 0, "spec": 0, "runs": 0,
    "data": 1, "segments": 1, "schema": 1,
    "model": 2, "metrics": 2,
    "loss": 3, "engines": 3, "report": 3,
    "train": 4, "export": 4,
    "predict": 5, "quantize": 5, "trt": 5, "jobs": 5,
    "actions": 6,
    "automl": 7, "skill": 7, "web": 7,
    "cli": 8,
}  # fmt: skip
HEAVY = {"torch", "lightning", "numpy", "pydantic", "scipy", "PIL", "rich", "ruamel"}


def sources() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


@cache
def trees() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in sources()]


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imported_rooms(path: Path, tree: ast.Module) -> set[str]:
    """Names of our own rooms that a file imports, imports inside functions counted, TYPE_CHECKING ones too."""
    names: set[str] = set()
    package = ["oneformer", *path.relative_to(SRC).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.update([module, *(f"{module}.{alias.name}" for alias in node.names)])
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == "oneformer" and len(p) > 1 and p[1] in LEVELS}


def test_every_room_has_a_level() -> None:
    rooms = {room_of(p) for p in sources()} - {"__init__", "__main__"}
    assert rooms <= set(LEVELS), f"rooms without a level: {sorted(rooms - set(LEVELS))}"


def test_a_room_imports_only_lower_levels() -> None:
    wrong = []
    for path, tree in trees():
        room = room_of(path)
        if room in ("__init__", "__main__"):
            continue
        for other in imported_rooms(path, tree) - {room, "errors"}:
            if LEVELS[other] >= LEVELS[room]:
                wrong.append(f"{path.relative_to(SRC)} (level {LEVELS[room]}) imports {other} (level {LEVELS[other]})")
    assert not wrong, "\n".join(wrong)


def test_only_the_train_room_imports_lightning() -> None:
    wrong = [
        str(path.relative_to(SRC))
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(n.split(".")[0] in ("lightning", "pytorch_lightning") for n in module_names(node))
        and room_of(path) != "train"
    ]
    assert not wrong


def module_names(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]


def test_no_file_is_longer_than_400_lines() -> None:
    long = {
        str(p.relative_to(ROOT)): n for p in sources() if (n := len(p.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_no_function_is_longer_than_60_lines() -> None:
    long = [
        f"{path.relative_to(SRC)}:{node.lineno} {node.name} {length}"
        for path, tree in trees()
        for node in functions(tree)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > 60
    ]
    assert not long, "\n".join(long)


def test_no_function_takes_more_than_six_arguments() -> None:
    many = []
    for path, tree in trees():
        for node in functions(tree):
            if any(ast.unparse(how).startswith("triton.jit") for how in node.decorator_list):
                continue  # code for a GPU, which gets its tensors and sizes one by one
            args = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if len([a for a in args if a not in ("self", "cls")]) > 6:
                many.append(f"{path.relative_to(SRC)}:{node.lineno} {node.name}{tuple(args)}")
    assert not many, "\n".join(many)


def test_every_file_says_what_it_is_in_its_first_line() -> None:
    silent = [str(p.relative_to(SRC)) for p, tree in trees() if not (ast.get_docstring(tree) or "").strip()]
    assert not silent


def test_every_room_says_what_goes_in_and_what_comes_out() -> None:
    rooms = sorted(p.parent for p in SRC.glob("*/__init__.py"))
    silent = [
        r.name
        for r in rooms
        if "->" not in (ast.get_docstring(ast.parse((r / "__init__.py").read_text())) or "").splitlines()[0]
    ]
    assert not silent


@pytest.mark.parametrize("command", [["--help"], ["train", "--help"], ["explain", "--help"]])
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "oneformer", *command], capture_output=True, text=True, check=True
    )
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert not loaded & HEAVY


def test_no_source_file_can_run_code_from_a_file() -> None:
    wrong = []
    for path, tree in trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name in ("eval", "exec", "pickle.load", "pickle.loads", "yaml.load", "os.system"):
                wrong.append(f"{path.relative_to(SRC)}:{node.lineno} {name}")
            if name == "torch.load" and "weights_only=True" not in ast.unparse(node):
                wrong.append(f"{path.relative_to(SRC)}:{node.lineno} torch.load without weights_only=True")
    assert not wrong, "\n".join(wrong)


def test_tests_mirror_the_rooms() -> None:
    rooms = {p.parent.name for p in SRC.glob("*/__init__.py")} - {"assets", "actions"}
    missing = {room for room in rooms if not any((ROOT / "tests" / room).glob("test_*.py"))}
    assert not missing, f"rooms without tests: {sorted(missing)}"


def test_no_key_of_the_spec_is_dead() -> None:
    """Rule 4. `tests/house` proves the rows of the table, and that whole commands read the keys."""
    from house.effects import EFFECTS
    from oneformer.spec.tree import leaves
    from oneformer.spec.unread import reason

    idle = {key for key in leaves() if reason(key)}
    untold = sorted(set(leaves()) - idle - set(EFFECTS))
    assert not untold, f"{untold} need a row in tests/house/effects.py or a reason in spec/unread.py"
    assert sorted(set(EFFECTS) & idle) == [], "keys that change something and are called idle in spec/unread.py"
    assert sorted(set(EFFECTS) - set(leaves())) == [], "rows for keys that do not exist"
