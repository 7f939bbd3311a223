"""Bearer tokens: small documents that this registry signs with HMAC-SHA256, and takes back for a while.

There are two kinds: an access token is sent with each request and lives for five minutes; a refresh token is what
docker stores in place of a password, and lives as long as that. Both name the version of the user, so that they end
with the next request after a change. An access token says when it was issued, and is not valid while that lies ahead:
it was signed by a clock that was wrong. The key is a file beside the database, not in it, so that who has a backup
cannot sign; it is read at each use, so that a new one counts at once.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from vex.access.identity import CLOCK_SECONDS, Access
from vex.errors import UNAVAILABLE, RegistryError
from vex.storage.files import sync, sync_directory

# Clients may assume that a token lives for 60 seconds at least.
LIFETIME = 300
# More than 16 of the longest repository names, and less than clients or proxies take for a header field.
MAX_TOKEN = 7 * 1024
_KEY_BYTES = 32
_KEY_MODE = 0o600
# How old a look at the key may be for what everyone may do.
_RECENT_SECONDS = 0.01
_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})")


# What changes with the file of the key; None without one.
_State = Optional[tuple[int, ...]]


class Grant(NamedTuple):
    """What a token says: the user or token that it stands for, "" for anyone, and what it is for; `access` None in a
    refresh token.
    """

    name: str
    version: int
    access: Access | None


class Signer:
    """Signs and verifies with the key in a file; any thread may use it."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = directory / "token.key"
        self._file = os.fspath(self._path)
        # The state of the file, and until when it need not be looked at again where it is not needed exactly.
        self._seen: tuple[float, _State] = (0.0, None)
        self._clock = clock

    def sign(self, grant: Grant) -> str:
        """Write a token, an access token being valid from now on."""
        document = {"name": grant.name, "version": grant.version}
        if grant.access is not None:
            now = int(self._clock())
            document.update(access=grant.access, issued=now, expires=now + LIFETIME)
        text = _encode(json.dumps(document, separators=(",", ":")).encode())
        return f"{text}.{self._signature(text)}"

    def verify(self, token: str) -> Grant | None:
        """Read a token that was signed here and has not expired; None for every other."""
        document = self._read_document(token)
        if document is None:
            return None
        access = document.get("access")
        if access is not None:
            begins, ends = _validity(document)
            if not begins <= self._clock() < ends:
                return None
        return Grant(document["name"], document["version"], access)

    def remembered(self, token: str) -> Callable[[bool], bool] | None:
        """Return what tells, each time it is asked, whether an access token is valid now, and the key still the same;
        None where it is not valid. Whether the key is, it knows exactly, or as of a moment ago.
        """
        # Before the key is read: another one that comes after that has another state.
        state = self._state()
        document = self._read_document(token)
        if state is None or document is None or document.get("access") is None:
            return None
        begins, ends = _validity(document)

        def is_valid(exact: bool) -> bool:
            return begins <= self._clock() < ends and (self._state() if exact else self._recent_state()) == state

        return is_valid

    def _read_document(self, token: str) -> dict[str, Any] | None:
        """Read what was signed here, whether it has expired or not; None for everything else."""
        found = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN else None
        if found is None or not hmac.compare_digest(found[2], self._signature(found[1])):
            return None
        document: dict[str, Any] = json.loads(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
        return document

    def _recent_state(self) -> _State:
        # To ask the system lets other threads go first, and so costs an answer that is given again half of its time.
        until, state = self._seen
        now = time.monotonic()
        if now >= until:
            state = self._state()
            self._seen = now + _RECENT_SECONDS, state
        return state

    def _state(self) -> _State:
        try:
            found = os.stat(self._file)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def rotate(self) -> None:
        """Make a new key; what was signed with the one before is no longer valid."""
        self._make()
        # Until everybody has noticed.
        time.sleep(2 * _RECENT_SECONDS)

    def _make(self) -> None:
        new = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _KEY_MODE)
        try:
            with open(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                sync(descriptor)
            os.replace(new, self._path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
        sync_directory(self._path.parent)

    def key(self) -> bytes:
        """Read the key; make one if there is none."""
        with contextlib.suppress(FileNotFoundError):
            return self._read()
        self._make()
        return self._read()

    def _read(self) -> bytes:
        key = self._path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise RegistryError(
                UNAVAILABLE, "the key that signs tokens is damaged; `vex token rotate-key` makes a new one"
            )
        return key

    def _signature(self, text: str) -> str:
        return _encode(hmac.digest(self.key(), text.encode(), hashlib.sha256))


def _validity(document: dict[str, Any]) -> tuple[float, float]:
    """Return from when on, and until when, an access token is valid."""
    # A Vex before this one did not write when it issued a token.
    return document.get("issued", document["expires"] - LIFETIME) - CLOCK_SECONDS, document["expires"]


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
