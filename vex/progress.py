"""What long work reports to: who may have left, or a person, on standard error. On a terminal that is one line, drawn
again and again, with a bar where the end is known; elsewhere a line every few seconds at most.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Callable, TextIO

from vex.logs import escaped

_SECONDS = 5.0
# On a terminal: what takes less than a second needs no line, and more than ten a second nobody reads.
_BEGIN_SECONDS, _DRAW_SECONDS = 1.0, 0.1
_BAR = 20
_CLEAR = "\r\x1b[K"


class Progress:
    """How far work is; one thread at a time may use it. As a context, it leaves nothing on the terminal."""

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._due = clock() + (_BEGIN_SECONDS if self._terminal else _SECONDS)
        self._drawn = False
        self._text = ""
        self.begin(0)

    def __enter__(self) -> Progress:
        """Begin."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Leave nothing on the terminal."""
        self.clear()

    def begin(self, total: int) -> None:
        """Begin work of so many bytes, 0 where that is not known."""
        self._begun, self._done, self._total = self._clock(), 0, total

    def left_out(self, count: int) -> None:
        """Note bytes of the total that need no work."""
        self._total = max(self._total - count, 0)

    def moved(self, count: int) -> None:
        """Note bytes that were worked on."""
        self._done += count
        if self._terminal and self._clock() >= self._due:
            self._draw()

    def show(self, text: str) -> None:
        """Say what was done so far, unless the line before was a moment ago."""
        self._text = text
        if self._clock() < self._due:
            return
        if self._terminal:
            self._draw()
        else:
            self.say(text + (f"; {self._measured()}" if self._done else ""))

    def say(self, text: str) -> None:
        """Print a line; what others wrote may be a part of it."""
        self.clear()
        print(escaped(text), file=self._stream, flush=True)
        self._due = self._clock() + (_DRAW_SECONDS if self._terminal else _SECONDS)

    def clear(self) -> None:
        """Take the line from the terminal, for others to print there."""
        if self._drawn:
            print(_CLEAR, end="", file=self._stream, flush=True)
            self._drawn = False

    def _draw(self) -> None:
        parts = [self._bar(), self._measured() if self._done else "", self._text]
        line = escaped("  ".join(filter(None, parts)))
        print(f"{_CLEAR}{line[: self._columns() - 1]}", end="", file=self._stream, flush=True)
        self._drawn = True
        self._due = self._clock() + _DRAW_SECONDS

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            return 80

    def _bar(self) -> str:
        if not self._total or not self._done:
            return ""
        full = min(self._done * _BAR // self._total, _BAR)
        return f"[{'#' * full}{'-' * (_BAR - full)}]"

    def _measured(self) -> str:
        """Tell bytes, rate, and time left."""
        seconds = self._clock() - self._begun
        rate = self._done / seconds if seconds > 0 else 0.0
        told = [f"{mebibytes(self._done)}{f' of {mebibytes(self._total)}' if self._total else ''}"]
        if rate:
            told.append(f"{mebibytes(int(rate))}/s")
        if rate and self._total > self._done:
            told.append(f"{_duration(round((self._total - self._done) / rate))} left")
        return ", ".join(told)


def _duration(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def mebibytes(count: int) -> str:
    """Write a number of bytes for a person."""
    return f"{count / 2**20:,.1f} MiB"


class Work:
    """What is told of each small piece of work; this one does not mind how long all of it takes."""

    def left(self) -> bool:
        """Tell whether the client has gone."""
        return False

    def step(self) -> None:
        """Note a piece of work; whatever this raises ends the work."""

    def resume(self) -> None:
        """Note a piece of work that was done outside the interpreter, as when data is read, unpacked or looked for;
        otherwise as `step`.
        """


UNHURRIED = Work()
