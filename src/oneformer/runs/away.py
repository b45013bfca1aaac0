"""The address of a results folder in an object store -> the folder of this machine that its files are kept in."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

from oneformer.errors import SpecError

KINDS = ("s3", "aws", "gs", "gcs", "az", "azure", "abfs")
KEPT = "ONEFORMER_KEPT_RESULTS"
"""Variable with the results folder of this machine, for a run whose files belong to an address: that of a job."""
ACTIONS = ("train", "evaluate", "inference", "export", "quantize", "gen_trt_engine")
EXCLUDES = ("inputs/",)
"""What of a results folder is never uploaded, beside files whose name begins with a point."""
_FETCHED: ContextVar[Mapping[str, str]] = ContextVar("fetched", default=MappingProxyType({}))
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def cache_root() -> Path:
    """Where the user's system keeps what programs can fetch again."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "oneformer"


@contextmanager
def standing_for(addresses: Mapping[str, str]) -> Iterator[None]:
    """While open, `as_given` knows the addresses (values) that these files of this machine were fetched from."""
    before = _FETCHED.set({**_FETCHED.get(), **addresses})
    try:
        yield
    finally:
        _FETCHED.reset(before)


def as_given(value: Any) -> Any:
    """Nested plain values with the addresses that a user wrote in the place of what was fetched from them."""
    if isinstance(value, Mapping):
        return {k: as_given(v) for k, v in value.items()}
    return _FETCHED.get().get(value, value) if isinstance(value, str) and value else value


def is_away(text: str) -> bool:
    """Whether it is an address; nothing is looked up."""
    return _SCHEME.match(text) is not None


def is_in_store(text: str) -> bool:
    """Whether it is an address of an object store that results can be kept in."""
    scheme = _SCHEME.match(text)
    return scheme is not None and scheme[1].lower() in KINDS


def address_of(results_dir: str, action: str, *, section_dir: str = "") -> str:
    """The address of an action's results; empty when they stay on this machine.

    Raises:
        SpecError: results cannot be kept at addresses of this kind, or not those of this action.
    """
    given = section_dir or results_dir
    scheme = _SCHEME.match(given)
    if scheme is None:
        return ""
    where = f"{action}.results_dir" if section_dir else "results_dir"
    if scheme[1].lower() not in KINDS:
        hint = "name a folder, or an address that begins with s3://, gs:// or az://"
        raise SpecError(f"results cannot be kept at {scheme[1]}:// addresses", where=where, hint=hint)
    if action not in ACTIONS:
        hint = "name a folder of this machine; the results of single actions may lie in an object store"
        raise SpecError(f"the results of {action} cannot be kept in an object store", where=where, hint=hint)
    return given.rstrip("/") if section_dir else f"{given.rstrip('/')}/{action}"


def kept(address: str) -> Path:
    """The folder of this machine for the results of a run that belong to an address."""
    folder = os.environ.get(KEPT, "")
    return Path(folder) / address.rstrip("/").rpartition("/")[2] if folder else here(address)


def here(address: str) -> Path:
    """The folder of this machine for the files at an address; always the same one."""
    name = hashlib.sha256(address.rstrip("/").encode("utf-8")).hexdigest()[:32]
    return cache_root() / "results" / name / address.rstrip("/").rpartition("/")[2]
