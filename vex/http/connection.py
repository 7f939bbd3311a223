"""One connection: reads heads and bodies from its socket, has requests answered, and writes the answers.

The fast shape, with measured reasons: a head is read with one `recv` where it fits; a small answer is one `send` with
TCP_NODELAY (two writes cost 40 ms, Nagle and delayed ACK); how large ones are sent is in `sending.py`.
A connection says what it is doing (`phase`) and how far it is; the listener's reaper holds it to its deadlines.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import time
from socketserver import BaseRequestHandler
from typing import Callable, Protocol

from vex.errors import BODY_TIMEOUT, REQUEST_TIMEOUT, Disconnected, MalformedRequest, RegistryError
from vex.http.answers import Answer, Answers
from vex.http.bodies import Body, Input, body_of
from vex.http.forwarded import Proxies
from vex.http.framing import DRAIN_BYTES, date, head_of, kept_answer, last_head_of, may_follow
from vex.http.heads import Head, HeadLimits, head_end, parse_head
from vex.http.message import Request, Response, error_response, in_clear_response
from vex.http.observer import Observer
from vex.http.pace import RATE, STALL, Pace
from vex.http.records import Records
from vex.http.sending import JOINED_BYTES, Outgoing
from vex.http.slots import origin_of
from vex.http.sockets import has_left, peer_of, prepare

_log = logging.getLogger("vex")

_HEAD_RECV_BYTES = 16 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# What a connection is doing, and so what the reaper holds it to.
HANDSHAKE, IDLE, HEAD, WORKING, LINGER = "handshake", "idle", "head", "working", "linger"
RECEIVING, SENDING = "receiving", "sending"
# RFC 8446 section 5.1: a record of a handshake. What begins like a request, or an empty line before it, is none.
_REQUEST_BEGINS = re.compile(rb"[A-Za-z\r]")


class Accepting(Protocol):
    """What a connection needs of the listener that accepted it; `draining` says that no further request is wanted."""

    name: str
    head_limits: HeadLimits
    answers: Answers | None
    proxies: Proxies | None
    observer: Observer
    records: Records
    answer: Callable[[Request], Response]
    answer_in_clear: Callable[[Request], Response]
    tls_context: Callable[[], ssl.SSLContext | None]
    connections: set[Connection]
    draining: bool


class Connection(BaseRequestHandler):
    """One connection: requests one after another, until either side has had enough."""

    server: Accepting  # type: ignore[assignment]  # that of socketserver knows less

    def setup(self) -> None:
        """Prepare the socket, with TLS where the listener has it."""
        self.socket: socket.socket = self.request
        self.tls = False
        self.server_name = ""
        self.phase = HANDSHAKE
        self.phase_since = time.monotonic()
        self.reason = ""
        self.received = 0
        self.pace = Pace(self.phase_since)
        self.buffer = b""
        self.continue_wanted = False
        self.unanswered: Request | None = None
        self.client = peer_of(self.client_address)
        proxies = self.server.proxies
        self.proxies = proxies if proxies is not None and proxies.trusts(self.client) else None
        self.origin = origin_of(self.client, proxies.trusts if proxies is not None else None)
        self.out = Outgoing(self.socket, tls=False)
        self.server.connections.add(self)

    def handle(self) -> None:
        """Serve the connection."""
        try:
            if self._prepare():
                while self._serve_one():
                    pass
            else:
                self._refuse_in_clear()
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
        """End the connection from another thread; one that waits for the rest of a head or of a body is answered
        408.
        """
        slow = self.phase == HEAD or (self.phase == RECEIVING and reason in (STALL, RATE))
        self.reason = self.reason or reason
        how = socket.SHUT_RD if slow else socket.SHUT_RDWR
        # The plain socket's shutdown: that of an SSLSocket drops the session that its own thread is using.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, how)

    def left(self) -> bool:
        """Tell whether the peer has closed its side, or this one was cut: then nobody waits for an answer, as nginx
        sees it.
        """
        return has_left(self.socket)

    def _prepare(self) -> bool:
        """Set the connection up; returns whether it can be used, which one in the clear cannot where there is TLS."""
        prepare(self.socket)
        context = self.server.tls_context()
        if context is not None:
            if _REQUEST_BEGINS.match(self.socket.recv(1, socket.MSG_PEEK)):
                return False
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
            self.tls = True
            self.out = Outgoing(self.socket, tls=True)
            self.socket.do_handshake()
            self.server_name = self.socket.server_hostname or ""
        # The first head is due at once; only later ones may let the connection idle.
        self.enter(HEAD)
        return True

    def _refuse_in_clear(self) -> None:
        """Answer the one request of a connection without TLS, at a listener that has it."""
        self.enter(HEAD)
        try:
            data = self._read_head()
            if not data:
                return
            head = parse_head(data, self.server.head_limits)
        except MalformedRequest as error:
            self._refuse(error, in_clear_response(""))
            return
        request = Request(self.server.name, head, body_of(head, Input(self._receive_into)), self.client)
        response = self.server.answer_in_clear(request)
        self.server.records.in_clear(request, response.status, self._send(request, response, reusable=False))
        self._linger()

    def _ended(self, reason: object) -> None:
        _log.debug("%s: connection from %s ended: %s", self.server.name, self.client, reason)
        if self.unanswered:
            self.server.records.left(self.unanswered)

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
        if not self._respond(self._request(head, source), data, started):
            return False
        self.buffer = source.rest()
        return True

    def _request(self, head: Head, source: Input) -> Request:
        """Make a request of its head and of what follows that."""
        scheme = "https" if self.tls else "http"
        request = Request(self.server.name, head, body_of(head, source), self.client, scheme, self.server_name)
        if self.proxies is not None:
            request.pass_on(*self.proxies.origin(head))
        request.left = self.left
        self.continue_wanted = head.expects_continue
        self.unanswered = request
        return request

    def _respond(self, request: Request, data: bytes, started: float) -> bool:
        """Answer a request whose head came as these bytes, and tell of it; returns whether another may follow."""
        response, answers = self._answer(request), self.server.answers
        reusable = not self.server.draining and may_follow(request, response, continue_wanted=self.continue_wanted)
        sent = self._send(request, response, reusable)
        kept = kept_answer(request, response) if reusable and answers else None
        if kept and answers:
            answers.keep(data, kept)
        self.unanswered = None
        self.server.records.answered(request, response.status, sent, started)
        if request.body.complete or (reusable and self._drain(request.body)):
            return reusable
        self._linger()
        return False

    def _answer(self, request: Request) -> Response:
        try:
            return self.server.answer(request)
        except Disconnected:
            # Only from this side: what came of the body stays, and the client is told to go on.
            if self.reason not in (STALL, RATE):
                raise
            self.server.observer.request_refused(self.server.name, BODY_TIMEOUT)
            return error_response(MalformedRequest(BODY_TIMEOUT))

    def _repeat(self, answer: Answer, data: bytes) -> None:
        """Give an answer that was given before."""
        started, server, out = time.perf_counter(), self.server, self.out
        before_date, after_date, method, _, op, status, body_bytes, _, _, _ = answer
        self.phase = SENDING
        if len(after_date) > JOINED_BYTES:
            out.send(before_date + date(int(time.time())), after_date)
        else:
            out.send_all(before_date + date(int(time.time())) + after_date)
        self.phase = WORKING
        # Here, and not in the records: a call more is 1 % of such an answer.
        seconds = time.perf_counter() - started
        server.observer.request_done(server.name, method, op, status, seconds, 0, body_bytes, True)
        if server.records.wanted:
            server.records.repeated(answer, seconds, self._client_of(data))

    def _client_of(self, data: bytes) -> str:
        # The same head may come from a trusted proxy and from anyone else, so that an answer cannot remember its
        # client.
        return (
            self.proxies.origin(parse_head(data, self.server.head_limits)).client if self.proxies is not None else ""
        ) or self.client

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
        try:
            if self.continue_wanted:
                self.continue_wanted = False
                self.socket.sendall(_CONTINUE)
            if self.phase == LINGER:
                return self.socket.recv_into(view)
            self.phase = RECEIVING
            count = self.socket.recv_into(view)
        except OSError as error:
            # A reset, a broken record of TLS, a host that is gone: as if the client had closed the connection, and no
            # failure of what reads the body.
            raise Disconnected(str(error)) from error
        self.phase = WORKING
        self.received += count
        return count

    def _drain(self, body: Body) -> bool:
        """Read what is left of a body that was not wanted, up to a limit of bytes and time; returns whether that was
        all of it.
        """
        self.enter(LINGER)
        view = memoryview(bytearray(DRAIN_BYTES))
        limit = body.received + DRAIN_BYTES
        with contextlib.suppress(MalformedRequest):
            while not body.complete and body.received < limit:
                body.read_into(view)
        return body.complete

    def _refuse(self, error: RegistryError, response: Response | None = None) -> None:
        self.server.observer.request_refused(self.server.name, error.kind)
        response = response or error_response(error)
        self.phase = SENDING
        self.out.send(last_head_of(response), response.body)
        self.server.records.unread(self.client, response.status, response.length)
        self._linger()

    def _linger(self) -> None:
        # Closing with unread bytes makes the kernel reset the connection, and the client lose the answer.
        self.enter(LINGER)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_WR)
            left = DRAIN_BYTES
            while left > 0 and (data := self.socket.recv(_HEAD_RECV_BYTES)):
                left -= len(data)

    def _send(self, request: Request, response: Response, reusable: bool) -> int:
        """Send an answer; returns the bytes of its body that were sent."""
        head = head_of(request, response, reusable=reusable)
        self.out.begun = self.out.sent
        self.phase = SENDING
        try:
            return self.out.send_response(head, request, response)
        finally:
            self.phase = WORKING
            if response.file is not None:
                response.file.close()
            if response.on_sent:
                response.on_sent()
