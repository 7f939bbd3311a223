"""Lists of layers: of all their files, or of those before the list was cut."""

from __future__ import annotations

import importlib.util
import io
import itertools
from collections.abc import Iterator

from vex.formats.layer import Entry, Limits, list_files
from vex.formats.tar_headers import Incomplete
from vex.progress import UNHURRIED

HAS_ZSTD = importlib.util.find_spec("compression") is not None


def listed(content: bytes, limits: Limits | None = None) -> list[Entry]:
    return list(list_files(io.BytesIO(content), limits or Limits(), UNHURRIED))


def with_sum(block: bytearray) -> bytes:
    """Give a header that was changed its right sum."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def cut(content: bytes, limits: Limits | None = None, clock: Iterator[float] | None = None) -> tuple[int, str]:
    """Return how many entries were listed before the list was cut, and why it was."""
    count = 0
    ticks = clock or itertools.repeat(0.0)
    try:
        for _ in list_files(io.BytesIO(content), limits or Limits(), UNHURRIED, clock=lambda: next(ticks)):
            count += 1
    except Incomplete as error:
        return count, str(error)
    raise AssertionError("the list was not cut")
