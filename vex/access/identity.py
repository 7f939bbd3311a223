"""Who asks, and what that person or machine may do: the rights of users, of machines' tokens and of Bearer tokens, as
plain values.

Where identities come from is in `credentials.py`; which requests need which action is decided in `app.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from vex.errors import Failure, RegistryError
from vex.http.message import Request
from vex.names import RepositoryName, is_repository_pattern

PULL, PUSH, DELETE = "pull", "push", "delete"
_ACTIONS = {PULL: (PULL,), PUSH: (PUSH,), DELETE: (DELETE,), "*": (PULL, PUSH, DELETE)}
EVERYTHING = "*"
# Clocks of machines differ. What was issued further ahead than this was issued by a clock that was wrong, or is looked
# at by one that is.
CLOCK_SECONDS = 60
# Docker's "Token Scope Documentation"; the class in parentheses is sent for plugins.
_SCOPE = re.compile(r"repository(?:\([a-z0-9-]{1,64}\))?:([^:]{1,255}):([a-z,*]{1,64})")

Access = Mapping[str, tuple[str, ...]]


class Identity(NamedTuple):
    """Someone: `name` is "" for anyone, `access` what a Bearer token was given for, by repository; None without such a
    token.

    `version` changes when the credentials do. `read_only` and `repositories`, a pattern, limit machines' tokens; what
    one fetches that is not `counted` does not count as pulled.
    """

    name: str
    version: int = 0
    read_only: bool = False
    repositories: str = EVERYTHING
    access: Access | None = None
    counted: bool = True

    def denial(self, repository: str, action: str) -> str:
        """Say why the rights of this identity do not allow an action; "" if they do."""
        if self.read_only and action != PULL:
            return f"the token {self.name} only reads; push and delete with a user or another token"
        if self.repositories != EVERYTHING and not fnmatchcase(repository, self.repositories):
            return f"the token {self.name} is for the repositories {self.repositories} alone"
        return ""

    def has_scope(self, repository: str, action: str) -> bool:
        """Tell whether the action is within what the request's credentials were given for; with a password it always
        is.
        """
        if self.access is None:
            return bool(self.name)
        return not action or (bool(self.name) and action in self.access.get(repository, ()))

    def shortage(self, repository: str, action: str) -> str:
        """Say what the Bearer token of this request does not allow; "" without such a token."""
        if self.access is None:
            return ""
        what = f"{action} {'to' if action == PUSH else 'from'} {repository}"
        if not self.name:
            return f"a user name and a password are needed to {what}, and this token was given without; log in first"
        return f"this token does not allow to {what}; ask for one with {scope(repository, action)}"

    @property
    def owner(self) -> str:
        """What tells this identity from others, and from itself with other credentials; "" for anyone."""
        return hashlib.sha256(f"{self.name} {self.version}".encode()).hexdigest()[:16] if self.name else ""

    def may_push(self, repository: str) -> bool:
        """Tell whether this identity can push to a repository with this request."""
        return self.has_scope(repository, PUSH) and not self.denial(repository, PUSH)


ANYONE = Identity("")


class Need(NamedTuple):
    """What a request needs of who sends it: rights to an action in a repository, "" for none beyond those of a user, or
    `anyone` may send it.
    """

    repository: str
    action: str
    anyone: bool

    def denial(self, identity: Identity) -> str:
        """Say why the rights of an identity are not enough; "" if they are."""
        return (
            "" if self.anyone or not (identity.name and self.action) else identity.denial(self.repository, self.action)
        )

    def is_in_scope(self, identity: Identity) -> bool:
        """Tell whether it is within what the request's credentials were given for."""
        return self.anyone or identity.has_scope(self.repository, self.action)

    def is_met_by(self, identity: Identity) -> bool:
        """Tell whether that is enough, which is to allow the request."""
        return self.anyone or (self.is_in_scope(identity) and not self.denial(identity))


def identify(request: Request, identity: Identity) -> Identity:
    """Note who sent a request."""
    request.user, request.identity = identity.name, identity
    return identity


def identity_of(request: Request) -> Identity:
    """Return who sent a request, ANYONE if that was not found out."""
    return request.identity if isinstance(request.identity, Identity) else ANYONE


def check_pattern(pattern: str) -> None:
    """Check a pattern for names of repositories; raises Failure."""
    if not is_repository_pattern(pattern):
        raise Failure(
            f"{pattern!r} is not a pattern for repositories: use a name such as team/app, with * for any characters,"
            " such as team/*"
        )


def scope(repository: str, *actions: str) -> str:
    """Write a scope; "" for what is not the name of a repository."""
    try:
        return f"repository:{RepositoryName.parse(repository)}:{','.join(actions)}"
    except RegistryError:
        return ""


def granted(identity: Identity, scopes: Iterable[str]) -> Access:
    """Return what an identity gets of the scopes that it asks for; what is not known here is nothing."""
    access: dict[str, tuple[str, ...]] = {}
    for found in map(_SCOPE.fullmatch, scopes):
        if not found or not scope(found[1]):
            continue
        asked = {action for word in found[2].split(",") for action in _ACTIONS.get(word, ())}.union(
            access.get(found[1], ())
        )
        access[found[1]] = tuple(
            action for action in (PULL, PUSH, DELETE) if action in asked and _may(identity, found[1], action)
        )
    return {repository: actions for repository, actions in access.items() if actions}


def _may(identity: Identity, repository: str, action: str) -> bool:
    # Everyone may pull where there are Bearer tokens.
    return action == PULL or (bool(identity.name) and not identity.denial(repository, action))
