"""Files copied out of a registry: by a hard link where that is possible, and else by content, verified and synced before it gets its name."""

from __future__ import annotations

import errno
import hashlib
import os
from typing import BinaryIO

from vex.names import Digest
from vex.storage.folders import Draft, Folder

BUFFER_BYTES = 1024 * 1024
# Another file system, one without hard links, a file of somebody else (fs.protected_hardlinks), too many links.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


class WrongContent(Exception):
    """A file does not have the content of its digest."""


def link_file(source: str, folder: Folder, name: str) -> bool:
    """Give a file a second name, in the place of what has it; returns False when that is not possible."""
    try:
        folder.link(source, name)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def copy_file(source: BinaryIO, draft: Draft, folder: Folder, name: str, digest: Digest) -> None:
    """Copy a file, compare it with its digest, and give it its name when it is synced; raises WrongContent."""
    content_hash = hashlib.new(digest.algorithm)
    buffer = bytearray(BUFFER_BYTES)
    with draft.of(folder, name) as file:
        while count := source.readinto(buffer):  # type: ignore[attr-defined]
            content_hash.update(memoryview(buffer)[:count])
            write(file.fileno(), memoryview(buffer)[:count])
        if content_hash.hexdigest() != digest.encoded:
            raise WrongContent


def hash_of_file(path: os.PathLike[str] | str, algorithm: str = "sha256") -> str:
    """Hash a file; returns hex digits."""
    with open(path, "rb", buffering=0) as file:
        return hash_of(file, algorithm)


def hash_of(file: BinaryIO, algorithm: str) -> str:
    """Hash what is left of a file; returns hex digits."""
    content_hash = hashlib.new(algorithm)
    buffer = bytearray(BUFFER_BYTES)
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        content_hash.update(memoryview(buffer)[:count])
    return content_hash.hexdigest()


def write(descriptor: int, view: memoryview | bytes) -> None:
    """Write all of it."""
    while view:
        view = view[os.write(descriptor, view) :]
