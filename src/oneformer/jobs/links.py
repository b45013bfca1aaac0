"""`{link: ADDRESS, destination_path: PATH}` -> the file, fetched into the job's own folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from oneformer.errors import SpecError, UserError
from oneformer.runs.away import is_in_store

INPUTS = "inputs"


def is_link(value: Any) -> bool:
    """Whether a value is TAO's dictionary for a file to fetch."""
    return isinstance(value, dict) and "link" in value


def linked(value: dict[str, Any], folder: Path, key: str) -> Path:
    """The file behind the link, under `inputs/` of the job's folder; what is there already is not fetched again.

    A web address needs the file's checksum (`#sha256=...`), an object store's may have one. A transfer that breaks is
    tried again a few times, not for ever. The destination is taken below `inputs/`, whatever it says.

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
    try:
        cached, name = _from_store(address, key) if is_in_store(address) else _from_web(address)
    except UserError as error:
        raise type(error)(error.what, where=key, hint=error.hint) from error
    target = (folder / INPUTS).joinpath(*(parts or [name]))
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        if part.is_dir():
            shutil.rmtree(part)
        part.unlink(missing_ok=True)
        if cached.is_dir():
            shutil.copytree(cached, part, copy_function=_link)
        else:
            _link(cached, part)
        part.replace(target)
    return target


def _from_web(address: str) -> tuple[Path, str]:
    """A file of the cache, and its name."""
    from oneformer.model.weights.download import fetch

    cached = fetch(address)
    return cached, cached.name.partition("-")[2]  # before it the cache puts a part of the checksum


def _from_store(address: str, key: str) -> tuple[Path, str]:
    """A file, or the folder that an archive holds, and its name."""
    from oneformer.data.sources.address import ARCHIVES
    from oneformer.data.sources.fetch import Fetcher
    from oneformer.spec.sources import SourcesSpec

    cached = Path(Fetcher(SourcesSpec()).local(address, key=key))
    name = PurePosixPath(address.partition("#")[0]).name
    if cached.is_dir():
        name = next((name.removesuffix(ending) for ending in ARCHIVES if name.endswith(ending)), name)
    return cached, name


def _link(source: str | Path, target: str | Path) -> None:
    """The same file under another name, or where the system has no such thing a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
