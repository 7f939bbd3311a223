"""Attempts to log in: who is next when logins wait to be verified, which is slow on purpose and done one at a time.

Addresses take turns, so that the guesses of one do not keep the others waiting. The attempts with a name that exists
are verified before all others, so that who logs in for the first time does not wait behind everybody's guesses. That
must not tell which names exist. Therefore each attempt that fails takes exactly one verification, and they are let go
in the order of their turns, one after each verification that fails, whoever's that was: a thread whose turn it is
verifies the first attempt that has not been verified and whose name exists, perhaps not its own, and only if there is
none the one whose outcome is known without that. An attempt that is right is let go at once.

Invariant: when an attempt has its turn, no attempt with a name that exists is before it, so that its own is the first
to be verified.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Callable


class Attempt:
    """A login from an address; `verify` takes its time and tells whether it is right, and is never right where the name
    does not exist.
    """

    def __init__(self, address: str, *, exists: bool, verify: Callable[[], bool]) -> None:
        self.address = address
        self.verify = verify
        # Whether only its verification can tell what comes out.
        self.is_open = exists
        self.is_right = False
        self.is_let_go = threading.Event()


class Attempts:
    """The attempts that wait, in the order of their turns; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_taken = False
        # The first address has the next turn, and its oldest attempt takes it.
        self._waiting: OrderedDict[str, deque[Attempt]] = OrderedDict()

    def verify(self, attempt: Attempt) -> bool:
        """Wait for the outcome of an attempt; tells whether it is right."""
        with self._lock:
            self._waiting.setdefault(attempt.address, deque()).append(attempt)
            must_wait, self._is_taken = self._is_taken, True
        if must_wait:
            attempt.is_let_go.wait()
        if not attempt.is_right:
            with self._turn(attempt):
                self._work(attempt)
        return attempt.is_right

    @contextlib.contextmanager
    def _turn(self, attempt: Attempt) -> Iterator[None]:
        """Have the turn, and pass it on however that ends."""
        try:
            yield
        finally:
            with self._lock:
                self._remove(attempt)
                if attempt.address in self._waiting:
                    self._waiting.move_to_end(attempt.address)
                following = next(iter(self._waiting.values()), None)
                self._is_taken = following is not None
                if following:
                    following[0].is_let_go.set()

    def _work(self, own: Attempt) -> None:
        """Verify until this attempt is right, or any other is wrong, which takes its place."""
        while True:
            with self._lock:
                verified = self._first_open() or own
            is_right = verified.verify()
            with self._lock:
                verified.is_open = False
                verified.is_right = is_right
                if verified is own or not is_right:
                    return
                self._remove(verified)
                verified.is_let_go.set()

    def _first_open(self) -> Attempt | None:
        return next((attempt for queue in self._waiting.values() for attempt in queue if attempt.is_open), None)

    def _remove(self, attempt: Attempt) -> None:
        queue = self._waiting[attempt.address]
        queue.remove(attempt)
        if not queue:
            del self._waiting[attempt.address]
