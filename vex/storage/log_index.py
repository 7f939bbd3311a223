"""The index of SQLite's write-ahead log, looked at in memory: whether anything was committed, by this process or by any
other, without a statement, and without waiting for who has the lock.

Each commit that succeeds changes the header of the index before it returns ("WAL-Mode File Format", "The WAL-Index
Header", on sqlite.org). It is never read for what it says, only compared.

The file must stay open as long as SQLite has it open: to close it would let go of the locks that SQLite holds on it
(fcntl(2), POSIX locks belong to the process).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
from pathlib import Path

# The header is there twice, so that who reads it can tell that it is being written.
_HEADER_BYTES = 48
_VERSION = struct.Struct("=I")
_KNOWN_VERSION = 3_007_000


class LogIndex:
    """The index of one database; any thread may use it."""

    def __init__(self, database: Path) -> None:
        self._path = f"{database}-shm"
        self._lock = threading.Lock()
        self._descriptor = -1
        self._map: mmap.mmap | None = None

    def state(self) -> bytes:
        """Return what changes with every commit; empty where that cannot be told, or is just changing.

        To be called while a connection to the database is open, after its first statement.
        """
        state = self.raw_state()
        return state if state[:_HEADER_BYTES] == state[_HEADER_BYTES:] else b""

    def raw_state(self) -> bytes:
        """Return the same, to be compared with a state of before: it is another one also while it changes."""
        if self._map is None:
            self._open()
        try:
            return self._map[: 2 * _HEADER_BYTES] if self._map else b""
        except ValueError:
            return b""  # closed

    def close(self) -> None:
        """Close the file, once no connection to the database is open any more."""
        with self._lock:
            if self._map is not None:
                self._map.close()
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _open(self) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                found = mmap.mmap(self._descriptor, 2 * _HEADER_BYTES, mmap.MAP_SHARED, mmap.PROT_READ)
                self._map = found if _VERSION.unpack_from(found)[0] == _KNOWN_VERSION else None
