"""One spec field -> what is known of it beside type and default: TAO's marks, units, spellings and its docstring."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Tao:
    """What NVIDIA TAO's packaged schema says about the same key, kept so that its dialect can be written again."""

    title: str = ""
    """Display name; empty where TAO has none."""
    kind: str = ""
    """TAO's value type where it is not the plain one of our annotation (`categorical`, `collection`)."""
    popular: bool = False
    """Shown in TAO's short forms."""
    automl: bool | None = None
    """Searched by TAO's AutoML (True), excluded from it (False) or not marked (None)."""
    math_cond: str = ""
    """TAO's condition for sampled values, such as `> 0.0`."""
    pattern: str = ""
    """Regular expression that the text has to match."""


@dataclass(frozen=True, slots=True)
class Search:
    """How AutoML draws a value; a key without this mark is searched only where the user gives a range."""

    low: float = 0.0
    """Smallest value, unless `spread` says it."""
    high: float = 0.0
    """Largest value, unless `spread` says it."""
    scale: Literal["linear", "log"] = "linear"
    """Where values are drawn evenly."""
    spread: float = 0.0
    """Factor to either side of the spec's own value; 0 takes `low` and `high`."""
    images: int = 0
    """Images per step that the default is meant for: with others the middle of `spread` goes with the root of them."""
    choices: tuple[Any, ...] = ()
    """Values to choose from, in place of a range."""
    tier: int = 1
    """1: searched by default; 2: by default in long searches; 3: only when it is asked for."""
    when: str = ""
    """`key=value|value` or `key!=value`: searched only where this holds. `!=` on a list: it lacks the value."""
    ties: tuple[str, ...] = ()
    """Keys that always take the same value."""


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of a number that is not obvious from its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Spellings:
    """Other spellings of a choice: what a user may write -> the choice it stands for. Case never matters."""

    table: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Regular expression for a text, with the words that explain it."""

    regex: str
    meaning: str

    def check(self, value: str) -> str:
        """The value itself; ValueError when it does not match."""
        if not re.search(self.regex, value):
            raise ValueError(f"must be {self.meaning}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


@dataclass(frozen=True, slots=True)
class Infinite:
    """The number may be infinite."""


@dataclass(frozen=True, slots=True)
class Secret:
    """The value is masked wherever a spec is written."""


@cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """Class name -> its code, for the classes of one module; {} where the source is not at hand."""
    file = getattr(sys.modules[module], "__file__", None)
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8")) if file else ast.Module([], [])
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


@cache
def docs(cls: type) -> dict[str, str]:
    """Attribute name -> the docstring written under it, one line; {} where the source is not at hand."""
    found: dict[str, str] = {}
    code = _classes(cls.__module__).get(cls.__qualname__)
    body = code.body if code else []
    for node, after in pairwise(body):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            found[node.target.id] = " ".join(after.value.value.split())
    return found
