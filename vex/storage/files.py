"""Files made durable: what a power cut cannot take away any more."""

from __future__ import annotations

import errno
import fcntl
import os
import threading

from vex.storage.outcome import Outcome

# On macOS fsync leaves the bytes in the drive's own cache, and this does not: fcntl(2) there.
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
# What file systems say that do not know it, such as those of a network.
_UNKNOWN = {errno.ENOTSUP, errno.EINVAL, errno.ENOTTY}


def sync(descriptor: int, full: int | None = _FULL_SYNC) -> None:
    """Make the bytes of a file, or the names in a directory, durable; raises OSError, after which nothing about them is
    certain.

    `full` is the command of fcntl that has the drive write its cache too, None where the system has none.
    """
    try:
        if full is None:
            os.fsync(descriptor)
        else:
            fcntl.fcntl(descriptor, full)
    except OSError as error:
        if full is None or error.errno not in _UNKNOWN:
            raise
        os.fsync(descriptor)


def sync_directory(path: os.PathLike[str] | str) -> None:
    """Make the names in a directory durable; raises OSError, after which nothing about them is certain."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


class SharedSync:
    """Syncs of one directory, one after another: all who ask while one is under way share the next, which begins after
    what they did, and its outcome.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._next = Outcome()

    def sync(self) -> None:
        """Make the names that are in the directory now durable; raises OSError, as `sync_directory`."""
        with self._lock:
            ours = self._next
        with self._turn:
            with self._lock:
                due = ours is self._next
                if due:
                    self._next = Outcome()
            if due:
                self._do(ours)
        ours.wait()

    def _do(self, outcome: Outcome) -> None:
        try:
            sync_directory(self._path)
        except BaseException as error:  # told to all who wait, this thread too
            outcome.end(error)
        else:
            outcome.end(None)
