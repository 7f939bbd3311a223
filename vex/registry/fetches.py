"""When manifests were last pulled and asked for, which is what the rules go by: noted in memory with each answer, also
with one that is given again, and written down by housekeeping, at most once a minute for each manifest.

A GET counts as pulled, for the manifest and for the indexes above it, and a HEAD as asked for. What was not written
down yet when the process is killed is lost.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Callable, NamedTuple

from vex.storage import fetched
from vex.storage.database import Database

_MINUTE = 60
# Of more manifests within a minute, the fetches of the others do not count; an answer that is given again always does.
_MOST_NOTED = 100_000
# What is written in one transaction: less than five milliseconds.
_BATCH = 400
_SHIFT = 64


class FetchEntry(NamedTuple):
    """Where a fetch of a manifest is noted: its time under this key."""

    times: dict[int, float]
    key: int


class Fetches:
    """The fetches that are not written down yet; any thread may use it.

    They are noted with the `steady` clock, which nobody sets, and written down with the time of day, as `clock` has it
    then.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steady = steady
        # Never replaced: whoever gives an answer again holds them.
        self._pulled: dict[int, float] = {}
        self._asked: dict[int, float] = {}
        self._saving = threading.Lock()
        self._saved = steady()

    def entry(self, repository: int, manifest: int, *, pulled: bool) -> FetchEntry | None:
        """Return where fetches of a manifest are noted; None where there is no room for more."""
        times = self._pulled if pulled else self._asked
        key = repository << _SHIFT | manifest
        return FetchEntry(times, key) if len(times) < _MOST_NOTED or key in times else None

    def save(self, database: Database, *, at_once: bool = False) -> None:
        """Write down what was noted; once a minute, unless it is to be done at once."""
        with self._saving:
            if not at_once and self._steady() < self._saved + _MINUTE:
                return
            self._saved = self._steady()
            for times, is_pulled in ((self._pulled, True), (self._asked, False)):
                for taken in _batches(times):
                    try:
                        self._write(database, taken, is_pulled)
                    except Exception:
                        for key, noted in taken.items():
                            times.setdefault(key, noted)
                        raise

    def _write(self, database: Database, taken: dict[int, float], is_pulled: bool) -> None:
        ahead = self._clock() - self._steady()
        rows = {(key >> _SHIFT, key & (1 << _SHIFT) - 1): int(noted + ahead) for key, noted in taken.items()}
        if is_pulled:
            with database.browse() as tx:
                rows = fetched.with_parents(tx, rows)
        entries = iter(rows.items())
        while batch := list(itertools.islice(entries, _BATCH)):
            with database.write() as tx:
                (fetched.set_pulled if is_pulled else fetched.set_asked)(tx, batch)


def _batches(times: dict[int, float]) -> Iterator[dict[int, float]]:
    """Take what is noted out of it, so much at a time; what others note meanwhile stays."""
    keys = iter(list(times))
    while batch := list(itertools.islice(keys, _BATCH)):
        yield {key: times.pop(key) for key in batch}
