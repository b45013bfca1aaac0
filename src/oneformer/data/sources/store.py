"""An address of an object store (S3, Google, Azure, Hugging Face) -> its files and their bytes, by way of fsspec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from oneformer.data.sources.address import STORES, Address
from oneformer.data.sources.transfer import Begun, Passing, Reply, Unreachable, in_words
from oneformer.errors import MissingExtra

T = TypeVar("T")
# Tries are counted in one place, `transfer`, so that a limit is a limit.
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 20, "read_timeout": 60}}
}
RANGE = 16 << 20  # bytes asked for at once
# Names under which stores tell what changes with the content of a file.
VERSIONS = ("ETag", "etag", "md5", "md5Hash", "blob_id", "oid", "generation", "last_modified", "LastModified", "mtime")
# Parts of the names of errors that will come again: no login, a wrong one, no right.
FINAL = ("Credential", "Auth", "Permission", "Forbidden", "Gated", "NotFound", "ParamValidation", "InvalidRegion")
HINTS = {
    "s3": "credentials come from the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "credentials come from the environment: GOOGLE_APPLICATION_CREDENTIALS names a key file",
    "az": "credentials come from the environment: AZURE_STORAGE_ACCOUNT_NAME with _KEY or _SAS_TOKEN",
    "hf": "credentials come from the environment: HF_TOKEN",
}


@dataclass(frozen=True)
class Store:
    """A connection to the store of an address."""

    fs: Any
    hint: str

    @classmethod
    def of(cls, address: Address) -> Store:
        """Raises MissingExtra when the package for such a store is not installed, Unreachable when that fails."""
        protocol, package, extra = STORES[address.scheme]
        try:
            import fsspec

            options = OPTIONS.get(protocol, {})
            fs = fsspec.filesystem(protocol, skip_instance_cache=True, use_listings_cache=False, **options)
        except ImportError:
            raise MissingExtra(package, extra=extra, needed_for=f"reading {address.scheme}:// addresses") from None
        except Exception as error:
            raise Unreachable(in_words(error), hint=HINTS[protocol], wrong=True) from None
        if hasattr(fs, "retries"):
            fs.retries = 1
        return cls(fs, HINTS[protocol])

    def ask(self, method: str, *values: Any, **options: Any) -> Any:
        """Call a method of the store. Raises Passing or Unreachable."""
        try:
            return getattr(self.fs, method)(*values, **options)
        except FileNotFoundError:
            raise Unreachable("there is nothing at this address", wrong=True) from None
        except PermissionError as error:
            raise Unreachable(f"access is denied: {in_words(error)}", hint=self.hint, wrong=True) from None
        except Exception as error:
            if any(word in type(error).__name__ for word in FINAL):
                raise Unreachable(in_words(error), hint=self.hint, wrong=True) from None
            raise Passing(in_words(error)) from None

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
        yield Reply(size, version, start, self._blocks(start, size, version))

    def _blocks(self, start: int, size: int, version: str) -> Iterator[bytes]:
        for place in range(start, size, RANGE):
            end = min(place + RANGE, size)
            block = self.store.ask("cat_file", self.path, start=place, end=end)
            yield block
            if len(block) != end - place:
                raise Passing(f"{len(block)} bytes came instead of {end - place}")
        if self.facts is None and version_of(self.store.ask("info", self.path)) != version:
            raise Passing("the file was replaced while it was read")


def version_of(facts: dict[str, Any]) -> str:
    """What changes with the content of a file, as its store tells it; empty when it tells nothing."""
    return next((str(facts[name]).strip('"') for name in VERSIONS if facts.get(name)), "")


def md5_of(version: str) -> str:
    """The MD5 that a version is: stores name files that were written in one piece so; empty for other versions."""
    return version if len(version) == 32 and all(c in "0123456789abcdef" for c in version) else ""


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
