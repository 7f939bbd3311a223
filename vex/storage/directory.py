"""The data directory: made where it is missing, locked by who serves it, and the registry in it opened by commands,
whether it runs or not.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Callable

from vex.errors import Failure
from vex.names import ALGORITHMS
from vex.storage.blobs import FILE_MODE, REMOVED_PREFIX, BlobFiles, make_directory
from vex.storage.database import Database
from vex.storage.disk import FULL
from vex.storage.files import sync_directory
from vex.storage.received import Received, read_received, write_received

_LOCAL = "use a local file system, such as ext4, XFS or ZFS"
_WHOLE = (
    "blobs/ and uploads/ have to be on one file system: move the data directory as a whole, and name it with data-dir"
)

# How long who holds the lock briefly is waited for.
_BRIEF_SECONDS = 10.0
_RETRY_SECONDS = 0.02


@contextlib.contextmanager
def open_data(directory: Path) -> Iterator[None]:
    """Create the data directory if it is missing; problems with its files become a Failure."""
    try:
        make_directory(directory)
        yield
    except OSError as error:
        where = error.filename or directory
        raise Failure(
            f"cannot use the data directory {directory}: {where}: {error.strerror}; check its permissions and the disk"
        ) from error


class InUse(Failure):
    """Another process holds the lock of a data directory."""


@contextlib.contextmanager
def locked(directory: Path, *, briefly: bool = False) -> Iterator[None]:
    """Hold the data directory's lock, so that two servers never share it; raises InUse.

    Who holds it `briefly` is waited for: a command must not keep a server from its start.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        _take(descriptor, directory)
        # Told by the length of the file, which the next to hold the lock sets anew. Where a full disk has no room for
        # that, commands that delete work all the same, and nobody waits for them.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 1 if briefly else 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, directory: Path) -> None:
    deadline = time.monotonic() + _BRIEF_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            if os.fstat(descriptor).st_size and time.monotonic() < deadline:
                time.sleep(_RETRY_SECONDS)
                continue
            raise InUse(
                f"another vex uses the data directory {directory}; end it first, or choose another with --data-dir"
            ) from error
        return


def try_out(directory: Path) -> None:
    """Do once what a registry asks of its file system, in its data directory; raises Failure where something does not
    work.
    """
    trial = BlobFiles(directory).uploads / f"{REMOVED_PREFIX}trial"
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: trial.unlink(missing_ok=True))
        for action, remedy, step in _trials(directory / "blobs", trial):
            try:
                step()
            except OSError as error:
                if error.errno in FULL:
                    # What is there can be read and deleted all the same.
                    return
                raise Failure(
                    f"the data directory {directory} cannot be used: its file system cannot {action}: {error.strerror};"
                    f" {remedy}"
                ) from error


def _trials(blobs: Path, trial: Path) -> Iterator[tuple[str, str, Callable[[], None]]]:
    """Give what is done, what helps where it fails, and what does it."""
    yield "write a file", "check its permissions and the disk", partial(_write_trial, trial)
    yield "keep an attribute with a file", _LOCAL, partial(_try_attribute, trial)
    yield (
        "map a file into memory, which SQLite needs",
        f"{_LOCAL}, or mount mergerfs with cache.files=auto-full",
        partial(_try_memory, trial),
    )
    for algorithm in ALGORITHMS:
        place = blobs / algorithm
        yield (
            f"rename a file from uploads/ to blobs/{algorithm}/",
            _WHOLE,
            partial(os.rename, trial, place / trial.name),
        )
        yield f"sync the directory blobs/{algorithm}/", _LOCAL, partial(sync_directory, place)
        yield (
            f"rename a file from blobs/{algorithm}/ to uploads/",
            _WHOLE,
            partial(os.rename, place / trial.name, trial),
        )


def _write_trial(trial: Path) -> None:
    descriptor = os.open(trial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        os.write(descriptor, b"\0")
    finally:
        os.close(descriptor)


def _try_attribute(trial: Path) -> None:
    nothing = Received(0, bytes(16))
    write_received(trial, nothing, nothing)
    read_received(trial)


def _try_memory(trial: Path) -> None:
    with open(trial, "r+b", buffering=0) as file:
        mmap.mmap(file.fileno(), 1).close()


@contextlib.contextmanager
def registry_in(directory: Path, oldest: int = 1) -> Iterator[Database]:
    """Open the database of a registry that is there, running or not, as it is: with a schema from `oldest` on. Raises
    Failure.
    """
    with contextlib.closing(Database(database_in(directory), oldest=oldest, create=False)) as database:
        yield database


def database_in(directory: Path) -> Path:
    """Return the path of the database of a registry that is there; raises Failure."""
    path = directory / "vex.db"
    if not os.path.exists(path):
        raise Failure(
            f"there is no registry in {directory.resolve()}, or none that this user may read: no vex.db; name its data"
            " directory with --data-dir"
        )
    return path


@contextlib.contextmanager
def registry_made_in(directory: Path, oldest: int) -> Iterator[Database]:
    """Open the database of a registry, as `registry_in`, or make one, and say on standard error where. Raises
    Failure.
    """
    with open_data(directory), contextlib.closing(Database(directory / "vex.db", oldest=oldest)) as database:
        yield database
        if database.created:
            print(f"vex: there was no registry in {directory.resolve()}: a new one is there now", file=sys.stderr)
