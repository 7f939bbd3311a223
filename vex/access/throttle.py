"""The throttle of failed logins: per address and name as many as allowed at once, then one every part of a minute.

An attempt is charged before it is verified, so that those count too that are tried at the same moment; one that was
right gets its charge back. A debt is never longer than a minute, so that one attempt goes through in every part of it,
whatever failed before. What is refused is logged when it begins, and then once a minute with its number, since refusals
come as fast as a client can send.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Callable, NamedTuple, TypeVar

from vex.errors import TOOMANYREQUESTS, RegistryError
from vex.logs import event

# The longest name of a user. Whatever is longer is nobody's, and counts as one name, so that what is kept has a limit.
MAX_NAME = 64
_MINUTE = 60.0
# Debts are sums of parts of a minute, which are not exact.
_ROUNDING = 0.001
# Bounds of what is kept, whoever asks.
_MAX_DEBTS = 10_000
_MAX_REFUSALS = 10_000
_REASON = "too many failed logins with this name from this address; wait and log in again"

_T = TypeVar("_T")
_Key = tuple[str, str]


class _Refusals(NamedTuple):
    """How many refusals are not logged yet, and when the last line was."""

    number: int
    logged: float


class Throttle:
    """Failed logins by address and name; any thread may use it. `clock` never goes back: a clock that is set changes
    nothing here.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        # When the failures so far will have been paid off, at one per interval.
        self._debts: OrderedDict[_Key, float] = OrderedDict()
        self._refusals: OrderedDict[_Key, _Refusals] = OrderedDict()

    def charge(self, address: str, name: str) -> None:
        """Count an attempt as a failure before it is verified; raises TOOMANYREQUESTS where there were too many."""
        key, interval = _key(address, name), _MINUTE / self.per_minute
        with self._lock:
            now = self._clock()
            debt = max(self._debts.get(key, now), now)
            wait = debt - now - _MINUTE + interval
            if wait <= _ROUNDING:
                _keep(self._debts, key, debt + interval, _MAX_DEBTS)
                return
            begins, number = self._refuse(key, now)
        if begins:
            event("login failed", user=name, address=address, reason=_REASON)
        elif number:
            _log(key, number)
        raise RegistryError(TOOMANYREQUESTS, _REASON, headers={"Retry-After": str(int(wait) + 1)})

    def refund(self, address: str, name: str) -> None:
        """Take back the charge of an attempt that was no failure."""
        key = _key(address, name)
        with self._lock:
            # Gone if so many others failed in the meantime that it was forgotten.
            if key in self._debts:
                self._debts[key] -= _MINUTE / self.per_minute

    def log_refusals(self) -> None:
        """Log what was refused and is not in the log, a minute after the line before; to be called now and then."""
        with self._lock:
            now = self._clock()
            due = {key: refusals.number for key, refusals in self._refusals.items() if now - refusals.logged >= _MINUTE}
            for key, number in due.items():
                if number:
                    self._refusals[key] = _Refusals(0, now)
                else:
                    del self._refusals[key]
        for key, number in due.items():
            if number:
                _log(key, number)

    def _refuse(self, key: _Key, now: float) -> tuple[bool, int]:
        """Count a refusal; returns whether it is the first one, and how many are to be logged now."""
        before = self._refusals.get(key)
        if before is None:
            _keep(self._refusals, key, _Refusals(0, now), _MAX_REFUSALS)
            return True, 0
        if now - before.logged < _MINUTE:
            self._refusals[key] = before._replace(number=before.number + 1)
            return False, 0
        self._refusals[key] = _Refusals(0, now)
        return False, before.number + 1


def _key(address: str, name: str) -> _Key:
    return address, name if len(name) <= MAX_NAME else ""


def _keep(table: OrderedDict[_Key, _T], key: _Key, value: _T, most: int) -> None:
    """Put into a table, and forget what has been there unchanged for the longest time if there is too much."""
    table[key] = value
    table.move_to_end(key)
    while len(table) > most:
        table.popitem(last=False)


def _log(key: _Key, number: int) -> None:
    address, name = key
    event("logins refused", user=name or None, address=address, number=number, reason=_REASON)
