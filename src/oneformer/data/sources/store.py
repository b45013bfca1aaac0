"""An address of an object store (S3, Google, Azure, Hugging Face) -> its files and their bytes, by way of fsspec."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from oneformer.data.sources.address import STORES, Address
from oneformer.data.sources.cache import digest
from oneformer.data.sources.transfer import BLOCK, Begun, Passing, Reply, Unreachable, in_words
from oneformer.errors import MissingExtra

T = TypeVar("T")
# Tries are counted in one place, `transfer`, so that a limit is a limit; only the hub's client tries by itself, too.
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 20, "read_timeout": 60}}
}
# Exactly the bytes asked for: the hub's client would read five MiB ahead, and throw them away.
READING: dict[str, dict[str, Any]] = {"hf": {"cache_type": "none"}}
RANGE = 16 << 20  # bytes asked for at once
# Names under which stores tell what changes with the content of a file.
VERSIONS = ("ETag", "etag", "md5", "md5Hash", "blob_id", "oid", "generation", "last_modified", "LastModified", "mtime")
# Parts of the names of errors that will come again: no login, a wrong one, no right.
FINAL = ("Credential", "Auth", "Permission", "Forbidden", "Gated", "NotFound", "ParamValidation", "InvalidRegion")
DENIED = (401, 403)
HINTS = {
    "s3": "credentials come from the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "credentials come from the environment: GOOGLE_APPLICATION_CREDENTIALS names a key file",
    "az": "credentials come from the environment: AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with "
    "AZURE_STORAGE_ACCOUNT_KEY, with AZURE_STORAGE_SAS_TOKEN, or with AZURE_STORAGE_ANON=true for what is public",
    "hf": "private repositories need HF_TOKEN in the environment",
}
# Loggers of the clients: without a handler Python prints what they say of every try, over pages, on stderr.
LOUD = ("gcsfs", "google", "adlfs", "azure", "s3fs")
LOUD_HUB = "huggingface_hub.utils._http"  # has a handler of its own


@dataclass(frozen=True)
class Store:
    """A connection to the store of an address."""

    fs: Any
    protocol: str

    @classmethod
    def of(cls, address: Address) -> Store:
        """Raises MissingExtra when the package for such a store is not installed, Unreachable when that fails."""
        protocol, package, extra = STORES[address.scheme]
        for name in LOUD:
            logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(LOUD_HUB).setLevel(logging.ERROR)
        try:
            fs = _connected(protocol)
        except ImportError:
            raise MissingExtra(package, extra=extra, needed_for=f"reading {address.scheme}:// addresses") from None
        except Exception as error:
            raise Unreachable(in_words(error), hint=HINTS[protocol], wrong=True) from None
        return cls(fs, protocol)

    @property
    def hint(self) -> str:
        """What to do when access is denied."""
        return HINTS[self.protocol]

    def ask(self, method: str, *values: Any, **options: Any) -> Any:
        """Call a method of the store. Raises Passing or Unreachable."""
        try:
            return getattr(self.fs, method)(*values, **options)
        except FileNotFoundError:
            # The hub answers the same for what is private and for what is not there.
            hint = self.hint if self.protocol == "hf" else ""
            raise Unreachable("there is nothing at this address", hint=hint, wrong=True) from None
        except PermissionError as error:
            raise Unreachable(f"access is denied: {in_words(error)}", hint=self.hint, wrong=True) from None
        except Exception as error:
            why = in_words(error).removeprefix(", ")  # gcsfs sets its number behind words that may be none
            why = f"the server answers {why}" if why.isdecimal() else why
            if _status(error) in DENIED or why.startswith("Forbidden"):
                raise Unreachable(f"access is denied: {why}", hint=self.hint, wrong=True) from None
            if any(word in type(error).__name__ for word in FINAL):
                raise Unreachable(why, hint=self.hint, wrong=True) from None
            raise Passing(why) from None

    def file(self, path: str, facts: dict[str, Any] | None = None) -> StoredFile:
        """One of its files; `facts` are those of a listing."""
        return StoredFile(self, path, facts)

    def is_folder(self, path: str) -> bool:
        """Whether there are files below the path and none of its name. Raises Passing or Unreachable."""
        return bool(self.ask("info", path.rstrip("/"))["type"] == "directory")

    def names(self, path: str) -> list[str]:
        """What lies directly in a folder. Raises Passing or Unreachable."""
        return sorted(
            str(name).rstrip("/").rpartition("/")[2] for name in self.ask("ls", path.rstrip("/"), detail=False)
        )

    def files(self, path: str) -> dict[str, dict[str, Any]]:
        """All files below a folder: path within it -> facts. Raises Passing or Unreachable."""
        root = path.rstrip("/")
        found = self.ask("find", root, detail=True)
        top = str(self.fs._strip_protocol(root)).rstrip("/")
        below = {str(name).removeprefix(top).lstrip("/"): facts for name, facts in found.items()}
        return {name: facts for name, facts in sorted(below.items()) if name and not name.endswith("/")}


@dataclass(frozen=True)
class StoredFile:
    """A file of a store."""

    store: Store
    path: str
    facts: dict[str, Any] | None = None

    @contextmanager
    def open(self, begun: Begun, *, known: str = "") -> Iterator[Reply | None]:
        """See `Remote`."""
        facts = self.facts or self.store.ask("info", self.path)
        size, version = int(facts.get("size") or 0), version_of(facts)
        if known and known == version:
            yield None
            return
        same = begun.size <= size and (not begun.version or begun.version == version)
        start = begun.size if same else 0
        yield Reply(size, version, start, self._blocks(start, size, version), self._promise(facts))

    def _promise(self, facts: dict[str, Any]) -> str:
        """See `promised`. S3's tag is a checksum unless the store holds the keys, which only the file itself tells."""
        if self.store.protocol != "s3":
            return promised(facts)
        tag = md5_of(version_of(facts))
        if not tag or self.facts is not None:
            return ""
        bucket, key, version = self.store.fs.split_path(self.path)
        named = {"VersionId": version} if version else {}
        head = self.store.ask("call_s3", "head_object", Bucket=bucket, Key=key, **named)
        kept = str(head.get("ServerSideEncryption", "AES256")) == "AES256" and "SSECustomerAlgorithm" not in head
        return f"md5:{tag}" if kept else ""

    def _blocks(self, start: int, size: int, version: str) -> Iterator[bytes]:
        for place in range(start, size, RANGE):
            end = min(place + RANGE, size)
            reading = READING.get(self.store.protocol, {})
            block = self.store.ask("cat_file", self.path, start=place, end=end, **reading)
            yield block
            if len(block) != end - place:
                raise Passing(f"{len(block)} bytes came instead of {end - place}")
        if self.facts is not None:
            return
        self.store.fs.invalidate_cache()  # the hub's client keeps listings whatever it is told
        if version_of(self.store.ask("info", self.path)) != version:
            raise Passing("the file was replaced while it was read")


