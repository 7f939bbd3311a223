"""One connection: reads heads and bodies from its socket, has requests answered, and writes the answers.

The fast shape, with measured reasons: a head is read with one `recv` where it fits; a small answer is one `send` with
TCP_NODELAY (two writes cost 40 ms, Nagle and delayed ACK); a file goes out with `sendfile`, without a copy through Python.
A connection says what it is doing (`phase`) and how far it is (`progress`); the listener's reaper holds it to its deadlines.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import select
import socket
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from socketserver import BaseRequestHandler
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from vex.answers import Answer, Basis
from vex.errors import REQUEST_TIMEOUT, Disconnected, Kind, MalformedRequest, RegistryError
from vex.message import Request, Response, error_response
from vex.wire import Body, Input, body_of, encode_head, head_end, parse_head

if TYPE_CHECKING:
    from vex.server import Listener

_log = logging.getLogger("vex")

_HEAD_RECV_BYTES = 16 * 1024
_DRAIN_BYTES = 64 * 1024
_FILE_PIECE_BYTES = 4 * 1024 * 1024
# Over TLS, how far a slow reader has come shows only after each piece.
_TLS_PIECE_BYTES = 64 * 1024
# How long one send may block before the reaper can see what it has done so far.
_SEND_SLICE_SECONDS = 5
# The address of who connects to a Unix socket, who has none: most likely a proxy.
UNIX_CLIENT = "unix"
_DATE, _END = b"Date: ", b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# What nginx logs for a client that did not wait for the whole answer.
_CLIENT_LEFT = 499
# The peer has closed its side; where that cannot be told from having sent nothing, that all of the connection has ended.
_LEFT = getattr(select, "POLLRDHUP", select.POLLHUP)
_HAS_CORK = hasattr(socket, "TCP_CORK")
_HAS_SENDFILE = hasattr(os, "sendfile") and sys.platform.startswith("linux")

# What a connection is doing, and so what the reaper holds it to.
HANDSHAKE, IDLE, HEAD, WORKING, TRANSFER, LINGER = "handshake", "idle", "head", "working", "transfer", "linger"


class Observer:
    """What the server tells about requests and connections; the metrics implement it."""

    def request_done(self, listener: str, method: str, op: str, status: int, seconds: float, received: int, sent: int, repeated: bool) -> None:
        """Note a request that was answered, perhaps with an answer that was given before; sizes in bytes of bodies."""

    def request_refused(self, listener: str, kind: Kind) -> None:
        """Note a request that never reached a handler."""

    def connection_refused(self, listener: str) -> None:
        """Note a connection for which there was no thread."""

    def connection_ended(self, listener: str, reason: str) -> None:
        """Note a connection that the server ended: `handshake`, `idle`, `head`, `stall`, `rate`, `limit` or `shutdown`."""


class Seen(NamedTuple):
    """What the reaper saw last: progress and when it changed; progress at the start of the rate window and when that was."""

    progress: int
    progress_at: float
    window: int
    window_at: float


class Connection(BaseRequestHandler):
    """One connection: requests one after another, until either side has had enough."""

    server: Listener

    def setup(self) -> None:
        """Prepare the socket, with TLS where the listener has it."""
        self.socket: socket.socket = self.request
        self.tls = False
        self.server_name = ""
        self.phase = HANDSHAKE
        self.phase_since = time.monotonic()
        self.reason = ""
        self.progress = 0
        self.seen = Seen(0, self.phase_since, 0, self.phase_since)
        self.buffer = b""
        self.continue_wanted = False
        self.unanswered: Request | None = None
        self.client = self.client_address[0] if isinstance(self.client_address, tuple) else UNIX_CLIENT
        self.client = self.client[7:] if self.client.startswith("::ffff:") else self.client
        proxies = self.server.proxies
        self.proxies = proxies if proxies is not None and proxies.trusts(self.client) else None
        self.server.connections.add(self)

    def handle(self) -> None:
        """Serve the connection."""
        try:
            self._prepare()
            while self._serve_one():
                pass
        except (Disconnected, ConnectionError, ssl.SSLError, TimeoutError) as error:
            self._ended(error or type(error).__name__)
        except OSError as error:
            # The reaper shut the socket down, or the peer went away in a way that has no class of its own.
            self._ended(error)

    def finish(self) -> None:
        """Close the socket, gently: what was sent must not be lost to a reset because something was left unread."""
        self.server.connections.discard(self)
        if self.reason:
            self.server.observer.connection_ended(self.server.name, self.reason)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
        self.socket.close()

    def enter(self, phase: str) -> None:
        """Begin a phase; its deadline counts from now."""
        self.phase_since = time.monotonic()
        self.phase = phase

    def cut(self, reason: str) -> None:
        """End the connection from another thread; one that waits for the rest of a head is answered 408."""
        self.reason = self.reason or reason
        how = socket.SHUT_RD if self.phase == HEAD else socket.SHUT_RDWR
        # The plain socket's shutdown: that of an SSLSocket drops the session that its own thread is using.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, how)

    def left(self) -> bool:
        """Tell whether the peer has closed its side, or this one was cut: then nobody waits for an answer, as nginx sees it."""
        poll = select.poll()
        poll.register(self.socket, _LEFT)
        return bool(poll.poll(0))

    def _prepare(self) -> None:
        if self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SLICE_SECONDS, 0))
        context = self.server.tls_context()
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True)
            self.tls = True
            self.socket.do_handshake()
            self.server_name = self.socket.server_hostname or ""
        # The first head is due at once; only later ones may let the connection idle.
        self.enter(HEAD)

    def _ended(self, reason: object) -> None:
        _log.debug("%s: connection from %s ended: %s", self.server.name, self.client, reason)
        if self.unanswered:
            self._log_access(self.unanswered, _CLIENT_LEFT, None, None)

    def _serve_one(self) -> bool:
        """Read one request, answer it; returns whether another may follow."""
        try:
            data = self._read_head()
            if not data:
                return False
            answer = self.server.answers.find(data) if self.server.answers else None
            if answer is not None and not self.server.draining:
                self._repeat(answer, data)
                return True
            head = parse_head(data, self.server.head_limits)
        except MalformedRequest as error:
            self._refuse(error)
            return False
        started = time.perf_counter()
        self.phase = WORKING
        source = Input(self._receive_into, self.buffer)
        self.buffer = b""
        body = body_of(head, source)
        request = Request(self.server.name, head, body, self.client, "https" if self.tls else "http", self.server_name)
        if self.proxies is not None:
            request.pass_on(*self.proxies.origin(head))
        request.left = self.left
        self.continue_wanted = head.expects_continue
        self.unanswered = request
        response = self.server.answer(request)
        reusable = head.keep_alive and not response.last and not self.server.draining
        # HTTP/1.0 knows no chunks: the end of the connection is the end of a stream.
        reusable = reusable and (response.stream is None or head.minor > 0)
        if not body.complete:
            # The client may never send this body (it waits for 100), or has much more of it than is worth reading.
            reusable = reusable and not self.continue_wanted and (head.length or 0) - body.received <= _DRAIN_BYTES
        sent = self._send(request, response, reusable)
        if response.basis and self.server.answers and reusable and head.minor == 1 and not head.has_body:
            self.server.answers.keep(data, _answer(request, response, response.basis))
        self.unanswered = None
        self._done(request.method, request.op, response.status, started, body.received, sent)
        _log.debug("%s %s %s %s %s -> %d, %d bytes", self.server.name, request.client, request.user or "-", request.method, request.path, response.status, sent)
        self._log_access(request, response.status, sent, started)
        if not body.complete and not (reusable and self._drain(body)):
            self._linger()
            return False
        self.buffer = source.rest()
        return reusable

    def _repeat(self, answer: Answer, data: bytes) -> None:
        """Give an answer that was given before."""
        started = time.perf_counter()
        self.phase = TRANSFER
        self._send_all(answer.before_date + _date(int(time.time())) + answer.after_date)
        self.phase = WORKING
        self._done(answer.method, answer.op, answer.status, started, 0, answer.body_bytes, True)
        if _log.isEnabledFor(logging.DEBUG):
            client = self._client_of(data)
            _log.debug("%s %s - %s %s -> %d, %d bytes", self.server.name, client, answer.method, answer.path, answer.status, answer.body_bytes)
        if self.server.access:
            client, seconds = self._client_of(data), time.perf_counter() - started
            self.server.access(self.server.name, client, "", answer.method, answer.path, answer.status, 0, answer.body_bytes, seconds)

    def _client_of(self, data: bytes) -> str:
        # The same head may come from a trusted proxy and from anyone else, so that an answer cannot remember its client.
        return (self.proxies.origin(parse_head(data, self.server.head_limits)).client if self.proxies is not None else "") or self.client

    def _log_access(self, request: Request, status: int, sent: int | None, started: float | None) -> None:
        if self.server.access:
            seconds = None if started is None else time.perf_counter() - started
            received = request.body.received
            self.server.access(self.server.name, request.client, request.user, request.method, request.path, status, received, sent, seconds)

    def _done(self, method: str, op: str, status: int, started: float, received: int, sent: int, repeated: bool = False) -> None:
        self.server.observer.request_done(self.server.name, method, op, status, time.perf_counter() - started, received, sent, repeated)

    def _read_head(self) -> bytes:
        """Return the next head; empty when the client has closed the connection, or has been idle for too long."""
        if not self.buffer:
            if self.phase != HEAD:
                self.enter(IDLE)
            self.buffer = self.socket.recv(_HEAD_RECV_BYTES)
            # The usual case: one head, all of it, and nothing else.
            if self.buffer.endswith(b"\r\n\r\n") and self.buffer.find(b"\r\n\r\n") == len(self.buffer) - 4:
                data, self.buffer = self.buffer, b""
                return data
        return self._read_rest_of_head(bytearray(self.buffer))

    def _read_rest_of_head(self, buffer: bytearray) -> bytes:
        if self.phase != HEAD:
            self.enter(HEAD)
        while buffer:
            end = head_end(buffer, self.server.head_limits)
            if end >= 0:
                self.buffer = bytes(buffer[end:])
                return bytes(buffer[:end])
            data = self.socket.recv(_HEAD_RECV_BYTES)
            if not data:
                break
            buffer += data
        self._check_end(bool(buffer))
        return b""

    def _check_end(self, begun: bool) -> None:
        if self.reason == HEAD:
            self._refuse(MalformedRequest(REQUEST_TIMEOUT))
        elif begun:
            raise Disconnected("in the middle of a request head")

    def _receive_into(self, view: memoryview) -> int:
        if self.continue_wanted:
            self.continue_wanted = False
            self.socket.sendall(_CONTINUE)
        self.phase = TRANSFER
        count = self.socket.recv_into(view)
        self.phase = WORKING
        self.progress += count
        return count

    def _drain(self, body: Body) -> bool:
        """Read what is left of a body that was not wanted, up to a limit; returns whether that was all of it."""
        view = memoryview(bytearray(_DRAIN_BYTES))
        limit = body.received + _DRAIN_BYTES
        with contextlib.suppress(MalformedRequest):
            while not body.complete and body.received < limit:
                body.read_into(view)
        return body.complete

    def _refuse(self, error: RegistryError) -> None:
        self.server.observer.request_refused(self.server.name, error.kind)
        response = error_response(error)
        head = encode_head(response.status, [*response.headers, ("Content-Length", str(response.length)), ("Connection", "close")])
        self.phase = TRANSFER
        self._send_all(head[:-2] + _DATE + _date(int(time.time())) + _END + response.body)
        if self.server.access:
            # What the method and the path are cannot be told.
            self.server.access(self.server.name, self.client, "", "", "", response.status, None, response.length, None)
        self._linger()

    def _linger(self) -> None:
        # Closing with unread bytes makes the kernel reset the connection, and the client lose the answer.
        self.enter(LINGER)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
            left = _DRAIN_BYTES
            while left > 0 and (data := self.socket.recv(_HEAD_RECV_BYTES)):
                left -= len(data)

    def _send(self, request: Request, response: Response, reusable: bool) -> int:
        """Send an answer; returns the bytes of its body that were sent."""
        headers = response.headers
        if response.stream is not None:
            headers += [("Transfer-Encoding", "chunked")] if request.head.minor else []
        elif response.status != 204 and response.status != 304:
            headers.append(("Content-Length", str(response.length)))
        if not reusable:
            headers.append(("Connection", "close"))
        elif request.head.minor == 0:
            headers.append(("Connection", "keep-alive"))
        head = encode_head(response.status, headers)[:-2] + _DATE + _date(int(time.time())) + _END
        self.phase = TRANSFER
        try:
            if request.method == "HEAD":
                self._send_all(head)
                return 0
            if response.file is not None:
                return self._send_file(response.file, head, response)
            if response.stream is not None:
                return self._send_stream(head, response, chunked=request.head.minor == 1)
            self._send_all(head + response.body if response.body else head)
            return len(response.body)
        finally:
            self.phase = WORKING
            if response.file is not None:
                response.file.close()

    def _send_all(self, data: bytes | memoryview) -> None:
        count = self.socket.send(data)
        self.progress += count
        if count == len(data):
            return
        view = memoryview(data)[count:]
        while view:
            # Nothing sent for a while is no error: the reaper decides when it was too long.
            with contextlib.suppress(BlockingIOError):
                count = self.socket.send(view[:_TLS_PIECE_BYTES] if self.tls else view)
                self.progress += count
                view = view[count:]

    def _send_file(self, file: BinaryIO, head: bytes, response: Response) -> int:
        send = self._copy_file if self.tls or not _HAS_SENDFILE else self._sendfile
        if not response.parts:
            self._send_all(head)
            send(file, response.offset, response.length)
            return response.length
        with self._corked():
            self._send_all(head)
            for before, (first, end) in response.parts:
                self._send_all(before)
                send(file, first, end - first)
        return response.length

    @contextlib.contextmanager
    def _corked(self) -> Iterator[None]:
        """Have small pieces share packets, which TCP_NODELAY keeps apart (tcp(7))."""
        corks = _HAS_CORK and self.socket.family != socket.AF_UNIX
        if corks:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        yield
        if corks:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def _sendfile(self, source: BinaryIO, offset: int, length: int) -> None:
        file, out = source.fileno(), self.socket.fileno()
        end = offset + length
        while offset < end:
            with contextlib.suppress(BlockingIOError):
                count = os.sendfile(out, file, offset, min(end - offset, _FILE_PIECE_BYTES))
                if count == 0:
                    raise Disconnected("the file is shorter than it was")
                self.progress += count
                offset += count

    def _copy_file(self, file: BinaryIO, offset: int, length: int) -> None:
        left = length
        file.seek(offset)
        buffer = bytearray(min(_TLS_PIECE_BYTES, left) or 1)
        view = memoryview(buffer)
        while left:
            count: int = file.readinto(view[: min(len(buffer), left)])  # type: ignore[attr-defined]
            if count == 0:
                raise Disconnected("the file is shorter than it was")
            self._send_all(view[:count])
            left -= count

    def _send_stream(self, head: bytes, response: Response, *, chunked: bool) -> int:
        self._send_all(head)
        sent = 0
        for piece in response.stream or ():
            if piece:
                self._send_all(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                sent += len(piece)
        if chunked:
            self._send_all(b"0\r\n\r\n")
        return sent


def _answer(request: Request, response: Response, basis: Basis) -> Answer:
    """Prepare an answer that was just given to be given again."""
    body = b"" if request.method == "HEAD" else response.body
    before_date = encode_head(response.status, response.headers)[:-2] + _DATE
    return Answer(before_date, _END + body, request.method, request.path, request.op, response.status, len(body), basis)


@functools.lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    """Return the value of the Date field (RFC 9110 section 6.6.1), which is made once a second."""
    return formatdate(second, usegmt=True).encode()
