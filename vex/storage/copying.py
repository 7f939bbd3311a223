"""Blobs copied out of a registry, which may be running: by a hard link where that is possible, and else by content.

Invariants: a file gets its name when it is whole, compared with its digest, and synced. A file that is missing was
removed, with its row, since it was looked up, or it is damaged: a look at the row, while nobody writes, tells the one
from the other.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from typing import BinaryIO, Callable, NoReturn

from vex.names import ALGORITHMS, Digest
from vex.storage import blob_rows
from vex.storage.blobs import BlobFiles
from vex.storage.database import Database
from vex.storage.folders import Draft, Folder, Unsafe

_BUFFER_BYTES = 1024 * 1024
# Another file system, one without hard links, a file of somebody else (fs.protected_hardlinks), too many links.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}
_WRONG = "its file does not have the content of this digest"


class Removed(Exception):
    """Something was removed from the registry since it was looked up."""


class DamagedFile(Exception):
    """The file of a blob is missing, or not what it should be; the text says which."""


class Copier:
    """Copies blobs of a registry, and counts them; `bytes` are those that were not linked. `moved` is told of each
    piece that is copied.
    """

    def __init__(self, database: Database, files: BlobFiles, moved: Callable[[int], None]) -> None:
        self._database = database
        self._files = files
        self._moved = moved
        self.linked = self.copied = self.bytes = 0

    def copy(self, blob: blob_rows.BlobRow, draft: Draft, folder: Folder, *, compared: bool) -> None:
        """Give a folder the file of a blob; one that is linked may be compared with its digest too. Raises Removed and
        DamagedFile.
        """
        if blob.damaged or self._files.size(blob.digest) != blob.size:
            self._explain_absence(blob)
        name = blob.digest.encoded
        try:
            if _link(self._files.path(blob.digest), folder, name):
                if compared and not has_content(folder, blob.digest, blob.size):
                    folder.unlink(name)
                    raise DamagedFile(_WRONG)
                self.linked += 1
                return
            with self._files.open(blob.digest) as source:
                _copy(source, draft, folder, name, blob.digest, self._moved)
        except FileNotFoundError:
            self._explain_absence(blob)
        self.copied += 1
        self.bytes += blob.size

    def _explain_absence(self, blob: blob_rows.BlobRow) -> NoReturn:
        """Tell a file that was removed, with its row, from one that is damaged; raises the one or the other."""
        with self._database.write() as tx:
            # While the write lock is held, a row means a file.
            row = blob_rows.find_blob(tx, blob.digest)
            size = self._files.size(blob.digest)
        if row is None or (size == row.size and not row.damaged):
            raise Removed
        if size < 0:
            raise DamagedFile("its file is missing")
        raise DamagedFile(
            "it is marked as damaged" if size == row.size else f"its file has {size} bytes instead of {row.size}"
        )


@contextlib.contextmanager
def blob_folders(top: Folder) -> Iterator[dict[str, Folder]]:
    """Open the folder of each algorithm in `blobs`, none of which is found through a link."""
    with contextlib.ExitStack() as stack:
        blobs = stack.enter_context(contextlib.closing(top.folder("blobs")))
        yield {algorithm: stack.enter_context(contextlib.closing(blobs.folder(algorithm))) for algorithm in ALGORITHMS}


def put_file(draft: Draft, folder: Folder, name: str, content: bytes) -> None:
    """Write a small file, whole and synced, in the place of what has its name."""
    with draft.of(folder, name) as file:
        _write(file.fileno(), content)


def has_content(folder: Folder, digest: Digest, size: int) -> bool:
    """Tell whether a folder has a file with the content of a digest, under its name."""
    try:
        with folder.open_file(digest.encoded) as file:
            return os.fstat(file.fileno()).st_size == size and _hash_of(file, digest.algorithm) == digest.encoded
    except (FileNotFoundError, Unsafe):
        return False


def hash_of_file(path: os.PathLike[str] | str, algorithm: str = "sha256") -> str:
    """Hash a file; returns hex digits."""
    with open(path, "rb", buffering=0) as file:
        return _hash_of(file, algorithm)


def _hash_of(file: BinaryIO, algorithm: str) -> str:
    content_hash = hashlib.new(algorithm)
    buffer = bytearray(_BUFFER_BYTES)
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        content_hash.update(memoryview(buffer)[:count])
    return content_hash.hexdigest()


def _link(source: str, folder: Folder, name: str) -> bool:
    """Give a file a second name, in the place of what has it; returns False when that is not possible."""
    try:
        folder.link(source, name)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def _copy(
    source: BinaryIO, draft: Draft, folder: Folder, name: str, digest: Digest, moved: Callable[[int], None]
) -> None:
    """Copy a file, compare it with its digest, and give it its name when it is synced; raises DamagedFile."""
    content_hash = hashlib.new(digest.algorithm)
    buffer = bytearray(_BUFFER_BYTES)
    with draft.of(folder, name) as file:
        while count := source.readinto(buffer):  # type: ignore[attr-defined]
            content_hash.update(memoryview(buffer)[:count])
            _write(file.fileno(), memoryview(buffer)[:count])
            moved(count)
        if content_hash.hexdigest() != digest.encoded:
            raise DamagedFile(_WRONG)


def _write(descriptor: int, view: memoryview | bytes) -> None:
    while view:
        view = view[os.write(descriptor, view) :]
