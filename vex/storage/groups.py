"""Several writers, one commit: the lock of a connection, which knows of the writers that wait for it, and the group
that shares a transaction.

A transaction stays open for the writers that wait for the lock when one has done its part, within limits; each is then
a member of the group, and waits, without the lock, for what the commit comes to. Nothing here runs a statement: see
`database.py`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque

from vex.metrics import Buckets

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
        if self._lock.acquire(blocking=False):
            # The usual case, without a look at the clock.
            self._waits.observe(0)
            return
        started = time.perf_counter()
        self._lock.acquire()
        self._waits.observe(time.perf_counter() - started)

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


class Group:
    """The writers that share a transaction; `members` counts those whose part is in it. It takes more for so many
    seconds.
    """

    def __init__(self, seconds: float = JOIN_SECONDS) -> None:
        self.members = 0
        self._until = time.monotonic() + seconds
        # Held until the end: most groups have one member, and nobody who waits.
        self._open = threading.Lock()
        self._open.acquire()
        self._error: BaseException | None = None

    @property
    def takes_more(self) -> bool:
        """Whether one more may join."""
        return self.members < MEMBERS and time.monotonic() < self._until

    def end(self, error: BaseException | None) -> None:
        """Tell all members what came of the transaction: it is durable, or this is why it is not known to be."""
        self._error = error
        self._open.release()

    def wait(self) -> None:
        """Wait for the end; raises why the transaction is not known to be durable."""
        with self._open:
            pass
        if isinstance(self._error, (sqlite3.Error, MemoryError)):
            # One of its own for each thread: raising changes an exception.
            raise type(self._error)(*self._error.args) from self._error
        if self._error is not None:
            raise sqlite3.OperationalError("the shared transaction was not committed") from self._error
