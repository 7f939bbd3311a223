"""What each listener allows, decided in one place before any byte of a body is read; dispatch; errors become answers.

`POLICIES` and `_authorize` are the whole of the authorization: (listener, method, route, identity) is allowed or denied
by them alone.
"""

from __future__ import annotations

import errno
import functools
import logging
from typing import TYPE_CHECKING, Callable, NamedTuple

from vex.access.credentials import Authenticator
from vex.access.identity import DELETE, PULL, PUSH, Need, identify, scope
from vex.api import routes
from vex.api.handlers import Api
from vex.api.routes import READS, PathFields, Route, match
from vex.errors import (
    BAD_REQUEST,
    BUSY,
    DENIED,
    DISK_FULL,
    INTERNAL,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    NOT_IMPLEMENTED,
    READ_ONLY,
    UNAVAILABLE,
    Disconnected,
    RegistryError,
)
from vex.http.answers import Admit
from vex.http.forwarded import HOST
from vex.http.large import LargeAnswers
from vex.http.message import PLAIN_TEXT, Request, Response, error_response, in_clear_response
from vex.service.observations import Observations
from vex.storage.disk import FULL
from vex.web.addresses import INDEX, PAGES, STATIC

if TYPE_CHECKING:
    from vex.web.pages import Pages

_log = logging.getLogger("vex")

PUBLIC, AUTH, INTERNAL_LISTENER = "public", "auth", "internal"
OPTIONS = "OPTIONS"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", OPTIONS})
_NO_STORE = ("Cache-Control", "no-store")
_API_VERSION = ("Docker-Distribution-Api-Version", "registry/2.0")
_CROSS_ORIGIN = [
    ("Access-Control-Allow-Origin", "*"),
    (
        "Access-Control-Expose-Headers",
        "Docker-Content-Digest, Link, OCI-Filters-Applied, ETag, Content-Range, WWW-Authenticate",
    ),
]
_PREFLIGHT = [
    *_CROSS_ORIGIN,
    ("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"),
    ("Access-Control-Allow-Headers", "Accept, Authorization, Range, If-None-Match, If-Range"),
    ("Access-Control-Max-Age", "86400"),
]
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}


class ListenerPolicy(NamedTuple):
    """What a listener serves: routes, methods, whether a user is needed for each of them, and for which operations and
    methods nobody is.

    `shared` are the operations that pages of other sites may use to read: those that need no password.
    """

    routes: tuple[Route, ...]
    methods: frozenset[str]
    credentials: bool
    anonymous: frozenset[tuple[str, str]] = frozenset()
    shared: frozenset[str] = frozenset()

    def allowed(self, route: Route) -> set[str]:
        """Return the methods that a route takes here."""
        return {
            *self.methods.intersection(route.endpoints),
            *({OPTIONS} if route.op in self.shared or OPTIONS in route.endpoints else ()),
        }


_PUBLIC_ROUTES = (*(route for route in routes.REGISTRY if route not in (routes.UPLOADS, routes.UPLOAD)), *PAGES)
POLICIES = {
    PUBLIC: ListenerPolicy(
        (*_PUBLIC_ROUTES, routes.HEALTHZ),
        READS,
        credentials=False,
        shared=frozenset(route.op for route in _PUBLIC_ROUTES),
    ),
    AUTH: ListenerPolicy((*routes.REGISTRY, routes.HEALTHZ), _METHODS - {OPTIONS}, credentials=True),
    INTERNAL_LISTENER: ListenerPolicy((*routes.INTERNAL, INDEX, STATIC, routes.HEALTHZ), READS, credentials=False),
}
_READABLE = (routes.MANIFEST, routes.BLOB, routes.TAGS, routes.REFERRERS, routes.CATALOG, routes.PING, routes.SEARCH)
# The auth listener with anonymous reading. At /v2/ clients learn how to log in, so that even anyone needs a token
# there.
ONE_PORT = ListenerPolicy(
    (*routes.REGISTRY, routes.TOKEN, routes.HEALTHZ),
    _METHODS - {OPTIONS},
    credentials=True,
    anonymous=frozenset((route.op, method) for route in _READABLE for method in READS)
    | {(routes.TOKEN.op, method) for method in routes.TOKEN.endpoints},
    shared=frozenset(route.op for route in (*_READABLE, routes.VERSION, routes.TOKEN)),
)


