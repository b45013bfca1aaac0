"""Messages -> the text that a language model behind an OpenAI-compatible address answers, patiently and within limits.

The key comes from the environment, goes into one header, and is taken out of everything that the address says: no log,
record, spec or error can hold it. Redirects are not followed, since they would carry it elsewhere.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from oneformer.data.sources.web import BUSY, LOOPBACK
from oneformer.errors import MASK, SpecError, UserError, UserErrors, without_secrets
from oneformer.spec.llm import LlmSpec

WHERE = "automl.llm.endpoint"
PAUSE_S, LONGEST_S = 2.0, 300.0  # the first pause before another try, each next twice as long; no pause is longer
MOST = 4 * 2**20  # bytes of an answer
SHOWN = 200  # characters of what the address says about a fault
BLOCK = 65536


class Silent(Exception):
    """The address does not answer now, or not in the form that it should; another try may help.

    Args:
        why: what happened.
        wait: seconds after which it wants to be asked again; 0 leaves it to us.
    """

    def __init__(self, why: str, *, wait: float = 0.0) -> None:
        super().__init__(why)
        self.why, self.wait = why, wait


class Refusal(Exception):
    """The address will never answer this: a wrong key, model or address."""


@dataclass(frozen=True)
class Answer:
    """What a language model said, and what it cost."""

    text: str
    tokens: int
    """Of question and answer together; 0 where the address does not tell."""
    seconds: float


class _Stay(HTTPRedirectHandler):
    """Follows the address nowhere."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:  # noqa: ARG002, PLR0917
        """As urllib asks it."""
        raise Refusal(f"the address leads on to {without_secrets(newurl)}; name that one")


@dataclass(frozen=True)
class Endpoint:
    """An address and a model.

    Args:
        address: up to `/chat/completions`.
        model: its name there.
        key: sent as a bearer token; empty sends none.
        variable: the environment variable that the key is from.
        temperature: of the answers; None leaves it out.
        max_tokens: of an answer; 0 leaves it out.
        timeout_s: for a whole answer.
    """

    address: str
    model: str
    key: str = field(repr=False)
    variable: str
    temperature: float | None
    max_tokens: int
    timeout_s: float

    def request(self, messages: Sequence[Mapping[str, str]]) -> Request:
        """What is sent."""
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        body |= {} if self.temperature is None else {"temperature": self.temperature}
        body |= {"max_tokens": self.max_tokens} if self.max_tokens else {}
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "oneformer"}
        headers |= {"Authorization": f"Bearer {self.key}"} if self.key else {}
        data = json.dumps(body, ensure_ascii=False).encode()
        return Request(f"{self.address.rstrip('/')}/chat/completions", data, headers, method="POST")  # noqa: S310

    def ask(self, messages: Sequence[Mapping[str, str]]) -> Answer:
        """One try.

        Raises:
            Silent: no answer, or not in the form of a chat completion.
            Refusal: the address does not want this request, whenever it comes.
        """
        begun = time.monotonic()
        try:
            body = self._sent(self.request(messages), until=begun + self.timeout_s)
        except HTTPError as error:
            raise self._refused(error) from None
        except (URLError, TimeoutError, OSError, HTTPException, ssl.SSLError) as error:
            raise self._broken(error) from None
        text, tokens = self._read(body)
        return Answer(text, tokens, time.monotonic() - begun)

    def _sent(self, request: Request, *, until: float) -> bytes:
        direct = [ProxyHandler({})] if urlsplit(self.address).hostname in LOOPBACK else []
        found = b""
        with build_opener(_Stay, *direct).open(request, timeout=self.timeout_s) as reply:
            while block := reply.read1(BLOCK):  # not `read`, which a server that drips bytes would keep for ever
                found += block
                if len(found) > MOST:
                    raise Silent(f"the answer is longer than {MOST // 2**20} MiB")
                if time.monotonic() > until:
                    raise TimeoutError
        return found

    def _read(self, body: bytes) -> tuple[str, int]:
        try:
            told = json.loads(body)
            text = told["choices"][0]["message"]["content"]
            usage = told.get("usage") or {}
            tokens = usage.get("total_tokens", 0) if isinstance(usage, dict) else 0
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise Silent("what it answers is no chat completion in JSON") from None
        if not isinstance(text, str) or not text.strip():
            raise Silent("its answer is empty")
        return text, tokens if isinstance(tokens, int) and 0 <= tokens < 2**40 else 0

    def _refused(self, error: HTTPError) -> Exception:
        """An answer with a status of a fault."""
        with error:
            said = self._said(error)
        why = f"it answers {error.code}{f': {said}' if said else ''}"
        if error.code in BUSY or error.code >= 500:
            return Silent(why, wait=_wait(error.headers.get("Retry-After", "") if error.headers else ""))
        if error.code in (401, 403):
            why += (
                f" (a key from ${self.variable} was sent)"
                if self.key
                else f" (no key was sent: ${self.variable} is not set)"
            )
        return Refusal(why)

    def _said(self, error: HTTPError) -> str:
        """The fault in the words of the address, short and without the key."""
        try:
            told = json.loads(error.read(BLOCK))
            found = told.get("error", told)
            text = found.get("message", "") if isinstance(found, dict) else found
        except (ValueError, OSError, HTTPException, AttributeError, RecursionError):
            return ""
        return self.clean(text)[:SHOWN] if isinstance(text, str) else ""

    def _broken(self, error: Exception) -> Exception:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return Silent(f"no answer within {self.timeout_s:g} s")
        why = self.clean(str(reason)) or type(reason).__name__
        if isinstance(reason, ssl.SSLCertVerificationError | socket.gaierror):
            return Refusal(why)
        return Silent(why)

    def clean(self, text: str) -> str:
        """A text from elsewhere on one line, without the key, logins and what could move a terminal's cursor."""
        found = text.replace(self.key, MASK) if self.key else text
        return without_secrets(" ".join("".join(c if c.isprintable() else " " for c in found).split()))


