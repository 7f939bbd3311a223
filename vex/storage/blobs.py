"""Blob files: created under `uploads/`, published under `blobs/<algorithm>/<hex>`, opened and removed.

Invariants: a file under `blobs/` is complete, verified and synced before it gets its name, and its name is synced
before `publish` returns. A file is only removed after a second look, under the database's lock, that neither a row nor
a push in progress wants it; the slow part, the unlinking, happens without the lock. What makes a file needless is
committed before it is removed here, so a removal that fails is no failure of the operation: it is logged, and tried
again by `remove_left`.

Rows are not here: the caller passes what tells whether a digest is still wanted.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import stat
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Callable, NamedTuple

from vex.metrics import Tally
from vex.names import ALGORITHMS, Digest
from vex.storage.files import SharedSync, sync_directory

_log = logging.getLogger("vex")

DIRECTORY_MODE = 0o750
FILE_MODE = 0o640
# Removed files are renamed to this under `uploads/`, and unlinked once the lock is released.
REMOVED_PREFIX = "removed-"
# What a backup copies a blob to, under `uploads/`, before it gets its name.
COPY = "backup-copy"
# Let go of when the disk is full: deleting needs space too, since the database first writes what it deletes to its log.
_BALLAST_BYTES = 16 * 1024 * 1024
_ZEROS = bytes(64 * 1024)
_NAMES = {algorithm: re.compile(f"[0-9a-f]{{{digits}}}") for algorithm, digits in ALGORITHMS.items()}
# How many removals that failed are remembered; what is past that, the next start finds.
_MAX_LEFT = 100_000
# What is free where the file system does not tell, as ramfs.
UNKNOWN_BYTES = sys.maxsize

# Tells whether a digest has a row, as long as the database's lock is held.
RowCheck = Callable[[], contextlib.AbstractContextManager[Callable[[Digest], bool]]]


class BlobFile(NamedTuple):
    """A file found under `blobs/`."""

    digest: Digest
    size: int


class Count(NamedTuple):
    """Files, and their bytes."""

    files: int
    bytes: int


class BlobFiles:
    """The blob directory and the upload directory beside it, on one file system; counts the files that were removed,
    and their bytes.
    """

    def __init__(self, data_directory: Path) -> None:
        """Create the directories that are missing; raises OSError."""
        self.uploads = data_directory / "uploads"
        self._blobs = data_directory / "blobs"
        self._ballast = data_directory / "ballast"
        self.kept = data_directory / "set-aside"
        for directory in (self.uploads, self._blobs, *(self._blobs / algorithm for algorithm in ALGORITHMS)):
            make_directory(directory)
        self._names = {algorithm: SharedSync(f"{self._blobs}/{algorithm}") for algorithm in ALGORITHMS}
        self._lock = threading.Lock()
        self._publishing: Counter[Digest] = Counter()
        self._put_off: set[Digest] = set()
        self._left: set[Path] = set()
        self.removed, self.removed_bytes = Tally(), Tally()

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
        """Tell, once, whether somebody wanted to remove this file while it was published, and nobody publishes it any
        more.
        """
        with self._lock:
            due = digest in self._put_off and digest not in self._publishing
            if due:
                self._put_off.discard(digest)
            return due

    def publish(self, upload: Path, digest: Digest) -> None:
        """Give a verified and synced file its name, and sync that; replaces a file that is there already."""
        os.rename(upload, self.path(digest))
        self._names[digest.algorithm].sync()

    def remove(self, digests: Iterable[Digest], *, lock: RowCheck) -> Count:
        """Remove the files of digests that nobody wants; returns what was removed. A file that cannot be removed now is
        logged.
        """
        files = size = 0
        for digest in digests:
            aside = self.uploads / f"{REMOVED_PREFIX}{secrets.token_hex(16)}"
            removed = self.discard(aside) if self._move(digest, aside, lock) else -1
            if removed >= 0:
                files, size = files + 1, size + removed
        return Count(files, size)

    def set_aside(self, digests: Iterable[Digest], *, lock: RowCheck) -> Count:
        """Move the files of digests that nobody wants to `set-aside/`, out of the way; returns what was moved."""
        files = size = 0
        for digest in digests:
            target = self._kept_path(digest)
            make_directory(target.parent)
            if self._move(digest, target, lock):
                files, size = files + 1, size + os.stat(target).st_size
        return Count(files, size)

    def set_aside_files(self) -> list[BlobFile]:
        """List the files that were set aside."""
        found = [
            path
            for algorithm, name in _NAMES.items()
            for path in (self.kept / algorithm).glob("*")
            if name.fullmatch(path.name)
        ]
        status = [(path, path.lstat()) for path in found]
        return [
            BlobFile(Digest(f"{path.parent.name}:{path.name}"), file.st_size)
            for path, file in status
            if stat.S_ISREG(file.st_mode)
        ]

    def put_back(self, *, lock: RowCheck) -> int:
        """Put files that were set aside back where a row knows them and they are missing; returns how many. For the
        start, before anything is pushed.
        """
        found = 0
        for file in self.set_aside_files():
            with lock() as has_row:
                if has_row(file.digest) and self.size(file.digest) < 0:
                    self.publish(self._kept_path(file.digest), file.digest)
                    found += 1
        return found

    def drop_set_aside(self, digest: Digest) -> None:
        """Remove a file that was set aside; raises OSError."""
        os.unlink(self._kept_path(digest))

    def _kept_path(self, digest: Digest) -> Path:
        return self.kept / digest.algorithm / digest.encoded

    def remove_left(self, *, lock: RowCheck) -> None:
        """Try again to remove what could not be removed before."""
        with self._lock:
            digests, paths = [digest for digest in self._put_off if digest not in self._publishing], list(self._left)
        self.remove(digests, lock=lock)
        for path in paths:
            self.discard(path)

    def discard(self, path: Path) -> int:
        """Unlink a file under `uploads/`; returns its size in bytes, -1 where there is none, or it has to be tried
        again, which is logged once.
        """
        try:
            size = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            size = -1
        except OSError as error:
            self._leave(path, error)
            return -1
        with self._lock:
            self._left.discard(path)
        if size >= 0 and path.name.startswith(REMOVED_PREFIX):
            self.removed.add()
            self.removed_bytes.add(size)
        return size

    def files(self) -> Iterator[BlobFile]:
        """Walk over all files of blobs, in no order."""
        for algorithm, entry in self._entries():
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # a removal was quicker than this walk
            if stat.S_ISREG(status.st_mode) and _NAMES[algorithm].fullmatch(entry.name):
                yield BlobFile(Digest(f"{algorithm}:{entry.name}"), status.st_size)

    def foreign(self) -> Iterator[str]:
        """Walk over what lies among the files of blobs and is not named as they are, such as
        `blobs/sha256/notes.txt`.
        """
        for algorithm, entry in self._entries():
            if not _NAMES[algorithm].fullmatch(entry.name):
                yield f"blobs/{algorithm}/{entry.name}"

    def _entries(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        for algorithm in ALGORITHMS:
            with os.scandir(self._blobs / algorithm) as entries:
                for entry in entries:
                    yield algorithm, entry

    def free_bytes(self) -> int:
        """Return the space in bytes that the file system has left for us."""
        status = os.statvfs(self.uploads)
        return status.f_bavail * status.f_frsize if status.f_blocks else UNKNOWN_BYTES

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
        """Give the space that was set aside, if there is any, to a deletion that needs it."""
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._ballast)
        except OSError as error:
            _log.error("cannot let go of the space that is kept for deletions: %s", error)

    def path(self, digest: Digest) -> str:
        """Return where the file of a digest is, or would be."""
        algorithm, _, encoded = digest.partition(":")
        return f"{self._blobs}/{algorithm}/{encoded}"

    def _move(self, digest: Digest, target: Path, lock: RowCheck) -> bool:
        """Rename the file of a digest, unless somebody wants it; returns whether that is done."""
        known = digest in self._put_off
        try:
            with lock() as has_row, self._lock:
                if digest in self._publishing:
                    self._put_off.add(digest)
                    return False
                self._put_off.discard(digest)
                if has_row(digest):
                    return False
                os.rename(self.path(digest), target)
                return True
        except FileNotFoundError:
            return False
        except Exception as error:  # whatever it is: what made the file needless is committed
            self._put_off_after(digest, error, known)
            return False

    def _put_off_after(self, digest: Digest, error: Exception, known: bool) -> None:
        with self._lock:
            if len(self._put_off) < _MAX_LEFT:
                self._put_off.add(digest)
        if not known:
            _log.error(
                "cannot remove the file of blob %s: %s; it is tried again",
                digest,
                getattr(error, "strerror", None) or error,
            )

    def _leave(self, path: Path, error: OSError) -> None:
        with self._lock:
            known = path in self._left
            if len(self._left) < _MAX_LEFT:
                self._left.add(path)
        if not known:
            _log.error("cannot remove the file uploads/%s: %s; it is tried again", path.name, error.strerror)


def make_directory(path: Path) -> None:
    """Create a directory, its missing parents too, all closed to others, and sync its name; raises OSError."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, DIRECTORY_MODE)
    sync_directory(path.parent)
