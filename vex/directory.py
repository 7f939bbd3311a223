"""The data directory: made where it is missing, locked by who serves it, and the registry in it opened by commands, whether it runs or not."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from vex.blobs import FILE_MODE, make_directory
from vex.database import Database
from vex.errors import Failure


@contextlib.contextmanager
def open_data(directory: Path) -> Iterator[None]:
    """Create the data directory if it is missing; problems with its files become a Failure."""
    try:
        make_directory(directory)
        yield
    except OSError as error:
        where = error.filename or directory
        raise Failure(f"cannot use the data directory {directory}: {where}: {error.strerror}; check its permissions and the disk") from error


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the data directory's lock, so that two servers never share it; raises Failure."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise Failure(f"another vex uses the data directory {directory}; end it first, or choose another with --data-dir") from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def registry_in(directory: Path, oldest: int = 1) -> Iterator[Database]:
    """Open the database of a registry that is there, running or not, as it is: with a schema from `oldest` on. Raises Failure."""
    path = directory / "vex.db"
    if not os.path.exists(path):
        raise Failure(f"there is no registry in {directory.resolve()}, or none that this user may read: no vex.db; name its data directory with --data-dir")
    with contextlib.closing(Database(path, oldest=oldest, create=False)) as database:
        yield database


@contextlib.contextmanager
def registry_made_in(directory: Path, oldest: int) -> Iterator[Database]:
    """Open the database of a registry, as `registry_in`, or make one, and say on standard error where. Raises Failure."""
    with open_data(directory), contextlib.closing(Database(directory / "vex.db", oldest=oldest)) as database:
        yield database
        if database.created:
            print(f"vex: there was no registry in {directory.resolve()}: a new one is there now", file=sys.stderr)
