"""Turns at heavy work: a few at once, a short queue for the others, and rests in between, so that light requests hardly
notice.

Python runs one thread at a time. One that computes gives way only every 5 ms (`sys.setswitchinterval`), and a request,
which takes several turns with the interpreter, would wait that long for each. So heavy work goes in steps of a fraction
of a millisecond, and sleeps in between: the longer, the more there are at such work, so that all of them together take
hardly more than one would. What is computed outside the interpreter keeps nobody from it, but from the processors:
there, one who is alone need not rest. Work ends when nobody waits any more for what it makes.

    with work.pages.take(request.left) as turn:
        for ...:
            turn.step()

Invariants: no more than `at_once` have a turn of a kind; those who wait get theirs in the order in which they came;
whatever happens to one who has a turn or waits for one, it is given back. All kinds end together: then nobody begins,
waits or goes on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Callable

from vex.errors import BUSY, Disconnected, RegistryError
from vex.progress import Work

# One who is alone rests as long as it has worked in the interpreter; and for each other one at work, so many times as
# long after work there, and outside.
_REST_FACTOR, _OUTSIDE_FACTOR = 3, 2
# Shorter ones are put off.
_MIN_REST_SECONDS, _MAX_REST_SECONDS = 0.0004, 0.05
# How often somebody who works or waits looks whether the client is still there.
_LOOK_SECONDS = 0.2
_RETRY_AFTER = {"Retry-After": "10"}


class Turn(Work):
    """A turn at heavy work."""

    def __init__(self, turns: Turns, left: Callable[[], bool]) -> None:
        self._turns = turns
        self._left = left
        self._looked = time.monotonic()
        # Processor time: not what was waited for, and on a busy machine that is most of the time.
        self._used = time.thread_time()
        self._unrested = 0.0

    def left(self) -> bool:
        """Tell whether the client has gone."""
        return self._left()

    def step(self) -> None:
        """Rest, if it is time to; to be called after each small piece of work. Raises Disconnected when the client has
        left, UNAVAILABLE at the end.
        """
        self._rest(1 + _REST_FACTOR * (self._turns.at_work - 1))

    def resume(self) -> None:
        """Rest as after a piece of work that left the interpreter to others; raises the same."""
        self._rest(_OUTSIDE_FACTOR * (self._turns.at_work - 1))

    def _rest(self, factor: int) -> None:
        used = time.thread_time()
        self._unrested += (used - self._used) * factor
        self._used = used
        if self._unrested >= _MIN_REST_SECONDS:
            time.sleep(min(self._unrested, _MAX_REST_SECONDS))
            self._unrested = 0.0
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            self._turns.check(self._left)


class _Workers:
    """All who have a turn, at whatever kind of work."""

    def __init__(self) -> None:
        self.count = 0
        self.ended = False
        self._lock = threading.Lock()

    def add(self, change: int) -> None:
        with self._lock:
            self.count += change


class Turns:
    """Who may do heavy work of one kind now; any thread may ask."""

    def __init__(
        self, at_once: int = 2, places: int = 64, patience: float = 10.0, workers: _Workers | None = None
    ) -> None:
        """Give that many turns at once; `places` is how many may wait, each for `patience` seconds. What has the same
        `workers` ends together.
        """
        self._free = at_once
        self._places = places
        self._patience = patience
        self._waiting: deque[threading.Event] = deque()
        self._workers = workers or _Workers()
        self._lock = threading.Lock()

    @property
    def at_work(self) -> int:
        """How many have a turn, at this kind of work and all others."""
        return self._workers.count

    @contextlib.contextmanager
    def take(self, left: Callable[[], bool]) -> Iterator[Turn]:
        """Hold a turn; `left` tells whether the client has gone. Raises BUSY when too many wait or it took too long,
        and what `Turn.step` raises.
        """
        self._enter(left)
        self._workers.add(1)
        try:
            yield Turn(self, left)
        finally:
            self._workers.add(-1)
            with self._lock:
                self._pass_on()

    def end(self) -> None:
        """End all work at its next step, and let nobody begin any more."""
        self._workers.ended = True

    def check(self, left: Callable[[], bool]) -> None:
        """Raise UNAVAILABLE at the end of the process, and Disconnected when the client has left."""
        if self._workers.ended:
            raise RegistryError(BUSY, "the registry is about to end; try again in a moment", headers=_RETRY_AFTER)
        if left():
            raise Disconnected("before its answer was made")

    def _enter(self, left: Callable[[], bool]) -> None:
        self.check(left)
        with self._lock:
            if self._free:
                self._free -= 1
                return
            if len(self._waiting) >= self._places:
                raise RegistryError(BUSY, headers=_RETRY_AFTER)
            mine = threading.Event()
            self._waiting.append(mine)
        try:
            self._wait(mine, left)
        except BaseException:
            with self._lock:
                # It may have been handed over just now.
                if mine.is_set():
                    self._pass_on()
                else:
                    self._waiting.remove(mine)
            raise

    def _wait(self, mine: threading.Event, left: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._patience
        while not mine.wait(_LOOK_SECONDS):
            self.check(left)
            if time.monotonic() > deadline:
                raise RegistryError(BUSY, headers=_RETRY_AFTER)

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1


class HeavyWork:
    """The turns at each kind of heavy work, of which a process has one each; none keeps another waiting, and all end
    together.
    """

    def __init__(self) -> None:
        """Give so many turns at each kind."""
        workers = _Workers()
        self.pages = Turns(workers=workers)
        # Apart from the other pages: a layer may take half a minute.
        self.layers = Turns(workers=workers)
        # As many may wait as there are connections: a list that has begun must go on.
        self.lists = Turns(places=10_000, workers=workers)
        # Taken besides that at a page: a manifest of 4 MiB takes 100 MiB while it is read.
        self.large_manifests = Turns(at_once=1, workers=workers)

        # As many as there are connections: none of them waits for a person at a terminal.
        self.commands = Turns(at_once=16, workers=workers)

    def end(self) -> None:
        """End all work at its next step, and let nobody begin any more."""
        # With that of one kind, since all have the same workers.
        self.pages.end()