def _wait(text: str) -> float:
    """`Retry-After`: seconds, or a date."""
    try:
        return max(float(text), 0.0) if text.strip()[:1].isdigit() else max(_until(text), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()


def pause(tries: int, wanted: float) -> float:
    """Seconds before the next try: twice as long each time, or what the address wants."""
    return min(max(PAUSE_S * 2.0 ** (tries - 1), wanted), LONGEST_S)


def endpoint_of(spec: LlmSpec, *, needed_for: str) -> Endpoint:
    """The address that the settings name, with the key from the environment.

    Raises:
        UserErrors: none is named, or it is none that a key may be sent to.
    """
    errors: list[UserError] = []
    hint = "automl.llm.endpoint=http://127.0.0.1:8000/v1 automl.llm.model=NAME"
    for key, value in ((WHERE, spec.endpoint), ("automl.llm.model", spec.model)):
        if not value.strip():
            errors.append(SpecError(f"{needed_for} needs a language model, but {key} is empty", where=key, hint=hint))
    key = os.environ.get(spec.auth_variable, "").strip()
    if spec.endpoint.strip() and (what := _fault(spec.endpoint.strip(), key, spec.auth_variable)):
        errors.append(SpecError(what, where=WHERE))
    if not key.isascii() or any(not c.isprintable() for c in key):
        errors.append(
            SpecError(f"${spec.auth_variable} holds no key: it has signs that no header may have", where="environment")
        )
    if errors:
        raise UserErrors(errors)
    return Endpoint(
        spec.endpoint.strip(), spec.model.strip(), key, spec.auth_variable, spec.temperature, spec.max_tokens,
        spec.timeout_s,
    )  # fmt: skip


def _fault(address: str, key: str, variable: str) -> str:
    """Why an address is not asked; empty when it is. The address itself may hold a secret, and is not told."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "this is no address"
    if parts.scheme not in ("http", "https") or not host:
        return "this is no http or https address"
    if parts.username or parts.password or parts.query or parts.fragment:
        return f"an address has no login and no query here; the key comes from ${variable}"
    if key and parts.scheme == "http" and host not in LOOPBACK:
        return f"the key from ${variable} would travel unencrypted: take https, or unset it where none is needed"
    return ""
