"""Bytes and HTTP/1.1: the bodies of requests, and the buffered input that they are read from (RFC 9112 sections 6 and
7). No sockets.

A body is read in pieces into memory of the reader, never past its end: what is behind it belongs to the next request.
Whatever could be read in two ways is refused (MalformedRequest), and the connection is then of no more use.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from vex.errors import BAD_REQUEST, HEADERS_TOO_LARGE, Disconnected, Kind, MalformedRequest
from vex.http.heads import Head, HeadLimits, check_field_line

# RFC 9112 section 7.1.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[\t -~\x80-\xff]*)?)\r\n")
# The usual case, a chunk of 1 byte or more without an extension behind another: a quarter of the time that a chunk of
# 32 KiB costs.
_BETWEEN_CHUNKS = re.compile(rb"\r\n(?!0+\r)([0-9A-Fa-f]{1,16})\r\n")
_MAX_CHUNK_EXTENSION = 256
_MAX_CHUNK_LINE = 16 + _MAX_CHUNK_EXTENSION + 2
# Clients send chunks of some 32 KiB: one receive takes in two of them.
_READ_AHEAD_BYTES = 256 * 1024


class Input:
    """Buffered input over a source that blocks; `recv_into` returns 0 at the end of the stream."""

    __slots__ = ("_buffer", "_end", "_read_ahead", "_recv_into", "_start")

    def __init__(self, recv_into: Callable[[memoryview], int], buffered: bytes = b"") -> None:
        self._recv_into = recv_into
        self._buffer: bytes | bytearray = buffered
        self._start = 0
        self._end = len(buffered)
        self._read_ahead: bytearray | None = None

    def read_into(self, view: memoryview) -> int:
        """Fill a part of the view, from what is buffered or else from the source without a copy; 0 at the end of the
        stream.
        """
        count = min(len(view), self._end - self._start)
        if count == 0:
            return self._recv_into(view)
        view[:count] = memoryview(self._buffer)[self._start : self._start + count]
        self._start += count
        return count

    def read_line(self, limit: int, past_limit: Kind = BAD_REQUEST) -> bytes:
        """Read a line with its CR LF, of at most `limit` bytes (under 64 KiB); raises MalformedRequest and
        Disconnected.
        """
        while (newline := self._buffer.find(b"\n", self._start, min(self._end, self._start + limit))) < 0:
            if self._end - self._start >= limit:
                raise MalformedRequest(past_limit)
            self._receive()
        line = bytes(self._buffer[self._start : newline + 1])
        if not line.endswith(b"\r\n") or line.count(b"\r") > 1:
            raise MalformedRequest(BAD_REQUEST, "a line does not end with CR LF")
        self._start = newline + 1
        return line

    def skip(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Skip what a pattern matches, if all of that is buffered already; returns the match."""
        match = pattern.match(self._buffer, self._start, self._end)
        if match:
            self._start = match.end()
        return match

    def rest(self) -> bytes:
        """Return what was received and not read: the beginning of the next request, once the body is complete."""
        return bytes(self._buffer[self._start : self._end])

    def _receive(self) -> None:
        """Receive more behind what is buffered, which is less than a line."""
        rest = self.rest()
        if self._read_ahead is None:
            self._read_ahead = bytearray(_READ_AHEAD_BYTES)
        self._read_ahead[: len(rest)] = rest
        count = self._recv_into(memoryview(self._read_ahead)[len(rest) :])
        if count == 0:
            raise Disconnected("in the middle of a request body")
        self._buffer, self._start, self._end = self._read_ahead, 0, len(rest) + count


class Body:
    """A request body, read in pieces. `received` counts its bytes so far; `complete` says that there are no more."""

    __slots__ = ("complete", "received")

    def __init__(self, complete: bool = False) -> None:
        self.complete = complete
        self.received = 0

    def read_into(self, view: memoryview) -> int:
        """Fill a part of the view, which is not empty; returns the number of bytes, 0 when complete. Raises
        Disconnected and MalformedRequest.
        """
        raise NotImplementedError


class NoBody(Body):
    """The body of a request without one."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(complete=True)

    def read_into(self, view: memoryview) -> int:  # noqa: ARG002 -- nothing to fill it with
        """Return 0."""
        return 0


class SizedBody(Body):
    """A body of a length in bytes that was announced (RFC 9112 section 6.2)."""

    __slots__ = ("_left", "_source")

    def __init__(self, source: Input, length: int) -> None:
        super().__init__(complete=length == 0)
        self._source = source
        self._left = length

    def read_into(self, view: memoryview) -> int:
        """Fill a part of the view."""
        if self.complete:
            return 0
        count = _read_some(self._source, view, self._left)
        self._left -= count
        self.received += count
        self.complete = self._left == 0
        return count


class ChunkedBody(Body):
    """A body in chunks (RFC 9112 section 7.1). Extensions and trailers are checked and dropped."""

    __slots__ = ("_broken", "_left", "_source")

    def __init__(self, source: Input) -> None:
        super().__init__()
        self._source = source
        self._left = 0
        self._broken = False

    def read_into(self, view: memoryview) -> int:
        """Fill a part of the view with data of one chunk."""
        if self.complete:
            return 0
        if self._broken:
            raise _bad_chunk()
        # After an error nobody knows where in the stream the next chunk begins.
        self._broken = True
        count = 0
        if self._left or self._begin_chunk():
            count = _read_some(self._source, view, self._left)
            self._left -= count
            self.received += count
        self._broken = False
        return count

    def _begin_chunk(self) -> bool:
        """Read up to the data of the next chunk; returns False when the body ends instead."""
        usual = self._source.skip(_BETWEEN_CHUNKS) if self.received else None
        if usual:
            self._left = int(usual[1], 16)
            return True
        # The line end behind a chunk is read only now: waiting for it with data in hand could lose the data.
        if self.received and self._source.read_line(2) != b"\r\n":
            raise _bad_chunk()
        match = _CHUNK_LINE.fullmatch(self._source.read_line(_MAX_CHUNK_LINE))
        if match is None or len(match[2]) > _MAX_CHUNK_EXTENSION:
            raise _bad_chunk()
        self._left = int(match[1], 16)
        if self._left == 0:
            self._skip_trailers()
            self.complete = True
        return not self.complete

    def _skip_trailers(self) -> None:
        left = _TRAILER_LIMITS.header_bytes
        for _ in range(_TRAILER_LIMITS.fields + 1):
            # The blank line at the end does not count.
            line = self._source.read_line(max(left, 2), HEADERS_TOO_LARGE)
            if line == b"\r\n":
                return
            check_field_line(line[:-2])
            left -= len(line)
        raise MalformedRequest(HEADERS_TOO_LARGE)


_NO_BODY = NoBody()
_TRAILER_LIMITS = HeadLimits()


def body_of(head: Head, source: Input) -> Body:
    """Choose how the body behind a head is framed (RFC 9112 section 6.3)."""
    if head.chunked:
        return ChunkedBody(source)
    return SizedBody(source, head.length) if head.length else _NO_BODY


def _read_some(source: Input, view: memoryview, left: int) -> int:
    count = source.read_into(view if len(view) <= left else view[:left])
    if count == 0:
        raise Disconnected("in the middle of a request body")
    return count


def _bad_chunk() -> MalformedRequest:
    return MalformedRequest(BAD_REQUEST, "the chunked body is not well-formed")