class App:
    """Answers requests of all listeners; `pages` loads the web interface, `internal` maps an op of the internal
    listener to its text.

    `granting` answers at the token endpoint; None without anonymous reading. `push_port` is the port for pushes,
    None without one.
    """

    def __init__(
        self,
        api: Api,
        pages: Callable[[], Pages],
        authenticator: Authenticator,
        granting: Callable[[Request], Response] | None,
        internal: dict[str, Callable[[], Response]],
        observations: Observations,
        push_port: int | None,
    ) -> None:
        self._api = api
        self._pages = pages
        self._authenticator = authenticator
        self._granting = granting
        self._policies = {**POLICIES, AUTH: ONE_PORT} if granting else POLICIES
        self._internal = internal
        self._observations = observations
        self._push_port = push_port
        self._large = LargeAnswers()

    def handle(self, request: Request) -> Response:
        """Answer a request; every failure but Disconnected becomes an answer."""
        policy = self._policies[request.listener]
        request.path = routes.canonical(request.path)
        found = match(policy.routes, request.path)
        try:
            response = self._large.admit(lambda: self._respond(request, policy, found))
        except RegistryError as error:
            # A crawler that asks too much is counted, and fills no log.
            if error.kind.status >= 500 and error.kind is not BUSY:
                _log.error("%s %s failed: %s", request.method, request.path, error.__cause__ or error)
            response = self._error(request, error)
        except Disconnected:
            raise
        except Exception as error:  # the last resort; it is logged, counted and answered
            response = self._error(request, self._unexpected(request, error))
        if response.status >= 400 and not any(name == "Cache-Control" for name, _ in response.headers):
            # RFC 9110 section 15.1: a cache may keep a 404 that does not forbid it, and what was missing may be there a
            # moment later.
            response.headers.append(_NO_STORE)
        if _is_api(request):
            response.headers.append(_API_VERSION)
            if request.method != OPTIONS and (
                request.listener == PUBLIC or (request.method in READS and found and found[0].op in policy.shared)
            ):
                response.headers += _CROSS_ORIGIN
        return response

    def in_clear(self, request: Request) -> Response:
        """Answer a request that came without TLS to a listener that has it: pages are elsewhere, and others are told
        so.
        """
        address = f"https://{request.host}{request.head.target}" if HOST.fullmatch(request.host) else ""
        found = match(self._policies[request.listener].routes, routes.canonical(request.path))
        if address and request.method in READS and found and found[0] in (*PAGES, INDEX):
            return Response(308, [("Location", address), _NO_STORE])
        self._observations.request_refused(request.listener, BAD_REQUEST)
        return in_clear_response(address)

    def _respond(self, request: Request, policy: ListenerPolicy, found: tuple[Route, PathFields] | None) -> Response:
        route, fields = self._authorize(request, policy, found)
        if route is routes.HEALTHZ:
            return Response(200, [_NO_STORE])
        if request.method == OPTIONS:
            return Response(204, _PREFLIGHT)
        if route in routes.REGISTRY:
            return self._api.handle(route, request, fields)
        if route is routes.TOKEN and self._granting:
            return self._granting(request)
        if route in routes.INTERNAL:
            return self._internal[route.op]()
        return self._pages().handle(route, request, fields)

    def _authorize(
        self, request: Request, policy: ListenerPolicy, found: tuple[Route, PathFields] | None
    ) -> tuple[Route, PathFields]:
        """Allow or deny; returns the route of what is allowed. Raises what the client is told."""
        open_to_all = (
            found is not None
            and (found[0] is routes.HEALTHZ or request.method == OPTIONS)
            and request.method in policy.allowed(found[0])
        )
        if policy.credentials and not open_to_all:
            _refuse_cross_site(request)
            self._admit(request, policy, found)
        if request.method not in _METHODS:
            raise RegistryError(NOT_IMPLEMENTED)
        if request.listener == PUBLIC and request.method not in (*policy.methods, OPTIONS):
            raise RegistryError(
                READ_ONLY, self._elsewhere(request, "this address only reads"), headers={"Allow": "GET, HEAD, OPTIONS"}
            )
        if found is None:
            here = "this address has metrics and health, and no images"
            raise RegistryError(
                NOT_FOUND, self._elsewhere(request, here) if request.listener == INTERNAL_LISTENER else ""
            )
        route, fields = found
        request.op = route.op
        allowed = policy.allowed(route)
        if request.method not in allowed:
            raise RegistryError(METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(sorted(allowed))})
        return route, fields

    def _elsewhere(self, request: Request, here: str) -> str:
        """Say what this address is for, and where to push and delete instead."""
        # Behind a proxy, the ports are those of the proxy.
        port = None if request.proxied else self._push_port
        return f"{here}; push and delete at {'the address where users log in' if port is None else f'port {port}'}"

    def _admit(self, request: Request, policy: ListenerPolicy, found: tuple[Route, PathFields] | None) -> None:
        """Find out who sent a request; raises UNAUTHORIZED, TOOMANYREQUESTS and DENIED if that is nobody who may."""
        route, fields = found or (None, {})
        repository, action = fields.get("name", ""), _needed_action(request.method, route)
        anyone = route is not None and (route.op, request.method) in policy.anonymous
        need = Need(repository, action, anyone)
        # Who pushes pulls too; so clients ask for both.
        needed = scope(repository, *dict.fromkeys((PULL, action))) if action else ""
        identity = identify(request, self._authenticator.identify(request, needed))
        denial = need.denial(identity)
        if denial:
            raise RegistryError(DENIED, denial)
        if not need.is_in_scope(identity):
            error, message = "insufficient_scope" if identity.name else "", identity.shortage(repository, action)
            raise self._authenticator.challenge(request, needed, error=error, message=message)
        request.admit = Admit(anyone, functools.partial(self._authenticator.admit, need))

    def _error(self, request: Request, error: RegistryError) -> Response:
        self._observations.request_refused(request.listener, error.kind)
        if request.listener == PUBLIC and not _is_api(request):
            return self._error_page(request, error)
        return error_response(error)

    def _error_page(self, request: Request, error: RegistryError) -> Response:
        try:
            return self._pages().error(request, error)
        except Exception:  # whatever it is, whoever asks is answered
            self._observations.panic()
            _log.exception("%s %s: the page of an error failed", request.method, request.path)
            return Response(error.kind.status, [*PLAIN_TEXT, *error.headers], f"{error.message}\n".encode())

    def _unexpected(self, request: Request, error: Exception) -> RegistryError:
        number = error.errno if isinstance(error, OSError) else None
        if number in FULL:
            return RegistryError(DISK_FULL)
        if number in _EXHAUSTED or isinstance(error, MemoryError):
            _log.error("%s %s failed: %s", request.method, request.path, error)
            return RegistryError(
                UNAVAILABLE,
                "the registry is out of file descriptors or memory; try again",
                headers={"Retry-After": "1"},
            )
        self._observations.panic()
        _log.exception("%s %s failed", request.method, request.path)
        return RegistryError(INTERNAL)


def _is_api(request: Request) -> bool:
    # A repository may be called v2-something, and has a page.
    return request.path == "/v2" or request.path.startswith(("/v2/", "/v1/"))


def _needed_action(method: str, route: Route | None) -> str:
    """Say what a request does to its repository; "" where no rights are needed beyond those of a user."""
    if route is None or route is routes.VERSION or route is routes.TOKEN:
        return ""
    if method in READS and route is not routes.UPLOAD:
        return PULL
    return DELETE if method == "DELETE" and route is not routes.UPLOAD else PUSH


def _refuse_cross_site(request: Request) -> None:
    """Refuse writes that a page of another site makes with the browser's stored password."""
    if request.method in (*READS, OPTIONS):
        return
    origin, host = request.header("origin"), request.host
    foreign = origin is not None and origin not in (f"http://{host}", f"https://{host}")
    if foreign or request.header("sec-fetch-site") in ("cross-site", "same-site"):
        raise RegistryError(DENIED, "writes from a page of another site are not allowed")
