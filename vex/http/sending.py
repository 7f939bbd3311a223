"""What a connection sends: bytes, files and streams, and how much of it has reached the peer.

A file goes out with `sendfile`, without a copy through Python. Small pieces share packets where the system can be told
to hold them back.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from vex.errors import Disconnected
from vex.http.byteranges import Part
from vex.http.message import Request, Response

_FILE_PIECE_BYTES = 4 * 1024 * 1024
# Over TLS, and where the system does not tell what has arrived, how far a slow reader has come shows only after each
# piece.
SLOW_PIECE_BYTES = 64 * 1024
# A head shares its packet, and the copy that this needs, with a body of this size at most.
JOINED_BYTES = 16 * 1024
_HAS_SENDFILE = hasattr(os, "sendfile") and sys.platform.startswith("linux")
_HAS_CORK = hasattr(socket, "TCP_CORK")
# tcp(7), struct tcp_info of Linux 4.6: segments that were not acknowledged, bytes that were, and bytes that were not
# sent.
_TCP_INFO = struct.Struct("=24xI92xQ16xI")
_HAS_TCP_INFO = sys.platform.startswith("linux")


class Reached(NamedTuple):
    """How far an answer is: how many bytes have reached the peer's system, and whether it has yet to take more; `begun`
    is the number before it.

    Where the system does not tell, the bytes count that it took.
    """

    arrived: int
    outstanding: bool
    told: bool
    begun: int


class Outgoing:
    """The sending side of a connection; `sent` counts the bytes that the system took, those that TLS adds aside;
    `begun` those before this answer.
    """

    __slots__ = ("_local", "_socket", "_tls", "begun", "sent")

    def __init__(self, sock: socket.socket, *, tls: bool) -> None:
        self._socket = sock
        self._tls = tls
        self._local = sock.family == socket.AF_UNIX
        self.sent = self.begun = 0

    def progress(self) -> Reached:
        """Tell how far the answer is. Any thread may ask."""
        if _HAS_TCP_INFO and not self._local:
            with contextlib.suppress(OSError, struct.error):
                # Closed, or an older system.
                info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
                unacknowledged, count, unsent = _TCP_INFO.unpack(info)
                return Reached(count, bool(unacknowledged or unsent), True, self.begun)
        return Reached(self.sent, True, False, self.begun)

    def send(self, head: bytes, body: bytes) -> None:
        """Send a head with its body, in one piece where that costs little."""
        if len(body) <= JOINED_BYTES:
            self.send_all(head + body if body else head)
        else:
            self.send_all(head)
            self.send_all(body)

    def send_all(self, data: bytes | memoryview) -> None:
        """Send all of these bytes."""
        count = self._socket.send(data)
        self.sent += count
        if count == len(data):
            return
        view = memoryview(data)[count:]
        while view:
            # Nothing sent for a while is no error: the reaper decides when it was too long.
            with contextlib.suppress(BlockingIOError):
                count = self._socket.send(view[:SLOW_PIECE_BYTES] if self._tls else view)
                self.sent += count
                view = view[count:]

    def send_file(self, head: bytes, file: BinaryIO, offset: int, length: int) -> None:
        """Send a head, and a part of a file."""
        self.send_all(head)
        self._send_part(file, offset, length)

    def send_parts(self, head: bytes, file: BinaryIO, parts: Sequence[Part]) -> None:
        """Send a head, and an answer in parts of a file."""
        with self._corked():
            self.send_all(head)
            for before, (first, end) in parts:
                self.send_all(before)
                self._send_part(file, first, end - first)

    def send_stream(self, head: bytes, pieces: Iterator[bytes], *, chunked: bool) -> int:
        """Send a head, and a body of unknown length; returns its bytes."""
        self.send_all(head)
        sent = 0
        for piece in pieces:
            if piece:
                self.send_all(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                sent += len(piece)
        if chunked:
            self.send_all(b"0\r\n\r\n")
        return sent

    def send_response(self, head: bytes, request: Request, response: Response) -> int:
        """Send an answer, with its head as it was made for it; returns the bytes of its body that were sent."""
        if request.method == "HEAD":
            self.send_all(head)
            return 0
        if response.stream is not None:
            return self.send_stream(head, response.stream, chunked=request.head.minor == 1)
        if response.file is None:
            self.send(head, response.body)
            return len(response.body)
        if response.parts:
            self.send_parts(head, response.file, response.parts)
        else:
            self.send_file(head, response.file, response.offset, response.length)
        return response.length

    @contextlib.contextmanager
    def _corked(self) -> Iterator[None]:
        """Have small pieces share packets, which TCP_NODELAY keeps apart (tcp(7))."""
        corks = _HAS_CORK and not self._local
        if corks:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        yield
        if corks:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def _send_part(self, file: BinaryIO, offset: int, length: int) -> None:
        if self._tls or not _HAS_SENDFILE:
            self._copy(file, offset, length)
        else:
            self._sendfile(file.fileno(), offset, offset + length)

    def _sendfile(self, file: int, offset: int, end: int) -> None:
        out, piece = self._socket.fileno(), SLOW_PIECE_BYTES if self._local else _FILE_PIECE_BYTES
        while offset < end:
            with contextlib.suppress(BlockingIOError):
                count = os.sendfile(out, file, offset, min(end - offset, piece))
                if count == 0:
                    raise Disconnected("the file is shorter than it was")
                self.sent += count
                offset += count

    def _copy(self, file: BinaryIO, offset: int, length: int) -> None:
        left = length
        file.seek(offset)
        # From the begin of a page processors copy best. What is allocated otherwise begins 16 bytes behind: from there,
        # a copy costs as much as the encryption.
        buffer = mmap.mmap(-1, SLOW_PIECE_BYTES) if left > SLOW_PIECE_BYTES else bytearray(left or 1)
        view = memoryview(buffer)
        while left:
            count: int = file.readinto(view[: min(len(buffer), left)])  # type: ignore[attr-defined]
            if count == 0:
                raise Disconnected("the file is shorter than it was")
            self.send_all(view[:count])
            left -= count
