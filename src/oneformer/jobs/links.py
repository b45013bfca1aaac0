"""`{link: ADDRESS, destination_path: PATH}` -> the file, fetched into the job's own folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from oneformer.errors import SpecError, UserError

INPUTS = "inputs"


def is_link(value: Any) -> bool:
    """Whether a value is TAO's dictionary for a file to fetch."""
    return isinstance(value, dict) and "link" in value


def linked(value: dict[str, Any], folder: Path, key: str) -> Path:
    """The file behind the link, under `inputs/` of the job's folder; what is there already is not fetched again.

    The address needs the file's checksum (`#sha256=...`), and a transfer that breaks is tried again a few times, not
    for ever. The destination is taken below `inputs/`, whatever it says.

    Raises:
        UserError: the dictionary is not right, or the file does not come.
    """
    address, place = value.get("link"), value.get("destination_path", "")
    unknown = sorted(set(value) - {"link", "destination_path"})
    if not isinstance(address, str) or not isinstance(place, str) or unknown:
        raise SpecError("a link is written {link: ADDRESS, destination_path: PATH}", where=key)
    parts = [part for part in PurePosixPath(place).parts if part != "/"]
    if ".." in parts:
        raise SpecError(f"the destination {place} leaves the job's folder", where=key)
    from oneformer.model.weights.download import fetch

    try:
        cached = fetch(address)
    except UserError as error:
        raise type(error)(error.what, where=key, hint=error.hint) from error
    # The cache puts a part of the checksum before the name.
    target = (folder / INPUTS).joinpath(*parts) if parts else folder / INPUTS / cached.name.partition("-")[2]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)
        try:
            os.link(cached, part)
        except OSError:
            shutil.copyfile(cached, part)
        part.replace(target)
    return target
