"""What registries answer: replies that are read whole, blobs that come in pieces, and what went wrong on the way.

Invariant: of what a registry sends no more is read than the caller takes, nor for longer than a document may take.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import NamedTuple

from vex.errors import Refused, VexError
from vex.formats.foreign_json import Fields, Malformed, load_json
from vex.transfer.origins import Origin

MAX_DOCUMENT = 16 * 1024 * 1024
_MAX_MESSAGE = 300
_DOCUMENT_SECONDS = 300.0
# What OpenSSL says of an answer that is plain HTTP.
_PLAIN = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG")
_LONGEST_PAUSE = 60
_PIECE_BYTES = 256 * 1024


class Unreachable(VexError):
    """There is no way to talk with the registry, or not now; the text says why."""


class Broken(VexError):
    """A transfer ended early; another may go on where it ended."""


class Reply(NamedTuple):
    """An answer, read to its end."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def refusal(self) -> Refused:
        """What to raise when the status is not what it should be."""
        return Refused(self.status, _message(self.status, self.body))

    @property
    def concerns_one_repository(self) -> bool:
        """Whether this refuses what a section of the configuration forbids, which may be allowed elsewhere."""
        with contextlib.suppress(Malformed):
            errors = Fields(load_json(self.body, "the answer"), "the answer").items("errors")
            return any(error.fields("detail").text("section") for error in errors)
        return False

    def pause(self, usual: float) -> float:
        """Return how many seconds to wait before the same is asked again."""
        asked = self.headers.get("Retry-After", "")
        return min(int(asked), _LONGEST_PAUSE) if re.fullmatch("[0-9]{1,5}", asked) else usual


def pieces_of(response: HTTPResponse, count: int) -> Iterator[bytes]:
    """Give exactly that many bytes of an answer; raises Broken when they end early, and Refused when there are more."""
    while count:
        try:
            piece = response.read(min(_PIECE_BYTES, count))
        except (OSError, HTTPException) as error:
            raise Broken(_reason(error)) from error
        if not piece:
            raise Broken("the connection ended in the middle of a blob")
        count -= len(piece)
        yield piece
    if response.read(1):
        raise Refused(response.status, "the source sends more bytes than the manifest says")


@contextlib.contextmanager
def failures_of(origin: Origin) -> Iterator[None]:
    """Raise what goes wrong in talking with a registry as Broken or Unreachable."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(f"the certificate of {origin} is not trusted: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise Broken(
            "it speaks no TLS; perhaps its address begins with http://" if error.reason in _PLAIN else _reason(error)
        ) from error
    except (OSError, HTTPException) as error:
        raise Broken(_reason(error)) from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__


def read_whole(response: HTTPResponse, limit: int) -> bytes:
    """Read a document; raises Refused for one over the limit, and Broken."""
    deadline = time.monotonic() + _DOCUMENT_SECONDS
    content = bytearray()
    while piece := response.read(_available(response)):
        content += piece
        if len(content) > limit:
            raise Refused(response.status, f"the registry sends more than the {limit} bytes that are taken here")
        if time.monotonic() > deadline:
            raise Broken("the answer takes too long")
    if response.length:
        raise Broken("the connection ended in the middle of an answer")
    return bytes(content)


def _available(response: HTTPResponse) -> int:
    """Return how many bytes of an answer can be read without a wait for more than one packet, so that deadlines are
    seen.
    """
    return len(response.peek()) or 1 if response.length != 0 else 1


def _message(status: int, body: bytes) -> str:
    """Say what a registry answered: the message of its error document, if there is one."""
    text = ""
    with contextlib.suppress(Malformed):
        for error in Fields(load_json(body, "the answer"), "the answer").items("errors"):
            text = text or error.text("message") or error.text("code")
    shown = "".join(character if character.isprintable() else " " for character in text[:_MAX_MESSAGE])
    return f"{shown} ({status})" if shown else f"status {status}"
