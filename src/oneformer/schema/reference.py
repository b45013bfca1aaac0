"""The spec tree -> the page of the reference that tells every key."""

from __future__ import annotations

from oneformer.schema.differences import differences
from oneformer.schema.explain import tao_lines
from oneformer.schema.readers import commands
from oneformer.spec.check import allowed
from oneformer.spec.field import Spellings
from oneformer.spec.shorthand import NAMES, targets
from oneformer.spec.tree import Leaf, fields_of, leaves, sections
from oneformer.spec.unread import reason
from oneformer.spec.write import value_text

_HEAD = """# The keys of the spec

Written by `make docs` from the spec tree; `oneformer explain KEY` tells the same of one key, and which files read it.
How a spec is put together is in [The spec](../concepts/spec.md). `oneformer.schema.json` in the package is the JSON
Schema of all of it.
"""
_SHORT = """## Short names

On the command line `num_epochs=3` is `train.num_epochs=3`. The names are TAO's; where a name stands for another key in
an action, or for a second one, it is listed.

| name | key | in other actions |
|---|---|---|
"""


def page() -> str:
    """All sections and their keys, as Markdown."""
    rows = [_row(leaf) for leaf in leaves().values() if "." not in leaf.key]
    parts = [_HEAD, _table("Root", "", rows)]
    for key, (cls, doc) in sections().items():
        inside = [leaves()[k] for name in fields_of(cls) if (k := f"{key}.{name}") in leaves()]
        if inside:
            parts.append(_table(key, doc, [_row(leaf) for leaf in inside]))
    return "\n".join([*parts, _SHORT + "".join(map(_short, NAMES))])


def _table(name: str, doc: str, rows: list[str]) -> str:
    head = f"## {name}\n\n" + (f"{doc}\n\n" if doc else "")
    return f"{head}| key | may be | default | meaning |\n|---|---|---|---|\n{''.join(rows)}"


def _row(leaf: Leaf) -> str:
    name = leaf.key.rpartition(".")[2]
    told = [leaf.doc, *_notes(leaf)]
    default = value_text(leaf.default)
    cells = (f"`{name}`", allowed(leaf.annotation), f"`{default}`" if default else "", " ".join(told))
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |\n"


def _notes(leaf: Leaf) -> list[str]:
    table = next((m.table for m in leaf.marks if isinstance(m, Spellings)), ())
    said = [f"Also {', '.join(f'{a} for {b}' for a, b in table if a)}."] if any(a for a, _ in table) else []
    if reason(leaf.key):
        said.append(f"No effect: {reason(leaf.key)}.")
    if commands(leaf.key):
        said.append(f"Read by {', '.join(commands(leaf.key))}.")
    tao = "; ".join(tao_lines(differences().get(leaf.key, {})))
    return [*said, *([f"In TAO: {tao}."] if tao else [])]


def _short(name: str) -> str:
    own = targets(name, "train")
    others: dict[str, list[str]] = {}
    for action in ("evaluate", "inference", "export", "quantize", "gen_trt_engine"):
        if targets(name, action) != own:
            others.setdefault(", ".join(f"`{key}`" for key in targets(name, action)), []).append(action)
    told = "; ".join(f"{', '.join(actions)}: {keys}" for keys, actions in others.items())
    return f"| `{name}` | `{own[0]}` | {told} |\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
