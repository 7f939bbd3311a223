"""Answers that were given before: a request head that comes again, byte for byte, is answered again, without parsing or
looking up.

An answer is kept with the revision of what it was made from, taken before anything was read; a write raises the
revision, when it begins and when it is committed, and the answer no longer counts. So a hit is never older than the
last write that was acknowledged. Bounded in bytes. Only answers that are the same for everyone belong here: those that
need no credentials.
"""

from __future__ import annotations

import threading
from typing import Callable, NamedTuple

_MAX_BYTES = 8 * 1024 * 1024
# A list of 10,000 tags has about 150 KiB.
MAX_ANSWER_BYTES = 256 * 1024
_SLOTS = 1024
# What an entry costs besides its bytes.
_ENTRY_BYTES = 512


class Basis(NamedTuple):
    """What an answer was made from: a slot, and its revision before anything was read; `on_use` is called at each
    use.
    """

    slot: int
    revision: int
    on_use: Callable[[], None] | None = None


class Revisions:
    """Counters that writes raise, one for the whole registry and a fixed number that repositories share.

    Two repositories in one slot only cost each other a miss.
    """

    def __init__(self) -> None:
        self.slots = [0] * (_SLOTS + 1)
        self._lock = threading.Lock()

    def basis(self, repository: str) -> Basis:
        """Return what an answer about a repository, or with "" about the whole registry, is made from; to be taken
        before reading.
        """
        slot = _slot(repository)
        return Basis(slot, self.slots[slot])

    def changed(self, repository: str) -> None:
        """Make answers about a repository, and about the whole registry, count no more; called after the commit."""
        with self._lock:
            self.slots[_slot(repository)] += 1
            self.slots[_SLOTS] += 1

    def all_changed(self) -> None:
        """Make every answer count no more."""
        with self._lock:
            self.slots[:] = [revision + 1 for revision in self.slots]


class Answer(NamedTuple):
    """A prepared answer: its bytes up to the value of Date and those after it, and what is to be measured and
    logged.
    """

    before_date: bytes
    after_date: bytes
    method: str
    path: str
    op: str
    status: int
    body_bytes: int
    basis: Basis


class Answers:
    """The answers of one listener, by request head."""

    def __init__(self, revisions: Revisions) -> None:
        self._slots = revisions.slots
        self._answers: dict[bytes, Answer] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def find(self, head: bytes) -> Answer | None:
        """Return the answer to a head, if it still counts, and tell that it is used."""
        answer = self._answers.get(head)
        if answer is None:
            return None
        slots, (slot, revision, on_use) = self._slots, answer.basis
        if slots[slot] != revision:
            return None
        if on_use:
            on_use()
        # Once more: a removal raises the revision before it asks what was used, so it has seen this use, or this sees
        # the removal.
        return answer if slots[slot] == revision else None

    def keep(self, head: bytes, answer: Answer) -> None:
        """Keep an answer; the oldest make room for it."""
        size = _size(head, answer)
        if size > MAX_ANSWER_BYTES:
            return
        with self._lock:
            self._drop(head)
            self._answers[head] = answer
            self._bytes += size
            while self._bytes > _MAX_BYTES:
                self._drop(next(iter(self._answers)))

    def _drop(self, head: bytes) -> None:
        dropped = self._answers.pop(head, None)
        if dropped is not None:
            self._bytes -= _size(head, dropped)


def _slot(repository: str) -> int:
    return hash(repository) % _SLOTS if repository else _SLOTS


def _size(head: bytes, answer: Answer) -> int:
    return len(head) + len(answer.before_date) + len(answer.after_date) + _ENTRY_BYTES
