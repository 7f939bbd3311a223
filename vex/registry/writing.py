"""Transactions that change a repository, and what they begin to remove: in pieces, so that nobody waits for long.

Whoever answers from memory is told before the change can be seen, and after it; what is gone is logged, and its files
are removed, after each commit.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Callable

from vex.errors import RegistryError
from vex.names import RepositoryName
from vex.registry.reconciling import Reconciler
from vex.registry.references import Release
from vex.registry.storage import Storage
from vex.storage.audit import BLOB, Actor, log_removals
from vex.storage.database import Transaction

_log = logging.getLogger("vex")

# So many more transactions a request spends on what it removes, with pauses in which others get their turn; the rest is
# left to housekeeping.
_MORE_PIECES = 50
PAUSE_SECONDS = 0.002


class Writer:
    """Changes repositories; any thread may use it. `unfinished` is set when a removal is left to housekeeping."""

    def __init__(self, storage: Storage, reconciler: Reconciler) -> None:
        self._storage = storage
        self._database, self._pulls, self._revisions = storage.database, storage.pulls, storage.revisions
        self._clock = storage.clock
        self._reconciler = reconciler
        self.unfinished = threading.Event()

    @contextlib.contextmanager
    def writing(self, name: RepositoryName, actor: Actor) -> Iterator[tuple[Transaction, Release]]:
        """Run a write transaction on a repository, and then as many as what it has begun to remove needs; log what is
        gone, and remove files of blobs.
        """
        release = Release(self._pulls, self._storage.policies, actor)
        with self._changing(name) as tx:
            yield tx, release
            release.work(tx, int(self._clock()))
        self._settle(release, name, actor)
        if release.pending:
            self._go_on(release, name, actor)
        if release.unfinished:
            self.unfinished.set()

    def delete(self, name: RepositoryName, actor: Actor, work: Callable[[Transaction, Release], None]) -> None:
        """Run what deletes as `writing` does, also on a full disk."""

        def run() -> None:
            with self.writing(name, actor) as (tx, release):
                work(tx, release)

        self._storage.delete(run)

    def _go_on(self, release: Release, name: RepositoryName, actor: Actor) -> None:
        """Go on with a removal that has begun, for a while."""
        for _ in range(_MORE_PIECES):
            # The lock is not handed on in turn: whoever takes it again at once has it for ever.
            time.sleep(PAUSE_SECONDS)
            try:
                with self._changing(name) as tx:
                    release.work(tx, int(self._clock()))
            except RegistryError as error:
                # What was asked for is committed, and succeeds.
                _log.error("a removal in %s is left to housekeeping: %s", name, error.__cause__ or error)
                self.unfinished.set()
                return
            self._settle(release, name, actor)
            if not release.pending:
                return

    @contextlib.contextmanager
    def _changing(self, name: RepositoryName) -> Iterator[Transaction]:
        with self._database.write() as tx:
            # Before, so that an answer given again is noted in time for this to see it (`Answers.find`); and after, for
            # what was read meanwhile.
            self._revisions.changed(name)
            tx.after_commit(lambda: self._revisions.changed(name))
            yield tx

    def _settle(self, release: Release, name: RepositoryName, actor: Actor) -> None:
        gone = release.take_gone()
        log_removals(gone, actor, name)
        self._reconciler.remove(row.digest for row in gone if row.what == BLOB)
