"""Files made durable: what a power cut cannot take away any more."""

from __future__ import annotations

import errno
import fcntl
import os

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
