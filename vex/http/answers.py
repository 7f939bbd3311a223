"""Answers that were given before: a request head that comes again, byte for byte, is answered again, without parsing or
looking up.

An answer is kept with the revision of what it was made from, taken before anything was read; a write raises the
revision, when it begins and when it is committed, and the answer no longer counts. So a hit is never older than the
last write that was acknowledged. Bounded in bytes. Only answers that are the same for everyone belong here: where
credentials are needed, they are asked for before an answer is given again, each time.
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
# The usual ways to write the field; every other is left to whoever parses heads.
_AUTHORIZATION, _BEGINS = b"uthorization: ", (b"\r\nA", b"\r\na")
# A head is not kept with what may be a secret of its sender.
_SECRETS = (b"authorization", b"\r\ncookie")
_METHODS = (b"GET /", b"HEAD /")


class Basis(NamedTuple):
    """What an answer was made from: a slot, and its revision before anything was read; `on_use` is called at each
    use, and `on_push` in its place where the client may push to the repository, who is asked anew without it.
    """

    slot: int
    revision: int
    on_use: Callable[[], None] | None = None
    on_push: Callable[[], None] | None = None


class Admitted(NamedTuple):
    """Whom an answer may be given: the name of the user, "" for anyone, and whether that one may push to the
    repository.
    """

    user: str
    pushes: bool


class Admit(NamedTuple):
    """To whom an answer may be given: to `anyone` who sends no credentials, and whom `known` lets in by the value of
    the Authorization field; None for whom has to be asked.
    """

    anyone: bool
    known: Callable[[bytes], Admitted | None]


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

    def counts(self, basis: Basis) -> bool:
        """Tell whether what was made from this still counts."""
        return self.slots[basis.slot] == basis.revision

    def changed(self, repository: str) -> None:
        """Make answers about a repository, about those above it, whose pages list it, and about the whole registry,
        count no more; called after the commit.
        """
        with self._lock:
            self.slots[_SLOTS] += 1
            while repository:
                self.slots[_slot(repository)] += 1
                repository = repository.rpartition("/")[0]

    def all_changed(self) -> None:
        """Make every answer count no more."""
        with self._lock:
            self.slots[:] = [revision + 1 for revision in self.slots]


class Answer(NamedTuple):
    """A prepared answer: its bytes up to the value of Date and those after it, and what is to be measured and
    logged; `admit` says to whom it may be given where credentials are asked for, `user` to whom it is.
    """

    before_date: bytes
    after_date: bytes
    method: str
    path: str
    op: str
    status: int
    body_bytes: int
    basis: Basis
    admit: Admit | None = None
    user: str = ""


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
        slots, (slot, revision, on_use, _) = self._slots, answer.basis
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


class GuardedAnswers(Answers):
    """The answers of a listener that asks for credentials: kept without those, and given to whoever is let in."""

    def find(self, head: bytes) -> Answer | None:
        """Return the answer to a head, if it still counts and who sent it may have it."""
        rest, field = _without_authorization(head)
        answer = self._answers.get(rest)
        if answer is None or answer.admit is None:
            return None
        slots, (slot, revision, note, note_push), (anyone, known) = self._slots, answer.basis, answer.admit
        if slots[slot] != revision:
            return None
        user = ""
        if field is not None:
            admitted = known(field)
            if admitted is None:
                return None
            user, pushes = admitted
            if pushes:
                if not note_push:
                    return None
                note = note_push
        elif not anyone:
            return None
        if note:
            note()
        # Once more, as above.
        if slots[slot] != revision:
            return None
        return Answer(*answer[:-1], user) if user else answer

    def keep(self, head: bytes, answer: Answer) -> None:
        """Keep an answer without the credentials of its request; nothing where those are not told apart with
        certainty, and nothing that its own client would not be given again.
        """
        rest, field = _without_authorization(head)
        lowered = rest.lower()
        if answer.admit is None or not head.startswith(_METHODS) or any(word in lowered for word in _SECRETS):
            return
        admitted = None if field is None else answer.admit.known(field)
        if field is None or (admitted and (answer.basis.on_push or not admitted.pushes)):
            super().keep(rest, answer)


def _without_authorization(head: bytes) -> tuple[bytes, bytes | None]:
    """Take the Authorization field out of a head; returns what is left, and its value, None without.

    A head with two of them, or with one that is written in another way, keeps one, and so is none that was kept.
    """
    at = head.find(_AUTHORIZATION)
    if at < 0 or head[at - 3 : at] not in _BEGINS:
        return head, None
    end = head.find(b"\r", at)
    return head[: at - 3] + head[end:], head[at + len(_AUTHORIZATION) : end]


def _slot(repository: str) -> int:
    return hash(repository) % _SLOTS if repository else _SLOTS


def _size(head: bytes, answer: Answer) -> int:
    return len(head) + len(answer.before_date) + len(answer.after_date) + _ENTRY_BYTES
