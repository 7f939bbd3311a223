"""What the file of an upload is known to hold, kept as an extended attribute of that file.

The size of a file proves nothing after a power cut: the size of what was being written may have reached the disk
without the bytes, and then they read as zeros. So the digest is kept of what was acknowledged, and of what is to be:
one sync of the file makes the bytes and both digests durable, and whichever of the two fits the bytes is what the
client goes on from.

Files have no such attributes on some systems (macOS, NFS); there the size is believed. A published blob keeps its
attribute, which stays true.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import sys
from typing import NamedTuple

_NAME = "user.vex.received"
# Both of them beside the name fit into the inode of ext4: no file takes a block more.
_LAYOUT = struct.Struct(">Q16s")
# EPERM is what confined services get whose filter of system calls knows nothing of attributes, ENOSYS what others get,
# or file systems in user space.
_UNSUPPORTED = {errno.ENOTSUP, errno.EPERM, errno.ENOSYS}


class Received(NamedTuple):
    """The first `size` bytes of an upload; `check` is the beginning of their digest."""

    size: int
    check: bytes

    @classmethod
    def of(cls, size: int, content_hash: hashlib._Hash) -> Received:
        """Describe the bytes that were hashed."""
        return cls(size, content_hash.digest()[:16])


def write_received(file: int | os.PathLike[str], durable: Received, now: Received) -> None:
    """Keep with a file what it holds durably, and what it holds with its next sync; raises OSError."""
    if sys.platform == "linux":
        try:
            os.setxattr(file, _NAME, _LAYOUT.pack(*durable) + _LAYOUT.pack(*now))
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise


def read_received(file: int | os.PathLike[str]) -> list[Received]:
    """Return what `write_received` kept, in its order; nothing where files have no attributes. Raises OSError."""
    if sys.platform == "linux":
        try:
            return [Received(*found) for found in _LAYOUT.iter_unpack(os.getxattr(file, _NAME))]
        except OSError as error:
            if error.errno not in {*_UNSUPPORTED, errno.ENODATA}:
                raise
    return []
