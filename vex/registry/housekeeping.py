"""What is done by itself, over time: expiry, removal of empty repositories, and the check of files against rows after a
start.

`Housekeeping` is one thread, which does each step of a table when it is due. Invariants: a step that fails is logged,
keeps no other from being done, and is tried again; what expires by the time of day is left alone while that cannot be
trusted (`timekeeping.py`). Work is done in small transactions, so that requests get their turn in between.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple

from vex.names import Digest, RepositoryName
from vex.registry.references import Release, expire_leases
from vex.registry.registry import Registry, Rules
from vex.registry.storage import Storage
from vex.registry.summaries import fill_in
from vex.registry.writing import PAUSE_SECONDS
from vex.storage import audit, blob_rows, removal, repository_rows
from vex.storage.database import Transaction
from vex.storage.timekeeping import TimeOfDay

_log = logging.getLogger("vex")
_BATCH = 200
_DAY = 24 * 3600
# More of the files than this part are no leavings of a crash.
_MOST_LITTER = 0.1
# How many files a line of the log names.
_NAMED = 5
# How often a step is done at most, and at least.
_LEAST_SECONDS, _MOST_SECONDS = 0.2, 60.0
# What goes on with a removal that is too long for the request that began it.
_MANIFESTS = "manifests"


class Step(NamedTuple):
    """Something that is done again and again, or `once`, under the name that the metrics have for it.

    `ages` are what it waits for where it removes what is too old, in seconds, 0 for none; a step without any is done as
    often as the one that is done most often.
    """

    name: str
    work: Callable[[], object]
    ages: tuple[float, ...] = ()
    once: bool = False


class Housekeeping:
    """The removal of what is due; `sweep` does one round, `start` a thread that does each step when it is due.

    `chores` are steps of other parts. `succeeded` tells when each step was done last, in seconds since 1970.
    """

    def __init__(
        self,
        storage: Storage,
        registry: Registry,
        rules: Rules,
        chores: Sequence[Step] = (),
        time_of_day: TimeOfDay | None = None,
    ) -> None:
        self._storage = storage
        self._database, self._files, self._uploads, pulls, self._revisions, _, self._clock = storage
        self._pulls = pulls
        self._registry = registry
        self._audit_keep = rules.audit_keep
        self._time_of_day = time_of_day
        self._steps = (
            *(chore for chore in chores if chore.once),
            Step("summaries", self.fill_in_summaries, once=True),
            Step("files", self.check_files, once=True),
            Step("removals", registry.reconciler.remove_left),
            Step("uploads", self._uploads.expire, (rules.upload_lease,)),
            Step("pulls", pulls.forget_old),
            Step("fetches", self._save_fetches),
            Step("leases", self._expire_leases, (rules.upload_lease,)),
            Step(_MANIFESTS, self._expire_manifests, (rules.upload_lease, pulls.grace, rules.keep_replaced)),
            Step("repositories", self._remove_empty_repositories, (_DAY,)),
            Step("audit", self._forget_changes, (rules.audit_keep,)),
            Step("ballast", self._files.keep_ballast),
            *(chore for chore in chores if not chore.once),
        )
        often = min(map(_interval, self._steps))
        self._intervals = {step.name: _interval(step) if step.ages else often for step in self._steps}
        self.succeeded: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Check the files, then sweep until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for what it is doing."""
        self._stop.set()
        self._registry.unfinished.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> None:
        """Do all that is done again and again, whether it is due or not."""
        for step in self._steps:
            if not step.once:
                self._do(step)

    def fill_in_summaries(self) -> None:
        """Summarise the manifests that an older Vex stored."""
        if fill_in(self._database, self._files):
            self._revisions.all_changed()

    def check_files(self) -> None:
        """Remove files without a row, which a crash leaves, and note blobs whose file is missing or short."""
        self._name_foreign()
        files, litter = 0, 0
        for total, batch in self._litter():
            files, litter = files + total, litter + len(batch)
        if litter:
            self._remove_litter(litter > files * _MOST_LITTER and not self._database.has_log)
        last = 0
        while last >= 0 and not self._stop.is_set():
            last = self._check_rows_after(last)

    def _litter(self) -> Iterator[tuple[int, list[Digest]]]:
        """Walk over the files of blobs; gives for each batch how many there are, and which have no row."""
        walk = self._files.files()
        while (names := [file.digest for file in itertools.islice(walk, _BATCH)]) and not self._stop.is_set():
            with self._database.read() as tx:
                litter = [digest for digest in names if blob_rows.find_blob(tx, digest) is None]
            yield len(names), litter

    def _remove_litter(self, suspicious: bool) -> None:
        """Remove the files without a row; many of them, beside a database that nobody had open at its end, may be what
        an older copy of it does not know.
        """
        remove = self._registry.reconciler.set_aside if suspicious else self._registry.reconciler.remove
        counts = [remove(litter) for _, litter in self._litter()]
        files, size = sum(count.files for count in counts), sum(count.bytes for count in counts)
        if files and suspicious:
            _log.warning(
                "%d files of %d bytes, more than a tenth of all, belong to no blob that the database knows, as if it"
                " were an older copy without its"
                " vex.db-wal: they are set aside in %s; start with the right database to have them back, or remove them"
                " with vex check --repair",
                *(files, size, self._files.kept),
            )
        elif files:
            _log.warning("removed %d files of %d bytes that belong to no blob", files, size)

    def _name_foreign(self) -> None:
        foreign = list(itertools.islice(self._files.foreign(), _NAMED + 1))
        if foreign:
            more = " and more" if len(foreign) > _NAMED else ""
            _log.warning(
                "in the data directory, but no files of the registry, and so left alone: %s%s",
                ", ".join(foreign[:_NAMED]),
                more,
            )

    def _check_rows_after(self, last: int) -> int:
        with self._database.read() as tx:
            blobs = blob_rows.blobs_after(tx, last, _BATCH)
        for blob in blobs:
            if self._files.size(blob.digest) != blob.size:
                self._registry.reconciler.note_damage(blob)
        return blobs[-1].id if blobs else -1

    def _save_fetches(self) -> None:
        self._pulls.fetches.save(self._database)

    def _expire_leases(self) -> None:
        now = int(self._clock())
        self._remove_due(
            lambda tx: blob_rows.expired_leases(tx, now, 1), lambda tx: expire_leases(tx, now, _BATCH, self._pulls)
        )

    def _expire_manifests(self) -> None:
        now, release = int(self._clock()), Release(self._pulls, self._storage.policies)
        self._remove_due(lambda tx: removal.due(tx, now, 1), lambda tx: release.work_on_due(tx, now, _BATCH))

    def _remove_empty_repositories(self) -> None:
        now = int(self._clock())
        uploading = frozenset(self._uploads.repositories())
        self._remove_due(
            lambda tx: _empty_repositories(tx, now, uploading),
            lambda tx: _remove_empty_repositories(tx, now, uploading),
        )

    def _forget_changes(self) -> None:
        """Shorten the audit trail; no answer to a client comes from it."""
        before = int(self._clock()) - int(self._audit_keep)

        def forget() -> None:
            with self._database.write() as tx:
                audit.delete_changes_before(tx, before, _BATCH)

        self._while_due(lambda tx: audit.has_changes_before(tx, before), forget)

    def _remove_due(
        self, due: Callable[[Transaction], object], remove: Callable[[Transaction], list[audit.Told]]
    ) -> None:
        """Remove what is due, and the files of the blobs that are gone."""

        def run() -> None:
            with self._database.write() as tx:
                # Before too, as in `writing.py`: what was fetched just now must be known.
                self._revisions.all_changed()
                tx.after_commit(self._revisions.all_changed)
                gone = remove(tx)
            audit.log_removals(gone, None)
            self._registry.reconciler.remove(row.digest for row in gone if row.what == audit.BLOB)

        self._while_due(due, run)

    def _while_due(self, due: Callable[[Transaction], object], work: Callable[[], None]) -> None:
        """Do a batch of work in each transaction, as long as there is any; where nothing is due, nothing is written."""
        while not self._stop.is_set():
            with self._database.read() as tx:
                if not due(tx):
                    return
            self._storage.delete(work)
            # Whoever takes the lock again at once keeps everyone else from it.
            self._stop.wait(PAUSE_SECONDS)

    def _run(self) -> None:
        due = dict.fromkeys(self._intervals, 0.0)
        while not self._stop.is_set():
            for step in self._steps:
                if due[step.name] <= time.monotonic():
                    done = self._do(step)
                    due[step.name] = math.inf if step.once and done else time.monotonic() + self._intervals[step.name]
            # Or until a removal is left over that is too long for the request that began it.
            if self._registry.unfinished.wait(max(min(due.values()) - time.monotonic(), 0)):
                self._registry.unfinished.clear()
                due[_MANIFESTS] = 0

    def _do(self, step: Step) -> bool:
        """Do a step; returns whether it was done to its end."""
        if self._stop.is_set() or (step.ages and self._time_of_day and not self._time_of_day.can_be_trusted()):
            return False
        try:
            step.work()
        except Exception:
            # A full disk or a busy database passes: it is tried again when it is due again.
            _log.exception("housekeeping could not finish: %s", step.name)
            return False
        self.succeeded[step.name] = self._clock()
        return True


def _interval(step: Step) -> float:
    """Return how many seconds after a step the next is due: so that what expires is gone after at most one and a half
    times its age, but not all the time.
    """
    return min([max(age / 2, _LEAST_SECONDS) for age in step.ages if age], default=_MOST_SECONDS)


def _empty_repositories(tx: Transaction, now: int, uploading: frozenset[RepositoryName]) -> list[int]:
    found = repository_rows.empty_repositories(tx, now - _DAY, _BATCH + len(uploading))
    return [repository for repository, name in found if name not in uploading]


def _remove_empty_repositories(tx: Transaction, now: int, uploading: frozenset[RepositoryName]) -> list[audit.Told]:
    for repository in _empty_repositories(tx, now, uploading):
        repository_rows.delete_repository(tx, repository)
    return []
