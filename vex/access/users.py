"""Users: adding and removing them, and telling whether a name and a password belong together.

Passwords are stored as scrypt hashes. A password that was verified is remembered for five minutes under an HMAC with a
key that lives only in this process, and not past a change of the user. An unknown user costs the time of a known one,
in the queue of those that wait to be verified too. Logins that fail are throttled per address and user; nobody is
locked out, since a password that was right before is never throttled. What is remembered and throttled goes by a clock
that nobody can set.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Callable, NamedTuple

from vex.access.attempts import Attempt, Attempts
from vex.access.identity import Identity
from vex.access.throttle import MAX_NAME, Throttle
from vex.errors import UNAUTHORIZED, Failure, RegistryError
from vex.storage import accounts
from vex.storage.database import Database, Transaction

# A name that begins with a dash would be taken for an option by docker and others, and one with a dot for a hidden
# file.
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@-]{{0,{MAX_NAME - 1}}}")
MIN_PASSWORD = 8
MAX_PASSWORD = 1024
# RFC 7914 section 2: 128 * N * r bytes, here 16 MiB. OpenSSL wants a little more than that.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 1
_SCRYPT_MEMORY = 32 * 1024 * 1024
_REMEMBER_SECONDS = 300
# Bound of what is remembered, whoever asks.
_MAX_VERIFIED = 10_000


class _Verified(NamedTuple):
    version: int
    until: float


class Users:
    """All users; any thread may use it. `clock` tells the time of day, and `monotonic` the time that has passed."""

    def __init__(
        self,
        database: Database,
        *,
        failures_per_minute: int = 10,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._clock = clock
        self._monotonic = monotonic
        self._key = secrets.token_bytes(32)
        self._nobody = accounts.UserRow("", secrets.token_bytes(16), secrets.token_bytes(32), 0)
        self._hashing = threading.Lock()
        self._lock = threading.Lock()
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._verifying: dict[tuple[str, bytes], _Holders] = {}
        self._attempts = Attempts()
        self._throttle = Throttle(failures_per_minute, monotonic)

    def limit_failures(self, per_minute: int) -> None:
        """Set how many failed logins are allowed from now on."""
        self._throttle.per_minute = per_minute

    def log_refusals(self) -> None:
        """Log how many logins were refused, where that is not in the log; to be called now and then."""
        self._throttle.log_refusals()

    def check_new(self, name: str) -> None:
        """Check that a user of this name can be added; raises Failure."""
        check_user(name)
        with self._database.read() as tx:
            _check_free(tx, name)

    def add(self, name: str, password: str) -> None:
        """Create a user; raises Failure."""
        check_user(name)
        row = _hashed(name, password)
        with self._database.write() as tx:
            _check_free(tx, name)
            accounts.save_user(tx, row, int(self._clock()))

    def add_first(self, name: str, password: str) -> bool:
        """Create a user if there is none; returns whether there was none. Raises Failure."""
        check_user(name)
        row = _hashed(name, password)
        with self._database.write() as tx:
            if accounts.list_users(tx):
                return False
            _check_free(tx, name)
            accounts.save_user(tx, row, int(self._clock()))
        return True

    def check_known(self, name: str) -> None:
        """Check that there is a user of this name; raises Failure."""
        if self.version(name) is None:
            raise _no_such_user(name)

    def set_password(self, name: str, password: str) -> None:
        """Give a user a new password; raises Failure."""
        row = _hashed(name, password)
        with self._database.write() as tx:
            if not accounts.find_user(tx, name):
                raise _no_such_user(name)
            accounts.save_user(tx, row, int(self._clock()))

    def delete(self, name: str) -> None:
        """Delete a user; raises Failure."""
        with self._database.write() as tx:
            if not accounts.delete_user(tx, name):
                raise _no_such_user(name)

    def names(self) -> list[str]:
        """Return all user names, sorted."""
        with self._database.read() as tx:
            return [name for name, _ in accounts.list_users(tx)]

    def identities(self) -> list[Identity]:
        """Return the identities of all users."""
        with self._database.read() as tx:
            return [Identity(name, version) for name, version in accounts.user_versions(tx)]

    def version(self, name: str) -> int | None:
        """Return the version of a user, None if there is no such user."""
        # At each request: it must not wait for those who push.
        return self._database.glance(lambda tx: accounts.user_version(tx, name))

    def check(self, name: str, password: str, address: str) -> int:
        """Check that the password is that of the user, and return the user's version; raises UNAUTHORIZED, and
        TOOMANYREQUESTS after too many failures.
        """
        fingerprint = self._fingerprint(name, password)
        version = self._remembered(name, fingerprint)
        if version is None:
            with self._alone(address, fingerprint):
                # A client opens several connections at once, with the same password: one verification is enough for
                # all.
                version = self._remembered(name, fingerprint) or self._verify(name, password, address, fingerprint)
        return version

    def remembered_until(self, name: str, password: str) -> float:
        """Tell until when, by the steady clock, it is remembered that a password is right; 0 where it is not."""
        with self._lock:
            verified = self._verified.get(self._fingerprint(name, password))
        return verified.until if verified else 0.0

    def _fingerprint(self, name: str, password: str) -> bytes:
        return hmac.digest(self._key, f"{name}\0{password}".encode(), "sha256")

    def _remembered(self, name: str, fingerprint: bytes) -> int | None:
        with self._lock:
            verified = self._verified.get(fingerprint)
        return (
            verified.version
            if verified and verified.version == self.version(name) and self._monotonic() < verified.until
            else None
        )

    @contextlib.contextmanager
    def _alone(self, address: str, fingerprint: bytes) -> Iterator[None]:
        """Keep others with the same name, password and address out for a block."""
        key = address, fingerprint
        with self._lock:
            holders = self._verifying.setdefault(key, _Holders())
            holders.count += 1
        try:
            with holders.lock:
                yield
        finally:
            with self._lock:
                holders.count -= 1
                if not holders.count:
                    del self._verifying[key]

    def _verify(self, name: str, password: str, address: str, fingerprint: bytes) -> int:
        user = self._database.glance(lambda tx: accounts.find_user(tx, name))
        with self._lock:
            verified = self._verified.get(fingerprint)
        if user and verified and verified.version == user.version:
            # It was right before, and waits for nobody, so that failures of others do not keep its owner out.
            is_right = self._matches(user, password)
        else:
            is_right = self._take_turn(
                Attempt(address, exists=user is not None, verify=lambda: self._matches(user, password)), name
            )
        # While it waited, the user may have got another password.
        if user is None or not is_right or self.version(name) != user.version:
            self._forget(fingerprint)
            raise RegistryError(UNAUTHORIZED, "the user name or the password is wrong")
        self._remember(fingerprint, user.version)
        return user.version

    def _take_turn(self, attempt: Attempt, name: str) -> bool:
        self._throttle.charge(attempt.address, name)
        is_wrong = False
        try:
            is_wrong = not self._attempts.verify(attempt)
        finally:
            if not is_wrong:
                self._throttle.refund(attempt.address, name)
        return not is_wrong

    def _matches(self, user: accounts.UserRow | None, password: str) -> bool:
        with self._hashing:
            is_equal = hmac.compare_digest(_scrypt(password, (user or self._nobody).salt), (user or self._nobody).hash)
        return is_equal and user is not None

    def _remember(self, fingerprint: bytes, version: int) -> None:
        with self._lock:
            self._verified[fingerprint] = _Verified(version, self._monotonic() + _REMEMBER_SECONDS)
            self._verified.move_to_end(fingerprint)
            if len(self._verified) > _MAX_VERIFIED:
                self._verified.popitem(last=False)

    def _forget(self, fingerprint: bytes) -> None:
        with self._lock:
            self._verified.pop(fingerprint, None)


class _Holders:
    """A lock, and how many hold it or wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0


