"""A file of this machine -> the same bytes at an address of an object store, compared with what the store has kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from oneformer.data.sources.store import Store, kept, md5_of, patiently, promised, version_of
from oneformer.data.sources.transfer import Passing, Unreachable

PART = 32 << 20  # bytes of the parts in which larger files travel


def put(store: Store, file: Path, path: str, *, retries: int) -> str:
    """Upload a file, whole in every try; the version under which the store keeps it.

    Args:
        store: the connection.
        file: it must not change meanwhile.
        path: where it belongs, as the store knows it.
        retries: tries after the first one.

    Raises:
        Unreachable: it does not get there, may not be written, or the store has kept other bytes than were sent.
        OSError: the file cannot be read.
    """

    def once() -> str:
        size = file.stat().st_size
        if size > PART:
            store.ask("put_file", str(file), path, chunksize=PART)
        else:
            store.ask("pipe_file", path, file.read_bytes())
        facts = store.ask("info", path)
        if int(facts.get("size") or 0) != size or not _same(store, file, path, facts):
            raise Passing("the store has kept other bytes than were sent")
        return version_of(facts)

    return patiently(once, retries=retries)


def copied(store: Store, source: str, path: str, *, retries: int) -> str:
    """Let the store copy a file of its own; the version of the copy. Raises Unreachable."""
    patiently(lambda: store.ask("cp_file", source, path), retries=retries)
    return version_of(patiently(lambda: store.ask("info", path), retries=retries))


def removed(store: Store, path: str, *, retries: int) -> None:
    """Remove a file from the store, where there is one. Raises Unreachable."""
    try:
        patiently(lambda: store.ask("rm_file", path), retries=retries)
    except Unreachable as fault:
        if not isinstance(fault.__context__, FileNotFoundError):
            raise


def _same(store: Store, file: Path, path: str, facts: dict[str, Any]) -> bool:
    """Whether the checksum that the store tells, where it tells one, is that of the file."""
    if store.protocol != "s3":
        return kept(file, promised(facts))
    tag, _, parts = version_of(facts).partition("-")
    if not md5_of(tag) or not _plain(store, path):
        return True
    with file.open("rb") as content:
        sums = [hashlib.md5(block).digest() for block in iter(lambda: content.read(PART), b"")]  # noqa: S324
    if not parts:
        return kept(file, f"md5:{tag}")
    # S3's tag of a file in parts: the MD5 of the parts' MD5s. Of parts of another size nothing can be said.
    return int(parts) != len(sums) or hashlib.md5(b"".join(sums)).hexdigest() == tag  # noqa: S324


def _plain(store: Store, path: str) -> bool:
    """Whether the tag of an object is a checksum: not where the store holds keys."""
    bucket, key, _ = store.fs.split_path(path)
    head = store.ask("call_s3", "head_object", Bucket=bucket, Key=key)
    return str(head.get("ServerSideEncryption", "AES256")) == "AES256" and "SSECustomerAlgorithm" not in head
