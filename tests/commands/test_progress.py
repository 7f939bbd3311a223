"""What a person sees of work under way."""

from __future__ import annotations

import io
import re
import unittest

from vex.progress import Progress

MIB = 1024 * 1024


class Screen(io.StringIO):
    """A terminal of 80 columns."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        # One that tells nothing of its size.
        return -1

    @property
    def line(self) -> str:
        """What stands on the last line."""
        return self.getvalue().rpartition("\r\x1b[K")[2]


class ProgressTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def test_on_a_terminal_there_is_a_bar_with_bytes_rate_and_time_left(self) -> None:
        screen = Screen()
        with Progress(screen, clock=self.clock) as progress:
            progress.begin(400 * MIB)
            progress.show("copying")
            for _ in range(10):
                self.now += 0.2
                progress.moved(10 * MIB)
            self.assertEqual(
                screen.line, "[#####---------------]  100.0 MiB of 400.0 MiB, 50.0 MiB/s, 0:06 left  copying"[:79]
            )
            progress.left_out(200 * MIB)
            self.now += 0.2
            progress.moved(0)
            self.assertIn("[##########----------]  100.0 MiB of 200.0 MiB", screen.line)
        self.assertEqual(screen.line, "")

    def test_what_takes_less_than_a_second_draws_nothing(self) -> None:
        screen = Screen()
        with Progress(screen, clock=self.clock) as progress:
            progress.begin(100)
            for _ in range(9):
                self.now += 0.1
                progress.moved(10)
                progress.show("working")
        self.assertEqual(screen.getvalue(), "")

    def test_it_is_drawn_ten_times_a_second_at_most(self) -> None:
        screen = Screen()
        progress = Progress(screen, clock=self.clock)
        for _ in range(3000):
            self.now += 0.001
            progress.moved(1)
        self.assertLessEqual(screen.getvalue().count("\r"), 21)

    def test_a_line_that_is_said_stands_above_it(self) -> None:
        screen = Screen()
        progress = Progress(screen, clock=self.clock)
        self.now = 2
        progress.show("working\x1b[2J")
        self.assertIn("working", screen.line)
        self.assertNotIn("\x1b[2J", screen.getvalue())
        progress.say("something")
        self.assertEqual(screen.line, "something\n")

    def test_elsewhere_a_line_comes_now_and_then(self) -> None:
        file = io.StringIO()
        with Progress(file, clock=self.clock) as progress:
            progress.begin(100 * MIB)
            for number in range(60):
                self.now += 0.25
                progress.moved(MIB)
                progress.show(f"{number} blobs")
        lines = file.getvalue().splitlines()
        self.assertEqual(len(lines), 3)
        self.assertEqual(lines[0], "19 blobs; 20.0 MiB of 100.0 MiB, 4.0 MiB/s, 0:20 left")
        self.assertIsNone(re.search("[\r\x1b]", file.getvalue()))
