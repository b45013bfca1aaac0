"""Named tensors and a table of names -> the same tensors under the names of our network."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

Pieces = Mapping[str, str]
"""Pieces of their names -> pieces of ours.

A row exchanges a run of whole parts of a name (parts stand between dots), wherever it stands, once. `#` is any number,
and comes back in the order it was found; `^` binds the row to the start of the name. Rows act in the order of the
table, so that a longer piece stands before a shorter one. A piece of ours that ends in `[k]` is slice k of a matrix of
ours, such as the query, key and value that we hold as one; slices are joined along their first axis.
"""

SLICE = re.compile(r"(.+)\[(\d)\](\.\w+)?")


def renamed(state: Mapping[str, Tensor], pieces: Pieces) -> dict[str, Tensor]:
    """The tensors under our names; a name that no row knows stays as it is."""
    out: dict[str, Tensor] = {}
    slices: dict[str, dict[int, Tensor]] = {}
    rows = [(re.compile(pattern(a)), replacement(b)) for a, b in pieces.items()]
    for theirs, tensor in state.items():
        name = theirs
        for expression, template in rows:
            name = expression.sub(template, name, count=1).lstrip(".")
        part = SLICE.fullmatch(name)
        if part:
            slices.setdefault(part[1] + (part[3] or ""), {})[int(part[2])] = tensor
        else:
            out[name] = tensor
    counts = {name.rsplit(".", 1)[0]: len(parts) for name, parts in slices.items() if name.endswith(".weight")}
    for name, parts in slices.items():
        count = counts.get(name.rsplit(".", 1)[0], len(parts))
        if len({p.shape for p in parts.values()}) == 1:
            empty = torch.zeros_like(next(iter(parts.values())))  # some leave out the bias of the key: it has no effect
            out[name] = torch.cat([parts.get(k, empty) for k in range(count)])
    return out


def pattern(piece: str) -> str:
    """Regular expression of a piece of their names."""
    start = r"\A" if piece.startswith("^") else r"(?<![^.])"
    return start + re.escape(piece.removeprefix("^")).replace(r"\#", r"(\d+)") + r"(?![^.])"


def replacement(piece: str) -> str:
    """Our piece with references to the numbers that were found."""
    parts = piece.split("#")
    return "".join(part + (rf"\g<{i + 1}>" if i + 1 < len(parts) else "") for i, part in enumerate(parts))
