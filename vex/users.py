"""Users: adding and removing them, and telling whether a name and a password belong together.

Passwords are stored as scrypt hashes. A password that was verified is remembered for five minutes under an HMAC with a key
that lives only in this process, and not past a change of the user. An unknown user costs the time of a known one. Logins
that fail are throttled per address and user; nobody is locked out, since a password that was right before is never throttled.
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
from typing import Callable, NamedTuple

from vex import accounts
from vex.database import Database
from vex.errors import TOOMANYREQUESTS, UNAUTHORIZED, Failure, RegistryError

MAX_NAME = 64
_NAME = re.compile(rf"[A-Za-z0-9._@-]{{1,{MAX_NAME}}}")
MIN_PASSWORD = 8
MAX_PASSWORD = 1024
# RFC 7914 section 2: 128 * N * r bytes, here 16 MiB. OpenSSL wants a little more than that.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 1
_SCRYPT_MEMORY = 32 * 1024 * 1024
_REMEMBER_SECONDS = 300
_MINUTE = 60.0
# Bounds of what is remembered, whoever asks.
_MAX_VERIFIED = 10_000
_MAX_THROTTLED = 10_000


class _Verified(NamedTuple):
    version: int
    until: float


class Users:
    """All users; any thread may use it."""

    def __init__(self, database: Database, *, failures_per_minute: int = 10, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._nobody = accounts.UserRow("", secrets.token_bytes(16), secrets.token_bytes(32), 0)
        self._hashing = threading.Lock()
        self._doubtful = threading.Lock()
        self._lock = threading.Lock()
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._throttle = _Throttle(failures_per_minute, clock)

    def limit_failures(self, per_minute: int) -> None:
        """Set how many failed logins are allowed from now on."""
        self._throttle.per_minute = per_minute

    def add(self, name: str, password: str) -> None:
        """Create a user; raises Failure."""
        check_user(name)
        row = _hashed(name, password)
        with self._database.write() as tx:
            if accounts.find_user(tx, name):
                raise Failure(f"there is a user {name} already; `vex user password {name}` changes the password")
            if accounts.find_token(tx, name):
                raise Failure(f"there is a token {name}; choose another name, or withdraw it with `vex token delete {name}`")
            accounts.save_user(tx, row, int(self._clock()))

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

    def version(self, name: str) -> int | None:
        """Return the version of a user, None if there is no such user."""
        with self._database.read() as tx:
            return accounts.user_version(tx, name)

    def check(self, name: str, password: str, address: str) -> int:
        """Check that the password is that of the user, and return the user's version; raises UNAUTHORIZED, and TOOMANYREQUESTS after too many failures."""
        fingerprint = hmac.digest(self._key, f"{name}\0{password}".encode(), "sha256")
        with self._lock:
            verified = self._verified.get(fingerprint)
        version, now = self.version(name), self._clock()
        if verified and verified.version == version and now < verified.until:
            return verified.version
        was_right = verified is not None and verified.version == version
        if not was_right:
            self._throttle.refuse_early(address, name)
        # One that was right before goes past those that wait here, so that failures of others do not keep its owner out.
        with contextlib.nullcontext() if was_right else self._doubtful:
            version = self._matches(name, password, fingerprint)
        if version is None:
            self._throttle.failed(address, name)
            raise RegistryError(UNAUTHORIZED, "the user name or the password is wrong")
        return version

    def _matches(self, name: str, password: str, fingerprint: bytes) -> int | None:
        with self._database.read() as tx:
            user = accounts.find_user(tx, name)
        with self._hashing:
            right = hmac.compare_digest(_scrypt(password, (user or self._nobody).salt), (user or self._nobody).hash)
        if not right or user is None:
            return None
        with self._lock:
            self._verified[fingerprint] = _Verified(user.version, self._clock() + _REMEMBER_SECONDS)
            self._verified.move_to_end(fingerprint)
            if len(self._verified) > _MAX_VERIFIED:
                self._verified.popitem(last=False)
        return user.version


class _Throttle:
    """Failed logins per (address, user): as many as allowed at once, then one every part of a minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        # When the failures so far will have been paid off, at one per interval.
        self._debts: OrderedDict[tuple[str, str], float] = OrderedDict()

    @property
    def _interval(self) -> float:
        return _MINUTE / self.per_minute

    def refuse_early(self, address: str, name: str) -> None:
        """Raise TOOMANYREQUESTS while there were too many failures."""
        with self._lock:
            wait = self._debts.get((address, name), 0) - self._clock() - (self.per_minute - 1) * self._interval
        if wait > 0:
            message = "too many failed logins with this name from this address; wait and log in again"
            raise RegistryError(TOOMANYREQUESTS, message, headers={"Retry-After": str(int(wait) + 1)})

    def failed(self, address: str, name: str) -> None:
        """Count a failure."""
        with self._lock:
            now = self._clock()
            self._debts[address, name] = max(self._debts.get((address, name), 0), now) + self._interval
            self._debts.move_to_end((address, name))
            while len(self._debts) > _MAX_THROTTLED:
                self._debts.popitem(last=False)


def check_user(name: str) -> None:
    """Check the name of a user who is to be added; raises Failure."""
    if not _NAME.fullmatch(name):
        raise Failure(f"{name!r} is not a user name: use 1 to 64 letters, digits, '.', '_', '-' or '@'")


def _hashed(name: str, password: str) -> accounts.UserRow:
    if len(password) < MIN_PASSWORD or len(password.encode()) > MAX_PASSWORD:
        raise Failure(f"the password must have {MIN_PASSWORD} characters or more, and at most {MAX_PASSWORD} bytes")
    if "\0" in password or "\n" in password or "\r" in password:
        raise Failure("the password must not hold line breaks or NUL")
    salt = secrets.token_bytes(16)
    return accounts.UserRow(name, salt, _scrypt(password, salt), secrets.randbits(62))


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, maxmem=_SCRYPT_MEMORY, dklen=32)


def _no_such_user(name: str) -> Failure:
    return Failure(f"there is no user {name}; `vex user list` shows all, `vex user add {name}` creates one")
