"""An http or https address -> its bytes from any place on, with what the server says of them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from oneformer.data.sources.transfer import BLOCK, Begun, Passing, Reply, Unreachable, in_words
from oneformer.errors import without_secrets

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SILENCE = 30  # seconds without a byte after which a transfer is broken off
# What a server answers while it cannot; everything else it will answer again.
BUSY = (408, 425, 429, 500, 502, 503, 504)
GONE = (401, 403, 404, 410)


def allowed(address: str, *, plain: bool = False) -> bool:
    """https anywhere, http on this machine or, with `plain`, anywhere; no login within the address."""
    try:
        parts = urlsplit(address)
    except ValueError:  # such as half an IPv6 address
        return False
    if not parts.hostname or parts.username:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and (plain or parts.hostname in LOOPBACK))


class Redirects(HTTPRedirectHandler):
    """Follows a server to addresses of the allowed kind only, never from https to http."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:  # noqa: PLR0917
        """As urllib asks it."""
        if not allowed(newurl, plain=req.type == "http" and req.host.partition(":")[0] not in LOOPBACK):
            raise Unreachable(f"the server leads to {without_secrets(newurl)}, which is no https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass(frozen=True)
class WebFile:
    """A file behind an address that `allowed` has let pass."""

    url: str

    @contextmanager
    def open(self, begun: Begun, *, known: str = "") -> Iterator[Reply | None]:
        """See `Remote`."""
        try:
            with self._asked(begun, known) as reply:
                size, start = _told(reply.headers, reply.status, begun)
                version = _version(reply.headers)
                yield Reply(size, version, start, _blocks(reply))
        except HTTPError as error:
            error.close()
            if error.code == 304 and known:
                yield None
            elif error.code == 416 and begun.size:  # what is here is no beginning of the file
                with self.open(Begun(), known=known) as whole:
                    yield whole
            else:
                raise _refused(error) from None
        except (URLError, TimeoutError, ConnectionError, HTTPException, ValueError, ssl.SSLError) as error:
            raise _broken(error) from None

    def _asked(self, begun: Begun, known: str) -> Any:
        headers = {"User-Agent": "oneformer"}
        if begun.size:
            headers["Range"] = f"bytes={begun.size}-"
            if begun.version:
                headers["If-Range"] = begun.version
        elif known:
            headers["If-None-Match"] = known
        direct = [ProxyHandler({})] if urlsplit(self.url).hostname in LOOPBACK else []
        request = Request(self.url, headers=headers)  # noqa: S310  # `allowed` has seen it
        return build_opener(Redirects, *direct).open(request, timeout=SILENCE)

    def is_there(self) -> bool:
        """Whether the server has it; not a byte of it is read. Raises Passing or Unreachable when that is not told."""
        try:
            with self.open(Begun()):
                return True
        except Unreachable as fault:
            if fault.wrong:
                return False
            raise


def _blocks(reply: IO[bytes]) -> Iterator[bytes]:
    while block := reply.read(BLOCK):
        yield block


def _told(headers: Any, status: int, begun: Begun) -> tuple[int | None, int]:
    """(bytes of the whole file, if told; the byte that comes first)."""
    length = headers.get("Content-Length")
    span = str(headers.get("Content-Range", ""))
    if status == 206 and span.startswith(f"bytes {begun.size}-"):
        total = span.rpartition("/")[2]
        return (int(total) if total.isdecimal() else None), begun.size
    return (int(length) if length and length.isdecimal() else None), 0


def _version(headers: Any) -> str:
    """A strong entity tag, which is what `If-Range` and `If-None-Match` compare; empty without one."""
    tag = str(headers.get("ETag", ""))
    return tag if tag.startswith('"') else ""


def _refused(error: HTTPError) -> Exception:
    why = f"the server answers {error.code} {error.reason}"
    if error.code in BUSY:
        wait = error.headers.get("Retry-After", "") if error.headers else ""
        return Passing(why, wait=float(wait) if wait.isdecimal() else 0.0)
    return Unreachable(why, wrong=error.code in GONE)


def _broken(error: Exception) -> Exception:
    """A fault of the network, in words; it may pass unless the name or the certificate is wrong."""
    reason = getattr(error, "reason", error)
    why = in_words(reason) if isinstance(reason, BaseException) else str(reason)
    if isinstance(reason, socket.gaierror | ssl.SSLCertVerificationError | ValueError):
        return Unreachable(why)
    return Passing(why)
