"""A registry at the other end of the network: requests as its client.

Connections are kept, one for each thread. A request that fails on the way is sent again, and so is one that a busy
registry puts off. Authentication is what the registry asks for: Basic, or a Bearer token from where its challenge says
(Docker's token authentication).

Invariants: the password goes to the registry itself, and to the token service that it names, which has to be HTTPS
where the registry is; no redirect takes it elsewhere. What a registry sends is of bounded size, and so is the number of
redirects and of requests for an answer. The endpoints of the specification are not here, but in `endpoints.py`.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import re
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from http.client import HTTPResponse
from typing import Callable, NamedTuple
from urllib.parse import urlencode

from vex import VERSION
from vex.errors import Refused
from vex.formats.foreign_json import Fields, Malformed, load_json
from vex.transfer.origins import Origin, resolved, split
from vex.transfer.replies import MAX_DOCUMENT, Broken, Reply, Unreachable, failures_of, read_whole
from vex.transfer.steady import SteadyResponse

_MAX_ERROR = 64 * 1024
# Each belongs to a repository, and these come one after the other.
_MAX_AUTHORIZATIONS = 16
# For each piece of an answer, and for all of a document.
_SILENCE_SECONDS = 60.0
PAUSES = (0.5, 2.0, 5.0)
_MAX_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_PUT_OFF = {429, 502, 503, 504}
_PARAMETER = re.compile(r'([A-Za-z_]+)="([^"]*)"')
_TOKEN = re.compile(r"[!-~]{1,65536}")
_REPOSITORY = re.compile(r"/v2/(.+)/(?:manifests|blobs|tags|referrers)/")
# OpenSSL's X509_V_FLAG_PARTIAL_CHAIN, which Python 3.9 has no name for: a certificate that is given is trusted, whoever
# signed it.
_PARTIAL_CHAIN = 0x80000


class Login(NamedTuple):
    """A user name and a password."""

    name: str
    password: str

    @property
    def basic(self) -> str:
        """The value of the Authorization field (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.name}:{self.password}".encode()).decode()


def _default_context() -> ssl.SSLContext:
    """Trust what this machine trusts, as curl and programs in Go do."""
    context = ssl.create_default_context()
    # Python 3.13 sets it. Private authorities often lack keyUsage or the identifiers of keys, and are as good to
    # everybody else.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def client_context(origin: Origin, certificate: str | None = None) -> ssl.SSLContext:
    """Trust what this machine trusts, and a certificate that is given; on this machine, whatever the name in it."""
    context = _default_context()
    context.check_hostname = not origin.is_loopback
    if certificate:
        context.load_verify_locations(certificate)
        context.verify_flags |= _PARTIAL_CHAIN
    return context


