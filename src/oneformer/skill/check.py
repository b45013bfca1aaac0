"""A skill folder -> everything that is wrong with it: layout, schemas, templates, descriptions, documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from oneformer.errors import UserError
from oneformer.skill.check_documents import documents
from oneformer.skill.check_files import descriptions, read_json, schemas, templates
from oneformer.skill.fault import Fault
from oneformer.spec.node import parse_yaml

# The layout of Agent Skills (agentskills.io): what the front matter has to say.
NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
MOST_NAME, MOST_DESCRIPTION = 64, 1024
HEAD = "SKILL.md"


def faults(folder: Path) -> Iterator[Fault]:
    """Look at all of it; each fault says where, what and how to mend it."""
    yield from front_matter(folder)
    yield from schemas(folder)
    for path in sorted((folder / "references").glob("*.schema.json")):
        yield from read_json(path, path.relative_to(folder).as_posix())[1]
    yield from templates(folder)
    yield from descriptions(folder)
    yield from documents(folder)


def front_matter(folder: Path) -> Iterator[Fault]:
    """Faults of the head of `SKILL.md`, by which agents choose a skill."""
    path = folder / HEAD
    if not path.is_file():
        yield Fault(HEAD, "the file is not there", "a skill begins with it; oneformer skill build writes one")
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    block = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if not block:
        yield Fault(f"{HEAD}:1", "there is no front matter", "begin with ---, name: and description:, and --- again")
        return
    try:
        told = parse_yaml(block[1], HEAD).plain()
    except UserError as error:
        yield Fault(f"{HEAD}:1", f"the front matter is no YAML: {error.what}", "put values with colons into quotes")
        return
    told = told if isinstance(told, dict) else {}
    name, description = told.get("name"), told.get("description")
    if not isinstance(name, str) or not re.fullmatch(NAME, name) or len(name) > MOST_NAME:
        what = f"name is {name!r}, but has to be of small letters, digits and single hyphens, at most {MOST_NAME}"
        yield Fault(f"{HEAD}:2", what, f"write name: {folder.resolve().name}")
    elif name != folder.resolve().name:
        what = f"the name {name} is not that of the folder, {folder.resolve().name}"
        yield Fault(f"{HEAD}:2", what, f"call the folder {name}, or build it anew under its name")
    if not isinstance(description, str) or not 1 <= len(description.strip()) <= MOST_DESCRIPTION:
        size = len(description) if isinstance(description, str) else 0
        what = f"the description has {size} signs, but needs 1 to {MOST_DESCRIPTION}"
        yield Fault(f"{HEAD}:3", what, "say what the skill does and when to use it")
