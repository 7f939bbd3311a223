"""The token endpoint of the registry: who shows a password, or nothing, gets a Bearer token for a few minutes.

It speaks both forms that clients do: GET with HTTP Basic or without (Docker's "Token Authentication Specification"),
and the form of OAuth2 ("OAuth2 Token Authentication"). Of what is asked for, a token holds what its user may do: for
anyone that is to pull. A refresh token, docker's identity token, is only given where the operator wants that: programs
that share docker's file of passwords cannot use one. One that was given before goes on being taken.
"""

from __future__ import annotations

from datetime import datetime, timezone

from vex.access.bearer import LIFETIME, MAX_TOKEN, Grant
from vex.access.credentials import Authenticator, OnePort
from vex.access.identity import ANYONE, Identity, granted, identify, identity_of, scope
from vex.api import routes
from vex.errors import BAD_REQUEST, RegistryError
from vex.http.fields import parse_query
from vex.http.message import NOSNIFF, Request, Response, json_response

_MAX_FORM = 16 * 1024
_HEADERS = (("Cache-Control", "no-store"), NOSNIFF)
_Form = dict[str, list[str]]


class Granting:
    """Answers requests for tokens."""

    def __init__(self, authenticator: Authenticator, one_port: OnePort) -> None:
        self._authenticator = authenticator
        self._signer = one_port.signer
        self._gives_refresh_tokens = one_port.refresh_tokens

    def handle(self, request: Request) -> Response:
        """Answer a request for a token; raises UNAUTHORIZED, TOOMANYREQUESTS and BAD_REQUEST."""
        if identity_of(request).access is not None:
            # A token must not prolong itself, nor widen what it is for.
            raise self._authenticator.challenge(request)
        if request.method == routes.POST:
            form = _read_form(request)
            identify(request, self._owner(request, form))
            offline = _one(form, "access_type") == "offline"
        else:
            form = request.query
            offline = _one(form, "offline_token") == "true"
        return self._answer(identity_of(request), form, offline=offline)

    def _owner(self, request: Request, form: _Form) -> Identity:
        kind = _one(form, "grant_type")
        if kind == "password":
            return self._authenticator.log_in(request, _one(form, "username"), _one(form, "password"))
        if kind != "refresh_token":
            raise RegistryError(BAD_REQUEST, "grant_type must be password or refresh_token")
        grant = self._signer.verify(_one(form, "refresh_token"))
        owner = (
            None if grant is None or grant.access is not None else self._authenticator.find(grant.name, grant.version)
        )
        if owner is None:
            raise self._authenticator.challenge(request, message="the login is not valid any more; log in again")
        return owner

    def _answer(self, identity: Identity, form: _Form, *, offline: bool) -> Response:
        access = granted(identity, [word for value in form.get("scope", []) for word in value.split(" ")])
        token = self._signer.sign(Grant(identity.name, identity.version, access))
        if len(token) > MAX_TOKEN:
            raise RegistryError(BAD_REQUEST, "too many scopes for one token; ask for fewer at once")
        document = {
            "token": token,
            "access_token": token,
            "expires_in": LIFETIME,
            "issued_at": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "scope": " ".join(scope(repository, *actions) for repository, actions in access.items()),
        }
        if offline and identity != ANYONE and self._gives_refresh_tokens:
            document["refresh_token"] = self._signer.sign(Grant(identity.name, identity.version, None))
        return json_response(200, document, _HEADERS)


def _read_form(request: Request) -> _Form:
    content = bytearray()
    view = memoryview(bytearray(_MAX_FORM + 1))
    while count := request.body.read_into(view):
        content += view[:count]
        if len(content) > _MAX_FORM:
            raise RegistryError(BAD_REQUEST, f"the form is larger than {_MAX_FORM} bytes")
    try:
        return parse_query(content.decode("ascii"))
    except UnicodeDecodeError:
        raise RegistryError(BAD_REQUEST, "the form is not URL-encoded") from None


def _one(form: _Form, name: str) -> str:
    values = form.get(name, [""])
    return values[0] if len(values) == 1 else ""
