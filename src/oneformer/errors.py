"""A user's fault -> one message that says what is wrong, where, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "********"
# Inside an address: a login before the host, and a query, which may be a signature.
_LOGIN = re.compile(r"(?<=://)[^/\s]+(?=@)")
_QUERY = re.compile(r"""(\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s?#'"<>]*)\?[^\s#'"<>]*[^\s#'"<>:,.;)]""")


def without_secrets(text: str) -> str:
    """A text with the logins and queries of its addresses masked: `s3://user:word@host`, `https://host/file?sig=...`."""
    return _QUERY.sub(rf"\1?{MASK}", _LOGIN.sub(MASK, text)) if "://" in text else text


class UserError(Exception):
    """The request cannot be fulfilled as it was made; the message is all the user needs.

    Args:
        what: the fault in one plain sentence.
        where: the file, line, key or item that carries it; empty when there is no single place.
        hint: what to do next; empty when the fault itself says it.
        exit_code: 2 when the request was wrong, 1 when the work failed.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "", exit_code: int = 2) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.exit_code = exit_code

    @property
    def message(self) -> str:
        """The fault as plain text without secrets: `where: what`, then the hint on a line of its own."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        return without_secrets(f"{head}\n  hint: {self.hint}" if self.hint else head)

    def __str__(self) -> str:
        return self.message


class SpecError(UserError):
    """A key or value of the spec is wrong."""


class DataError(UserError):
    """An annotation, image or mask file is missing, broken or contradicts another.

    `kind` is the fault's name in `dataset check`; `items` are the ids or files it counts, when it stands for several.
    """

    def __init__(
        self, what: str, *, where: str = "", hint: str = "", kind: str = "annotation", items: Sequence[str] = ()
    ) -> None:
        super().__init__(what, where=where, hint=hint)
        self.kind = kind
        self.items = tuple(items)


class CheckpointError(UserError):
    """A weight file is missing, unsafe, broken or made for another model."""


class MissingExtra(UserError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, *, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package}, which is not installed",
            hint=f'pip install "oneformer[{extra}]"',
        )


class WorkError(UserError):
    """The request was right but the work failed (a loss became NaN, the disk is full)."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint, exit_code=1)


class OutOfMemory(WorkError):
    """The work needs more memory than there is."""


# What torch's allocators say, and those of other libraries.
_NO_MEMORY = re.compile(
    r"out of memory|(can't|cannot|unable to|failed to) allocate|not enough memory|bad_alloc|DefaultCPUAllocator",
    re.IGNORECASE,
)


def no_memory(error: BaseException) -> bool:
    """Whether memory ran out, here or in another process of the same run that said so with its last words."""
    if isinstance(error, MemoryError | OutOfMemory):
        return True
    return isinstance(error, RuntimeError | WorkError) and bool(_NO_MEMORY.search(str(error)))


class UserErrors(UserError):
    """Several faults of one request, reported together before any work is done."""

    def __init__(self, errors: Sequence[UserError]) -> None:
        assert errors, "an empty list of faults is no fault"
        self.errors = tuple(errors)
        super().__init__(f"{len(self.errors)} faults found", exit_code=max(e.exit_code for e in self.errors))

    @property
    def message(self) -> str:
        """All faults, counted, each as its own message."""
        if len(self.errors) == 1:
            return self.errors[0].message
        lines = [f"[{i}/{len(self.errors)}] {e.message}" for i, e in enumerate(self.errors, start=1)]
        return "\n".join(lines)
