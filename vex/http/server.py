"""The `http.server` adapter: listening sockets, threads, deadlines, connection limits and shutdown.

What `http.server` gives: the accept loop, and a thread for each connection; its parser, its error pages and its header
writing are not used (`connection.py` has what replaces them). Measured reasons for the rest:

- the accepted socket is wrapped in TLS in its own thread: wrapped on the listening socket, one silent client blocks
  all;
- deadlines are absolute, and enforced by one reaper thread that shuts sockets down: a timeout per `recv` lets one byte
  every few seconds hold a thread for ever;
- connections past the limit wait, at the cost of a file descriptor each, so that it is known who they are (`slots.py`).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import struct
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from socketserver import BaseServer
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from vex.http.answers import Answers
from vex.http.connection import HANDSHAKE, HEAD, IDLE, LINGER, RECEIVING, SENDING, WORKING, Connection
from vex.http.heads import HeadLimits
from vex.http.message import Request, Response
from vex.http.observer import Observer
from vex.http.records import Records
from vex.http.slots import Arrival, Slots, origin_of
from vex.http.sockets import peer_of, port_of

if TYPE_CHECKING:
    from vex.http.forwarded import Proxies

_log = logging.getLogger("vex")

_REAP_SECONDS = 0.5
# An accept loop turns several times in a second, also while all connections are in use.
_STUCK_SECONDS = 10.0
# With the time until the reaper comes round, a second at most.
_LINGER_SECONDS = 0.5
# tcp(7), struct tcp_info: eight bytes and four 32-bit numbers, then one that is, for a socket that listens, the length
# of its queue.
_TCP_INFO = struct.Struct("=24xI")
_BUSY_BODY = b'{"errors":[{"code":"UNAVAILABLE","message":"the registry is out of threads or memory; try again"}]}\n'
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nX-Content-Type-Options:"
    b" nosniff\r\nCache-Control: no-store\r\nRetry-After: 1\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_BUSY_BODY), _BUSY_BODY)
)


class Timeouts(NamedTuple):
    """Times in seconds; `rate` in bytes per second, measured over a minute; `upload` is how long a body may be quiet of
    somebody who has logged in.
    """

    handshake: float
    head: float
    idle: float
    stall: float
    rate: int
    shutdown: float
    upload: float


class ListenerLimits(NamedTuple):
    """What a listener holds its connections to; so many are served at once, and so many more wait in its `queue`."""

    heads: HeadLimits
    timeouts: Timeouts
    connections: int
    queue: int


class Listener(ThreadingHTTPServer):
    """One listening socket with its accept loop; `name` is `public`, `auth` or `internal`."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(
        self,
        name: str,
        listening: socket.socket,
        answer: Callable[[Request], Response],
        answer_in_clear: Callable[[Request], Response],
        limits: ListenerLimits,
        observer: Observer,
        *,
        tls_context: Callable[[], ssl.SSLContext | None],
        answers: Answers | None,
        proxies: Proxies | None = None,
        access: Callable[..., None] | None = None,
    ) -> None:
        """Accept from a socket that listens, once `serve_forever` is called."""
        # Not that of the class above, which would make a socket of its own.
        BaseServer.__init__(self, listening.getsockname(), Connection)
        self.socket = listening
        self.name = name
        self.answer = answer
        self.answer_in_clear = answer_in_clear
        self.limit(limits)
        self.observer = observer
        self.tls_context = tls_context
        self.answers = answers
        self.proxies = proxies
        self.records = Records(name, observer, access)
        self.draining = False
        self.connections: set[Connection] = set()
        self.connections_limit = limits.connections
        self._slots = Slots(limits.connections, limits.queue)
        self.turned = time.monotonic()

    def limit(self, limits: ListenerLimits) -> None:
        """Set the limits that count from now on, but for the numbers of connections, which stay."""
        self.head_limits, self.timeouts, _, _ = limits
        timeouts = self.timeouts
        self.allowed = {
            HANDSHAKE: timeouts.handshake,
            IDLE: timeouts.idle,
            HEAD: timeouts.head,
            LINGER: _LINGER_SECONDS,
        }

    def service_actions(self) -> None:
        """Note that the accept loop turns: called with each turn."""
        self.turned = time.monotonic()

    @property
    def url(self) -> str:
        """Where the listener can be reached."""
        if self.port is None:
            return f"unix:{self.server_address!s}"
        host, port = ("localhost" if self.everywhere else str(self.server_address[0])), self.server_address[1]
        scheme = "http" if self.tls_context() is None else "https"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def everywhere(self) -> bool:
        """Whether it listens at all addresses of this machine, for which nobody can ask by the one that stands for
        them.
        """
        return self.port is not None and str(self.server_address[0]) in ("::", "0.0.0.0")  # noqa: S104 -- compared

    @property
    def port(self) -> int | None:
        """The port; None for a Unix socket."""
        return port_of(self.server_address)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        try:
            return super().get_request()
        except (OSError, MemoryError) as error:
            # Out of file descriptors, the accept loop would spin.
            time.sleep(0.05)
            # Any other error would end the loop.
            raise OSError(str(error)) from error

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, now or when there is a place for it; called once for each that was
        accepted.
        """
        origin = origin_of(peer_of(client_address), self.proxies.trusts if self.proxies is not None else None)
        admitted, refused = self._slots.arrive(Arrival(request, client_address, origin))
        self._serve(admitted)
        if refused:
            self._turn_away(refused)
        if not admitted:
            self.make_room()

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        """Close a connection and give its place to the next."""
        with contextlib.suppress(OSError):
            request.close()
        self._serve(self._slots.leave(request))

    def server_close(self) -> None:
        """Close the listening socket, and what waits."""
        super().server_close()
        for arrival in self._slots.clear():
            arrival.connection.close()

    def _serve(self, arrival: Arrival | None) -> None:
        while arrival:
            connection, address, _ = arrival
            try:
                super().process_request(connection, address)
            except (RuntimeError, MemoryError):
                # No thread.
                self.handle_error(connection, address)
                connection.close()
                arrival = self._slots.leave(connection)
            else:
                return

    def _turn_away(self, arrival: Arrival) -> None:
        self.observer.connection_refused(self.name)
        with contextlib.suppress(OSError):
            if self.tls_context() is None:
                arrival.connection.send(_BUSY)
            arrival.connection.close()

    def make_room(self) -> None:
        """Cut connections for those that wait: idle ones first, and then those of who has more than his share, if one
        who has less waits.
        """
        connections = list(self.connections)
        going = [connection for connection in connections if not connection.reason]
        ending = len(connections) - len(going)
        idle = sorted(
            (connection for connection in going if connection.phase == IDLE),
            key=lambda connection: connection.phase_since,
        )
        for connection in idle[: max(len(self._slots) - ending, 0)]:
            connection.cut("limit")
            ending += 1
        going = [connection for connection in going if not connection.reason]
        due, greedy = self._slots.claims(connection.origin for connection in going)
        if greedy and due > ending:
            theirs = [connection for connection in going if connection.origin == greedy]
            min(theirs, key=lambda connection: (connection.phase == WORKING, connection.phase_since)).cut("limit")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Answer 503 when no thread could be started; what a handler raises never comes here but for that."""
        error = sys.exc_info()[1]
        if isinstance(error, (RuntimeError, MemoryError)):
            _log.warning("%s: no thread for a connection: %s", self.name, error or "out of memory")
            self.observer.connection_refused(self.name)
            with contextlib.suppress(OSError):
                request.send(_BUSY)
            return
        _log.error("%s: connection from %s failed", self.name, client_address, exc_info=True)

    def requests_in_flight(self) -> int:
        """Tell how many requests are being answered."""
        return sum(connection.phase in (WORKING, RECEIVING, SENDING) for connection in list(self.connections))

    def waiting(self) -> int | None:
        """Tell how many connections wait to be served; None where the platform does not."""
        if not sys.platform.startswith("linux"):
            return None
        try:
            found = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            return int(_TCP_INFO.unpack(found)[0]) + len(self._slots)
        except (OSError, struct.error):
            # Not a TCP socket, or closed.
            return None

    def reap(self, now: float) -> None:
        """Cut the connections that are past their deadline, and go on making room for those that wait."""
        for connection in list(self.connections):
            reason = self._overdue(connection, now)
            if reason:
                connection.cut(reason)
        if len(self._slots):
            self.make_room()

    def _overdue(self, connection: Connection, now: float) -> str:
        phase, timeouts = connection.phase, self.timeouts
        if phase == SENDING:
            return connection.pace.sending(connection.out.progress(), now, stall=timeouts.stall, rate=timeouts.rate)
        if phase == RECEIVING:
            request = connection.unanswered
            patience = timeouts.upload if request is not None and request.user else 0.0
            return connection.pace.receiving(
                connection.received, now, stall=timeouts.stall, rate=timeouts.rate, patience=patience
            )
        connection.pace.rest()
        since = now - connection.phase_since
        return phase if since > self.allowed.get(phase, since) else ""