def version_of(facts: dict[str, Any]) -> str:
    """What changes with the content of a file, as its store tells it; empty when it tells nothing."""
    return next((str(facts[name]).strip('"') for name in VERSIONS if facts.get(name)), "")


def md5_of(version: str) -> str:
    """The MD5 that a version is: stores name files that were written in one piece so; empty for other versions."""
    return version if len(version) == 32 and all(c in "0123456789abcdef" for c in version) else ""


def promised(facts: dict[str, Any]) -> str:
    """The checksum that Google, Azure and the hub tell of a file, as `kept` reads it; empty when they tell none."""
    if md5 := facts.get("md5Hash"):
        return f"md5:{base64.b64decode(md5).hex()}"
    if md5 := (facts.get("content_settings") or {}).get("content_md5"):
        return f"md5:{bytes(md5).hex()}"
    if lfs := facts.get("lfs"):
        return f"sha256:{lfs['sha256']}"
    return f"git:{facts['blob_id']}" if facts.get("blob_id") else ""


def kept(file: Path, promise: str) -> bool:
    """Whether a file has the checksum that was promised: `md5:`, `sha256:` or `git:` and its digits, or nothing."""
    algorithm, _, digits = promise.partition(":")
    if algorithm != "git":
        return not promise or digest(file, algorithm) == digits
    # Git names a file by the SHA-1 of its length and content.
    found = hashlib.sha1(f"blob {file.stat().st_size}\0".encode())  # noqa: S324  # whether it is whole, not who sent it
    with file.open("rb") as content:
        while block := content.read(BLOCK):
            found.update(block)
    return found.hexdigest() == digits


def _connected(protocol: str) -> Any:
    """A client that tries once. Raises ImportError, and what clients raise."""
    import fsspec

    common: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol == "gs":
        from gcsfs.core import GCSFileSystem

        key = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
        if key and not Path(key).is_file():  # gcsfs would go on without a login
            raise FileNotFoundError(f"GOOGLE_APPLICATION_CREDENTIALS names {key}, which is no file")

        # Not the class that gcsfs offers: that one asks Google for the kind of a bucket before each call, by a way of
        # its own that needs another right and prints a warning where it is missing.
        class Once(GCSFileSystem):
            _request = getattr(GCSFileSystem._request, "__wrapped__", GCSFileSystem._request)

        return Once(**common)
    fs = fsspec.filesystem(protocol, **common, **OPTIONS.get(protocol, {}))
    if protocol == "s3":
        fs.retries = 1
    # Azure's client would wait for 15 seconds and more before each of three more tries; adlfs has no option for it.
    policy = getattr(getattr(getattr(fs, "service_client", None), "_config", None), "retry_policy", None)
    if policy is not None:
        policy.total_retries = 0
    return fs


def _status(error: Exception) -> int:
    """The number that a server answered, from wherever its client keeps it; 0 for none."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            number = str(getattr(holder, name, ""))
            if number.isdecimal():
                return int(number)
    return 0


def patiently(ask: Callable[[], T], *, retries: int) -> T:
    """The answer to a question to a store, asked again as long as its faults may pass. Raises Unreachable."""
    import time

    from oneformer.data.sources.transfer import LONGEST_PAUSE, PAUSE

    for failed in range(retries + 1):
        try:
            return ask()
        except Passing as fault:
            if failed == retries:
                raise Unreachable(str(fault)) from fault
            time.sleep(max(fault.wait, min(LONGEST_PAUSE, PAUSE * 2**failed)))
    raise AssertionError("a loop that returns or raises")
