"""The file of an upload: bodies are hashed and written to it as they come, it is synced, cut back, and read again after
a restart.

Invariants, at any moment in which `Upload.writing` is free: the file holds `offset` bytes whose hash is `hash`; of
these, the first `durable.size` survive a power cut, and the attribute of the file says so (`received.py`). Who may add
to a session is decided in `uploads.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import queue
import re
import secrets
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Callable, Protocol

from vex.errors import BLOB_UPLOAD_UNKNOWN, Disconnected, RegistryError
from vex.names import Digest, RepositoryName
from vex.storage.blobs import FILE_MODE
from vex.storage.files import sync
from vex.storage.received import Received, read_received, write_received
from vex.storage.writeback import begin_writing

# Two for each body being received: large ones for as many bodies as have them to themselves, and small ones for those
# beyond.
_BUFFER_BYTES = 512 * 1024
_SMALL_BUFFER_BYTES = 64 * 1024
# They begin with a page, since systems copy into what begins 16 bytes behind, as what is allocated does, at a third of
# the speed.
Buffers = tuple[mmap.mmap, mmap.mmap]
# A body of at most so many bytes is written at once, when all of it is there.
SMALL_BYTES = _SMALL_BUFFER_BYTES
_LARGE_BUFFERS = 32
_IDLE_BUFFERS = 4
# How much is written between two looks at the free space, for a client that did not say how much it sends, and is lost
# at most when the process is killed.
_CHECK_BYTES = 16 * 1024 * 1024
_WRITEBACK_BYTES = 8 * 1024 * 1024


# Files of one request, which an earlier process left if it was killed.
SINGLE = re.compile(r"single_[0-9a-f]{32}")


class Upload:
    """One upload; `offset` is the number of bytes that were received and written, `hash` is theirs. `owner` tells whose
    it is.
    """

    def __init__(
        self, token: str, owner: str, repository: RepositoryName, algorithm: str, path: Path, now: float
    ) -> None:
        self.token = token
        self.owner = owner
        self.repository = repository
        self.path = path
        self.offset = 0
        self.touched = now
        self.algorithm = algorithm
        self.hash = hashlib.new(algorithm)
        self.hashing: _Hashing | None = None  # while a body arrives
        self.durable = self.received  # what was synced last
        self.synced = False
        self.ended = False
        self.published = False  # the file has become that of a blob
        self.left = False  # by an earlier process, so that the bytes on disk have to be read first
        self.reading = threading.Lock()
        self.writing = threading.Lock()
        self.lock = threading.Lock()

    @property
    def digest(self) -> Digest:
        """The digest of what was received so far."""
        return Digest(f"{self.algorithm}:{self.hash.hexdigest()}")

    @property
    def received(self) -> Received:
        """What was received so far."""
        return Received.of(self.offset, self.hash)


class Incoming(Protocol):
    """What arrives for an upload, read in pieces; `complete` says that there are no more, `received` counts its bytes
    so far.
    """

    complete: bool
    received: int

    def read_into(self, view: memoryview) -> int:
        """Fill a part of the view, which is not empty; returns the number of bytes, 0 when complete. Raises
        Disconnected.
        """


class Receiver:
    """Writes bodies to the files of uploads; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[mmap.mmap] = []
        self._large = 0

    def append(self, upload: Upload, body: Incoming, limit: int, check_room: Callable[[int], None]) -> None:
        """Append a body; `check_room` raises where so many more bytes have no room, and past `limit` bytes.

        Raises Disconnected with what arrived kept, not synced.
        """
        buffers = self._take_buffers()
        descriptor = os.open(upload.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.lseek(descriptor, upload.offset, os.SEEK_SET)
            with _Hashing(upload) as hashing:
                _write_all(upload, body, descriptor, hashing, buffers, limit, check_room)
        except Disconnected:
            # Not synced, but what a restart of the process alone leaves.
            with upload.writing:
                write_received(descriptor, upload.durable, upload.received)
            raise
        finally:
            os.close(descriptor)
            self._give_buffers(buffers)

    def _take_buffers(self) -> Buffers:
        with self._lock:
            if self._large + 2 > _LARGE_BUFFERS:
                return mmap.mmap(-1, _SMALL_BUFFER_BYTES), mmap.mmap(-1, _SMALL_BUFFER_BYTES)
            self._large += 2
            first, second = (self._idle.pop() if self._idle else mmap.mmap(-1, _BUFFER_BYTES) for _ in range(2))
            return first, second

    def _give_buffers(self, buffers: Buffers) -> None:
        with self._lock:
            if len(buffers[0]) == _BUFFER_BYTES:
                self._large -= 2
                if len(self._idle) < _IDLE_BUFFERS:
                    self._idle += buffers


def single_name() -> str:
    """Name a file of one request: it goes with the next start at the latest."""
    return f"single_{secrets.token_hex(16)}"


def create(upload: Upload) -> None:
    """Create the file of an upload; raises OSError."""
    descriptor = os.open(upload.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        write_received(descriptor, upload.durable, upload.received)
    finally:
        os.close(descriptor)


def append_small(upload: Upload, body: Incoming, length: int) -> None:
    """Append a body of at most SMALL_BYTES, whose length is known, and make it durable, in one go.

    Raises Disconnected with what arrived kept, not synced; and OSError, as `settle`.
    """
    view = memoryview(bytearray(length))
    filled = 0
    try:
        while filled < length and (count := body.read_into(view[filled:])):
            filled += count
        _put(upload, view[:filled], durably=True)
    except Disconnected:
        _put(upload, view[:filled], durably=False)
        raise


def _put(upload: Upload, view: memoryview, *, durably: bool) -> None:
    with upload.writing:
        if upload.ended:
            raise RegistryError(BLOB_UPLOAD_UNKNOWN)
        descriptor = os.open(upload.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            upload.synced = False
            upload.hash.update(view)
            os.lseek(descriptor, upload.offset, os.SEEK_SET)
            while view:
                written = os.write(descriptor, view)
                upload.offset += written
                view = view[written:]
            _keep(upload, descriptor, durably=durably)
        finally:
            os.close(descriptor)


def _keep(upload: Upload, descriptor: int, *, durably: bool) -> None:
    """Note with the file what was received, and perhaps sync it; raises OSError."""
    received = upload.received
    write_received(descriptor, upload.durable, received)
    if not durably:
        return
    try:
        sync(descriptor)
    except OSError:
        # The kernel may have dropped the pages, and a second sync would succeed: nothing here can be trusted.
        upload.ended = True
        raise
    upload.synced, upload.durable = True, received


def settle(upload: Upload) -> None:
    """Make durable what was received so far, also while a request goes on adding to it.

    Raises OSError; the upload has then ended if the sync itself failed.
    """
    with upload.writing:
        if upload.ended:
            raise RegistryError(BLOB_UPLOAD_UNKNOWN)
        if upload.synced:
            return
        hashing = upload.hashing
        if hashing:
            hashing.settle()
        descriptor = os.open(upload.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            _keep(upload, descriptor, durably=True)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def restored_on_error(upload: Upload, *errors: type[BaseException]) -> Iterator[None]:
    """Cut the file back to what it holds now if the block fails with one of the errors; what is synced next is what is
    left.
    """
    offset, content_hash, durable = upload.offset, upload.hash.copy(), upload.durable
    try:
        yield
    except errors:
        with upload.writing, contextlib.suppress(FileNotFoundError):
            os.truncate(upload.path, offset)
            upload.offset, upload.hash, upload.durable, upload.synced = offset, content_hash, durable, False
        raise


def read_again(upload: Upload) -> None:
    """Find out what the file that an earlier process left holds, and cut off what nothing vouches for."""
    with open(upload.path, "r+b", buffering=0) as file:
        known = read_received(file.fileno())
        content_hash = hashlib.new(upload.algorithm)
        for received in known:
            _hash_on(file, content_hash, received.size - file.tell())
            if Received.of(file.tell(), content_hash) == received:
                upload.offset, upload.hash = received.size, content_hash.copy()
        if known:
            upload.durable = known[0]
            file.truncate(upload.offset)
        else:
            _hash_on(file, content_hash, os.fstat(file.fileno()).st_size)
            upload.offset, upload.hash = file.tell(), content_hash
            upload.durable = upload.received


def hash_again(upload: Upload, algorithm: str) -> None:
    """Hash what the file holds with another algorithm."""
    upload.algorithm, upload.hash = algorithm, hashlib.new(algorithm)
    with open(upload.path, "rb", buffering=0) as file:
        _hash_on(file, upload.hash, upload.offset)


class _Hashing:
    """Hashes blocks beside what else happens to them: hashing, receiving and writing all let go of the interpreter
    lock.

    At the end of the `with`, all of them are hashed. The thread starts only when there is more than one block.
    """

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._hash = upload.hash
        self._blocks: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._hashed = threading.Semaphore(1)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> _Hashing:
        self._upload.hashing = self
        return self

    def __exit__(self, *exception: object) -> None:
        if self._thread:
            self._blocks.put(None)
            self._thread.join()
        self._upload.hashing = None

    def update(self, block: memoryview, *, last: bool) -> None:
        """Begin to hash a block, which must stay as it is until the next call returns."""
        if not self._thread and (last or not self._start()):
            self._hash.update(block)
            return
        # The block before this one is done.
        self._hashed.acquire()
        self._blocks.put(block)

    def settle(self) -> None:
        """Wait until all blocks are hashed."""
        if self._thread:
            with self._hashed:
                pass

    def _start(self) -> bool:
        """Start the thread; returns whether there was one to be had."""
        thread = threading.Thread(target=self._run, name="hash", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError):
            return False  # out of threads or memory, which may be over with the next block
        self._thread = thread
        return True

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            self._hash.update(block)
            self._hashed.release()


def _write_all(
    upload: Upload,
    body: Incoming,
    descriptor: int,
    hashing: _Hashing,
    buffers: Buffers,
    limit: int,
    check_room: Callable[[int], None],
) -> None:
    view, other = memoryview(buffers[0]), memoryview(buffers[1])
    check_at, filled, count = upload.offset + _CHECK_BYTES, 0, 1
    try:
        while count:
            # Chunks of a few KiB are gathered: hashing and writing cost by the call.
            count = body.read_into(view[filled:])
            filled += count
            if filled < len(view) and count:
                continue
            if upload.offset + filled > limit or upload.offset >= check_at:
                check_room(filled)
                with upload.writing:
                    hashing.settle()
                    write_received(descriptor, upload.durable, upload.received)
                check_at = upload.offset + _CHECK_BYTES
            _write(upload, descriptor, view[:filled], hashing, last=body.complete)
            view, other, filled = other, view, 0
    except Disconnected:
        _write(upload, descriptor, view[:filled], hashing, last=True)
        raise


def _write(upload: Upload, descriptor: int, view: memoryview, hashing: _Hashing, *, last: bool) -> None:
    with upload.writing:
        hashing.update(view, last=last)
        while view:
            upload.synced = False
            start = upload.offset
            written = os.write(descriptor, view)
            upload.offset += written
            view = view[written:]
            if upload.offset // _WRITEBACK_BYTES != start // _WRITEBACK_BYTES:
                window = start // _WRITEBACK_BYTES * _WRITEBACK_BYTES
                begin_writing(descriptor, window, upload.offset - window)


def _hash_on(file: FileIO, content_hash: hashlib._Hash, count: int) -> None:
    """Hash the next `count` bytes of a file, or what there is of them."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    while count and (read := file.readinto(buffer[:count])):
        content_hash.update(buffer[:read])
        count -= read
