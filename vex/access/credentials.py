"""Credentials: what the Authorization field of a request says, checked, and the challenge that a request without good
ones gets.

HTTP Basic (RFC 7617) carries the password of a user, or a machine's token under its name. With anonymous reading, there
are Bearer tokens too (RFC 6750, Docker's "Token Authentication Specification"), and every challenge asks for one:
docker would fail without stored credentials if it were offered Basic as well. What comes out is an Identity; what that
may do is not decided here. Failed logins are logged, without what was tried; the throttle logs those that it refuses.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, NamedTuple

from vex.access.identity import ANYONE, Identity, Need
from vex.access.known import SECONDS, Known, KnownLogins
from vex.access.tokens import PREFIX, Tokens
from vex.access.users import Users
from vex.errors import TOOMANYREQUESTS, UNAUTHORIZED, RegistryError
from vex.http.answers import Admitted
from vex.http.fields import parse_basic, parse_bearer
from vex.http.forwarded import HOST
from vex.http.message import Request
from vex.logs import event
from vex.storage.log_index import LogIndex

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

    def __init__(
        self,
        users: Users,
        tokens: Tokens,
        one_port: OnePort | None,
        refused: Callable[[], None],
        log_index: LogIndex,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._users = users
        self._tokens = tokens
        self._one_port = one_port
        self._refused = refused
        self._monotonic = monotonic
        self._known = KnownLogins(log_index, self._known_again, monotonic)

    def identify(self, request: Request, scope: str) -> Identity:
        """Tell who sent a request, ANYONE if it does not say; raises UNAUTHORIZED and TOOMANYREQUESTS. `scope` is what
        it needs.
        """
        authorization = request.header("authorization")
        if authorization is None:
            return ANYONE
        field = authorization.encode("latin-1")
        identity = self._known.find(field)
        if identity is not None:
            return identity
        state = self._known.state()
        basic = parse_basic(authorization)
        if basic:
            identity = self.log_in(request, basic.name, basic.password, scope)
            until = (
                self._monotonic() + SECONDS
                if basic.password.startswith(PREFIX)
                else self._users.remembered_until(basic.name, basic.password)
            )
            self._keep(field, Known(identity, state, until))
            return identity
        token = parse_bearer(authorization)
        if not token or not self._one_port:
            raise self.challenge(request, scope)
        return self._identify_bearer(request, scope, token, field, state)

    def admit(self, need: Need, field: bytes) -> Admitted | None:
        """Let in, without checking anything, who is known to meet a need; `field` is that of Authorization. None for
        whoever has to be checked, or is nobody who may, and for those whose fetches do not count, since an answer that
        is given again counts.
        """
        identity = self._known.find(field, exact=not need.anyone)
        if identity is None or not identity.counted or not need.is_met_by(identity):
            return None
        return Admitted(identity.name, identity.may_push(need.repository))

    def _identify_bearer(self, request: Request, scope: str, token: str, field: bytes, state: bytes) -> Identity:
        signer = self._one_port.signer if self._one_port else None
        grant = signer.verify(token) if signer else None
        found = None if grant is None or grant.access is None else self.find(grant.name, grant.version)
        if signer is None or grant is None or found is None:
            raise self.challenge(
                request,
                scope,
                error="invalid_token",
                message="the token has expired, or is not valid any more; ask for a new one",
            )
        identity = found._replace(access=grant.access)
        is_signed = signer.remembered(token)
        if is_signed is not None:
            self._keep(field, Known(identity, state, self._monotonic() + SECONDS, is_signed))
        return identity

    def _keep(self, field: bytes, known: Known) -> None:
        found = self._known_again(known, known.state)
        if found is not None:
            self._known.keep(field, found)

    def _known_again(self, known: Known, state: bytes) -> Known | None:
        """Look up somebody who was checked before, when the database may have changed; None if nobody is left who is
        just the same. `state` is older than what is looked up.
        """
        name, version = known.identity.name, known.identity.version
        if not name or self._users.version(name) == version:
            return known._replace(state=state)
        limits = self._tokens.limits(name, version)
        return None if limits is None else known._replace(state=state, limits=limits)

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
