"""Writing to the disk begun early: the sync at the end then finds little left to do, and what was written stays in
memory for whoever reads it next, as long as the system has no better use for that.

Nothing here makes anything durable.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import Callable, Optional

# Called with a file descriptor, an offset and a length.
Way = Optional[Callable[[int, int, int], object]]
# sync_file_range(2)
_WRITE = 2


def begin_writing(descriptor: int, offset: int, length: int) -> None:
    """Have the system begin to write a part of a file that has just changed, if it can be told."""
    begin = _way()
    if begin is not None:
        begin(descriptor, offset, length)


def by_range() -> Way:
    """Return the way of Linux, which leaves in memory what is written; None where it cannot be called."""
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes  # not every Python has it, and a start need not wait for it

        sync_range = ctypes.CDLL(None).sync_file_range
        sync_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
        return lambda descriptor, offset, length: sync_range(descriptor, offset, length, _WRITE)
    return None


def by_advice() -> Way:
    """Return the way of POSIX: told to forget a part, the system first begins to write it; None where there is none.

    Of what has just changed it can forget little, and of all that came before everything: the first to pull a blob
    would wait for the disk.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    return lambda descriptor, offset, length: os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


@functools.cache
def _way() -> Way:
    return by_range() or by_advice()
