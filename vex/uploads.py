"""Upload sessions: a growing file, its hash, and the rules for adding to it (OCI distribution specification, "Pushing a blob in chunks").

A session is a file `uploads/<token>`; nothing else about it is stored but what is known of its bytes (`received.py`), so that it
goes on after a restart. The token is unguessable and binds the session to its repository and algorithm. Invariants: the hash is always
that of the bytes in the file; what was acknowledged is synced; one request at a time works on a session.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import queue
import re
import secrets
import threading
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Callable, NamedTuple

from vex.blobs import COPY, FILE_MODE, REMOVED_PREFIX, BlobFiles
from vex.errors import (
    BLOB_TOO_LARGE,
    BLOB_UPLOAD_UNKNOWN,
    DIGEST_INVALID,
    DISK_FULL,
    RANGE_INVALID,
    SIZE_INVALID,
    TOO_MANY_UPLOADS,
    Disconnected,
    RegistryError,
)
from vex.files import sync
from vex.names import ALGORITHMS, Digest, RepositoryName
from vex.received import Received, read_received, write_received
from vex.wire import Body

_log = logging.getLogger("vex")

_TOKEN = re.compile(r"[0-9a-f]{64}")
# Two for each body being received.
_BUFFER_BYTES = 512 * 1024
_IDLE_BUFFERS = 4
# How much is written between two looks at the free space, for a client that did not say how much it sends, and is lost at most when the
# process is killed.
_CHECK_BYTES = 16 * 1024 * 1024
_WRITEBACK_BYTES = 8 * 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class UploadLimits(NamedTuple):
    """Limits of uploads, in bytes, seconds and sessions."""

    blob_bytes: int
    free_bytes: int
    sessions: int
    idle_seconds: float


class OutOfOrder(RegistryError):
    """A chunk does not continue where the session is; the session, at `offset` bytes, goes on unharmed."""

    def __init__(self, upload: Upload, message: str) -> None:
        super().__init__(RANGE_INVALID, message)
        self.upload = upload


class Upload:
    """One session; `offset` is the number of bytes that were received and written, `hash` is theirs."""

    def __init__(self, token: str, repository: RepositoryName, algorithm: str, path: Path, now: float) -> None:
        self.token = token
        self.repository = repository
        self.path = path
        self.offset = 0
        self.touched = now
        self.algorithm = algorithm
        self.hash = hashlib.new(algorithm)
        self.durable = self.received  # what was synced last
        self.synced = False
        self.left = False  # by an earlier process, so that the bytes on disk have to be read first
        self.reading = threading.Lock()
        self.lock = threading.Lock()

    @property
    def digest(self) -> Digest:
        """The digest of what was received so far."""
        return Digest(f"{self.algorithm}:{self.hash.hexdigest()}")

    @property
    def received(self) -> Received:
        """What was received so far."""
        return Received.of(self.offset, self.hash)


class Uploads:
    """All open sessions; any thread may use it. Other `limits` count from the moment they are set."""

    def __init__(self, files: BlobFiles, limits: UploadLimits, *, clock: Callable[[], float] = time.time) -> None:
        """Find the sessions that an earlier process left, and remove what it had set aside for removal."""
        self._files = files
        self.limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Upload | None] = {}
        self._buffers: list[bytearray] = []
        for entry in os.scandir(files.uploads):
            ours = entry.is_file(follow_symlinks=False)
            if ours and (entry.name.startswith(REMOVED_PREFIX) or entry.name == COPY):
                files.discard(Path(entry.path))
            elif ours and _TOKEN.fullmatch(entry.name):
                self._open[entry.name] = None  # read when its client comes back
            else:
                _log.warning("uploads/%s is no upload of this registry: it is left alone", entry.name)

    def __len__(self) -> int:
        return len(self._open)

    def repositories(self) -> list[RepositoryName]:
        """Return the names of the repositories that sessions of this process belong to."""
        with self._lock:
            return [upload.repository for upload in self._open.values() if upload]

    def start(self, repository: RepositoryName, algorithm: str) -> Upload:
        """Open a new session; raises TOO_MANY_UPLOADS."""
        token = _token(secrets.token_hex(16), repository, algorithm)
        upload = Upload(token, repository, algorithm, self._files.uploads / token, self._clock())
        with self._lock:
            if len(self._open) >= self.limits.sessions:
                raise RegistryError(TOO_MANY_UPLOADS, headers={"Retry-After": "60"})
            self._open[token] = upload
        try:
            descriptor = os.open(upload.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
            try:
                write_received(descriptor, upload.durable, upload.received)
            finally:
                os.close(descriptor)
        except BaseException:
            self.cancel(upload)
            raise
        return upload

    @contextlib.contextmanager
    def session(self, repository: RepositoryName, token: str) -> Iterator[Upload]:
        """Hold a session for one request; raises BLOB_UPLOAD_UNKNOWN, or RANGE_INVALID while another request works on it."""
        upload = self._find(repository, token)
        if not upload.lock.acquire(blocking=False):
            raise OutOfOrder(upload, "another request is adding to this upload")
        try:
            if token not in self._open:
                raise RegistryError(BLOB_UPLOAD_UNKNOWN)
            yield upload
        finally:
            upload.touched = self._clock()
            upload.lock.release()

    def peek(self, repository: RepositoryName, token: str) -> Upload:
        """Find a session to tell about it, also while a request works on it; raises BLOB_UPLOAD_UNKNOWN."""
        return self._find(repository, token)

    def check_room(self, upload: Upload, length: int | None) -> None:
        """Refuse a body of this many bytes before it is read: SIZE_INVALID (413) or INSUFFICIENT_STORAGE."""
        if upload.offset + (length or 0) > self.limits.blob_bytes:
            raise RegistryError(BLOB_TOO_LARGE, f"a blob may have at most {self.limits.blob_bytes} bytes here; ask the operator to raise blob-limit")
        if self._files.free_bytes() - (length or 0) < self.limits.free_bytes:
            raise RegistryError(DISK_FULL)

    def receive(self, upload: Upload, body: Body, length: int | None, content_range: tuple[int, int] | None = None) -> None:
        """Append a body to a session and sync it.

        `length` is the body's size in bytes where the client said it, `content_range` the first and the last offset.
        Raises RANGE_INVALID when it does not continue at the offset, SIZE_INVALID when sizes contradict each other, and Disconnected.
        """
        start, before = upload.offset, upload.hash.copy()
        expected = _expected_length(upload, length, content_range)
        self.check_room(upload, length)
        try:
            self._append(upload, body)
            if expected is not None and upload.offset - start != expected:
                raise RegistryError(SIZE_INVALID, f"Content-Range says {expected} bytes, the body had {upload.offset - start}")
        except (RegistryError, OSError) as error:
            # What breaks a rule, or found no space, leaves nothing behind; a client that vanished (Disconnected) leaves what arrived.
            # After a sync that failed, the file is gone.
            with contextlib.suppress(FileNotFoundError):
                os.truncate(upload.path, start)
            upload.offset, upload.hash = start, before
            if isinstance(error, OSError) and error.errno in _FULL:
                raise RegistryError(DISK_FULL) from error
            raise

    def verify(self, upload: Upload, digest: Digest) -> None:
        """Make sure that the session holds the content of this digest, complete and synced; otherwise end it: DIGEST_INVALID."""
        if digest.algorithm != upload.algorithm:
            upload.algorithm = digest.algorithm
            upload.hash = hashlib.new(upload.algorithm)
            with open(upload.path, "rb", buffering=0) as file:
                _hash_on(file, upload.hash, upload.offset)
        if upload.digest != digest:
            message = f"the {upload.offset} bytes that arrived have the digest {upload.digest}, not {digest}; start the upload again"
            self.cancel(upload)
            raise RegistryError(DIGEST_INVALID, message)
        if not upload.synced:
            self._sync(upload)

    def cancel(self, upload: Upload) -> None:
        """End a session and remove its file."""
        self._forget(upload)
        self._files.discard(upload.path)

    def expire(self) -> int:
        """End the sessions that have been idle for too long; returns how many."""
        oldest = self._clock() - self.limits.idle_seconds
        with self._lock:
            idle = [token for token, upload in self._open.items() if self._touched(token, upload) < oldest]
        ended = 0
        for token in idle:
            upload = self._open.get(token)
            if upload is not None and not upload.lock.acquire(blocking=False):
                continue
            with self._lock:
                self._open.pop(token, None)
            self._files.discard(self._files.uploads / token)
            if upload is not None:
                upload.lock.release()
            ended += 1
        return ended

    def _touched(self, token: str, upload: Upload | None) -> float:
        if upload is not None:
            return upload.touched
        try:
            return os.stat(self._files.uploads / token).st_mtime
        except FileNotFoundError:
            return 0

    def _find(self, repository: RepositoryName, token: str) -> Upload:
        algorithm = next((name for name in ALGORITHMS if _token(token[:32], repository, name) == token), "")
        with self._lock:
            if not algorithm or token not in self._open:
                raise RegistryError(BLOB_UPLOAD_UNKNOWN)
            upload = self._open[token]
            if upload is None:
                upload = self._open[token] = Upload(token, repository, algorithm, self._files.uploads / token, self._clock())
                upload.left = True
        with upload.reading:
            if upload.left:
                try:
                    _read_again(upload)
                except FileNotFoundError as error:
                    raise RegistryError(BLOB_UPLOAD_UNKNOWN) from error  # it expired meanwhile
                upload.left = False
        return upload

    def _forget(self, upload: Upload) -> None:
        with self._lock:
            self._open.pop(upload.token, None)

    def _append(self, upload: Upload, body: Body) -> None:
        buffers = self._take_buffer(), self._take_buffer()
        descriptor = os.open(upload.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.lseek(descriptor, upload.offset, os.SEEK_SET)
            with _Hashing(upload.hash) as hashing:
                self._write_all(upload, body, descriptor, hashing, buffers)
        except Disconnected:
            # Not synced, but what a restart of the process alone leaves.
            write_received(descriptor, upload.durable, upload.received)
            raise
        finally:
            os.close(descriptor)
            self._give_buffers(buffers)
        if not upload.synced:
            self._sync(upload)

    def _write_all(self, upload: Upload, body: Body, descriptor: int, hashing: _Hashing, buffers: tuple[bytearray, bytearray]) -> None:
        view, other = memoryview(buffers[0]), memoryview(buffers[1])
        check_at, filled, count = upload.offset + _CHECK_BYTES, 0, 1
        try:
            while count:
                # Chunks of a few KiB are gathered: hashing and writing cost by the call.
                count = body.read_into(view[filled:])
                filled += count
                if filled < len(view) and count:
                    continue
                if upload.offset + filled > self.limits.blob_bytes or upload.offset >= check_at:
                    self.check_room(upload, filled)
                    hashing.settle()
                    write_received(descriptor, upload.durable, upload.received)
                    check_at = upload.offset + _CHECK_BYTES
                hashing.update(view[:filled], last=body.complete)
                _write(upload, descriptor, view[:filled])
                view, other, filled = other, view, 0
        except Disconnected:
            hashing.update(view[:filled], last=True)
            _write(upload, descriptor, view[:filled])
            raise

    def _sync(self, upload: Upload) -> None:
        descriptor = os.open(upload.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            received = upload.received
            write_received(descriptor, upload.durable, received)
            try:
                sync(descriptor)
            except OSError:
                # After a failed fsync the kernel may have dropped the pages, and a second one would succeed: nothing here can be trusted.
                self.cancel(upload)
                raise
        finally:
            os.close(descriptor)
        upload.synced, upload.durable = True, received

    def _take_buffer(self) -> bytearray:
        with self._lock:
            return self._buffers.pop() if self._buffers else bytearray(_BUFFER_BYTES)

    def _give_buffers(self, buffers: tuple[bytearray, bytearray]) -> None:
        with self._lock:
            if len(self._buffers) < _IDLE_BUFFERS:
                self._buffers += buffers


class _Hashing:
    """Hashes blocks beside what else happens to them: hashing, receiving and writing all let go of the interpreter lock.

    At the end of the `with`, all of them are hashed. The thread starts only when there is more than one block.
    """

    def __init__(self, content_hash: hashlib._Hash) -> None:
        self._hash = content_hash
        self._blocks: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        self._hashed = threading.Semaphore(1)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> _Hashing:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._thread:
            self._blocks.put(None)
            self._thread.join()

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


def received_range(offset: int) -> str:
    """Write what was received as a Range header; `0-0` also stands for nothing, since docker does not take `0--1`."""
    return f"0-{max(offset - 1, 0)}"


def _expected_length(upload: Upload, length: int | None, content_range: tuple[int, int] | None) -> int | None:
    if content_range is None:
        return length
    first, last = content_range
    if first != upload.offset:
        raise OutOfOrder(upload, f"the upload goes on at byte {upload.offset}, not {first}")
    expected = last - first + 1
    if length is not None and length != expected:
        raise RegistryError(SIZE_INVALID, f"Content-Range says {expected} bytes, Content-Length {length}")
    return expected


def _write(upload: Upload, descriptor: int, view: memoryview) -> None:
    while view:
        upload.synced = False
        start = upload.offset
        written = os.write(descriptor, view)
        upload.offset += written
        view = view[written:]
        if upload.offset // _WRITEBACK_BYTES != start // _WRITEBACK_BYTES and hasattr(os, "posix_fadvise"):
            # The kernel begins to write what is new, so that the sync at the end finds little left to do, and forgets what is
            # written: the next window gets the same memory instead of memory that others, or blobs being pulled, have to give up.
            os.posix_fadvise(descriptor, 0, upload.offset, os.POSIX_FADV_DONTNEED)


def _read_again(upload: Upload) -> None:
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


def _hash_on(file: FileIO, content_hash: hashlib._Hash, count: int) -> None:
    """Hash the next `count` bytes of a file, or what there is of them."""
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    while count and (read := file.readinto(buffer[:count])):
        content_hash.update(buffer[:read])
        count -= read


def _token(nonce: str, repository: str, algorithm: str) -> str:
    return nonce + hashlib.sha256(f"{nonce} {repository} {algorithm}".encode()).hexdigest()[:32]
