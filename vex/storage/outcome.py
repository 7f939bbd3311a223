"""What one thread does for several, and all of them are told of."""

from __future__ import annotations

import sqlite3
import threading


class Outcome:
    """What comes of something that is done once for all who wait for it."""

    def __init__(self) -> None:
        # Held until the end: mostly there is nobody who waits, and nothing is cheaper.
        self._open = threading.Lock()
        self._open.acquire()
        self._error: BaseException | None = None

    def end(self, error: BaseException | None) -> None:
        """Tell all that it is done, or why it is not known to be."""
        self._error = error
        self._open.release()

    def wait(self) -> None:
        """Wait for the end; raises why it is not known to be done."""
        with self._open:
            pass
        if isinstance(self._error, (sqlite3.Error, OSError, MemoryError)):
            # One of its own for each thread: raising changes an exception.
            raise type(self._error)(*self._error.args) from self._error
        if self._error is not None:
            raise RuntimeError("what was to be done for several at once was not done") from self._error
