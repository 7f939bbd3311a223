"""Tokens of machines: random passwords that can be limited to reading, to repositories and to a time, and withdrawn.

A token's name takes the place of a user's, and is never that of a user too, so that a log tells them apart. The token
itself is shown once, when it is made. It holds 256 random bits: only its SHA-256 is stored, since there is nothing that
a slow hash would protect from guessing, and machines log in often. When one was last used is kept in memory, and
written down by another thread than the one of the request: soon where what is written is older than a minute, and else
once a minute.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Callable

from vex.access.identity import CLOCK_SECONDS, Identity, check_pattern
from vex.access.users import check_user
from vex.errors import UNAUTHORIZED, Failure, RegistryError
from vex.storage import accounts
from vex.storage.accounts import TokenRow
from vex.storage.database import Database

PREFIX = "vex_"
_SECRET_BYTES = 32
_MINUTE = 60
_SOON_SECONDS = 1.0


def _soon(work: Callable[[], None]) -> None:
    timer = threading.Timer(_SOON_SECONDS, work)
    timer.daemon = True
    # Where the system gives no thread, it is done with the next round of what is done once a minute.
    with contextlib.suppress(RuntimeError):
        timer.start()


class Tokens:
    """All tokens of machines; any thread may use it.

    `clock` tells the time of day, `monotonic` the time that has passed, and `soon` has another thread do something.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        soon: Callable[[Callable[[], None]], None] = _soon,
    ) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._soon = soon
        self._lock = threading.Lock()
        self._uses: dict[str, int] = {}
        self._written = monotonic() - _MINUTE
        self._is_due_soon = False

    def add(
        self,
        name: str,
        *,
        lifetime: float | None = None,
        repositories: str,
        read_only: bool = False,
        counted: bool = True,
    ) -> str:
        """Create a token; returns it. `lifetime` in seconds, `repositories` a pattern; what it fetches counts as pulled
        if it is `counted`. Raises Failure.
        """
        check_user(name)
        check_pattern(repositories)
        secret, now = PREFIX + secrets.token_urlsafe(_SECRET_BYTES), int(self._clock())
        expires = None if lifetime is None else now + max(int(lifetime), 1)
        with self._database.write() as tx:
            if accounts.find_user(tx, name):
                raise Failure(f"there is a user {name}; give the token a name of its own")
            if accounts.find_token(tx, name):
                raise Failure(f"there is a token {name} already; `vex token delete {name}` withdraws it")
            accounts.add_token(tx, TokenRow(name, _hash(secret), now, expires, None, repositories, read_only, counted))
        return secret

    def delete(self, name: str) -> None:
        """Withdraw a token; raises Failure."""
        with self._database.write() as tx:
            if not accounts.delete_token(tx, name):
                raise Failure(f"there is no token {name}; `vex token list` shows all")

    def list(self) -> list[TokenRow]:
        """Return all tokens, by name."""
        with self._database.read() as tx:
            return accounts.list_tokens(tx)

    def identities(self) -> Sequence[Identity]:
        """Return the identities of all tokens, of those that have expired too."""
        return [_identity(token) for token in self.list()]

    def check(self, name: str, password: str) -> Identity | None:
        """Return whose token this is, None if it is no token; raises UNAUTHORIZED if it has expired."""
        if not password.startswith(PREFIX):
            return None
        token = self._look_up(name)
        if token is None or not hmac.compare_digest(token.hash, _hash(password)):
            return None
        if reason := self._refusal(token):
            raise RegistryError(UNAUTHORIZED, f"the token {name} {reason}; ask for a new one")
        return self._used(token)

    def find(self, name: str, version: int) -> Identity | None:
        """Return the identity of a token that has not expired, and has had this version all the time."""
        token = self._look_up(name)
        return None if token is None or _version(token) != version or self._refusal(token) else self._used(token)

    def limits(self, name: str, version: int) -> Callable[[], bool] | None:
        """Return what tells, each time it is asked, whether a token of this version is valid now, and notes its use;
        None where there is none.

        It holds until something is written to the database.
        """
        token = self._look_up(name)
        if token is None or _version(token) != version:
            return None
        # What is kept does not hold what the token could be known by.
        return functools.partial(self._is_used, token._replace(hash=b""))

    def save_uses(self, *, at_once: bool = False) -> None:
        """Write down when tokens were last used; once a minute, unless it is to be done at once."""
        now = self._monotonic()
        with self._lock:
            if not self._uses or (now < self._written + _MINUTE and not at_once):
                return
            uses, self._uses, self._written = self._uses, {}, now
            self._is_due_soon = False
        with self._database.write() as tx:
            for name, used in uses.items():
                accounts.note_token_use(tx, name, used)

    def _look_up(self, name: str) -> TokenRow | None:
        return self._database.glance(lambda tx: accounts.find_token(tx, name))

    def _save_soon(self) -> None:
        # What cannot be written is as lost as it is when the process is killed; the next use asks again.
        with contextlib.suppress(RegistryError):
            self.save_uses(at_once=True)

    def _refusal(self, token: TokenRow) -> str:
        """Say why a token is not valid now; "" if it is. One that never expires is valid whatever the clock says."""
        now = self._clock()
        if token.expires is None:
            return ""
        if token.created > now + CLOCK_SECONDS:
            return "was made at a time that is still to come, so the clock was or is wrong"
        return "has expired" if token.expires <= now else ""

    def _is_used(self, token: TokenRow) -> bool:
        if self._refusal(token):
            return False
        self._note_use(token)
        return True

    def _used(self, token: TokenRow) -> Identity:
        self._note_use(token)
        return _identity(token)

    def _note_use(self, token: TokenRow) -> None:
        now = int(self._clock())
        with self._lock:
            self._uses[token.name] = now
            # What is written is about to be looked at by somebody who has just used the token; other uses can wait.
            is_due = not self._is_due_soon and (token.used is None or not 0 <= now - token.used < _MINUTE)
            self._is_due_soon = self._is_due_soon or is_due
        if is_due:
            self._soon(self._save_soon)


def _identity(token: TokenRow) -> Identity:
    return Identity(token.name, _version(token), token.read_only, token.repositories, counted=token.counted)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _version(token: TokenRow) -> int:
    # A token never changes; one of the same name that is made later has another hash.
    return int.from_bytes(token.hash[:7], "big")
