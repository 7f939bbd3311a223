"""Connections to the database for what only looks: a few, each used by one thread at a time, and each query in small
pieces.

SQLite computes without the interpreter, but not without the processor: whoever asks for work that can wait is told of
each piece of a query, and may let others go first, or end it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, TypeVar

from vex.errors import DISK_FULL, INTERNAL, UNAVAILABLE, RegistryError, VexError
from vex.progress import Work

BUSY_SECONDS = 5.0
# A second processor gets no more done while the first is needed for pulls and pushes.
_READERS = 2
# How long a query for a page waits for its turn, and the seconds of processor time that it may take then.
_TURN_SECONDS = 10.0
_BROWSE_SECONDS = 2.0
# How often who waits for a turn looks whether somebody still waits for the page.
_LOOK_SECONDS = 0.2
# A piece, some 0.5 ms: so many steps of SQLite's machine.
_STEPS = 20_000
T = TypeVar("T")


class Readers:
    """The connections, opened as they are needed; any thread may ask for one. One is for glances, which take
    microseconds, and wait neither for a page nor for a write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._glancing = threading.Lock()
        self._glances: sqlite3.Connection | None = None
        self._idle: list[sqlite3.Connection] = []
        self._turns = threading.Semaphore(_READERS)

    @contextlib.contextmanager
    def reading(self, work: Work) -> Iterator[sqlite3.Connection]:
        """See one state, what was committed last; raises UNAVAILABLE past a limit of time, and what the work raises."""
        with self._connection(work) as connection:
            watch = _Watch(work)
            connection.set_progress_handler(watch, _STEPS)
            with watch.reasons():
                connection.execute("BEGIN")
                try:
                    yield connection
                finally:
                    connection.execute("ROLLBACK")

    def glance(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run one short query, which sees what was committed last: there is no transaction around it."""
        with self._glancing:
            if self._glances is None:
                self._glances = _connect(self._path)
            return query(self._glances)

    def close(self) -> None:
        """Close the connections, once those in use are free, and give out no more."""
        with self._glancing:
            if self._glances is not None:
                self._glances.close()
        for _ in range(_READERS):
            self._turns.acquire(timeout=_BROWSE_SECONDS)
        while self._idle:
            self._idle.pop().close()

    @contextlib.contextmanager
    def _connection(self, work: Work) -> Iterator[sqlite3.Connection]:
        self._wait(work)
        try:
            # Nobody else takes one: there are as many turns as connections.
            connection = self._idle.pop() if self._idle else _connect(self._path)
            try:
                yield connection
            finally:
                self._idle.append(connection)
        finally:
            self._turns.release()

    def _wait(self, work: Work) -> None:
        deadline = time.monotonic() + _TURN_SECONDS
        while not self._turns.acquire(timeout=_LOOK_SECONDS):
            work.step()
            if time.monotonic() > deadline:
                raise RegistryError(
                    UNAVAILABLE,
                    "too many lists and searches are asked for at once; try again",
                    headers={"Retry-After": "5"},
                )


class _Watch:
    """What SQLite calls after each piece of a query, which ends when that returns True."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._ends = time.thread_time() + _BROWSE_SECONDS
        self._error: VexError | None = None

    def __call__(self) -> bool:
        try:
            self._work.resume()
        except VexError as error:
            # SQLite would swallow it.
            self._error = error
        return self._error is not None or time.thread_time() > self._ends

    @contextlib.contextmanager
    def reasons(self) -> Iterator[None]:
        """Raise what ended a query in the place of SQLite's error."""
        try:
            yield
        except sqlite3.OperationalError:
            if self._error is None:
                raise
            raise self._error from None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(os.fspath(path), timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    return connection


def is_full(error: BaseException) -> bool:
    """Tell whether an error means that the disk is full."""
    # sqlite3 gives the error code from Python 3.11 on; the text of SQLITE_FULL is the same in every version.
    return "database or disk is full" in str(error)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise RegistryError in the place of SQLite's errors."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if is_full(error):
            raise RegistryError(DISK_FULL) from error
        if "unable to open" in str(error):
            raise RegistryError(
                UNAVAILABLE, "the registry is out of file descriptors; try again", headers={"Retry-After": "1"}
            ) from error
        if "interrupted" in str(error):
            raise RegistryError(
                UNAVAILABLE, "this takes too long to look for here; ask for less, with more of the name"
            ) from error
        if "locked" in str(error):
            raise RegistryError(
                UNAVAILABLE, "another process is writing to the database; try again", headers={"Retry-After": "5"}
            ) from error
        raise RegistryError(INTERNAL) from error
