"""Files copied out of a registry: by a hard link where that is possible, and else by content, verified and synced before it gets its name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from vex.blobs import FILE_MODE
from vex.files import sync
from vex.names import Digest

BUFFER_BYTES = 1024 * 1024
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Another file system, one without hard links, a file of somebody else (fs.protected_hardlinks), too many links.
_NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS}


class WrongContent(Exception):
    """A file does not have the content of its digest."""


def link_file(source: str, target: str) -> bool:
    """Give a file a second name, in the place of what has it; returns False when that is not possible."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True


def copy_file(source: BinaryIO, temporary: Path, target: str, digest: Digest) -> None:
    """Copy a file to a temporary name, compare it with its digest, sync it, and give it its name; raises WrongContent."""
    content_hash = hashlib.new(digest.algorithm)
    buffer = bytearray(BUFFER_BYTES)
    try:
        with open(temporary, "wb", buffering=0, opener=private) as file:
            while count := source.readinto(buffer):  # type: ignore[attr-defined]
                content_hash.update(memoryview(buffer)[:count])
                write(file.fileno(), memoryview(buffer)[:count])
            sync(file.fileno())
        if content_hash.hexdigest() != digest.encoded:
            raise WrongContent
        os.rename(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def hash_of_file(path: os.PathLike[str] | str, algorithm: str = "sha256") -> str:
    """Hash a file; returns hex digits."""
    content_hash = hashlib.new(algorithm)
    buffer = bytearray(BUFFER_BYTES)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            content_hash.update(memoryview(buffer)[:count])
    return content_hash.hexdigest()


def private(path: str, flags: int) -> int:
    """Open a file so that others cannot read it; for `opener`."""
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)


def write(descriptor: int, view: memoryview | bytes) -> None:
    """Write all of it."""
    while view:
        view = view[os.write(descriptor, view) :]
