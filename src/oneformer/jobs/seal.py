"""A command that is no action of ours -> a seal that only this user can make, so that a stranger's record runs nothing.

A folder of jobs may come from anywhere, in an archive of a project say. Its records can name our actions, which read
data and run no code of it; any other command has to have been submitted by the user whose machine it would run on.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from oneformer.errors import UserError
from oneformer.jobs.record import Record


def sealed(record: Record) -> str:
    """The seal of a record's command, and of the folder that it runs in.

    Raises:
        UserError: the user's own key can be neither read nor made.
    """
    told = json.dumps([record.command, record.cwd], ensure_ascii=False)
    return hmac.new(_key(), told.encode("utf-8"), sha256).hexdigest()


def check_seal(record: Record) -> None:
    """Raises UserError for a command that this user has not submitted."""
    if not hmac.compare_digest(record.seal.encode(), sealed(record).encode()):
        raise UserError(
            "its command was not submitted by you, so it is not run",
            where=record.id,
            hint="jobs of other people's folders run actions of oneformer only",
        )


def key_file() -> Path:
    """Where the user's key lies, for its owner's eyes only."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "oneformer" / "jobs.key"


def _key() -> bytes:
    path = key_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            if path.exists():
                return path.read_bytes()
            part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
            try:
                os.link(part, path)  # of several that make one, the first is everybody's
            finally:
                part.unlink()
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"the key of your jobs cannot be kept: {error.strerror or error}", where=str(path)) from error
