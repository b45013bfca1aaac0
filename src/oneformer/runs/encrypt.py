"""Bytes and a passphrase -> a file that only the passphrase opens, and back, a block at a time.

| bytes | content |
|---|---|
| 8 | `MAGIC` |
| 1 | base-2 logarithm of scrypt's cost N (r = 8, p = 1) |
| 16 | salt of the passphrase |
| 16 | salt of this file |
| 8 | tells another key from a damaged file |
| 2**20 + 16 each, the last one shorter | blocks: AES-256-GCM |

scrypt (RFC 7914) makes a key of the passphrase, HKDF (RFC 5869) one of its own for each file. A block's nonce is its
number and whether it is the last one, and the head of the file is authenticated with each (the STREAM construction of
Hoang, Reyhanitabar, Rogaway and Vizar, 2015). So no block can be changed, left out, moved or taken from another file.
"""

from __future__ import annotations

import hmac
import io
import os
import struct
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from unicodedata import normalize

from oneformer.errors import CheckpointError, MissingExtra
from oneformer.runs.key import VARIABLE, reading_key

MAGIC = b"\x8fOFENC1\n"
COST = 17  # of scrypt: 128 MiB and some tenths of a second for each guess
COSTS = range(12, 21)  # that are read; a stranger's file shall not ask for more than a gigabyte
SALT, CHECK, TAG = 16, 8, 16
HEAD = len(MAGIC) + 1 + 2 * SALT + CHECK
BLOCK = 2**20


def check_installed() -> None:
    """Raise MissingExtra when nothing can be encrypted here."""
    try:
        import cryptography

        assert cryptography
    except ImportError as error:
        raise MissingExtra("cryptography", extra="encryption", needed_for="encryption_key") from error


class Writer(io.RawIOBase):
    """Encrypts what is written into it; the file is whole once `finish` was called.

    Args:
        file: where the encrypted bytes go.
        key: the passphrase.

    Raises:
        MissingExtra: the package `cryptography` is not installed.
    """

    def __init__(self, file: IO[bytes], key: str) -> None:
        self.file = file
        salt, own = _salt(), os.urandom(SALT)
        self._cipher, check = _cipher(key, COST, salt, own)
        self.head = MAGIC + bytes([COST]) + salt + own + check
        self.file.write(self.head)
        self._number = 0
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._waiting += data
        start = 0
        while len(self._waiting) - start > BLOCK:  # one of full length may be the last
            self._put(memoryview(self._waiting)[start : start + BLOCK], last=False)
            start += BLOCK
        if start:
            self._waiting = self._waiting[start:]
        return size

    def finish(self) -> None:
        """Write the last block; without it the file counts as cut short."""
        self._put(self._waiting, last=True)
        self._waiting = bytearray()

    def _put(self, block: Any, *, last: bool) -> None:
        self.file.write(self._cipher.encrypt(_nonce(self._number, last=last), bytes(block), self.head))
        self._number += 1


