"""Upload sessions and the rules for adding to them (OCI distribution specification, "Pushing a blob in chunks").

A session is a file `uploads/<token>`; nothing else about it is stored but what is known of its bytes (`received.py`),
so that it goes on after a restart. The token is unguessable, and binds the session to its owner, its repository and its
algorithm. Invariants: what was acknowledged, and any offset that a client is told, is synced; one request at a time
works on a session; a session ends with the credentials that opened it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Callable, NamedTuple

from vex.errors import (
    BLOB_TOO_LARGE,
    BLOB_UPLOAD_UNKNOWN,
    DIGEST_INVALID,
    DISK_FULL,
    RANGE_INVALID,
    SIZE_INVALID,
    TOO_MANY_UPLOADS,
    RegistryError,
)
from vex.names import ALGORITHMS, Digest, RepositoryName
from vex.storage.blobs import COPY, REMOVED_PREFIX, BlobFiles
from vex.storage.disk import FULL
from vex.storage.upload_files import (
    SINGLE,
    SMALL_BYTES,
    Incoming,
    Receiver,
    Upload,
    append_small,
    create,
    hash_again,
    read_again,
    restored_on_error,
    settle,
    single_name,
)

_log = logging.getLogger("vex")

# 128 random bits, who owns it, and a check; those without an owner are of an older Vex.
_TOKEN = re.compile(r"[0-9a-f]{32}([0-9a-f]{16})?[0-9a-f]{32}")
# Longer than a client waits between two requests of one upload: a session that has been idle for so long gives way to a
# new one.
_GIVES_WAY_SECONDS = 300


class UploadLimits(NamedTuple):
    """Limits of uploads, in bytes, seconds and sessions."""

    blob_bytes: int
    free_bytes: int
    sessions: int
    idle_seconds: float

    @property
    def share(self) -> int:
        """How many sessions one identity may have: half of them."""
        return max(self.sessions // 2, 1)


class OutOfOrder(RegistryError):
    """A chunk does not continue where the session is; the session, at `durable.size` bytes, goes on unharmed."""

    def __init__(self, upload: Upload, message: str) -> None:
        super().__init__(RANGE_INVALID, message)
        self.upload = upload


class Uploads:
    """All open sessions; any thread may use it. Other `limits` count from the moment they are set.

    An owner is a text that changes with the credentials, "" for anyone. `owners` lists those whose credentials are
    valid; without it, sessions do not end with credentials.
    """

    def __init__(
        self,
        files: BlobFiles,
        limits: UploadLimits,
        *,
        owners: Callable[[], Iterable[str]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Find the sessions that an earlier process left, and remove what it had set aside for removal."""
        self._files = files
        self.limits = limits
        self._owners = owners
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[str, Upload | None] = {}
        self._singles: set[Upload] = set()
        self._receiver = Receiver()
        for entry in os.scandir(files.uploads):
            ours = entry.is_file(follow_symlinks=False)
            if ours and (entry.name.startswith(REMOVED_PREFIX) or entry.name == COPY or SINGLE.fullmatch(entry.name)):
                files.discard(Path(entry.path))
            elif ours and _TOKEN.fullmatch(entry.name):
                self._open[entry.name] = None  # read when its client comes back
            else:
                _log.warning("uploads/%s is no upload of this registry: it is left alone", entry.name)

    @property
    def directory(self) -> Path:
        """Where files of requests under way are."""
        return self._files.uploads

    def __len__(self) -> int:
        """Tell how many uploads are in progress, those of one request too."""
        return len(self._open) + len(self._singles)

    def repositories(self) -> list[RepositoryName]:
        """Return the names of the repositories that sessions of this process belong to."""
        with self._lock:
            return [upload.repository for upload in self._open.values() if upload]

    def start(self, repository: RepositoryName, algorithm: str, owner: str = "") -> Upload:
        """Open a new session; raises TOO_MANY_UPLOADS when all places, or those that an owner may have, are taken by
        sessions in use.
        """
        token = _token(secrets.token_hex(16), owner, repository, algorithm)
        upload = Upload(token, owner, repository, algorithm, self._files.uploads / token, self._clock())
        self._take_place(upload)
        try:
            create(upload)
        except BaseException:
            self.cancel(upload)
            raise
        return upload

    @contextlib.contextmanager
    def single(self, repository: RepositoryName, algorithm: str) -> Iterator[Upload]:
        """Hold an upload of one request, which takes no place among the sessions; whatever is left of it goes with the
        next start.
        """
        name = single_name()
        upload = Upload(name, "", repository, algorithm, self._files.uploads / name, self._clock())
        self._singles.add(upload)
        try:
            create(upload)
            yield upload
        finally:
            self._singles.discard(upload)
            self.cancel(upload)

    @contextlib.contextmanager
    def session(self, repository: RepositoryName, token: str, owner: str = "") -> Iterator[Upload]:
        """Hold a session for one request; raises BLOB_UPLOAD_UNKNOWN, or RANGE_INVALID while another request works on
        it.
        """
        upload = self._find(repository, token, owner)
        if not upload.lock.acquire(blocking=False):
            self._settle(upload)
            raise OutOfOrder(upload, "another request is adding to this upload")
        try:
            if upload.ended:
                raise RegistryError(BLOB_UPLOAD_UNKNOWN)
            yield upload
        finally:
            upload.touched = self._clock()
            upload.lock.release()

    def peek(self, repository: RepositoryName, token: str, owner: str = "") -> Upload:
        """Find a session to tell about it, also while a request works on it, and sync what it has; raises
        BLOB_UPLOAD_UNKNOWN.
        """
        upload = self._find(repository, token, owner)
        self._settle(upload)
        return upload

    def check_room(self, upload: Upload, length: int | None) -> None:
        """Refuse a body of this many bytes before it is read: SIZE_INVALID (413) or INSUFFICIENT_STORAGE."""
        if upload.offset + (length or 0) > self.limits.blob_bytes:
            raise RegistryError(
                BLOB_TOO_LARGE,
                f"a blob may have at most {self.limits.blob_bytes} bytes here; ask the operator to raise blob-limit",
            )
        if self._files.free_bytes() - (length or 0) < self.limits.free_bytes:
            raise RegistryError(DISK_FULL)

    def receive(
        self, upload: Upload, body: Incoming, length: int | None, first: int | None = None, last: int | None = None
    ) -> None:
        """Append a body to a session and sync it.

        `length` is the body's size in bytes where the client said it, `first` and `last` the offsets of its first and
        last byte. Raises RANGE_INVALID when it does not continue at the offset, SIZE_INVALID when sizes contradict each
        other, and Disconnected.
        """
        if first is not None and first != upload.offset:
            self._settle(upload)
            raise OutOfOrder(upload, f"the upload goes on at byte {upload.offset}, not {first}")
        expected = length if last is None else last - upload.offset + 1
        if length is not None and length != expected:
            raise RegistryError(SIZE_INVALID, f"Content-Range says {expected} bytes, Content-Length {length}")
        self.check_room(upload, length)
        try:
            # What breaks a rule, or found no space, leaves nothing behind; a client that vanished (Disconnected) leaves
            # what arrived.
            with restored_on_error(upload, RegistryError, OSError):
                start = upload.offset
                if length is not None and length <= SMALL_BYTES:
                    # Docker ends an upload with nothing.
                    if length:
                        append_small(upload, body, length)
                else:
                    self._receiver.append(
                        upload, body, self.limits.blob_bytes, lambda count: self.check_room(upload, count)
                    )
                if expected is not None and upload.offset - start != expected:
                    raise RegistryError(
                        SIZE_INVALID, f"Content-Range says {expected} bytes, the body had {upload.offset - start}"
                    )
                self._settle(upload)
        except OSError as error:
            if error.errno in FULL:
                raise RegistryError(DISK_FULL) from error
            raise

    def verify(self, upload: Upload, digest: Digest) -> None:
        """Make sure that the session holds the content of this digest, complete and synced; otherwise end it:
        DIGEST_INVALID.
        """
        if digest.algorithm != upload.algorithm:
            hash_again(upload, digest.algorithm)
        if upload.digest != digest:
            message = (
                f"the {upload.offset} bytes that arrived have the digest {upload.digest}, not {digest}; start the"
                " upload again"
            )
            self.cancel(upload)
            raise RegistryError(DIGEST_INVALID, message)
        self._settle(upload)

    def cancel(self, upload: Upload) -> None:
        """End a session and remove its file."""
        upload.ended = True
        with self._lock:
            self._open.pop(upload.token, None)
        if not upload.published:
            self._files.discard(upload.path)

    def expire(self) -> int:
        """End the sessions that have been idle for too long, and those whose owner's credentials are not valid any
        more; returns how many.
        """
        oldest = self._clock() - self.limits.idle_seconds
        with self._lock:
            idle = [token for token, upload in self._open.items() if self._touched(token, upload) < oldest]
        return sum(self._end(token) for token in [*idle, *self._orphans()])

    def _take_place(self, upload: Upload) -> None:
        """Make a session one of those that are open; whichever has been idle for longest makes room for it if it has
        to.
        """
        if not self._crowding_out(upload):
            return
        for token in self._orphans():
            self._end(token)
        while crowd := self._crowding_out(upload):
            if not self._end_longest_idle(crowd):
                message = (
                    f"{len(crowd)} uploads of yours are open, and there is room for no more; finish or cancel some, or"
                    " try again later"
                )
                own = all(_owner_of(token) == upload.owner for token in crowd)
                raise RegistryError(TOO_MANY_UPLOADS, message if own else "", headers={"Retry-After": "60"})

    def _crowding_out(self, upload: Upload) -> list[str]:
        """Open a session if there is room; else return those of which one has to end: its owner's own, who has his
        share, or all.
        """
        with self._lock:
            crowd = [token for token in self._open if _owner_of(token) == upload.owner]
            if len(crowd) < self.limits.share:
                crowd = list(self._open)
                if len(crowd) < self.limits.sessions:
                    self._open[upload.token] = upload
                    return []
            return crowd

    def _end_longest_idle(self, tokens: list[str]) -> bool:
        """End the session that has been idle for longest, and for some minutes; returns whether there was one."""
        with self._lock:
            touched = {token: self._touched(token, self._open[token]) for token in tokens if token in self._open}
        before = self._clock() - _GIVES_WAY_SECONDS
        return any(
            self._end(token) for token in sorted(touched, key=lambda token: touched[token]) if touched[token] < before
        )

    def _orphans(self) -> list[str]:
        """Return the sessions whose owner's credentials are not valid any more."""
        with self._lock:
            owned = [token for token in self._open if _owner_of(token)]
        if not owned or self._owners is None:
            return []
        valid = set(self._owners())
        return [token for token in owned if _owner_of(token) not in valid]

    def _end(self, token: str) -> bool:
        """End a session that no request works on; returns whether it was one."""
        with self._lock:
            upload = self._open.get(token)
            if token not in self._open or (upload and not upload.lock.acquire(blocking=False)):
                return False
            del self._open[token]
        if upload:
            upload.ended = True
            upload.lock.release()
        self._files.discard(self._files.uploads / token)
        return True

    def _touched(self, token: str, upload: Upload | None) -> float:
        if upload is not None:
            return upload.touched
        try:
            return os.stat(self._files.uploads / token).st_mtime
        except FileNotFoundError:
            return 0

    def _find(self, repository: RepositoryName, token: str, asker: str) -> Upload:
        owner = _owner_of(token)
        algorithm = next((name for name in ALGORITHMS if _token(token[:32], owner, repository, name) == token), "")
        if owner != asker and token in self._orphans():
            self._end(token)
        with self._lock:
            if not algorithm or token not in self._open:
                raise RegistryError(BLOB_UPLOAD_UNKNOWN)
            upload = self._open[token]
            if upload is None:
                upload = self._open[token] = Upload(
                    token, owner, repository, algorithm, self._files.uploads / token, self._clock()
                )
                upload.left = True
        with upload.reading:
            if upload.left:
                try:
                    read_again(upload)
                except FileNotFoundError as error:
                    raise RegistryError(BLOB_UPLOAD_UNKNOWN) from error  # it expired meanwhile
                upload.left = False
        return upload

    def _settle(self, upload: Upload) -> None:
        try:
            settle(upload)
        except FileNotFoundError as error:
            raise RegistryError(BLOB_UPLOAD_UNKNOWN) from error  # it ended meanwhile
        except OSError:
            if upload.ended:
                self.cancel(upload)
            raise


def received_range(offset: int) -> str:
    """Write what was received as a Range header; `0-0` also stands for nothing, since docker does not take `0--1`."""
    return f"0-{max(offset - 1, 0)}"


def _owner_of(token: str) -> str:
    return token[32:-32]


def _token(nonce: str, owner: str, repository: str, algorithm: str) -> str:
    return nonce + owner + hashlib.sha256(f"{nonce}{owner} {repository} {algorithm}".encode()).hexdigest()[:32]
