"""Who sent which Authorization field a moment ago, so that it need not be checked anew with each request.

What is remembered is who that was, never what that may do, and for five minutes at most. The field itself is not kept,
but its keyed BLAKE2 (RFC 7693), with a key that lives only in this process. It counts only as long as nothing was
committed to the database since it was checked, by whichever process; after a commit, whatever that was about, it is
looked up again that the user or the token is still the same. In all doubt, nothing is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from typing import Callable, NamedTuple

from vex.access.identity import Identity
from vex.errors import RegistryError
from vex.storage.log_index import LogIndex

SECONDS = 300
_MAX_KNOWN = 2000


class Known(NamedTuple):
    """Somebody whose credentials were checked: that holds until a moment of the steady clock, while the database is in
    this state, and as long as the conditions say so that there are: of a Bearer token, and of a machine's token, whose
    use that notes.
    """

    identity: Identity
    state: bytes
    until: float
    is_signed: Callable[[bool], bool] | None = None
    limits: Callable[[], bool] | None = None


class KnownLogins:
    """What is remembered; any thread may use it. `state` tells the state of the database, and is asked before anything
    is looked up that is to be remembered; `again` looks up whether somebody is still the same, and returns what is to
    be remembered from now on, None where that is nothing.
    """

    def __init__(
        self,
        log_index: LogIndex,
        again: Callable[[Known, bytes], Known | None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state, self._raw_state = log_index.state, log_index.raw_state
        self._again = again
        self._monotonic = monotonic
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def find(self, authorization: bytes, *, exact: bool = True) -> Identity | None:
        """Return who sends this field, None where that has to be checked; what is not `exact` about the key that signs
        tokens is for what everyone may do.
        """
        fingerprint = self._fingerprint(authorization)
        known: Known | None = self._known.get(fingerprint)
        if known is None:
            return None
        identity, state, until, is_signed, limits = known
        if self._monotonic() >= until or (is_signed and not is_signed(exact)):
            return None
        if state != self._raw_state():
            again = self._look_again(fingerprint, known)
            if again is None:
                return None
            limits = again.limits
        return None if limits and not limits() else identity

    def keep(self, authorization: bytes, known: Known) -> None:
        """Remember somebody who was just checked; nobody where the state of the database is not known."""
        if not known.state:
            return
        fingerprint, now = self._fingerprint(authorization), self._monotonic()
        with self._lock:
            self._known[fingerprint] = known
            self._known.move_to_end(fingerprint)
            while self._known and (len(self._known) > _MAX_KNOWN or next(iter(self._known.values())).until <= now):
                self._known.popitem(last=False)

    def _look_again(self, fingerprint: bytes, known: Known) -> Known | None:
        # Before anything is looked up: what is committed after that is looked at the next time.
        state = self.state()
        again = None
        with contextlib.suppress(RegistryError):  # which whoever checks it then is told
            again = self._again(known, state) if state else None
        with self._lock:
            # Unless another thread has found out something else meanwhile.
            if self._known.get(fingerprint) is known:
                if again is None:
                    del self._known[fingerprint]
                else:
                    self._known[fingerprint] = again
        return again

    def _fingerprint(self, authorization: bytes) -> bytes:
        # Which keeps others from the interpreter for less time than HMAC lets them have it.
        return hashlib.blake2b(authorization, key=self._key, digest_size=32).digest()
