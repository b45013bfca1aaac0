"""A `.pt2` file -> its description, after everything in it that torch would run as code was refused.

torch.export.load trusts its file: it unpickles objects, evaluates size expressions as Python, calls whatever function a
node names, and puts names into source code that it compiles. What `oneformer export` writes needs none of this, so
whatever is not on the short lists below is refused before torch sees the file.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from oneformer.engines.about import KEY
from oneformer.errors import CheckpointError
from oneformer.model.weights.archive import checked_zip

RECORDS = re.compile(
    r"[\w.-]+/(archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)|\.format_version"
    r"|\.storage_alignment|models/model\.json|data/sample_inputs/model\.pt|extra/\w+"
    r"|data/(weights|constants)/(model_(weights|constants)_config\.json|(weight|tensor)_\d+))"
)
GRAPH, CONFIGS = "/models/model.json", "_config.json"
SAMPLES, DESCRIPTION = "/data/sample_inputs/model.pt", f"/extra/{KEY}"
WORD = re.compile(r"[\w.+:-]*")
NAME = re.compile(r"[\w.]*|\d+\*[su]\d+")  # the second: a size in steps, under range_constraints
TARGET = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|torch\.ops\.quantized_decomposed\.dequantize_per_channel\.default"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge)"
    r"|torch\.sym_(max|min|float|int|not|ite)|math\.(floor|ceil|trunc)"
)
# What sizes are written with: sympy's own form of integer arithmetic.
EXPRESSION = re.compile(
    r"(Symbol|Integer|Rational|Float|Add|Mul|Pow|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|IntTrueDiv|FloatTrueDiv|Max|Min"
    r"|ToFloat|TruncToInt|RoundToInt|Equality|Unequality|StrictLessThan|StrictGreaterThan|LessThan|GreaterThan"
    r"|positive|nonnegative|integer|finite|true|false|True|False|precision"
    r"|'[su]\d+'|'-?[\d.]+(e[+-]?\d+)?'|\d+|[(),=\s*+-])*"
)
CONTAINERS = {"builtins.tuple", "builtins.list", "builtins.dict", None}
MOST_JSON = 2**28  # bytes of the graph's text: Swin-L has 2**24


def description(path: Path) -> str | None:
    """The text that the export put into the file, or None.

    Raises:
        CheckpointError: the file is broken, or holds anything that loading it could run.
    """
    try:
        with checked_zip(path) as opened:
            names = opened.namelist()
            for name in names:
                allow(RECORDS.fullmatch(name), f"a record {name!r}", path)
                if name.endswith((GRAPH, CONFIGS)):
                    allow(opened.getinfo(name).file_size < MOST_JSON, "an oversized graph", path)
                    check_values(json.loads(opened.read(name)), path)
                elif name.endswith(SAMPLES) and opened.getinfo(name).file_size:
                    torch.load(io.BytesIO(opened.read(name)), weights_only=True)
            allow(any(name.endswith(GRAPH) for name in names), "no graph", path)
            inside = next((name for name in names if name.endswith(DESCRIPTION)), None)
            return opened.read(inside).decode("utf-8") if inside else None
    except CheckpointError:
        raise
    except Exception as error:  # whatever a broken zip, JSON text or pickle raises
        raise CheckpointError(f"this is no program of torch.export: {error!r}"[:300], where=str(path)) from error


def allow(allowed: object, what: str, path: Path) -> None:
    """Raise CheckpointError unless it is allowed."""
    if not allowed:
        raise CheckpointError(
            f"the file holds {what}, which loading could run as code; only files of `oneformer export` are opened",
            where=str(path),
            hint="export the checkpoint again: export.format=torch",
        )


def check_values(value: Any, path: Path) -> None:
    """Refuse every text of the JSON that could become code."""
    for key, text in texts(value):
        if key == "expr_str":
            allow(EXPRESSION.fullmatch(text), f"the expression {text[:80]!r}", path)
        elif key in ("target", "as_operator"):
            allow(TARGET.fullmatch(text), f"the function {text[:80]!r}", path)
        elif key in ("in_spec", "out_spec"):
            for kind, context in containers(json.loads(text)[1]):
                allow(kind in CONTAINERS and context in (None, "null", "[]"), f"the container {kind!r}", path)
        elif key == "path_name":
            allow(re.fullmatch(r"(weight|tensor)_\d+", text), f"the object {text[:80]!r}", path)
        elif key == "use_pickle":
            allow(text == "False", "a pickle", path)
        elif key == "name" or key.endswith("_name"):
            allow(NAME.fullmatch(text), f"the name {text[:80]!r}", path)
        else:
            allow(WORD.fullmatch(text) and key != "class_fqn", f"the text {text[:80]!r}", path)


def texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text of nested JSON with the key it stands under; keys as names of their own, and flags of pickles."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield "name", name
            yield from texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, key)
    elif isinstance(value, str) or key == "use_pickle":
        yield key, str(value)


def containers(spec: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Type and context of a tree of containers."""
    yield spec["type"], spec["context"]
    for child in spec["children_spec"]:
        yield from containers(child)
