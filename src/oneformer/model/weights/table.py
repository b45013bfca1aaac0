"""A table of names, ours beside theirs -> named tensors carried from one side to the other, in both directions.

In a row `#` stands for any number and `*` for the rest of a name; both come back in the order they were found. Where
one matrix of ours is several of theirs (query, key, value), the row lists them all, in the order of our rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from oneformer.errors import CheckpointError

Names = Mapping[str, str | tuple[str, ...]]
"""Ours -> theirs."""

LAST = "(weight|bias|running_mean|running_var|num_batches_tracked)"  # what ends the names of one module's tensors
HOLES = {"#": r"(\d+)", "*": "(.+)", "@": LAST}


class Carried(NamedTuple):
    """What a table made of named tensors."""

    state: dict[str, Tensor]
    """The tensors under the other side's names."""
    left: dict[str, Tensor]
    """Those that no row knows, under the names they came with."""


class Rule(NamedTuple):
    """One row in one direction."""

    pattern: re.Pattern[str]
    names: tuple[str, ...]


class Table:
    """Both directions of a table.

    Args:
        modules: rows without the last part of a name, which both sides have in common (weight, bias, ...).
        tensors: rows with whole names.
    """

    def __init__(self, modules: Names, tensors: Names) -> None:
        rows = {f"{ours}.@": tuple(f"{name}.@" for name in listed(theirs)) for ours, theirs in modules.items()}
        rows |= {ours: listed(theirs) for ours, theirs in tensors.items()}
        self._to_theirs = rules(list(rows.items()))
        self._to_ours = rules([(name, (ours,)) for ours, names in rows.items() for name in names])

    def theirs(self, name: str) -> tuple[str, ...]:
        """What a tensor of ours is called on their side; () when they have no such thing."""
        return translated(name, self._to_theirs)

    def ours(self, name: str) -> str:
        """What a tensor of theirs is called, or is a part of, on our side; empty when we have no such thing."""
        return next(iter(translated(name, self._to_ours)), "")

    def to_theirs(self, state: Mapping[str, Tensor]) -> Carried:
        """Our tensors under their names; a matrix that is several of theirs is cut along its first axis."""
        out: dict[str, Tensor] = {}
        left: dict[str, Tensor] = {}
        for name, tensor in state.items():
            theirs = self.theirs(name)
            if len(theirs) > 1:
                out |= dict(zip(theirs, tensor.chunk(len(theirs)), strict=True))
            elif theirs:
                out[theirs[0]] = tensor
            else:
                left[name] = tensor
        return Carried(out, left)

    def to_ours(self, state: Mapping[str, Tensor]) -> Carried:
        """Their tensors under our names; parts of one matrix of ours are joined along their first axis.

        Raises:
            CheckpointError: a part is missing beside the others, or they do not join.
        """
        parts: dict[str, dict[str, Tensor]] = {}
        left: dict[str, Tensor] = {}
        for name, tensor in state.items():
            ours = self.ours(name)
            if ours:
                parts.setdefault(ours, {})[name] = tensor
            else:
                left[name] = tensor
        return Carried({ours: joined(self.theirs(ours), held) for ours, held in parts.items()}, left)


def joined(names: tuple[str, ...], held: Mapping[str, Tensor]) -> Tensor:
    """The parts of one matrix as one; what is whole stays the tensor it was."""
    missing = [name for name in names if name not in held]
    if missing:
        raise CheckpointError(f"{missing[0]} is missing beside {next(iter(held))}")
    tensors = [held[name] for name in names]
    if len(tensors) == 1:
        return tensors[0]
    if len({(t.shape, t.dtype) for t in tensors}) > 1 or not tensors[0].ndim:
        raise CheckpointError(f"{', '.join(names)} differ in shape or type, but are parts of one matrix")
    return torch.cat(tensors)


def listed(names: str | tuple[str, ...]) -> tuple[str, ...]:
    """One name as a tuple."""
    return (names,) if isinstance(names, str) else names


def rules(rows: list[tuple[str, tuple[str, ...]]]) -> list[Rule]:
    """Rows as rules, the most particular first: a fixed number wins over any number, a number over any rest."""
    rows = sorted(rows, key=lambda row: (row[0].count("*"), row[0].count("#")))
    return [Rule(re.compile(pattern(name)), names) for name, names in rows]


def pattern(template: str) -> str:
    """Regular expression of a template."""
    return "".join(HOLES.get(piece, re.escape(piece)) for piece in re.split("([#*@])", template))


def translated(name: str, table: list[Rule]) -> tuple[str, ...]:
    """The names that `name` stands for on the other side."""
    for rule in table:
        found = rule.pattern.fullmatch(name)
        if found:
            return tuple(filled(template, found.groups()) for template in rule.names)
    return ()


def filled(template: str, groups: tuple[str, ...]) -> str:
    """Put numbers, rests and last parts back into a template."""
    values = iter(groups)
    return re.sub("[#*@]", lambda _: next(values), template)
