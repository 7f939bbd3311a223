"""Which manifests were fetched a short while ago: their blobs stay when they are removed, so that a pull under way ends well.

Kept in memory only: a restart cuts the pulls under way anyhow. Bounded: beyond the limit the oldest are forgotten.
"""

from __future__ import annotations

import threading
import time
from typing import Callable

_MAX_NOTED = 100_000


class Pulls:
    """The recent fetches of manifests; `grace` is in seconds, 0 turns it off."""

    def __init__(self, grace: int, *, clock: Callable[[], float] = time.time) -> None:
        self._grace = grace
        self._clock = clock
        self._lock = threading.Lock()
        self._fetched: dict[tuple[int, int], float] = {}

    def note(self, repository: int, manifest: int) -> None:
        """Remember that a manifest was fetched just now."""
        if not self._grace:
            return
        with self._lock:
            # Taken out first, so that the dict stays in the order of time.
            self._fetched.pop((repository, manifest), None)
            self._fetched[repository, manifest] = self._clock()
            if len(self._fetched) > _MAX_NOTED:
                del self._fetched[next(iter(self._fetched))]

    def grace(self, repository: int, manifest: int) -> int:
        """Return until when the blobs of a manifest that is being removed must stay, 0 when nobody fetched it; and forget it."""
        with self._lock:
            # The ids can come back, for another manifest.
            fetched = self._fetched.pop((repository, manifest), 0)
        now = self._clock()
        return int(now + self._grace) if fetched and now - fetched < self._grace else 0

    def forget_old(self) -> None:
        """Drop what is too old to matter."""
        oldest = self._clock() - self._grace
        with self._lock:
            while self._fetched:
                first = next(iter(self._fetched))
                if self._fetched[first] >= oldest:
                    break
                del self._fetched[first]