class Reader(io.RawIOBase):
    """The plain bytes of an encrypted file, from any place in it. Made by `opened`."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.file = file
        self.path = path
        self.head = file.read(HEAD)
        if len(self.head) < HEAD:
            raise _damaged(path)
        self._cipher = _unlocked(self.head, path)
        bulk = os.fstat(file.fileno()).st_size - HEAD
        self.blocks = max(1, -(-bulk // (BLOCK + TAG)))
        self.size = bulk - self.blocks * TAG
        self._place = 0
        self._held: tuple[int, bytes] = (-1, b"")
        if self.size < 0:
            raise _damaged(path)
        self._block(self.blocks - 1)  # a file that was cut short has another last block

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError("a place before the beginning of the file")
        self._place = start + offset
        return self._place

    def readinto(self, target: Any) -> int:
        view, done = memoryview(target).cast("B"), 0
        while done < len(view) and self._place < self.size:
            number, start = divmod(self._place, BLOCK)
            part = self._block(number)[start : start + len(view) - done]
            view[done : done + len(part)] = part
            done += len(part)
            self._place += len(part)
        return done

    def close(self) -> None:
        self.file.close()
        super().close()

    def check(self) -> None:
        """Raise CheckpointError when any block is not the one that was written."""
        for number in range(self.blocks):
            self._block(number)

    def _block(self, number: int) -> bytes:
        """One block in plain."""
        if self._held[0] != number:
            from cryptography.exceptions import InvalidTag

            self.file.seek(HEAD + number * (BLOCK + TAG))
            found = self.file.read(BLOCK + TAG)
            try:
                plain = self._cipher.decrypt(_nonce(number, last=number == self.blocks - 1), found, self.head)
            except InvalidTag:
                raise _damaged(self.path) from None
            self._held = (number, plain)
        return self._held[1]


def is_encrypted(path: Path) -> bool:
    """Whether a file begins as encrypted ones do."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def opened(path: Path, *, whole: bool = False) -> IO[bytes]:
    """A file's plain bytes, whether it is encrypted or not; the key is that of `key.reading_key`.

    Every byte that is handed out was authenticated before; with `whole` the rest of the file too.

    Raises:
        CheckpointError: it is encrypted, and there is no key, another one, or the file is damaged.
        MissingExtra: the package `cryptography` is not installed.
        OSError: it cannot be read.
    """
    file = path.open("rb")
    try:
        if file.read(len(MAGIC)) != MAGIC:
            file.seek(0)
            return file
        file.seek(0)
        reader = Reader(file, path)
        if whole:
            reader.check()
    except BaseException:
        file.close()
        raise
    return io.BufferedReader(reader)


def plain_size(path: Path) -> int:
    """How many bytes a file has in plain."""
    size = path.stat().st_size
    if not is_encrypted(path):
        return size
    bulk = size - HEAD
    return max(0, bulk - max(1, -(-bulk // (BLOCK + TAG))) * TAG)


def read_plain(path: Path) -> bytes:
    """All plain bytes of a file. Raises as `opened` does."""
    with opened(path) as file:
        return file.read()


def _unlocked(head: bytes, path: Path) -> Any:
    cost, salts = head[len(MAGIC)], head[len(MAGIC) + 1 : -CHECK]
    if cost not in COSTS:
        raise _damaged(path)
    key = reading_key()
    if not key:
        hint = f"set {VARIABLE} in the environment, or encryption_key in the spec"
        raise CheckpointError("the file is encrypted, and no key is given", where=str(path), hint=hint)
    cipher, check = _cipher(key, cost, salts[:SALT], salts[SALT:])
    if not hmac.compare_digest(check, head[-CHECK:]):
        what = "the file is encrypted with another key than the one given (or its first bytes are damaged)"
        raise CheckpointError(what, where=str(path), hint=f"check {VARIABLE} or encryption_key")
    return cipher


def _damaged(path: Path) -> CheckpointError:
    what = "the encrypted file is damaged, cut short or was changed"
    return CheckpointError(what, where=str(path), hint="copy or download it again")


def _nonce(number: int, *, last: bool) -> bytes:
    """Twelve bytes that no other block of the file has."""
    return struct.pack(">QxxxB", number, last)


@lru_cache(maxsize=1)
def _salt() -> bytes:
    """One salt of the passphrase for all files of a process: guessing a key costs time on purpose."""
    return os.urandom(SALT)


def _cipher(key: str, cost: int, salt: bytes, own: bytes) -> tuple[Any, bytes]:
    """The cipher of one file, and what its head tells of the key."""
    secret = _stretched(key, cost, salt)
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    def derived(length: int, purpose: bytes) -> bytes:
        return HKDF(algorithm=SHA256(), length=length, salt=own, info=purpose).derive(secret)

    return AESGCM(derived(32, b"oneformer blocks")), derived(CHECK, b"oneformer check")


@lru_cache(maxsize=8)
def _stretched(key: str, cost: int, salt: bytes) -> bytes:
    """The passphrase as a key of 32 bytes."""
    check_installed()
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=32, n=2**cost, r=8, p=1).derive(normalize("NFC", key).encode("utf-8"))
