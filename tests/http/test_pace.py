"""Which peers are too slow, in a simulation: one that reads at the slowest rate allowed never is, in whatever steps its
system takes the bytes.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterable, Iterator

from vex.http.pace import RATE, STALL, Pace
from vex.http.sending import Reached

KIB = 1024
STALL_SECONDS, RATE_BYTES = 30.0, KIB
LOOK_SECONDS = 0.5


def in_steps(rate: float, step: int, buffer: int, seconds: float) -> Iterator[tuple[float, int]]:
    """Give the time and what has arrived at a peer that reads at a rate: it takes a buffer at once, and then a step
    whenever that has room again.
    """
    for look in range(int(seconds / LOOK_SECONDS)):
        now = look * LOOK_SECONDS
        yield now, buffer + int(rate * now) // step * step


def ended(
    arrivals: Iterable[tuple[float, int]], *, told: bool = True, outstanding: bool = True, rate: int = RATE_BYTES
) -> tuple[str, float]:
    """Watch a transfer; returns why and when it was found to be too slow, or ("", 0)."""
    pace = Pace(0)
    for now, count in arrivals:
        reason = pace.sending(Reached(5000 + count, outstanding, told, 5000), now, stall=STALL_SECONDS, rate=rate)
        if reason:
            return reason, now
    return "", 0.0


class Sending(unittest.TestCase):
    def test_who_reads_at_the_slowest_rate_or_faster_goes_on(self) -> None:
        for rate in (RATE_BYTES, 2 * KIB, 16 * KIB, 64 * KIB, 200 * KIB):
            for step, buffer in (
                (1448, 64 * KIB),
                (64 * KIB, 64 * KIB),
                (64 * KIB, 128 * KIB),
                (384 * KIB, 6 * 1024 * KIB),
                (500 * KIB, 500 * KIB),
            ):
                with self.subTest(rate=rate, step=step):
                    self.assertEqual(ended(in_steps(rate, step, buffer, 3600)), ("", 0))

    def test_who_reads_nothing_is_too_slow_once_what_it_was_sent_would_be_read(self) -> None:
        for buffer, seconds in (
            (0, STALL_SECONDS),
            (1448, STALL_SECONDS),
            (20 * KIB, STALL_SECONDS),
            (64 * KIB, 64),
            (2**30, 512),
        ):
            with self.subTest(buffer):
                reason, at = ended((look * LOOK_SECONDS, buffer) for look in range(10_000))
                self.assertEqual(reason, STALL)
                self.assertTrue(seconds <= at <= seconds + 2 * LOOK_SECONDS, at)

    def test_who_stops_after_much_was_read_is_noticed(self) -> None:
        def arrivals() -> Iterator[tuple[float, int]]:
            for look in range(10_000):
                yield look * LOOK_SECONDS, min(look, 100) * 2**20

        reason, at = ended(arrivals())
        self.assertEqual((reason, at < 50 + 512 + 2), (STALL, True), at)

    def test_who_reads_at_half_the_rate_is_too_slow_after_a_minute(self) -> None:
        reason, at = ended((look * LOOK_SECONDS, int(look * LOOK_SECONDS * RATE_BYTES / 2)) for look in range(10_000))
        self.assertEqual((reason, at), (RATE, 60))

    def test_who_waits_for_us_is_never_too_slow(self) -> None:
        self.assertEqual(ended(((look * LOOK_SECONDS, 1000) for look in range(10_000)), outstanding=False), ("", 0))

    def test_without_a_rate_only_a_stall_counts(self) -> None:
        self.assertEqual(ended(((look * LOOK_SECONDS, look // 40) for look in range(10_000)), rate=0), ("", 0))
        self.assertEqual(
            ended(((look * LOOK_SECONDS, 64 * KIB) for look in range(10_000)), rate=0),
            (STALL, STALL_SECONDS + LOOK_SECONDS),
        )

    def test_where_the_system_does_not_tell_the_average_since_the_beginning_counts(self) -> None:
        for step in (64 * KIB, 200 * KIB):
            # What a call sends is counted at its end: the first steps are not seen for a while.
            unseen = ((now, max(count - 64 * KIB, 0)) for now, count in in_steps(RATE_BYTES, step, step, 3600))
            self.assertEqual(ended(unseen, told=False), ("", 0))
        reason, at = ended(((look * LOOK_SECONDS, 0) for look in range(10_000)), told=False)
        self.assertEqual((reason, at), (STALL, 64.5))


class Receiving(unittest.TestCase):
    def ended(self, arrivals: Iterable[tuple[float, int]], patience: float) -> tuple[str, float]:
        pace = Pace(0)
        for now, count in arrivals:
            reason = pace.receiving(count, now, stall=STALL_SECONDS, rate=RATE_BYTES, patience=patience)
            if reason:
                return reason, now
        return "", 0.0

    def test_a_body_that_is_quiet_is_too_slow_sooner_for_those_who_did_not_log_in(self) -> None:
        for patience, at in ((0.0, 30.5), (300.0, 300.5)):
            self.assertEqual(self.ended(((look * LOOK_SECONDS, 1000) for look in range(10_000)), patience), (STALL, at))

    def test_a_source_that_pauses_for_minutes_goes_on_for_those_who_logged_in(self) -> None:
        paused = [(look * LOOK_SECONDS, int(look * LOOK_SECONDS) // 290 * 100 * KIB) for look in range(10_000)]
        self.assertEqual(self.ended(paused, 300.0), ("", 0))
        self.assertEqual(self.ended(paused, 0.0), (STALL, 30.5))

    def test_a_byte_a_second_is_too_slow_for_both_in_the_end(self) -> None:
        for patience, at in ((0.0, 60), (300.0, 360)):
            self.assertEqual(
                self.ended(((look * LOOK_SECONDS, look // 2) for look in range(10_000)), patience), (RATE, at)
            )


if __name__ == "__main__":
    unittest.main()
