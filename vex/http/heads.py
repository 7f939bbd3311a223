"""Bytes and HTTP/1.1: the heads of requests and of answers (RFC 9112, RFC 9110). No sockets; the bodies behind them are
in `bodies.py`.

A head is checked as a whole by one regular expression, which is linear: no two neighbouring repeats in it share a
character. Its fields are looked up only when they are asked for. Whatever could be read in two ways, by us and by a
proxy in front, is refused (MalformedRequest), and the connection is then of no more use. The values of single fields,
and the query, are in `fields.py`.

Deliberately not here: targets of other hosts and asterisk-form targets (Vex is no proxy), folded header lines, transfer
codings other than chunked, and HTTP/0.9 and 2.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from vex.errors import BAD_REQUEST, HEADERS_TOO_LARGE, URI_TOO_LONG, VERSION_NOT_SUPPORTED, MalformedRequest

# RFC 9110 section 5.6.2; the methods that are registered have at most 17 characters.
_TOKEN_CHARACTER = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_METHOD = _TOKEN_CHARACTER + rb"{1,32}"
# RFC 9112 sections 3.2.1 and 3.2.2: origin-form, or absolute-form, of which a path may be missing.
_TARGET = rb"(?:[Hh][Tt][Tt][Pp][Ss]?://([!-.0->@-~]+)(/[!-~]*)?|(/[!-~]*))"
_REQUEST_LINE = rb"(" + _METHOD + rb") " + _TARGET + rb" HTTP/1\.([0-9])"
# RFC 9110 section 5.5, without the control characters that it leaves to the recipient.
_FIELD_LINE = _TOKEN_CHARACTER + rb"+:[\t -~\x80-\xff]*"

# RFC 9112 section 2.2: one empty line before a request is tolerated.
_HEAD = re.compile(rb"(?:\r\n)?" + _REQUEST_LINE + rb"\r\n(?:" + _FIELD_LINE + rb"\r\n)*\r\n")
_WHOLE_REQUEST_LINE = re.compile(_REQUEST_LINE)
_REQUEST_LINE_OF_LATER_VERSION = re.compile(_METHOD + rb" [!-~]+ HTTP/[2-9]\.[0-9]")
_BEGUN_REQUEST_LINE = re.compile(_METHOD + rb"(?: |\Z)|\r?\Z")
_VERSION = re.compile(rb" HTTP/[0-9]\.[0-9]")
_WHOLE_FIELD_LINE = re.compile(_FIELD_LINE)
# What decides where the request ends and what follows it, in a head in lower case.
_FRAMING_FIELD = re.compile(rb"\r\n(host|content-length|transfer-encoding|connection|expect):[ \t]*([^\r]*)")
# RFC 9110 section 7.2: uri-host [ ":" port ]; it may be empty.
_HOST = re.compile(rb"(?:\[[0-9a-z:._~%-]+\]|[0-9a-z._~!$&'()*+,;=%-]*)(?::[0-9]*)?")
_MAX_LENGTH_DIGITS = 19
# Clients ask for many small parts of a layer at once: some thousand ranges of up to 32 bytes, and the name of the
# field.
_MAX_RANGE_BYTES = 32 * 1024 + len(b"\r\nRange: ")

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class HeadLimits(NamedTuple):
    """What a request head may weigh: bytes of the request line, number of field lines, and bytes of all field lines
    together, one Range apart.
    """

    request_line: int = 8192
    fields: int = 64
    header_bytes: int = 32768


class Head:
    """A request head that was checked.

    `target` is as received, of an absolute one what follows the authority; `minor` is 0 for HTTP/1.0 and 1 for all
    later 1.x; `length` is Content-Length, None without one.
    """

    __slots__ = (
        "_data",
        "_lowered",
        "chunked",
        "expects_continue",
        "keep_alive",
        "length",
        "method",
        "minor",
        "target",
    )

    def __init__(self, data: bytes, method: str, target: str, minor: int, authority: bytes | None = None) -> None:
        """Take a head that matches the grammar, with the authority of an absolute target; raises MalformedRequest where
        its parts contradict each other.
        """
        self._data = data
        self._lowered = data.lower()
        self.method = method
        self.target = target
        self.minor = minor
        framing: dict[bytes, list[bytes]] = {}
        for name, value in _FRAMING_FIELD.findall(self._lowered):
            framing.setdefault(name, []).append(value.rstrip(b" \t"))
        _check_host(framing.get(b"host", []), minor, authority)
        self.chunked = b"transfer-encoding" in framing and _is_chunked(framing[b"transfer-encoding"], minor)
        self.length = _length(framing[b"content-length"], self.chunked) if b"content-length" in framing else None
        self.keep_alive = _is_kept_alive(framing[b"connection"], minor) if b"connection" in framing else minor > 0
        # RFC 9110 section 10.1.1: ignored on HTTP/1.0, and pointless without a body. Other expectations may be ignored.
        self.expects_continue = (
            b"expect" in framing and minor > 0 and self.has_body and b"100-continue" in _members(framing[b"expect"])
        )

    @property
    def has_body(self) -> bool:
        """Whether bytes of a body follow the head."""
        return self.chunked or bool(self.length)

    def get(self, name: str) -> str | None:
        """Return the value of a field; several lines are joined with ", ". The name is given in lower case."""
        line_start = _line_start(name)
        at = self._lowered.find(line_start)
        if at < 0:
            return None
        values = []
        while at >= 0:
            end = self._data.index(b"\r", at + 2)
            values.append(self._data[at + len(line_start) : end].strip(b" \t"))
            at = self._lowered.find(line_start, end)
        return b", ".join(values).decode("latin-1")


def head_end(buffer: bytearray, limits: HeadLimits) -> int:
    """Find the end of the head that the buffer begins with: the index past its blank line, or -1 while more is needed.

    Raises MalformedRequest early for what is too large, and for what a client sends that then waits for an answer.
    Cheap enough to be called for every byte.
    """
    end = buffer.find(b"\r\n\r\n")
    if end >= 0:
        return end + 4
    start = 2 if buffer.startswith(b"\r\n") else 0
    line_end = buffer.find(b"\r\n", start)
    if line_end < 0:
        _check_begun_line(buffer, start, limits)
    else:
        _check_begun_fields(buffer, start, line_end, limits)
    return -1


def parse_head(data: bytes, limits: HeadLimits) -> Head:
    """Parse exactly one head, with its blank line; raises MalformedRequest."""
    match = _HEAD.fullmatch(data)
    if match is None:
        raise _explain(data, limits)
    method, authority, absolute, target, minor = match.groups()
    _check_size(data, match.start(1), match.end(5), limits)
    return Head(
        data, method.decode("ascii"), (target or absolute or b"/").decode("ascii"), 0 if minor == b"0" else 1, authority
    )


def check_field_line(line: bytes) -> None:
    """Check one line of a header or trailer section, without its line end; raises MalformedRequest."""
    if not _WHOLE_FIELD_LINE.fullmatch(line):
        raise _bad_field_line()


@functools.lru_cache(maxsize=64)
def _line_start(name: str) -> bytes:
    return b"\r\n%b:" % name.encode("ascii")


def _members(values: list[bytes]) -> list[bytes]:
    """Return the members of a comma-separated field."""
    return [member.strip(b" \t") for value in values for member in value.split(b",")]


def _check_host(hosts: list[bytes], minor: int, authority: bytes | None) -> None:
    # RFC 9112 section 3.2
    if len(hosts) != 1 and (hosts or minor > 0):
        raise MalformedRequest(BAD_REQUEST, "send exactly one Host header field")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise MalformedRequest(BAD_REQUEST, "the Host header field is not HOST or HOST:PORT")
    if authority is not None and hosts != [authority.lower()]:
        raise MalformedRequest(
            BAD_REQUEST, "the host in the request line is not that of the Host header field, and this is no proxy"
        )


def _is_chunked(codings: list[bytes], minor: int) -> bool:
    # RFC 9112 sections 6.1 and 7; the names of codings are case-insensitive.
    if codings != [b"chunked"]:
        raise MalformedRequest(BAD_REQUEST, "the only Transfer-Encoding that is taken is chunked, once")
    if minor == 0:
        raise MalformedRequest(BAD_REQUEST, "HTTP/1.0 has no Transfer-Encoding; use HTTP/1.1")
    return True


def _length(lengths: list[bytes], chunked: bool) -> int:
    # RFC 9112 section 6.3; bytes.isdigit takes ASCII digits only.
    if chunked:
        raise MalformedRequest(BAD_REQUEST, "send either Content-Length or Transfer-Encoding, not both")
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > _MAX_LENGTH_DIGITS:
        raise MalformedRequest(BAD_REQUEST, "Content-Length must be one number of at most 19 digits")
    return int(lengths[0])


def _is_kept_alive(connection: list[bytes], minor: int) -> bool:
    # RFC 9112 section 9.3
    options = _members(connection)
    return b"close" not in options and (minor > 0 or b"keep-alive" in options)


def _check_begun_line(buffer: bytearray, start: int, limits: HeadLimits) -> None:
    """Check a request line whose end has not come; a CR at the very end may be the first half of that."""
    if len(buffer) - buffer.endswith(b"\r") - start > limits.request_line:
        raise MalformedRequest(URI_TOO_LONG)
    if not _BEGUN_REQUEST_LINE.match(buffer, start) or buffer.find(b"\n", start) >= 0:
        raise _explain_request_line(b"")


def _check_begun_fields(buffer: bytearray, start: int, line_end: int, limits: HeadLimits) -> None:
    """Check the sizes of a head whose request line is there, and whether it is of another kind than what ends with CR
    LF CR LF.
    """
    if line_end - start > limits.request_line:
        raise MalformedRequest(URI_TOO_LONG)
    if not _VERSION.fullmatch(buffer, line_end - 9, line_end):
        raise _explain_request_line(b"")
    too_many = len(buffer) - line_end - 2 - limits.header_bytes - 1
    if too_many > 0 and too_many > _range_bytes(buffer):
        raise MalformedRequest(HEADERS_TOO_LARGE)
    # In the middle of a line there is more to come: no need to look at every byte of all lines again.
    if buffer.endswith(b"\n"):
        lines = buffer.count(b"\n", line_end + 2)
        if lines > limits.fields:
            raise MalformedRequest(HEADERS_TOO_LARGE)
        if lines != buffer.count(b"\r\n", line_end + 2):
            raise _bad_field_line()


def _check_size(head: bytes, start: int, line_end: int, limits: HeadLimits) -> None:
    if line_end - start > limits.request_line:
        raise MalformedRequest(URI_TOO_LONG)
    # The line end of the request line and the blank line are not those of fields.
    too_many = len(head) - line_end - 4 - limits.header_bytes
    if (too_many > 0 and too_many > _range_bytes(head)) or head.count(b"\n", line_end) - 2 > limits.fields:
        raise MalformedRequest(HEADERS_TOO_LARGE)


def _range_bytes(head: bytes | bytearray) -> int:
    """Return how many bytes of a head, or of the beginning of one, are a field that asks for ranges, and do not count
    with the others.
    """
    at = head.lower().find(b"\r\nrange:")
    end = head.find(b"\r\n", at + 2)
    return min((len(head) if end < 0 else end) - at, _MAX_RANGE_BYTES) if at >= 0 else 0


def _explain(head: bytes, limits: HeadLimits) -> MalformedRequest:
    """Say what is wrong with a head that does not match."""
    start = 2 if head.startswith(b"\r\n") else 0
    line_end = head.find(b"\r\n", start)
    _check_size(head, start, line_end, limits)
    if _WHOLE_REQUEST_LINE.fullmatch(head, start, line_end):
        return _bad_field_line()
    return _explain_request_line(head[start:line_end])


def _explain_request_line(line: bytes) -> MalformedRequest:
    if _REQUEST_LINE_OF_LATER_VERSION.fullmatch(line):
        return MalformedRequest(VERSION_NOT_SUPPORTED)
    return MalformedRequest(BAD_REQUEST, "the request line is not METHOD /PATH HTTP/1.1")


def _bad_field_line() -> MalformedRequest:
    return MalformedRequest(BAD_REQUEST, "a header field is not NAME: VALUE on one line that ends with CR LF")


def encode_head(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    """Encode the head of an answer; raises ValueError for what would split it, or is not Latin-1."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if lines.count("\r") != len(headers) or lines.count("\n") != len(headers) or "\0" in lines:
        raise ValueError("a header field holds a line break or NUL")
    return f"{_STATUS_LINES[status]}{lines}\r\n".encode("latin-1")
