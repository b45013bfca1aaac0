"""What a user writes where files lie -> a path on this machine, or an address with its parts checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from oneformer.data.sources.web import allowed
from oneformer.errors import SpecError, without_secrets

# Scheme -> (fsspec's name, package, extra of ours); http and https need none.
STORES = {
    "s3": ("s3", "s3fs", "s3"),
    "aws": ("s3", "s3fs", "s3"),
    "gs": ("gs", "gcsfs", "gs"),
    "gcs": ("gs", "gcsfs", "gs"),
    "az": ("az", "adlfs", "az"),
    "azure": ("az", "adlfs", "az"),
    "abfs": ("az", "adlfs", "az"),
    "hf": ("hf", "huggingface_hub", "hf"),
}
WEB = ("http", "https")
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_CHECKSUM = re.compile(r"sha256=([0-9a-fA-F]{64})")


@dataclass(frozen=True)
class Address:
    """Where something lies that has to be fetched."""

    url: str
    """Without the checksum."""
    checksum: str = ""
    """SHA-256 that the file must have, as hexadecimal digits; empty when none was given."""

    @property
    def scheme(self) -> str:
        """In small letters."""
        return self.url.partition("://")[0].lower()

    @property
    def path(self) -> str:
        """The address as its store knows it: bucket and key, or repository and path."""
        return self.url.partition("://")[2]

    @property
    def name(self) -> str:
        """Its last part, as a file name."""
        path = urlsplit(self.url).path if self.scheme in WEB else self.path
        return unquote(path).rstrip("/").rpartition("/")[2] or "file"

    @property
    def told(self) -> str:
        """The address as it may be shown: no login, no query."""
        return without_secrets(self.url)


def is_remote(text: str) -> bool:
    """Whether it names something that has to be fetched; nothing is looked up."""
    scheme = _SCHEME.match(text)
    return scheme is not None and scheme[1].lower() != "file"


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked."""
    return name.lower().endswith(ARCHIVES)


def parsed(text: str, *, key: str) -> Path | Address:
    """A path of this machine, or an address.

    Raises:
        SpecError: an unknown scheme, a login inside the address, a checksum that is none.
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Path(text)
    kind = scheme[1].lower()
    url, _, fragment = text.partition("#")
    if kind == "file":
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = None
        if parts is None or parts.netloc not in ("", "localhost"):
            hint = "write file:///folder/file, or the path alone"
            raise SpecError(f"{text} names no file of this machine", where=key, hint=hint)
        return Path(url2pathname(parts.path))
    if kind not in (*STORES, *WEB):
        known = ", ".join(f"{name}://" for name in ("file", *WEB, *STORES))
        raise SpecError(f"addresses of the kind {kind}:// cannot be fetched", where=key, hint=f"there are {known}")
    _refuse_login(url, kind, key)
    if kind in WEB and not allowed(url, plain=True):
        raise SpecError(f"{without_secrets(url)} is no address", where=key, hint=f"write {kind}://host/path")
    found = _CHECKSUM.fullmatch(fragment)
    if fragment and not found:
        hint = "write address#sha256=<64 hexadecimal digits>"
        raise SpecError(f"what stands behind # in {without_secrets(url)} is no checksum", where=key, hint=hint)
    return Address(url, found[1].lower() if found else "")


def _refuse_login(url: str, kind: str, key: str) -> None:
    """Credentials come from the environment: an address ends up in specs, logs and shell histories."""
    host = url.partition("://")[2].partition("/")[0]
    if "@" in host and kind != "hf":  # where it stands before a revision
        hint = "take the login out of the address; credentials are read from the environment (docs/guides/data.md)"
        raise SpecError(f"{without_secrets(url)} holds a login", where=key, hint=hint)
    if not host:
        raise SpecError(f"{url} names nothing", where=key, hint=f"write {kind}://place/path")
