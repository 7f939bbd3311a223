"""Who is served at once on a listener: so many connections, the others in a short queue, and nobody at the cost of
everybody else.

An origin is where a connection comes from: an IPv4 address, or the /64 of an IPv6 address, which one machine has to
itself. While others wait, an origin has no right to more than a quarter of the places: those under it are served first,
and for them connections of those over it are cut. "" is the origin of whom that cannot be said, since others stand
behind it: trusted proxies, and whoever uses a Unix socket. No sockets.

Invariants: no more than `places` are admitted and have not left; no more than `queue` wait; whoever arrives is admitted
at some time, turned away, or waits.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from vex.http.forwarded import UNIX

_SHARE = 4
_PREFIX_BITS = 64


class Arrival(NamedTuple):
    """A connection, its address as the system tells it, and its origin."""

    connection: Any
    address: Any
    origin: str


class Slots:
    """The places of a listener; any thread may ask."""

    def __init__(self, places: int, queue: int) -> None:
        self._free = places
        self._queue = queue
        self._share = max(places // _SHARE, 1)
        self._held: dict[Any, str] = {}
        self._waiting: list[Arrival] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def arrive(self, arrival: Arrival) -> tuple[Arrival | None, Arrival | None]:
        """Take a connection; returns the one that is admitted now, if any, and the one that is turned away, if any."""
        with self._lock:
            if self._free:
                return self._admit(arrival), None
            self._waiting.append(arrival)
            return None, self._turn_away() if len(self._waiting) > self._queue else None

    def leave(self, connection: Any) -> Arrival | None:
        """Give back the place of a connection that was admitted; returns the one that gets it, if any waits."""
        with self._lock:
            if self._held.pop(connection, None) is not None:
                self._free += 1
            if not self._waiting or not self._free:
                return None
            held = Counter(self._held.values())
            index = next(
                (index for index, arrival in enumerate(self._waiting) if self._is_due(held, arrival.origin)), 0
            )
            return self._admit(self._waiting.pop(index))

    def clear(self) -> list[Arrival]:
        """Return all that wait, which then wait no more."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            return waiting

    def claims(self, serving: Iterable[str]) -> tuple[int, str]:
        """Return how many wait whose origin has less than its share, and the origin that has most beyond its own, or ""
        if none has.

        `serving` are the origins of the connections that go on.
        """
        with self._lock:
            waiting = list(self._waiting)
        held = Counter(serving)
        due = sum(self._is_due(held, arrival.origin) for arrival in waiting)
        most = max((origin for origin in held if origin), key=held.__getitem__, default="")
        return due, most if held[most] > self._share else ""

    def _admit(self, arrival: Arrival) -> Arrival:
        self._free -= 1
        self._held[arrival.connection] = arrival.origin
        return arrival

    def _turn_away(self) -> Arrival:
        """Let the newest of those go whose origin has the most, the proxies last."""
        counts = Counter(self._held.values()) + Counter(arrival.origin for arrival in self._waiting)
        index = max(
            range(len(self._waiting)),
            key=lambda index: (bool(self._waiting[index].origin), counts[self._waiting[index].origin], index),
        )
        return self._waiting.pop(index)

    def _is_due(self, held: Counter[str], origin: str) -> bool:
        return not origin or held[origin] < self._share


def origin_of(client: str, trusted: Callable[[str], bool] | None) -> str:
    """Return the origin of a peer."""
    if client == UNIX or (trusted and trusted(client)):
        return ""
    if ":" not in client:
        return client
    try:
        return str(ipaddress.ip_network((client.partition("%")[0], _PREFIX_BITS), strict=False))
    except ValueError:
        return client
