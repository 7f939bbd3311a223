"""Blob files: created under `uploads/`, published under `blobs/<algorithm>/<hex>`, opened and removed.

Invariants: a file under `blobs/` is complete, verified and synced before it gets its name, and its name is synced before
`publish` returns. A file is only removed after a second look, under the database's lock, that neither a row nor a push
in progress wants it; the slow part, the unlinking, happens without the lock.

Rows are not here: the caller passes what tells whether a digest is still wanted.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Callable, NamedTuple

from vex.metrics import Value
from vex.names import ALGORITHMS, Digest

DIRECTORY_MODE = 0o750
FILE_MODE = 0o640
# Removed files are renamed to this under `uploads/`, and unlinked once the lock is released.
REMOVED_PREFIX = "removed-"
# Let go of when the disk is full: deleting needs space too, since the database first writes what it deletes to its log.
_BALLAST_BYTES = 16 * 1024 * 1024
_ZEROS = bytes(64 * 1024)


class BlobFile(NamedTuple):
    """A file found under `blobs/`."""

    digest: Digest
    size: int


class BlobFiles:
    """The blob directory and the upload directory beside it, on one file system; counts the files that were removed, and their bytes."""

    def __init__(self, data_directory: Path) -> None:
        """Create the directories that are missing; raises OSError."""
        self.uploads = data_directory / "uploads"
        self._blobs = data_directory / "blobs"
        self._ballast = data_directory / "ballast"
        for directory in (self.uploads, self._blobs, *(self._blobs / algorithm for algorithm in ALGORITHMS)):
            make_directory(directory)
        self._lock = threading.Lock()
        self._publishing: Counter[Digest] = Counter()
        self._put_off: set[Digest] = set()
        self.removed, self.removed_bytes = Value(), Value()

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading; raises FileNotFoundError."""
        return open(self.path(digest), "rb", buffering=0)

    def size(self, digest: Digest) -> int:
        """Return the size in bytes of a blob's file, or -1 when there is none."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            return -1

    @contextlib.contextmanager
    def publishing(self, digest: Digest) -> Iterator[None]:
        """Keep the file of this digest from being removed until its row is committed."""
        with self._lock:
            self._publishing[digest] += 1
        try:
            yield
        finally:
            with self._lock:
                self._publishing[digest] -= 1
                if not self._publishing[digest]:
                    del self._publishing[digest]

    def removal_put_off(self, digest: Digest) -> bool:
        """Tell, once, whether somebody wanted to remove this file while it was published, and nobody publishes it any more."""
        with self._lock:
            due = digest in self._put_off and digest not in self._publishing
            if due:
                self._put_off.discard(digest)
            return due

    def publish(self, upload: Path, digest: Digest) -> None:
        """Give a verified and synced file its name, and sync that; replaces a file that is there already."""
        path = self.path(digest)
        os.rename(upload, path)
        sync_directory(os.path.dirname(path))

    def remove(self, digests: Iterable[Digest], *, lock: Callable[[], contextlib.AbstractContextManager[Callable[[Digest], bool]]]) -> None:
        """Remove the files of digests that nobody wants.

        `lock` holds the database's lock, and gives a function that tells whether a digest has a row.
        """
        for digest in digests:
            with lock() as has_row, self._lock:
                if digest in self._publishing:
                    self._put_off.add(digest)
                    continue
                self._put_off.discard(digest)
                if has_row(digest):
                    continue
                removed = self._set_aside(digest)
            for path in removed:
                self._unlink(path)

    def files(self) -> Iterator[BlobFile]:
        """Walk over all files under `blobs/`, in no order."""
        for algorithm in ALGORITHMS:
            with os.scandir(self._blobs / algorithm) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # a removal was quicker than this walk
                    if stat.S_ISREG(status.st_mode):
                        yield BlobFile(Digest(f"{algorithm}:{entry.name}"), status.st_size)

    def free_bytes(self) -> int:
        """Return the space in bytes that the file system has left for us."""
        status = os.statvfs(self.uploads)
        return status.f_bavail * status.f_frsize

    def keep_ballast(self) -> None:
        """Set space aside for deletions on a full disk: a quarter of what is left, up to a limit."""
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        try:
            missing = min(_BALLAST_BYTES, self.free_bytes() // 4) - os.fstat(descriptor).st_size
            while missing > 0:
                missing -= os.write(descriptor, _ZEROS[:missing])
        finally:
            os.close(descriptor)

    def let_ballast_go(self) -> None:
        """Give the space that was set aside to a deletion that may need it."""
        if self.free_bytes() < _BALLAST_BYTES:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._ballast)

    def path(self, digest: Digest) -> str:
        """Return where the file of a digest is, or would be."""
        algorithm, _, encoded = digest.partition(":")
        return f"{self._blobs}/{algorithm}/{encoded}"

    def _set_aside(self, digest: Digest) -> list[Path]:
        aside = self.uploads / f"{REMOVED_PREFIX}{secrets.token_hex(16)}"
        try:
            os.rename(self.path(digest), aside)
        except FileNotFoundError:
            return []
        return [aside]

    def _unlink(self, path: Path) -> None:
        size = os.stat(path).st_size
        os.unlink(path)
        self.removed.add()
        self.removed_bytes.add(size)


def make_directory(path: Path) -> None:
    """Create a directory, its missing parents too, all closed to others, and sync its name; raises OSError."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, DIRECTORY_MODE)
    sync_directory(path.parent)


def sync_directory(path: os.PathLike[str] | str) -> None:
    """Make the names in a directory durable; raises OSError, after which nothing about them is certain."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
