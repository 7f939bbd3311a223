"""The operations of the registry: what a request means for rows and files, without HTTP and without SQL.

Each operation is one transaction. Names come in checked (`names.py`); errors are those of the specification
(`errors.py`). Files of blobs that lost their row are removed after the commit, by `reconciling.py`. What removes by
itself, over time, is in `housekeeping.py`.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from typing import BinaryIO, Callable, NamedTuple, Union

from vex.errors import (
    BLOB_UNKNOWN,
    DIGEST_INVALID,
    MANIFEST_UNKNOWN,
    PRECONDITION_FAILED,
    RegistryError,
)
from vex.metrics import Tally
from vex.names import Digest, RepositoryName, Tag
from vex.registry import deleting, finding, pushing, quotas
from vex.registry.finding import MayPull, Reference
from vex.registry.protection import check_moves
from vex.registry.reconciling import Reconciler
from vex.registry.references import Release, holds_blob, point_tag, untag
from vex.registry.storage import Storage
from vex.registry.writing import Writer
from vex.storage import blob_rows, manifest_rows, removal, repository_rows
from vex.storage.audit import Actor, manifest_pushed
from vex.storage.database import Transaction
from vex.storage.upload_files import Upload

# Tells whether a push may go on, by what its reference, and then its tags, point to so far; None for what is not there.
Condition = Callable[[Sequence[Union[Digest, None]]], bool]

# A blob that a HEAD found in another repository is held this long for the push that follows.
_HEAD_LEASE_SECONDS = 3600


class Rules(NamedTuple):
    """What the operator can choose: times in seconds, the last one until changes of tags are forgotten, and what a
    manifest may weigh: bytes, descriptors, levels of nested JSON.
    """

    upload_lease: int
    keep_replaced: int
    delete_untags: str
    manifest_bytes: int
    manifest_descriptors: int
    manifest_depth: int
    audit_keep: float


class StoredBlob(NamedTuple):
    """A blob as it is served: from its file, or, when it is a manifest of the repository, from memory. The receiver
    closes the file.
    """

    digest: Digest
    size: int
    file: BinaryIO | None
    content: bytes = b""


class ReadManifest(NamedTuple):
    """A manifest with its bytes; `note` remembers and counts one more fetch of it, `note_push` one by somebody who may
    push.
    """

    row: manifest_rows.ManifestRow
    content: bytes
    note: Callable[[], None]
    note_push: Callable[[], None]


class PushedManifest(NamedTuple):
    """What a push of a manifest has done."""

    digest: Digest
    subject: Digest | None
    tags: tuple[Tag, ...]


class Registry:
    """The registry; any thread may use it. Counts the uploads that became a blob, and their bytes."""

    def __init__(self, storage: Storage, rules: Rules) -> None:
        self._database, self._files, self._uploads, self._pulls, _, self._policies, self._clock = storage
        self.rules = self._rules = rules
        self.reconciler = Reconciler(storage)
        self.writer = self._writer = Writer(storage, self.reconciler)
        self.unfinished = self._writer.unfinished
        self.uploaded, self.uploaded_bytes = Tally(), Tally()
        # One plan of the rules is applied at a time.
        self.applying = threading.Lock()

    # Reading

    def find_manifest(self, name: RepositoryName, reference: Reference) -> manifest_rows.ManifestRow:
        """Return what is known of a manifest without its bytes; raises MANIFEST_UNKNOWN."""
        with self._database.read() as tx:
            return finding.find_manifest(tx, name, reference)[1]

    def read_manifest(
        self,
        name: RepositoryName,
        reference: Reference,
        *,
        content: bool = True,
        pushing: bool = False,
        counted: bool = True,
    ) -> ReadManifest:
        """Return a manifest, perhaps without its bytes, and remember that it was told of, perhaps to one who may push;
        it counts as pulled, or without its bytes as asked for, unless it is not to be counted. Raises MANIFEST_UNKNOWN.
        """
        with self._database.read() as tx:
            repository, row = finding.find_manifest(tx, name, reference)
            found = manifest_rows.manifest_content(tx, row.id) if content else b""
            entry = self._pulls.fetches.entry(repository, row.id, pulled=content)
            note = self._pulls.noting(repository, row.digest, entry=entry)
            note_push = self._pulls.noting(repository, row.digest, pushing=True, entry=entry)
            # While the lock is held: a removal that comes next must find the note.
            if counted:
                (note_push if pushing else note)()
            else:
                self._pulls.note(repository, row.digest, pushing=pushing)
        return ReadManifest(row, found, note, note_push)

    def find_blob(self, name: RepositoryName, digest: Digest, *, pushing: bool = False) -> int:
        """Return the size in bytes of a blob or manifest of the repository, for one who may push perhaps; raises
        BLOB_UNKNOWN.
        """
        blob, content = self._locate_blob(name, digest, pushing=pushing)
        if blob is None:
            return len(content)
        if blob.damaged or self._files.size(digest) != blob.size:
            raise self._damaged(blob)
        return blob.size

    def knows(self, digest: Digest) -> bool:
        """Tell whether there is a blob or a manifest with this digest in any repository, without waiting for those who
        write.
        """
        return self._database.glance(lambda tx: blob_rows.is_known(tx, digest))

    def open_blob(self, name: RepositoryName, digest: Digest, *, pushing: bool = False) -> StoredBlob:
        """Return a blob or manifest of the repository, the blob with its file open, for one who may push perhaps;
        raises BLOB_UNKNOWN.
        """
        blob, content = self._locate_blob(name, digest, pushing=pushing)
        if blob is None:
            return StoredBlob(digest, len(content), None, content)
        with contextlib.suppress(FileNotFoundError):
            file = self._files.open(digest)
            if not blob.damaged and os.fstat(file.fileno()).st_size == blob.size:
                return StoredBlob(digest, blob.size, file)
            file.close()
        raise self._damaged(blob)

    def hold_blob(self, name: RepositoryName, digest: Digest, may_pull: MayPull) -> int:
        """Hold a blob that a manifest anywhere references in this repository for an hour, so that a client need not
        send it; returns its size.

        Raises BLOB_UNKNOWN, also where the client may pull from none of the repositories that reference it.
        """
        now = int(self._clock())
        with self._database.read() as tx:
            blob = blob_rows.find_blob(tx, digest)
            if blob is None or not finding.may_pull_blob(tx, blob.id, now, may_pull, leased=False):
                raise RegistryError(BLOB_UNKNOWN)
        if blob.damaged or self._files.size(digest) != blob.size:
            raise self._damaged(blob)
        with self._database.write() as tx:
            if blob_rows.find_blob(tx, digest) != blob or not finding.may_pull_blob(
                tx, blob.id, now, may_pull, leased=False
            ):
                raise RegistryError(BLOB_UNKNOWN)
            self._take_lease(
                tx, repository_rows.ensure_repository(tx, name, now), blob.id, digest, now, _HEAD_LEASE_SECONDS
            )
        return blob.size

    def totals(self) -> repository_rows.Totals:
        """Count what the registry holds."""
        # Counting takes as long as there are many; pulls and pushes do not wait for it.
        with self._database.browse() as tx:
            return repository_rows.totals(tx)

    # Pushing

    def mount(self, name: RepositoryName, digest: Digest, may_pull: MayPull) -> bool:
        """Hold a blob of a repository that the client may pull from in this one; returns False when it is in none, and
        has to be uploaded. Raises QUOTA_EXCEEDED.

        It does not matter which repository the client named as its source.
        """
        now = int(self._clock())
        with self._database.write() as tx:
            blob = blob_rows.find_blob(tx, digest)
            if (
                blob is None
                or blob.damaged
                or self._files.size(digest) != blob.size
                or not finding.may_pull_blob(tx, blob.id, now, may_pull, leased=True)
            ):
                return False
            quotas.check_mount(tx, self._policies.of(name), name, blob)
            self._take_lease(
                tx, repository_rows.ensure_repository(tx, name, now), blob.id, digest, now, self._rules.upload_lease
            )
        return True

    def finish_upload(self, upload: Upload, digest: Digest) -> None:
        """Publish what an upload received as the blob of this digest; raises DIGEST_INVALID. Durable when it
        returns.
        """
        self._uploads.verify(upload, digest)
        now = int(self._clock())
        try:
            with self._files.publishing(digest):
                self._files.publish(upload.path, digest)
                upload.published = True
                with self._database.write() as tx:
                    blob, is_new = blob_rows.save_blob(tx, digest, upload.offset, now)
                    repository = repository_rows.ensure_repository(tx, upload.repository, now)
                    if is_new:
                        # Nobody can have a lease on it.
                        blob_rows.take_lease(tx, repository, blob, now + self._rules.upload_lease)
                    else:
                        self._take_lease(tx, repository, blob, digest, now, self._rules.upload_lease)
        except Exception:
            # Where the outcome of the commit is unknown, nothing can be looked up, and so nothing is removed.
            self.reconciler.remove([digest])
            raise
        finally:
            self._uploads.cancel(upload)
        self.uploaded.add()
        self.uploaded_bytes.add(upload.offset)
        if self._files.removal_put_off(digest):
            # The row was committed, and then deleted, before this had let go of the file.
            self.reconciler.remove([digest])

    def has_blob(self, name: RepositoryName, digest: Digest) -> bool:
        """Tell one who pushes whether a sound blob is in a repository."""
        with contextlib.suppress(RegistryError):
            return self.find_blob(name, digest, pushing=True) >= 0
        return False

    def check_tags(self, name: RepositoryName, tags: Sequence[Tag], digest: Digest) -> None:
        """Refuse a push that would point an immutable tag elsewhere, before anything of it is received or stored;
        raises IMMUTABLE. Without such tags nothing is looked up; what counts is decided when the tags are set.
        """
        policy = self._policies.of(name)
        immutable = [tag for tag in tags if policy.immutable.covers(tag)] if policy.immutable else []
        if immutable:
            with self._database.browse() as tx:
                check_moves(tx, policy, name, immutable, digest)

    def put_manifest(
        self,
        name: RepositoryName,
        reference: Reference,
        tags: Sequence[Tag],
        content: bytes,
        content_type: str | None,
        actor: Actor,
        condition: Condition | None = None,
    ) -> PushedManifest:
        """Store a manifest, and point tags at it.

        Raises MANIFEST_INVALID, MANIFEST_BLOB_UNKNOWN naming each reference that is missing, DIGEST_INVALID when the
        reference is a digest and not that of the content, IMMUTABLE, PRECONDITION_FAILED, and QUOTA_EXCEEDED.
        """
        digest = Digest.of(content, reference.algorithm if isinstance(reference, Digest) else "sha256")
        if isinstance(reference, Digest) and reference != digest:
            raise RegistryError(DIGEST_INVALID, f"the manifest that arrived has the digest {digest}, not {reference}")
        all_tags = tuple(dict.fromkeys([*([] if isinstance(reference, Digest) else [reference]), *tags]))
        self.check_tags(name, all_tags, digest)
        limits = pushing.ManifestLimits(
            self._rules.manifest_bytes, self._rules.manifest_descriptors, self._rules.manifest_depth
        )
        # Reads a file, and so before the lock is taken.
        pushed = pushing.check_manifest(content, content_type, limits, self._files)
        with self._writer.writing(name, actor) as (tx, release):
            now, policy = int(self._clock()), self._policies.of(name)
            repository = repository_rows.ensure_repository(tx, name, now)
            held = quotas.held_bytes(tx, policy, repository)
            before = [finding.digest_of(tx, repository, written) for written in (reference, *tags)] if condition else []
            if removal.waits_for_parent(tx, repository, digest):
                # Another push relies on it too, and what takes it up first may be gone before the second comes.
                self._pulls.note(repository, digest, pushing=True)
            row = pushing.put_manifest_content(
                tx, pushing.Push(repository, now, self._rules.upload_lease, self._pulls), digest, content, pushed
            )
            # Last: of a push that is refused without it too, the condition does not count (RFC 9110 section 13.2.1).
            if condition and not condition(before):
                raise RegistryError(PRECONDITION_FAILED)
            manifest_pushed(tx, actor, repository, row, all_tags)
            for tag in all_tags:
                point_tag(tx, release, repository, tag, row, now=now, keep_replaced=self._rules.keep_replaced)
            quotas.check_push(tx, release, policy, name, repository, held, now)
        return PushedManifest(digest, pushed.subject, all_tags)

    # Deleting

    def delete_tag(self, name: RepositoryName, tag: Tag, actor: Actor, expected: Digest | None = None) -> None:
        """Delete a tag, and what it alone kept; raises MANIFEST_UNKNOWN, PROTECTED, and PRECONDITION_FAILED where it
        does not point to the digest that is expected, if one is.
        """

        def delete(tx: Transaction, release: Release) -> None:
            now = int(self._clock())
            repository, row = finding.find_manifest(tx, name, tag)
            if expected and row.digest != expected:
                raise RegistryError(PRECONDITION_FAILED, f"the tag {tag} points to {row.digest} now; look at it again")
            untag(tx, release, repository, tag, row.id, now)
            release.drop(tx, repository, row.id, now)

        self._writer.delete(name, actor, delete)

    def delete_manifest(self, name: RepositoryName, digest: Digest, actor: Actor) -> None:
        """Delete a manifest, and what it alone kept; raises MANIFEST_UNKNOWN, REFERENCED while an index or a tag needs
        it, and PROTECTED.

        One that went by itself a short while ago, with its last tag, is deleted already.
        """

        def delete(tx: Transaction, release: Release) -> None:
            repository = repository_rows.find_repository(tx, name)
            row = None if repository is None else manifest_rows.find_manifest(tx, repository, digest)
            if repository is None or (row is None and not self._pulls.take_lost(repository, digest)):
                raise RegistryError(MANIFEST_UNKNOWN)
            if row is not None:
                deleting.delete_manifest(
                    tx, release, name, repository, row.id, self._rules.delete_untags, int(self._clock())
                )

        self._writer.delete(name, actor, delete)

    def delete_blob(self, name: RepositoryName, digest: Digest, actor: Actor) -> None:
        """Let go of a blob that was uploaded and not used; raises BLOB_UNKNOWN, and REFERENCED while a manifest needs
        it.
        """

        def delete(tx: Transaction, release: Release) -> None:
            now = int(self._clock())
            repository = repository_rows.find_repository(tx, name)
            blob = blob_rows.find_blob(tx, digest)
            if repository is None or blob is None or not holds_blob(tx, self._pulls, repository, blob, now):
                raise RegistryError(BLOB_UNKNOWN)
            deleting.delete_blob(tx, release, actor, name, repository, blob, now)
            self._pulls.forget_blob(repository, digest)

        self._writer.delete(name, actor, delete)

    def _take_lease(self, tx: Transaction, repository: int, blob: int, digest: Digest, now: int, seconds: int) -> None:
        """Hold a blob for the manifest that a push sends next, which ends the lease.

        Where another push has a lease on it already, whose manifest may come first and be gone before the second: then
        that finds a note.
        """
        if blob_rows.is_leased(tx, repository, blob, now):
            self._pulls.note_blob(repository, digest)
        blob_rows.take_lease(tx, repository, blob, now + seconds)

    def _damaged(self, blob: blob_rows.BlobRow) -> RegistryError:
        self.reconciler.note_damage(blob)
        return RegistryError(BLOB_UNKNOWN, "the file of this blob is damaged; push it again")

    def _locate_blob(
        self, name: RepositoryName, digest: Digest, *, pushing: bool
    ) -> tuple[blob_rows.BlobRow | None, bytes]:
        """Find a blob of a repository, or the bytes of a manifest with this digest, and note what is relied on; raises
        BLOB_UNKNOWN.
        """
        with self._database.read() as tx:
            repository = repository_rows.find_repository(tx, name)
            if repository is not None:
                blob = blob_rows.find_blob(tx, digest)
                if blob is not None and holds_blob(tx, self._pulls, repository, blob, int(self._clock())):
                    if pushing:
                        self._pulls.note_blob(repository, digest)
                    return blob, b""
                manifest = manifest_rows.find_manifest(tx, repository, digest)
                if manifest is not None:
                    self._pulls.note(repository, digest, pushing=pushing)
                    return None, manifest_rows.manifest_content(tx, manifest.id)
        raise RegistryError(BLOB_UNKNOWN)
