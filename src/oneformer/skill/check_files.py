"""The schemas, templates and description files of a skill folder -> where they differ from the spec tree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oneformer.errors import UserError
from oneformer.jobs.fields import FUNCTIONS
from oneformer.schema.inputs import ACTIONS
from oneformer.schema.tao_schema import shorthand, tao_schema
from oneformer.skill.check_documents import command
from oneformer.skill.fault import Fault, near, of_error
from oneformer.skill.info import ROOTS
from oneformer.spec.load import load
from oneformer.spec.node import Node, parse_yaml
from oneformer.spec.tree import leaves

SHOWN = 5
"""Differences of one schema that are told one by one."""
_FACTS = ("type", "default", "minimum", "maximum", "enum", "math_cond", "automl_enabled", "popular", "description")
_LISTS = ("automl_default_parameters", "automl_disabled_parameters", "popular")
REBUILD = "oneformer skill build writes it anew"


def read_json(path: Path, where: str) -> tuple[Any, list[Fault]]:
    """Strict JSON, or what is wrong with it."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse), []
    except FileNotFoundError:
        return None, [Fault(where, "the file is not there", REBUILD)]
    except (OSError, ValueError, RecursionError) as error:  # a decoding fault is a ValueError
        return None, [Fault(where, f"this is no JSON: {error}", REBUILD)]


def schemas(folder: Path) -> Iterator[Fault]:
    """Faults of `schemas/`: its manifest, and each file against the spec tree."""
    where = "schemas/manifest.json"
    told, faults = read_json(folder / where, where)
    yield from faults
    actions = told.get("actions") if isinstance(told, dict) else None
    if told is not None and not isinstance(actions, dict):
        yield Fault(where, "there is no table of actions", REBUILD)
    listed = actions if isinstance(actions, dict) else {}
    for action in sorted(set(ACTIONS) - set(listed)) if listed else []:
        yield Fault(where, f"the action {action} is missing", REBUILD)
    for action, row in listed.items():
        yield from _listed(folder, where, action, row if isinstance(row, dict) else {})
    for path in sorted((folder / "schemas").glob("*.schema.json")):
        yield from _schema(path, path.relative_to(folder).as_posix())


def _listed(folder: Path, where: str, action: str, row: dict[str, Any]) -> Iterator[Fault]:
    if action not in ACTIONS:
        yield Fault(where, f"there is no action {action}", near(action, ACTIONS, otherwise="remove it"))
        return
    for name in ("path", "spec_template"):
        place = row.get(name)
        if not isinstance(place, str) or not (folder / place).is_file():
            yield Fault(where, f"{name} of {action} names no file: {place}", REBUILD)
    right = tao_schema(action)
    for name in _LISTS:
        if row.get(name) != right[name]:
            yield Fault(where, f"{name} of {action} differs from the spec tree", REBUILD)


def _schema(path: Path, where: str) -> Iterator[Fault]:
    told, faults = read_json(path, where)
    yield from faults
    if told is None:
        return
    action = path.name.removesuffix(".schema.json")
    if action not in ACTIONS:
        yield Fault(where, f"there is no action {action}", near(action, ACTIONS, otherwise="remove the file"))
        return
    if not isinstance(told, dict) or not isinstance(told.get("properties"), dict):
        yield Fault(where, "the schema has no properties", REBUILD)
        return
    right = tao_schema(action)
    differing = list(_differences(told, right))
    differing += [f"{name} differs from the spec tree" for name in (*_LISTS, "required", "default", "x_tao_schema")
                  if not differing and told.get(name) != right[name]]  # fmt: skip
    for what in differing[:SHOWN]:
        yield Fault(where, what, REBUILD)
    if len(differing) > SHOWN:
        yield Fault(where, f"{len(differing) - SHOWN} further differences", REBUILD)


def _differences(told: dict[str, Any], right: dict[str, Any]) -> Iterator[str]:
    """Where the leaves of a schema differ from those of the right one."""
    ours, theirs = dict(_leaves(right, "")), dict(_leaves(told, ""))
    yield from (f"the key {key} is missing" for key in ours if key not in theirs)
    yield from (f"there is no key {key}" for key in theirs if key not in ours)
    for key in ours.keys() & theirs.keys():
        for name in _FACTS:
            if theirs[key].get(name) != ours[key].get(name):
                yield f"{name} of {key} is {theirs[key].get(name)!r}, in the spec tree {ours[key].get(name)!r}"


