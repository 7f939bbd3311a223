"""How a transfer goes: whether a peer that is slow is too slow. No sockets and no clock.

What comes in is seen as it comes. What goes out is not: when the buffers of both systems are full, a peer that reads
slowly frees them in steps of up to a sixteenth of its buffer (RFC 1122 section 4.2.3.3, and as Linux does it), and for
the time of a step nothing moves. So bytes that arrive are a credit that is spent at the slowest rate allowed: whoever
reads at that rate or faster never runs out of it, and whoever reads nothing does. The credit is bounded, so that one
who has read much and stops is noticed.
"""

from __future__ import annotations

from vex.http.sending import SLOW_PIECE_BYTES, Reached

STALL, RATE = "stall", "rate"
_WINDOW_SECONDS = 60.0
# More than the largest step of a peer with a buffer of 6 MiB, the most that Linux gives by itself.
_MAX_CREDIT = 512 * 1024


class Pace:
    """The progress of one transfer after another on a connection, looked at from time to time; times in seconds, rates
    in bytes a second.
    """

    __slots__ = ("_count", "_credit", "_direction", "_looked_at", "_moved_at", "_window_count", "window_at")

    def __init__(self, now: float) -> None:
        self._direction = ""
        self._count = self._window_count = 0
        self._moved_at = self._looked_at = self.window_at = now
        self._credit = 0.0

    def rest(self) -> None:
        """Note that nothing is under way."""
        self._direction = ""

    def receiving(self, count: int, now: float, *, stall: float, rate: int, patience: float = 0.0) -> str:
        """Say why a body that is received, of which so many bytes have come, is too slow: `stall`, `rate`, or "" if it
        is not.

        One that may be quiet for longer has its `patience`, in seconds, on top of the minute over which its rate is
        measured.
        """
        if self._direction != "in":
            self._begin("in", count, now)
        return self._look(count, now, stall=max(stall, patience), window=_WINDOW_SECONDS + patience, rate=rate)

    def sending(self, progress: Reached, now: float, *, stall: float, rate: int) -> str:
        """Say why a peer takes what is sent to it too slowly: `stall`, `rate`, or "" if it does not."""
        count, outstanding, told, begun = progress
        earned = count - self._count
        if self._direction != "out":
            earned = max(count - begun, 0)
            self._begin("out", count, now)
        self._credit += earned - (rate * (now - self._looked_at) if outstanding else 0)
        # What one call is sending is not counted before the call is done, where the system does not tell.
        unseen = 0 if told else SLOW_PIECE_BYTES
        self._credit = max(min(self._credit, _MAX_CREDIT) if told else self._credit, -rate * _WINDOW_SECONDS - unseen)
        if not outstanding or (rate and self._credit + unseen >= 0):
            # A peer that has all of it waits for us.
            self._looked_at = now
            if not self._moved(count, now) and not outstanding:
                self._moved_at = self.window_at = now
            return ""
        return self._look(count, now, stall=stall, window=_WINDOW_SECONDS, rate=rate)

    def _begin(self, direction: str, count: int, now: float) -> None:
        self._direction = direction
        self._count = self._window_count = count
        self._moved_at = self._looked_at = self.window_at = now
        self._credit = 0.0

    def _moved(self, count: int, now: float) -> bool:
        moved = count != self._count
        if moved:
            self._count, self._moved_at = count, now
        return moved

    def _look(self, count: int, now: float, *, stall: float, window: float, rate: int) -> str:
        """Say whether it has not moved for too long, or has been slower than the rate in what is looked at together."""
        self._looked_at = now
        if not self._moved(count, now) and now - self._moved_at > stall:
            return STALL
        if now - self.window_at >= window:
            if count - self._window_count < rate * _WINDOW_SECONDS:
                return RATE
            self._window_count, self.window_at = count, now
        return ""
