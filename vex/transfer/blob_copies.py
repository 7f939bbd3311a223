"""Blobs that are copied from a source to a registry, some at a time; a transfer that breaks goes on where it ended.

What the registry holds already is not sent again. Memory does not depend on the size of a blob.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Callable

from vex.errors import Refused
from vex.names import Digest, RepositoryName
from vex.progress import Progress
from vex.transfer.endpoints import Endpoints
from vex.transfer.remote import PAUSES
from vex.transfer.replies import Broken, Unreachable
from vex.transfer.sources import Source

_AT_ONCE = 4


class BlobCopies:
    """Copies blobs, and counts those that were `sent`, their `bytes`, and those that were `kept`.

    `went_on` is called, by one thread at a time, after each piece, and `progress` is told of them.
    """

    def __init__(self, source: Source, target: Endpoints, went_on: Callable[[], None], progress: Progress) -> None:
        self._source = source
        self._target = target
        self._went_on = went_on
        self._progress = progress
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self.sent = self.bytes = self.kept = 0

    def copy(self, repository: RepositoryName, sizes: Mapping[Digest, int]) -> None:
        """Copy all of them; raises Refused and Unreachable."""
        with self._lock:
            self._progress.begin(sum(sizes.values()))
        futures = [self._pool.submit(self._copy, repository, digest, size) for digest, size in sizes.items()]
        wait(futures)
        for future in futures:
            future.result()

    def interrupt(self) -> None:
        """Have what is under way not begin anything else."""
        self._stopped.set()

    def close(self) -> None:
        """Wait for what is under way to end."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _copy(self, repository: RepositoryName, digest: Digest, size: int) -> None:
        location, offset, failures = "", 0, 0
        while True:
            try:
                location = location or self._target.begin_upload(repository, digest)
                if location:
                    self._send(repository, digest, size, location, offset)
                self._count(location, size)
            except Refused as refused:
                self._cancel(location)
                raise refused.of(f"blob {digest}") from refused
            except Broken as broken:
                # The pause comes first: until the registry notes that the connection has ended, it does not count what
                # arrived.
                if failures == len(PAUSES) or self._stopped.wait(PAUSES[failures]):
                    raise Unreachable(f"blob {digest} of {repository}: {broken}") from broken
                arrived = self._target.upload_offset(location) if location else -1
                failures = 0 if arrived > offset else failures + 1
                if arrived < 0:
                    self._cancel(location)
                location, offset = (location, arrived) if arrived >= 0 else ("", 0)
            else:
                return

    def _cancel(self, location: str) -> None:
        """End an upload, once the registry has noted that its connection has ended."""
        for pause in (0, *PAUSES) if location else ():
            if self._stopped.wait(pause) or self._target.cancel_upload(location):
                return

    def _send(self, repository: RepositoryName, digest: Digest, size: int, location: str, offset: int) -> None:
        with self._source.blob(repository, digest, size, offset) as pieces:
            self._target.finish_upload(location, digest, offset, size, self._watched(pieces))

    def _watched(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            with self._lock:
                self.bytes += len(piece)
                self._progress.moved(len(piece))
                self._went_on()
            yield piece

    def _count(self, location: str, size: int) -> None:
        with self._lock:
            self._progress.left_out(0 if location else size)
            self.sent += location != ""
            self.kept += location == ""