class Remote:
    """The registry at `origin`; any thread may use it, and each keeps its connection until `close`."""

    def __init__(
        self,
        origin: Origin,
        credentials: Login | None = None,
        context: ssl.SSLContext | None = None,
        *,
        wait: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.origin = origin
        self._credentials = credentials
        self._context = context or _default_context()
        self._wait = wait
        self._clock = clock
        self._kept = threading.local()
        self._connections: set[http.client.HTTPConnection] = set()
        self._authorizations: dict[str, str] = {}
        self._shown = ""
        self._answered = False

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        limit: int = MAX_DOCUMENT,
    ) -> Reply:
        """Send a request, again if it fails on the way, and read the answer; raises Unreachable, and Refused for one
        over the limit.
        """
        for pause in (*PAUSES, None):
            reply = None
            try:
                with self.open(method, target, headers, body) as response:
                    reply = Reply(response.status, response.headers, read_whole(response, limit))
            except Broken as broken:
                # One that never answered is not there; one that did comes back, perhaps.
                if pause is None or not self._answered:
                    raise Unreachable(f"{self.origin} does not answer: {broken}") from broken
            else:
                if reply.status not in _PUT_OFF or pause is None:
                    return reply
            self._wait(pause if reply is None else reply.pause(pause))
        raise AssertionError  # the last round returns or raises

    def reach(self) -> None:
        """Find out whether anything answers, a demand for a password or not; raises Unreachable."""
        try:
            with failures_of(self.origin):
                self._discard(self._send("GET", "/v2/", None, b"", ""))
        except Broken as broken:
            raise Unreachable(f"{self.origin} does not answer: {broken}") from broken

    @contextlib.contextmanager
    def open(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | Iterable[bytes] = b""
    ) -> Iterator[HTTPResponse]:
        """Send a request once, with what the registry wants to see, and follow redirects; raises Broken, Unreachable
        and Refused.

        A body in pieces needs Content-Length, and goes only where no challenge is expected.
        """
        match = _REPOSITORY.match(target)
        key = match[1] if match else ""
        with failures_of(self.origin):
            response = self._send(method, target, headers, body, key)
            if response.status == 401 and isinstance(body, bytes) and self._meet_challenge(response, key):
                self._discard(response)
                response = self._send(method, target, headers, body, key)
            if response.status in _REDIRECTS and method in ("GET", "HEAD"):
                self._discard(response)
                with self._follow(method, target, headers, response) as followed, failures_of(self.origin):
                    yield followed
                return
            try:
                yield response
            finally:
                if not response.isclosed():
                    self._close()

    def _send(
        self, method: str, target: str, headers: Mapping[str, str] | None, body: bytes | Iterable[bytes], key: str
    ) -> HTTPResponse:
        authorization = self._shown or self._authorizations.get(key)
        sent = {**(headers or {}), **({"Authorization": authorization} if authorization else {})}
        connection: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        if connection is None:
            connection = self._kept.connection = self._connect(self.origin)
        try:
            response = _exchange(connection, method, target, sent, body)
        except BaseException:
            self._close()
            raise
        self._answered = True
        return response

    def abort(self) -> None:
        """End all transfers, in whatever thread they are."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(2)

    def close(self) -> None:
        """Close all connections, which nobody uses any more."""
        for connection in list(self._connections):
            self._let_go(connection)

    def _discard(self, response: HTTPResponse) -> None:
        response.read(_MAX_ERROR)
        if not response.isclosed():
            self._close()

    def _close(self) -> None:
        self._let_go(self._kept.connection)
        self._kept.connection = None

    def _let_go(self, connection: http.client.HTTPConnection) -> None:
        connection.close()
        self._connections.discard(connection)

    @contextlib.contextmanager
    def _connected(self, origin: Origin) -> Iterator[http.client.HTTPConnection]:
        connection = self._connect(origin)
        try:
            yield connection
        finally:
            self._let_go(connection)

    def _connect(self, origin: Origin) -> http.client.HTTPConnection:
        if origin.scheme == "http":
            connection = http.client.HTTPConnection(origin.host, origin.port, timeout=_SILENCE_SECONDS)
        else:
            context = self._context if origin == self.origin else _default_context()
            connection = http.client.HTTPSConnection(
                origin.host, origin.port, timeout=_SILENCE_SECONDS, context=context
            )
        connection.response_class = functools.partial(SteadyResponse, clock=self._clock)  # type: ignore[assignment]
        self._connections.add(connection)
        return connection

    @contextlib.contextmanager
    def _follow(
        self, method: str, target: str, headers: Mapping[str, str] | None, response: HTTPResponse
    ) -> Iterator[HTTPResponse]:
        """Follow redirects, to a store of blobs for instance, without credentials; each is a connection of its own."""
        url = f"{self.origin}{target}"
        for _ in range(_MAX_REDIRECTS):
            url = resolved(url, response.headers.get("Location", ""))
            origin, target = split(url)
            if self.origin.scheme == "https" and origin.scheme != "https":
                raise Refused(response.status, f"{self.origin} redirects to {origin}, which is not HTTPS")
            with self._connected(origin) as connection:
                response = _exchange(connection, method, target, headers or {}, b"")
                if response.status not in _REDIRECTS:
                    yield response
                    return
        raise Refused(response.status, f"{self.origin} redirects more than {_MAX_REDIRECTS} times")

    # Authentication

    def authenticate(self) -> None:
        """Show the password with every request, without waiting to be asked: what has a body in pieces cannot be sent
        again.
        """
        if self._credentials:
            self._shown = self._credentials.basic

    def _meet_challenge(self, response: HTTPResponse, key: str) -> bool:
        """Get what a 401 asks for; returns whether that is new (RFC 9110 section 11.6.1, Docker's token
        authentication).
        """
        challenges = response.headers.get_all("WWW-Authenticate") or []
        by_scheme = {challenge.partition(" ")[0].lower(): challenge for challenge in reversed(challenges)}
        if "bearer" in by_scheme:
            value = f"Bearer {self._token(dict(_PARAMETER.findall(by_scheme['bearer'])))}"
        elif "basic" in by_scheme and self._credentials:
            value = self._credentials.basic
        else:
            return False
        known = self._authorizations.pop(key, None)
        self._authorizations[key] = value
        if len(self._authorizations) > _MAX_AUTHORIZATIONS:
            with contextlib.suppress(KeyError):
                self._authorizations.pop(next(iter(self._authorizations)))
        return value != known

    def _token(self, challenge: Mapping[str, str]) -> str:
        query = urlencode({name: challenge[name] for name in ("service", "scope") if name in challenge})
        origin, target = split(challenge.get("realm", ""))
        if self.origin.scheme == "https" and origin.scheme != "https":
            raise Refused(401, f"{self.origin} wants the password to be sent to {origin}, which is not HTTPS")
        headers = {"Authorization": self._credentials.basic} if self._credentials else {}
        with self._connected(origin) as connection:
            response = _exchange(connection, "GET", f"{target}{'&' if '?' in target else '?'}{query}", headers, b"")
            body = read_whole(response, _MAX_ERROR * 2)
        if response.status != 200:
            raise Reply(response.status, response.headers, body).refusal
        with contextlib.suppress(Malformed):
            document = Fields(load_json(body, "the answer"), "the answer")
            token = document.text("token") or document.text("access_token")
            if _TOKEN.fullmatch(token):
                return token
        raise Refused(401, f"the token service {origin} answers without a token")


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | Iterable[bytes],
) -> HTTPResponse:
    try:
        connection.request(method, target, body, {"User-Agent": f"vex/{VERSION}", **headers})
    except (BrokenPipeError, ConnectionResetError):
        # A server that refuses a body answers, and closes, before it has read it all.
        if isinstance(body, bytes):
            raise
    return connection.getresponse()
