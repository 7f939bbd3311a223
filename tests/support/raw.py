"""A connection for tests that send bytes no HTTP library would, and look at each answer as it comes."""

from __future__ import annotations

import base64
import contextlib
import http.client
import select
import socket
import struct
from collections.abc import Iterator

from tests.support.server import PASSWORD, USER, Answer

_TIMEOUT_SECONDS = 20


def basic(user: str = USER, password: str = PASSWORD) -> str:
    """Write credentials as an Authorization field carries them."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


class Wire:
    """One connection to a server."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=_TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send bytes; that the server has closed already is no error here, since its answer may still be read."""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(data)

    def end(self) -> None:
        """Say that nothing more comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection off, as one whose program or host is gone."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self._socket.close()

    def ready(self, seconds: float) -> bool:
        """Wait for the beginning of an answer, or the end of the connection; tells whether it came in time."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer, an interim one (1xx) too; raises EOFError when the server closed the connection instead."""
        line = self._file.readline()
        if not line:
            raise EOFError
        version, status, _ = line.split(b" ", 2)
        assert version == b"HTTP/1.1", line
        headers = http.client.parse_headers(self._file)
        code = int(status)
        if method == "HEAD" or code < 200 or code in (204, 304):
            return Answer(code, headers, b"")
        return Answer(code, headers, self._file.read(int(headers["Content-Length"])))

    def rest(self) -> bytes:
        """Read until the server closes the connection; that it reset it counts as closed."""
        rest = b""
        with contextlib.suppress(ConnectionError):
            while data := self._file.read1():
                rest += data
        return rest

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()


@contextlib.contextmanager
def connected(address: tuple[str, int]) -> Iterator[Wire]:
    """Hold a connection for a block."""
    wire = Wire(address)
    try:
        yield wire
    finally:
        wire.close()
