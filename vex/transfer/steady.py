"""Answers of other registries that have to come steadily: no server holds a client for ever by sending little, or a
head without end.
"""

from __future__ import annotations

import io
from http.client import HTTPException, HTTPResponse, LineTooLong
from typing import Any, Callable

# What comes before the body, and every 100 Continue before that.
_MAX_HEAD = 1024 * 1024
# An answer that has made us wait for so long, in all, has to have come at this rate, in bytes a second.
_PATIENCE_SECONDS = 300.0
_LOWEST_RATE = 1024
_BUFFER_BYTES = 64 * 1024
_BAD_CHUNKS = "its answer is in chunks that are not well-formed"


class _Steady(io.RawIOBase):
    """The bytes of an answer; raises OSError where they come so slowly, or its head is so long, that there is no
    end.
    """

    def __init__(self, raw: io.RawIOBase, clock: Callable[[], float]) -> None:
        self._raw = raw
        self._clock = clock
        self._waited = 0.0
        self._bytes = 0
        self.in_head = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        started = self._clock()
        count = self._raw.readinto(buffer)
        self._waited += self._clock() - started
        self._bytes += count or 0
        if self._waited > _PATIENCE_SECONDS and self._bytes < self._waited * _LOWEST_RATE:
            raise OSError(f"it sends less than {_LOWEST_RATE} bytes a second")
        if self.in_head and self._bytes > _MAX_HEAD:
            raise OSError("its answer does not begin")
        return count

    def readall(self) -> bytes:
        # All that comes, however much that is: nothing here asks for it, but http.client does where a chunk says that
        # it has -1 bytes.
        raise OSError(_BAD_CHUNKS)

    def close(self) -> None:
        self._raw.close()
        super().close()


class SteadyResponse(HTTPResponse):
    """An answer whose bytes come steadily; raises OSError and HTTPException where they do not."""

    def __init__(self, *arguments: Any, clock: Callable[[], float], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._steady = _Steady(self.fp.detach(), clock)
        self.fp = io.BufferedReader(self._steady, _BUFFER_BYTES)

    def begin(self) -> None:
        """Read the head."""
        super().begin()
        self._steady.in_head = False

    def read(self, amt: int | None = None) -> bytes:
        """Read a part of the body, or what is left of it."""
        try:
            return super().read(amt)
        except (ValueError, LineTooLong) as error:
            # Python 3.9 goes past a chunk that has less than no bytes, and takes what follows for the size of the next
            # one.
            raise HTTPException(_BAD_CHUNKS) from error
