"""The name or https address of a weight file -> the file in the user's cache, its SHA-256 checked."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from oneformer.errors import CheckpointError, SpecError, WorkError
from oneformer.runs.secrets import masked

log = logging.getLogger(__name__)

SWIN = "https://github.com/SwinTransformer/storage/releases/download"
# Name -> address. Their publisher gives no checksum, so the transport vouches for them, and the one found is told.
KNOWN = {
    # what the Swin-T specs of NVIDIA TAO name
    "swin_tiny_patch4_window7_224_22k": f"{SWIN}/v1.0.8/swin_tiny_patch4_window7_224_22k.pth",
}
CHECKSUM = re.compile(r"sha256=([0-9a-fA-F]{64})")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BYTES = 16 << 30  # several times the largest backbone that anyone releases; ends a download that never would
CHUNK = 1 << 20
SILENCE = 30  # seconds without a byte after which a download is given up
HOW = "write it as https://host/file.pth#sha256=<64 hexadecimal digits>; `sha256sum file.pth` prints them"


def is_remote(source: str) -> bool:
    """Whether it names something to fetch rather than a file; nothing is fetched or looked up."""
    return source in KNOWN or re.match(r"[a-z][a-z0-9+]*://", source, re.IGNORECASE) is not None


def fetch(source: str, *, cache: Path | None = None) -> Path:
    """The cached file of a known name or of an address with `#sha256=`; it is downloaded when it is not there yet.

    The file appears whole or not at all. What an interrupted download has left is gone on with.

    Args:
        source: a name of `KNOWN`, its address, or any https address with a checksum (http on this machine only).
        cache: folder to keep files in; by default `oneformer/weights` in the user's cache.

    Raises:
        SpecError: the address has no checksum, or is none that can be fetched.
        CheckpointError: what came has another checksum; it is not kept.
        WorkError: the network or the server does not deliver.
    """
    address, checksum = parsed(source)
    folder = cache or cache_folder()
    name = unquote(Path(urlsplit(address).path).name) or "weights"
    file = folder / f"{(checksum or hashlib.sha256(address.encode()).hexdigest())[:12]}-{name}"
    part = file.with_name(file.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(file.with_name(file.name + ".lock")):
            if file.is_file() and (not checksum or digest(file) == checksum):
                return file
            resumed = bool(checksum) and part.is_file() and part.stat().st_size > 0
            found = download(address, part, resume=resumed)
            if resumed and found != checksum:  # the part was of another file
                found = download(address, part, resume=False)
            if checksum and found != checksum:
                part.unlink()
                raise CheckpointError(
                    f"the file has another checksum than asked for: {found}",
                    where=address,
                    hint="the server may have another version; compare with the checksum its publisher gives",
                )
            part.replace(file)
    except OSError as error:
        raise WorkError(f"the file cannot be kept: {error.strerror or error}", where=str(file)) from error
    log.info("fetched %s to %s, sha256=%s", address, file, found)
    return file


def parsed(source: str) -> tuple[str, str]:
    """(address, checksum in small letters, empty for known names). Raises SpecError."""
    address, _, fragment = KNOWN.get(source, source).partition("#")
    where = "train.pretrained_backbone"
    if not allowed(address):
        raise SpecError(
            f"{masked(address)} cannot be fetched: only https addresses without a login can",
            where=where,
            hint="download the file and give its path",
        )
    found = CHECKSUM.fullmatch(fragment)
    if not found and address not in KNOWN.values():
        raise SpecError(f"the address {address} has no checksum of the file behind it", where=where, hint=HOW)
    return address, found[1].lower() if found else ""


def allowed(address: str) -> bool:
    """https anywhere, http on this machine; no login within the address, which would end up in logs."""
    try:
        parts = urlsplit(address)
    except ValueError:  # such as half an IPv6 address
        return False
    if not parts.hostname or parts.username:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


class Redirects(HTTPRedirectHandler):
    """Follows a server to other addresses of the allowed kind only."""

    def redirect_request(self, *args: Any) -> Any:
        """As urllib asks it: the address to go to comes last."""
        if not allowed(args[-1]):
            raise URLError(f"the server leads to {args[-1]}, which is no https address")
        return super().redirect_request(*args)


def download(address: str, part: Path, *, resume: bool) -> str:
    """Fill `part` from an address, from where it ends when `resume` and the server can; the SHA-256 of the whole.

    Raises WorkError; what has come until then stays in `part`.
    """
    start = part.stat().st_size if resume else 0
    headers = {"User-Agent": "oneformer", **({"Range": f"bytes={start}-"} if start else {})}
    direct = [ProxyHandler({})] if urlsplit(address).hostname in LOOPBACK else []
    try:
        with build_opener(Redirects, *direct).open(Request(address, headers=headers), timeout=SILENCE) as reply:  # noqa: S310
            goes_on = reply.status == 206 and str(reply.headers.get("Content-Range", "")).startswith(f"bytes {start}-")
            expected = reply.headers.get("Content-Length")
            log.info("fetching %s (%s)", address, f"{int(expected) / 2**20:.0f} MiB" if expected else "size unknown")
            with part.open("ab" if goes_on else "wb") as file:
                count = copy(reply, file, limit=MAX_BYTES - file.tell())
    except HTTPError as error:
        if error.code == 416 and start:  # the part is no beginning of the file
            return download(address, part, resume=False)
        raise unreachable(address, f"the server answers {error.code} {error.reason}") from error
    except (URLError, TimeoutError, ConnectionError, HTTPException, ValueError) as error:
        raise unreachable(address, str(getattr(error, "reason", error))) from error
    if expected and count < int(expected):
        raise unreachable(address, f"the connection ended after {count} of {expected} bytes")
    return digest(part)


def copy(source: IO[bytes], target: IO[bytes], *, limit: int) -> int:
    """Bytes copied. Raises ValueError when there are more than `limit`."""
    count = 0
    while block := source.read(CHUNK):
        count += len(block)
        if count > limit:
            raise ValueError(f"the file is larger than {MAX_BYTES >> 30} GiB")
        target.write(block)
    return count


def unreachable(address: str, why: str) -> WorkError:
    """The one line for a download that did not come."""
    return WorkError(f"the file cannot be fetched: {why}", where=address, hint="download it elsewhere, give its path")


def digest(file: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where the user's system keeps what programs can fetch again."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "oneformer" / "weights"


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time on this machine; the others wait. Ends with the process, however it ends."""
    with lock.open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows: processes that meet here fetch the file once each
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
