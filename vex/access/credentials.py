"""Credentials: what the Authorization field of a request says, checked, and the challenge that a request without good
ones gets.

HTTP Basic (RFC 7617) carries the password of a user, or a machine's token under its name. With anonymous reading, there
are Bearer tokens too (RFC 6750, Docker's "Token Authentication Specification"), and every challenge asks for one:
docker would fail without stored credentials if it were offered Basic as well. What comes out is an Identity; what that
may do is not decided here. Failed logins are logged, without what was tried; the throttle logs those that it refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, NamedTuple

from vex.access.identity import ANYONE, Identity
from vex.access.tokens import Tokens
from vex.access.users import Users
from vex.errors import TOOMANYREQUESTS, UNAUTHORIZED, RegistryError
from vex.http.fields import parse_basic, parse_bearer
from vex.http.forwarded import HOST
from vex.http.message import Request
from vex.logs import event

if TYPE_CHECKING:
    from vex.access.bearer import Signer

_BASIC_CHALLENGE = 'Basic realm="Vex", charset="UTF-8"'


class OnePort(NamedTuple):
    """What anonymous reading needs beside passwords: who signs Bearer tokens, how clients reach this listener and get
    them, and refresh tokens too.
    """

    signer: Signer
    public_url: str
    token_path: str
    refresh_tokens: bool

    def address(self, request: Request) -> str:
        """Return the URL of this registry, without a path; "" where the request does not tell."""
        return self.public_url or (f"{request.scheme}://{request.host}" if HOST.fullmatch(request.host) else "")


class Authenticator:
    """Checks credentials; `refused` is called for each wrong or throttled login."""

    def __init__(self, users: Users, tokens: Tokens, one_port: OnePort | None, refused: Callable[[], None]) -> None:
        self._users = users
        self._tokens = tokens
        self._one_port = one_port
        self._refused = refused

    def identify(self, request: Request, scope: str) -> Identity:
        """Tell who sent a request, ANYONE if it does not say; raises UNAUTHORIZED and TOOMANYREQUESTS. `scope` is what
        it needs.
        """
        authorization = request.header("authorization")
        if authorization is None:
            return ANYONE
        basic = parse_basic(authorization)
        if basic:
            return self.log_in(request, basic.name, basic.password, scope)
        token = parse_bearer(authorization)
        if not token or not self._one_port:
            raise self.challenge(request, scope)
        grant = self._one_port.signer.verify(token)
        identity = None if grant is None or grant.access is None else self.find(grant.name, grant.version)
        if grant is None or identity is None:
            raise self.challenge(
                request,
                scope,
                error="invalid_token",
                message="the token has expired, or is not valid any more; ask for a new one",
            )
        return identity._replace(access=grant.access)

    def log_in(self, request: Request, name: str, password: str, scope: str = "") -> Identity:
        """Check a name with a password or a machine's token; raises UNAUTHORIZED and TOOMANYREQUESTS."""
        try:
            # What is no token costs the time of a password, whoever the name belongs to.
            return self._tokens.check(name, password) or Identity(
                name, self._users.check(name, password, request.client)
            )
        except RegistryError as error:
            if error.kind in (UNAUTHORIZED, TOOMANYREQUESTS):
                self._refused()
            if error.kind is not UNAUTHORIZED:
                raise
            event("login failed", user=name, address=request.client, reason=error.message)
            raise self.challenge(request, scope, message=error.message) from None

    def find(self, name: str, version: int) -> Identity | None:
        """Return the identity that a Bearer token names, if nothing about it has changed since."""
        if not name:
            return ANYONE
        return Identity(name, version) if self._users.version(name) == version else self._tokens.find(name, version)

    def challenge(self, request: Request, scope: str = "", *, error: str = "", message: str = "") -> RegistryError:
        """Make the answer that asks for credentials."""
        field = (
            self._bearer_challenge(request, scope, error)
            if self._one_port and request.path != self._one_port.token_path
            else ""
        )
        return RegistryError(UNAUTHORIZED, message, headers={"WWW-Authenticate": field or _BASIC_CHALLENGE})

    def _bearer_challenge(self, request: Request, scope: str, error: str) -> str:
        one_port = self._one_port
        address = one_port.address(request) if one_port else ""
        if not one_port or not address:
            return ""
        parameters = {
            "realm": address + one_port.token_path,
            "service": address.partition("://")[2],
            "scope": scope,
            "error": error,
        }
        return "Bearer " + ",".join(f'{name}="{value}"' for name, value in parameters.items() if value)