class Server:
    """The listeners, each with its thread, and the reaper."""

    def __init__(self, listeners: list[Listener], shutdown_seconds: float) -> None:
        self.listeners = listeners
        self.shutdown_seconds = shutdown_seconds
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=listener.serve_forever, name=listener.name, kwargs={"poll_interval": 0.1})
            for listener in listeners
        ]
        self._reaper = threading.Thread(target=self._reap, name="reaper", daemon=True)

    def start(self) -> None:
        """Accept connections."""
        self._reaper.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End in order: requests under way are answered, as long as the shutdown timeout allows."""
        deadline = time.monotonic() + self.shutdown_seconds
        # Health is told until everything else has ended.
        for internal in (False, True):
            self._end([listener for listener in self.listeners if (listener.name == "internal") is internal], deadline)
        self._stop.set()
        self._reaper.join()

    def _end(self, listeners: list[Listener], deadline: float) -> None:
        # 1. From here on, no connection is accepted.
        for listener in listeners:
            listener.draining = True
        for listener in listeners:
            listener.shutdown()
            self._threads[self.listeners.index(listener)].join()
            listener.server_close()
        # 2. From here on, every connection serves its last request.
        while _open(listeners) and time.monotonic() < deadline:
            for connection in _open(listeners):
                if connection.phase == IDLE:
                    connection.cut("shutdown")
            time.sleep(0.02)
        # 3. What is left is cut, and its thread sees an error at its next read or write.
        for connection in _open(listeners):
            connection.cut("shutdown")
        self._stop.set()
        self._reaper.join()

    def check(self) -> None:
        """Raise RuntimeError unless every thread does its work."""
        stuck = [listener.name for listener in self.listeners if time.monotonic() - listener.turned > _STUCK_SECONDS]
        dead = [thread.name for thread in (*self._threads, self._reaper) if not thread.is_alive()]
        if stuck or dead:
            raise RuntimeError(f"these threads are stuck or gone: {', '.join([*stuck, *dead])}")

    def _reap(self) -> None:
        while not self._stop.wait(_REAP_SECONDS):
            now = time.monotonic()
            for listener in self.listeners:
                listener.reap(now)


def _open(listeners: list[Listener]) -> list[Connection]:
    return [connection for listener in listeners for connection in list(listener.connections)]
