"""Manifests that are being pushed: a large one waits in a file, and comes into memory when there is room for it.

What a manifest takes while it is read is a multiple of its bytes, which its pusher chooses. So the large ones that are
read at once have a few MiB together, whoever sends them; small ones are bounded by the number of connections.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Callable, TypeVar

from vex.errors import MANIFEST_TOO_LARGE, UNAVAILABLE, RegistryError
from vex.http.bodies import Body
from vex.storage.blobs import FILE_MODE
from vex.storage.upload_files import single_name

T = TypeVar("T")
_SMALL_BYTES = 64 * 1024
# The largest manifest that clients rely on: one of these at a time.
_LARGE_BYTES = 4 * 1024 * 1024
_WAIT_SECONDS = 300.0


class ManifestBodies:
    """Receives the bodies of manifests of at most `limit` bytes; any thread may use it."""

    def __init__(self, directory: Path, limit: int) -> None:
        """Keep large ones in files in a directory, which have no names."""
        self._directory = directory
        self._limit = limit
        self._budget = _Budget(_LARGE_BYTES)

    def take(self, body: Body, length: int | None, use: Callable[[bytes], T]) -> T:
        """Receive a body, whose length is known where the client said it, and return what is made of it; raises
        MANIFEST_TOO_LARGE and UNAVAILABLE.
        """
        self._check(length or 0)
        content, size = bytearray(), 0
        view = memoryview(bytearray(_SMALL_BYTES))
        with contextlib.ExitStack() as held:
            file: BinaryIO | None = None
            while count := body.read_into(view):
                size += count
                self._check(size)
                if file is None and size > _SMALL_BYTES:
                    file = held.enter_context(self._file())
                    file.write(content)
                if file is None:
                    content += view[:count]
                else:
                    file.write(view[:count])
            if file is None:
                return use(bytes(content))
            with self._budget.holding(size):
                file.seek(0)
                return use(file.read())

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise RegistryError(
                MANIFEST_TOO_LARGE, f"the manifest is larger than the {self._limit} bytes this registry takes"
            )

    def _file(self) -> BinaryIO:
        path = self._directory / single_name()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        os.unlink(path)
        return os.fdopen(descriptor, "w+b")


class _Budget:
    """So many bytes at once, in the order in which they are asked for; more than there are get all."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._first = threading.Lock()
        self._released = threading.Condition()

    @contextlib.contextmanager
    def holding(self, count: int) -> Iterator[None]:
        """Hold bytes for a block, once they are free; raises UNAVAILABLE."""
        deadline = time.monotonic() + _WAIT_SECONDS
        # Whoever waits for many bytes is not passed by those who need few.
        if not self._first.acquire(timeout=_WAIT_SECONDS):
            raise _busy()
        try:
            with self._released:
                if not self._released.wait_for(
                    lambda: not self._used or self._used + count <= self._total, deadline - time.monotonic()
                ):
                    raise _busy()
                self._used += count
        finally:
            self._first.release()
        try:
            yield
        finally:
            with self._released:
                self._used -= count
                self._released.notify()


def _busy() -> RegistryError:
    return RegistryError(
        UNAVAILABLE, "too many large manifests are being pushed; try again", headers={"Retry-After": "10"}
    )
