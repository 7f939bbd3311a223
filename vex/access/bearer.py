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
from typing import Any, Callable, NamedTuple

from vex.access.identity import CLOCK_SECONDS, Access
from vex.errors import UNAVAILABLE, RegistryError
from vex.storage.blobs import sync_directory
from vex.storage.files import sync

# Clients may assume that a token lives for 60 seconds at least.
LIFETIME = 300
# More than 16 of the longest repository names, and less than clients or proxies take for a header field.
MAX_TOKEN = 7 * 1024
_KEY_BYTES = 32
_KEY_MODE = 0o600
_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})")


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
        found = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN else None
        if found is None or not hmac.compare_digest(found[2], self._signature(found[1])):
            return None
        document = json.loads(base64.urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)))
        access = document.get("access")
        if access is not None and not self._is_current(document):
            return None
        return Grant(document["name"], document["version"], access)

    def _is_current(self, document: dict[str, Any]) -> bool:
        # A Vex before this one did not write when it issued a token.
        issued, now = document.get("issued", document["expires"] - LIFETIME), self._clock()
        current: bool = issued - CLOCK_SECONDS <= now < document["expires"]
        return current

    def rotate(self) -> None:
        """Make a new key; what was signed with the one before is no longer valid."""
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
        self.rotate()
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


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
