"""What long work reports to: who may have left, or a person, in lines on standard error, one every few seconds at
most.
"""

from __future__ import annotations

import sys
import time
from typing import Callable, TextIO

from vex.logs import escaped

_SECONDS = 5.0


class Progress:
    """Lines about work under way."""

    def __init__(self, stream: TextIO = sys.stderr, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._due = clock() + _SECONDS

    def show(self, text: str) -> None:
        """Print a line, unless the one before was a moment ago."""
        if self._clock() >= self._due:
            self.say(text)

    def say(self, text: str) -> None:
        """Print a line; what others wrote may be a part of it."""
        print(escaped(text), file=self._stream, flush=True)
        self._due = self._clock() + _SECONDS


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