def _leaves(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, child in node.get("properties", {}).items():
        if isinstance(child, dict) and isinstance(child.get("properties"), dict):
            yield from _leaves(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child if isinstance(child, dict) else {}


def templates(folder: Path) -> Iterator[Fault]:
    """Faults of the specs in `references/`: each has to load for its action."""
    for path in sorted((folder / "references").glob("spec_*.yaml")):
        where = path.relative_to(folder).as_posix()
        action = next((name for name in ACTIONS if path.stem.endswith(f"_{name}")), "")
        if not action:
            yield Fault(where, "its name tells no action", f"end it with one of {', '.join(ACTIONS)}")
            continue
        try:
            warnings = load(path, action=action).warnings
        except UserError as error:
            yield from of_error(error, where)
        else:
            yield from (Fault(where, warning, "remove the key") for warning in warnings)


def descriptions(folder: Path) -> Iterator[Fault]:
    """Faults of every `*skill_info.yaml`."""
    paths = sorted((folder / "references").glob("*skill_info.yaml"))
    if folder / "references" / "skill_info.yaml" not in paths:
        yield Fault("references/skill_info.yaml", "the file is not there", REBUILD)
    for path in paths:
        where = path.relative_to(folder).as_posix()
        try:
            node = parse_yaml(path.read_text(encoding="utf-8"), where)
        except (UserError, UnicodeDecodeError) as error:
            yield Fault(where, f"this is no YAML: {str(error).splitlines()[0]}", REBUILD)
            continue
        if isinstance(node.value, dict):
            yield from _info(node.value, path, where)
        else:
            yield Fault(where, "it holds no table", REBUILD)


def _info(told: dict[str, Node], path: Path, where: str) -> Iterator[Fault]:
    for name in ("name", "network_arch", "automl_enabled", "actions", "spec_params", "spec_shorthand_keys"):
        if name not in told:
            yield Fault(where, f"{name} is missing", REBUILD)
    for action, row in _table(told, "actions"):
        yield from _action(action, row, where)
    for section in ("data_sources", "spec_params"):
        for action, row in _table(told, section):
            yield from _known_action(action, row, where)
            yield from _rows(section, row)
    short = shorthand("gen_trt_engine" if path.name.startswith("deploy") else "train")
    for name, node in _table(told, "spec_shorthand_keys"):
        if name not in short:
            yield Fault(_at(node), f"there is no short name {name}", near(name, short, otherwise="remove it"))
        elif short[name] != node.value:
            yield Fault(_at(node), f"{name} does not stand for {node.value}", f"write {short[name]}")
    for action, node in _table(told, "spec_templates"):
        if not (path.parent / str(node.value)).is_file():
            yield Fault(_at(node), f"the template of {action} is not there: {node.value}", REBUILD)
    if "gpu_spec_key" in told:
        yield from _key(str(told["gpu_spec_key"].value), told["gpu_spec_key"])


def _action(action: str, row: Node, where: str) -> Iterator[Fault]:
    yield from _known_action(action, row, where)
    said = row.plain() if isinstance(row.value, dict) else {}
    line = str(said.get("command", ""))
    if not line.startswith("oneformer ") or "{config_path}" not in line:
        mend = "write oneformer ACTION -e {config_path}"
        yield Fault(_at(row), f"the command of {action} runs no spec: {line or 'none'}", mend)
    else:
        yield from command(line.replace("{config_path}", "SPEC").split()[1:], _at(row))
    yield from _keys(row, ("inputs", "outputs"))


def _rows(section: str, row: Node) -> Iterator[Fault]:
    """The keys of one action, each with its root or its function."""
    for key, node in row.value.items() if isinstance(row.value, dict) else []:
        yield from _key(key, node)
        if section == "data_sources":
            source = node.value.get("source") if isinstance(node.value, dict) else None
            if source is None or source.value not in ROOTS:
                named = source.value if source else "nothing"
                yield Fault(_at(node), f"{key} comes from {named}, which is no root", f"there are {', '.join(ROOTS)}")
        elif node.value not in FUNCTIONS:
            mend = near(str(node.value), FUNCTIONS, otherwise=f"there are {', '.join(FUNCTIONS)}")
            yield Fault(_at(node), f"there is no function {node.value}", mend)


def _known_action(action: str, node: Node, where: str) -> Iterator[Fault]:
    if action not in ACTIONS:
        yield Fault(_at(node) or where, f"there is no action {action}", near(action, ACTIONS, otherwise="remove it"))


def _keys(row: Node, names: tuple[str, ...]) -> Iterator[Fault]:
    for name in names:
        inside = row.value.get(name) if isinstance(row.value, dict) else None
        for key, node in inside.value.items() if inside is not None and isinstance(inside.value, dict) else []:
            yield from _key(key, node)
            kind = node.value.get("type") if isinstance(node.value, dict) else None
            if kind is None or kind.value not in ("file", "folder"):
                yield Fault(_at(node), f"{key} is neither a file nor a folder", "type is file or folder")


def _key(key: str, node: Node) -> Iterator[Fault]:
    if key not in leaves():
        yield Fault(_at(node), f"there is no key {key}", near(key, leaves(), otherwise="see oneformer explain"))


def _table(told: dict[str, Node], name: str) -> list[tuple[str, Node]]:
    node = told.get(name)
    return list(node.value.items()) if node is not None and isinstance(node.value, dict) else []


def _at(node: Node) -> str:
    return str(node.key_mark or node.mark).rpartition(":")[0]