def _check_free(tx: Transaction, name: str) -> None:
    if accounts.find_user(tx, name):
        raise Failure(f"there is a user {name} already; `vex user password {name}` changes the password")
    if accounts.find_token(tx, name):
        raise Failure(f"there is a token {name}; choose another name, or withdraw it with `vex token delete {name}`")


def is_user_name(name: str) -> bool:
    """Tell whether a user can have this name."""
    return _NAME.fullmatch(name) is not None


def check_user(name: str) -> None:
    """Check the name of a user who is to be added; raises Failure."""
    if not is_user_name(name):
        raise Failure(
            f"{name!r} is not a user name: use 1 to {MAX_NAME} letters, digits, '.', '_', '-' or '@', a letter or a"
            " digit first"
        )


def check_password(password: str) -> None:
    """Check a password that is to be given to a user; raises Failure."""
    if len(password) < MIN_PASSWORD or len(password.encode()) > MAX_PASSWORD:
        raise Failure(f"the password must have {MIN_PASSWORD} characters or more, and at most {MAX_PASSWORD} bytes")
    if "\0" in password or "\n" in password or "\r" in password:
        raise Failure("the password must not hold line breaks or NUL")


def _hashed(name: str, password: str) -> accounts.UserRow:
    check_password(password)
    salt = secrets.token_bytes(16)
    return accounts.UserRow(name, salt, _scrypt(password, salt), secrets.randbits(62))


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, maxmem=_SCRYPT_MEMORY, dklen=32
    )


def _no_such_user(name: str) -> Failure:
    return Failure(f"there is no user {name}; `vex user list` shows all, `vex user add {name}` creates one")
