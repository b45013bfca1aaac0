"""The name or https address of a weight file -> the file in the user's cache, its SHA-256 checked."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from oneformer.data.sources.cache import alone, cache_root, digest
from oneformer.data.sources.transfer import Limits, Unreachable, transfer
from oneformer.data.sources.web import WebFile, allowed
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
MAX_BYTES = 16 << 30  # several times the largest backbone that anyone releases; ends a download that never would
RETRIES = 5
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
            found = download(address, part, checksum)
            if checksum and found != checksum:
                part.unlink()
                raise CheckpointError(
                    f"the file has another checksum than asked for: {found}",
                    where=masked(address),
                    hint="the server may have another version; compare with the checksum its publisher gives",
                )
            part.replace(file)
    except OSError as error:
        raise WorkError(f"the file cannot be kept: {error.strerror or error}", where=str(file)) from error
    log.info("fetched %s to %s, sha256=%s", masked(address), file, found)
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
        raise SpecError(f"the address {masked(address)} has no checksum of the file behind it", where=where, hint=HOW)
    return address, found[1].lower() if found else ""


def download(address: str, part: Path, checksum: str) -> str:
    """Fill `part` from an address; the SHA-256 of the whole. Raises WorkError; what has come stays in `part`."""
    begun = part.is_file()
    limits = Limits(RETRIES, MAX_BYTES)
    try:
        transfer(WebFile(address), part, told=masked(address), limits=limits, trust=bool(checksum))
    except Unreachable as fault:
        raise unreachable(address, str(fault)) from fault
    found = digest(part)
    if begun and checksum and found != checksum:  # the part was of another file
        part.unlink()
        return download(address, part, checksum)
    return found


def unreachable(address: str, why: str) -> WorkError:
    """The one line for a download that did not come."""
    return WorkError(
        f"the file cannot be fetched: {why}", where=masked(address), hint="download it elsewhere, give its path"
    )


def cache_folder() -> Path:
    """Where weight files are kept."""
    return cache_root() / "weights"
