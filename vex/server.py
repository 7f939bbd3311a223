"""The `http.server` adapter: listening sockets, threads, deadlines, connection limits and shutdown.

What `http.server` gives: the accept loop, and a thread for each connection; its parser, its error pages and its header
writing are not used (`connection.py` has what replaces them). Measured reasons for the rest:

- the accepted socket is wrapped in TLS in its own thread: wrapped on the listening socket, one silent client blocks all;
- deadlines are absolute, and enforced by one reaper thread that shuts sockets down: a timeout per `recv` lets one byte every
  few seconds hold a thread for ever;
- a slot is taken before `accept`: connections past the limit wait in the kernel's backlog and cost nothing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from vex.answers import Answers
from vex.connection import HANDSHAKE, HEAD, IDLE, LINGER, TRANSFER, Connection, Observer, Seen
from vex.errors import Failure
from vex.message import Request, Response
from vex.wire import HeadLimits

if TYPE_CHECKING:
    from vex.forwarded import Proxies

_log = logging.getLogger("vex")

_REAP_SECONDS = 0.5
_LINGER_SECONDS = 1.0
_RATE_WINDOW_SECONDS = 60.0
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Timeouts(NamedTuple):
    """Times in seconds; `rate` in bytes per second, measured over a minute."""

    handshake: float
    head: float
    idle: float
    stall: float
    rate: int
    shutdown: float


class Listener(ThreadingHTTPServer):
    """One listening socket with its accept loop; `name` is `public`, `auth` or `internal`."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        answer: Callable[[Request], Response],
        *,
        head_limits: HeadLimits,
        timeouts: Timeouts,
        connections: int,
        backlog: int,
        observer: Observer,
        tls_context: Callable[[], ssl.SSLContext | None],
        answers: Answers | None,
        proxies: Proxies | None = None,
    ) -> None:
        """Bind and listen; raises Failure with a sentence about the address."""
        self.name = name
        self.answer = answer
        self.head_limits = head_limits
        self.timeouts = timeouts
        self.allowed = {HANDSHAKE: timeouts.handshake, IDLE: timeouts.idle, HEAD: timeouts.head, LINGER: _LINGER_SECONDS}
        self.observer = observer
        self.tls_context = tls_context
        self.answers = answers
        self.proxies = proxies
        self.draining = False
        self.connections: set[Connection] = set()
        self.slots = threading.Semaphore(connections)
        self.request_queue_size = backlog
        self.address_family, sockaddr = _resolve(name, address)
        try:
            super().__init__(sockaddr[:2], Connection, bind_and_activate=False)
            if self.address_family == socket.AF_INET6:
                # "All interfaces" means those of IPv4 as well.
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address[0] == "" else 1)
            self.server_bind()
            self.server_activate()
        except OSError as error:
            self.server_close()
            raise Failure(f"cannot listen on {address[0] or '*'}:{address[1]} for {name}: {error.strerror}; {_advice(name, error)}") from error

    def server_bind(self) -> None:
        """Bind without the reverse look-up of the host's name, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    @property
    def url(self) -> str:
        """Where the listener can be reached."""
        host, port = self.server_address[:2]
        scheme = "http" if self.tls_context() is None else "https"
        return f"{scheme}://[{host!s}]:{port}" if ":" in str(host) else f"{scheme}://{host!s}:{port}"

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a slot, then accept; connections past the limit stay in the backlog, and idle ones make room."""
        if not self.slots.acquire(blocking=False):
            self._close_longest_idle()
            if not self.slots.acquire(timeout=_REAP_SECONDS):
                raise BlockingIOError("all connections are in use")
        try:
            return super().get_request()
        except OSError:
            self.slots.release()
            # Out of file descriptors, the accept loop would spin.
            time.sleep(0.05)
            raise

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        """Close a connection and give its slot back; called once for each that was accepted."""
        with contextlib.suppress(OSError):
            request.close()
        self.slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Answer 503 when no thread could be started; what a handler raises never comes here but for that."""
        error = sys.exc_info()[1]
        if isinstance(error, RuntimeError):
            _log.warning("%s: no thread for a connection: %s", self.name, error)
            with contextlib.suppress(OSError):
                request.send(_BUSY)
            return
        _log.error("%s: connection from %s failed", self.name, client_address, exc_info=True)

    def reap(self, now: float) -> None:
        """Cut the connections that are past their deadline."""
        for connection in list(self.connections):
            reason = self._overdue(connection, now)
            if reason:
                connection.cut(reason)

    def _overdue(self, connection: Connection, now: float) -> str:
        phase, since = connection.phase, now - connection.phase_since
        if phase == TRANSFER:
            return self._too_slow(connection, now)
        connection.seen = Seen(connection.progress, now, connection.progress, now)
        return phase if since > self.allowed.get(phase, since) else ""

    def _too_slow(self, connection: Connection, now: float) -> str:
        progress, seen = connection.progress, connection.seen
        if progress == seen.progress:
            if now - seen.progress_at > self.timeouts.stall:
                return "stall"
        else:
            seen = seen._replace(progress=progress, progress_at=now)
        if now - seen.window_at >= _RATE_WINDOW_SECONDS:
            if progress - seen.window < self.timeouts.rate * _RATE_WINDOW_SECONDS:
                return "rate"
            seen = seen._replace(window=progress, window_at=now)
        connection.seen = seen
        return ""

    def _close_longest_idle(self) -> None:
        idle = [connection for connection in list(self.connections) if connection.phase == IDLE]
        if idle:
            min(idle, key=lambda connection: connection.phase_since).cut("limit")


class Server:
    """The listeners, each with its thread, and the reaper."""

    def __init__(self, listeners: list[Listener], shutdown_seconds: float) -> None:
        self.listeners = listeners
        self._shutdown_seconds = shutdown_seconds
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=listener.serve_forever, name=listener.name, kwargs={"poll_interval": 0.1}) for listener in listeners]
        self._reaper = threading.Thread(target=self._reap, name="reaper", daemon=True)

    def start(self) -> None:
        """Accept connections."""
        self._reaper.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End in order: requests under way are answered, as long as the shutdown timeout allows."""
        # 1. From here on, no connection is accepted.
        for listener in self.listeners:
            listener.draining = True
        for listener, thread in zip(self.listeners, self._threads):
            listener.shutdown()
            thread.join()
            listener.server_close()
        # 2. From here on, every connection serves its last request.
        deadline = time.monotonic() + self._shutdown_seconds
        while self._open() and time.monotonic() < deadline:
            for connection in self._open():
                if connection.phase == IDLE:
                    connection.cut("shutdown")
            time.sleep(0.02)
        # 3. What is left is cut, and its thread sees an error at its next read or write.
        for connection in self._open():
            connection.cut("shutdown")
        self._stop.set()
        self._reaper.join()

    def _open(self) -> list[Connection]:
        return [connection for listener in self.listeners for connection in list(listener.connections)]

    def _reap(self) -> None:
        while not self._stop.wait(_REAP_SECONDS):
            now = time.monotonic()
            for listener in self.listeners:
                listener.reap(now)


def _resolve(name: str, address: tuple[str, int]) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    host, port = address
    if host == "":
        return (socket.AF_INET6, ("::", port)) if socket.has_dualstack_ipv6() else (socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 -- asked for
    try:
        # As bytes: for text, Python loads what encodes international names.
        found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        message = f"cannot listen on {host}:{port} for {name}: the host name is not known here; use an address of this machine, or :{port} for all"
        raise Failure(message) from error
    # localhost may be both; clients that are told 127.0.0.1 must find us there.
    family, _, _, _, sockaddr = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, sockaddr


def _advice(name: str, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "ports below 1024 need privileges: choose a higher one"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"that is not an address of this machine: use one that is, or :PORT for all, in {name}-addr"
    return f"end what uses it, or choose another with {name}-addr"
