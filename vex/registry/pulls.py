"""What clients were told a short while ago, and rely on: it stays when it loses its last reference, until they have had
their time.

A pull goes on by digest after a tag or a digest was answered; a push leaves out what it was told is there. Each answer
is one entry in memory, and no write: a removal asks, in its transaction, and turns what it finds into a row that
survives a restart. What was only noted does not.

Bounded without forgetting too early: past the limit the older half goes, and from then on everything counts as told
when that half ended.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Callable

from vex.registry.fetches import FetchEntry, Fetches

_MAX_NOTED = 100_000
# From the answer that a blob or manifest is there, to the manifest or index that names it.
_PUSH_SECONDS = 3600


class Notes:
    """When something was last noted, for `seconds`; 0 for never. Any thread may use it."""

    def __init__(self, seconds: int, *, limit: int = _MAX_NOTED) -> None:
        self.seconds = seconds
        self._half = limit // 2
        # Two generations, so that nothing has to be kept in order: a note goes into the newer one, and the older one
        # goes as a whole.
        self._newer: dict[int, float] = {}
        self._older: dict[int, float] = {}
        self._turned = -math.inf
        self._dropped = -math.inf
        self._lock = threading.Lock()

    def note(self, key: int, now: float) -> None:
        """Remember that this was told now."""
        if self.seconds:
            self._newer[key] = now
            if len(self._newer) > self._half:
                self._turn(now, full=True)

    def noting(self, key: int, clock: Callable[[], float], entry: FetchEntry | None = None) -> Callable[[], None]:
        """Return what remembers this each time it is called: as `note`, with one call less, which is 2 % of an answer
        that is given again. With an `entry`, it is noted there too.
        """
        half = self._half
        if entry is not None:
            times, fetched = entry

            def note_and_count() -> None:
                times[fetched] = self._newer[key] = now = clock()
                if len(self._newer) > half:
                    self._turn(now, full=True)

            def count_alone() -> None:
                times[fetched] = clock()

            return note_and_count if self.seconds else count_alone

        def note() -> None:
            self._newer[key] = now = clock()
            if len(self._newer) > half:
                self._turn(now, full=True)

        return note if self.seconds else _nothing

    def until(self, key: int, now: float) -> float:
        """Return until when this must stay, 0 where nobody relies on it any more."""
        noted = max(self._newer.get(key, self._dropped), self._older.get(key, self._dropped))
        return noted + self.seconds if noted + self.seconds > now else 0

    def knows(self, key: int, now: float) -> bool:
        """Tell whether just this is noted; what was dropped for want of room is not."""
        return max(self._newer.get(key, -math.inf), self._older.get(key, -math.inf)) + self.seconds > now

    def forget(self, key: int) -> None:
        """Drop a note."""
        with self._lock:
            self._newer.pop(key, None)
            self._older.pop(key, None)

    def forget_old(self, now: float) -> None:
        """Drop what is too old to matter."""
        if self._turned + self.seconds <= now:
            self._turn(now, full=False)

    def _turn(self, now: float, *, full: bool) -> None:
        with self._lock:
            if full:
                if len(self._newer) <= self._half:
                    # Another thread was here first.
                    return
                self._dropped = self._turned
            self._older, self._newer, self._turned = self._newer, {}, now


class Pulls:
    """The answers that pulls and pushes rely on; `grace` is how long a pull may, in seconds, 0 turns that off.

    How long ago an answer was given is told by the `steady` clock, which nobody sets; `clock` tells the time of day.
    `fetches` are those of manifests that the rules go by.
    """

    def __init__(
        self, grace: int, *, clock: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self.grace = grace
        self._clock = clock
        self._steady = steady
        self.fetches = Fetches(clock=clock, steady=steady)
        self._pulled, self._pushed, self._pushed_blobs, self._lost = (
            Notes(grace),
            Notes(_PUSH_SECONDS),
            Notes(_PUSH_SECONDS),
            Notes(grace),
        )

    def noting(
        self, repository: int, manifest: str, *, pushing: bool = False, entry: FetchEntry | None = None
    ) -> Callable[[], None]:
        """Return what remembers that a manifest is told of, perhaps to one who may push, and counts that; it is called
        for each answer that is given again.
        """
        key = _key(repository, manifest)
        pulled = self._pulled.noting(key, self._steady, entry)
        if not pushing:
            return pulled
        pushed = self._pushed.noting(key, self._steady)

        def note_both() -> None:
            pulled()
            pushed()

        return note_both

    def note(self, repository: int, manifest: str, *, pushing: bool = False) -> None:
        """Remember that a manifest was told of, perhaps to one who may push."""
        self.noting(repository, manifest, pushing=pushing)()

    def note_blob(self, repository: int, blob: str) -> None:
        """Remember that one who may push was told that a blob is there."""
        self._pushed_blobs.note(_key(repository, blob), self._steady())

    def note_lost(self, repository: int, manifest: str) -> None:
        """Remember that a manifest went by itself."""
        self._lost.note(_key(repository, manifest), self._steady())

    def hold(self, repository: int, manifest: str) -> int:
        """Return until when a manifest, with all that it needs, must stay although nothing references it; 0 where it
        need not.
        """
        key, now = _key(repository, manifest), self._steady()
        return self._by_day(max(self._pulled.until(key, now), self._pushed.until(key, now)), now)

    def hold_blob(self, repository: int, blob: str) -> int:
        """Return until when a blob must stay although nothing references it; 0 where it need not."""
        now = self._steady()
        return self._by_day(self._pushed_blobs.until(_key(repository, blob), now), now)

    def forget_blob(self, repository: int, blob: str) -> None:
        """Drop what is noted of a blob that somebody deleted from a repository."""
        self._pushed_blobs.forget(_key(repository, blob))

    def take_lost(self, repository: int, manifest: str) -> bool:
        """Tell, once, whether a manifest went by itself a short while ago."""
        key = _key(repository, manifest)
        lost = self._lost.knows(key, self._steady())
        self._lost.forget(key)
        return lost

    def forget_old(self) -> None:
        """Drop what is too old to matter."""
        for notes in (self._pulled, self._pushed, self._pushed_blobs, self._lost):
            notes.forget_old(self._steady())

    def _by_day(self, until: float, now: float) -> int:
        """Turn a time of the steady clock into a time of day, as rows have it; 0 stays 0."""
        return math.ceil(until - now + self._clock()) if until else 0


def _nothing() -> None:
    """Remember nothing."""


def _key(repository: int, digest: str) -> int:
    # A third of the memory of the pair; two digests that share one number are both held, and nothing worse.
    return repository << 64 | hash(digest) & 0xFFFF_FFFF_FFFF_FFFF
