"""The rows and the files of blobs, which agree: a file without a row goes, and a row whose file is missing or short is
damaged.

A file that a push is about to give a row stays: whether it has one is looked up with the database's lock held
(`BlobFiles`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Callable

from vex.names import Digest
from vex.registry.storage import Storage
from vex.storage import blob_rows
from vex.storage.blobs import Count

_log = logging.getLogger("vex")


class Reconciler:
    """Brings files of blobs into agreement with rows; any thread may use it."""

    def __init__(self, storage: Storage) -> None:
        self._database, self._files, self._revisions = storage.database, storage.files, storage.revisions

    def remove(self, digests: Iterable[Digest]) -> Count:
        """Remove the files of blobs that have no row, and that no push is about to give one; what fails is logged, and
        tried again later.
        """
        return self._files.remove(digests, lock=self._rows)

    def set_aside(self, digests: Iterable[Digest]) -> Count:
        """Move the files of blobs that have no row out of the way, so that `put_back` finds them."""
        return self._files.set_aside(digests, lock=self._rows)

    def put_back(self) -> None:
        """Put back what was set aside, where a row knows it; for the start."""
        found = self._files.put_back(lock=self._rows)
        if found:
            _log.warning("the database knows files again that were set aside: %d are back", found)

    def remove_left(self) -> None:
        """Try again to remove the files that could not be removed before."""
        self._files.remove_left(lock=self._rows)

    def note_damage(self, blob: blob_rows.BlobRow) -> None:
        """Record and log that the file of a blob is missing or short, after a second look: it may have been removed or
        pushed since the first.
        """
        if blob.damaged:
            return
        with self._database.write() as tx:
            if blob_rows.find_blob(tx, blob.digest) != blob or self._files.size(blob.digest) == blob.size:
                return
            tx.after_commit(self._revisions.all_changed)
            blob_rows.mark_damaged(tx, blob.digest)
        _log.error(
            "the file of blob %s is missing or does not have %d bytes; push it again to heal it", blob.digest, blob.size
        )

    @contextlib.contextmanager
    def _rows(self) -> Iterator[Callable[[Digest], bool]]:
        with self._database.read() as tx:
            yield lambda digest: blob_rows.find_blob(tx, digest) is not None
