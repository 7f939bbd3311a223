"""Whether the time of day can be trusted: not for a day after it jumped.

A clock that is wrong for a moment makes everything look expired. How long something really took is told by a steady
clock, which nobody sets; where the time of day moves by much more or less than that between two looks, it was wrong
before or is wrong now. A file in the data directory remembers this, so that a restart in between does not shorten the
day.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Callable

from vex.storage.blobs import FILE_MODE

_log = logging.getLogger("vex")
_JUMP_SECONDS = 600
_DAY = 24 * 3600
_MARKER = "clock-jumped"


def steady() -> float:
    """Return seconds that go on at the same pace whatever the time of day is set to, also while the machine sleeps,
    where the system tells.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class TimeOfDay:
    """Compares the time of day with a steady clock at each look; for one thread."""

    def __init__(
        self, directory: Path, *, clock: Callable[[], float] = time.time, steady: Callable[[], float] = steady
    ) -> None:
        """Begin, with a day of distrust where an earlier process saw a jump and did not see the end of it."""
        self._marker = directory / _MARKER
        self._clock = clock
        self._steady = steady
        self._last = clock(), steady()
        self._trusted_from = 0.0
        if self._marker.exists():
            self._wait_a_day()
            _log.warning("the time of day jumped before the last end: what expires by itself waits for a day")

    def can_be_trusted(self) -> bool:
        """Tell whether what is too old by the time of day may be removed; logs a jump."""
        now, passed = self._clock(), self._steady()
        jump = (now - self._last[0]) - (passed - self._last[1])
        self._last = now, passed
        if abs(jump) > _JUMP_SECONDS:
            self._wait_a_day()
            _log.warning(
                "the time of day jumped by %+.0f seconds: what expires by itself waits for a day; check the clock of"
                " this machine",
                jump,
            )
        if passed < self._trusted_from:
            return False
        if self._trusted_from:
            self._trust_again()
        return True

    def _wait_a_day(self) -> None:
        self._trusted_from = self._last[1] + _DAY
        try:
            os.close(os.open(self._marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
        except OSError as error:
            _log.error("cannot remember across a restart that the time of day jumped: %s", error)

    def _trust_again(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._marker)
        self._trusted_from = 0.0
        _log.info("the time of day was steady for a day: what is too old expires again")
