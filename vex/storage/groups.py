"""Several writers, one commit: the lock of a connection, which knows of the writers that wait for it, and the group
that shares a transaction.

A transaction stays open for the writers that wait for the lock when one has done its part, within limits; each is then
a member of the group, and waits, without the lock, for what the commit comes to. Nothing here runs a statement: see
`database.py`.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from vex.metrics import Buckets
from vex.storage.outcome import Outcome

# What a member waits for at most: so many others, and none that comes later than this.
MEMBERS = 64
JOIN_SECONDS = 0.02


class Lock:
    """A lock that its holder may take again; it counts the seconds until it is taken, and knows whether writers wait
    for it.
    """

    def __init__(self, waits: Buckets) -> None:
        self._lock = threading.RLock()
        self._waits = waits
        # Adding and taking away are each one step for all threads.
        self._coming: deque[None] = deque()

    def __enter__(self) -> None:
        # The usual case, without a look at the clock.
        started = None if self._lock.acquire(blocking=False) else time.perf_counter()
        if started is not None:
            self._lock.acquire()
        try:
            self._waits.observe(0 if started is None else time.perf_counter() - started)
        except BaseException:
            # Short of memory, it may fail, and nobody would ever let go of the lock.
            self._lock.release()
            raise

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def take_to_write(self) -> None:
        """Take the lock as a writer, until `release`."""
        self._coming.append(None)
        try:
            self.__enter__()
        finally:
            self._coming.pop()

    def release(self) -> None:
        """Let go of it."""
        self._lock.release()

    @property
    def writers_wait(self) -> bool:
        """Whether a writer comes next, or soon: to be asked by who holds the lock."""
        return bool(self._coming)


class Group(Outcome):
    """The writers that share a transaction; `members` counts those whose part is in it. It takes more for so many
    seconds.
    """

    def __init__(self, seconds: float = JOIN_SECONDS) -> None:
        super().__init__()
        self.members = 0
        self._until = time.monotonic() + seconds

    @property
    def takes_more(self) -> bool:
        """Whether one more may join."""
        return self.members < MEMBERS and time.monotonic() < self._until
