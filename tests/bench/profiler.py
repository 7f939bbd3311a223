"""Runs a Python program and tells where its processor time goes: `python3 -m tests.bench.profiler REPORT PROGRAM
ARGUMENT...`.

One thread looks at all others many times a second, and charges the processor time that each used since the last look to
the lines that it is at. Where several connections wait for the interpreter lock, looks come mostly when it is given up,
in system calls: rows with one connection tell more about Python's lines. A line on standard input begins a section; the
next one ends it, and writes what was found to the file REPORT. Looking is not free: the proportions count, not the
times.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import select
import sys
import threading
from collections import defaultdict
from pathlib import Path
from types import FrameType

_INTERVAL_SECONDS = 0.001
# Short enough that the looks do not all come where a request gives the interpreter lock up by itself, in its system
# calls.
_SWITCH_SECONDS = 1e-6
_PR_SET_TIMERSLACK = 29  # linux/prctl.h
_SHOWN = 30


class Sampler:
    """The samples of one section, in seconds by place."""

    def __init__(self) -> None:
        self._used: dict[int, float] = {}
        self.lines: defaultdict[str, float] = defaultdict(float)
        self.functions: defaultdict[str, float] = defaultdict(float)
        self.total = 0.0

    def look(self) -> None:
        """Charge what each thread has used since the last look."""
        frames = sys._current_frames()
        for thread in threading.enumerate():
            frame = frames.get(thread.ident or 0)
            if frame is None or thread.native_id is None or thread is threading.current_thread():
                continue
            used = _cpu_seconds(thread.native_id)
            since = used - self._used.get(thread.native_id, used)
            self._used[thread.native_id] = used
            if since > 0:
                self._charge(frame, since)

    def text(self) -> str:
        """Show the most expensive lines, and the most expensive functions with all that they call."""
        parts = [
            f"{self.total:.2f} s of processor time in Python's threads",
            "lines, without what they call:",
            *self._top(self.lines),
        ]
        return "\n".join([*parts, "functions, with all that they call:", *self._top(self.functions)]) + "\n"

    def _charge(self, frame: FrameType, seconds: float) -> None:
        self.total += seconds
        self.lines[f"{_place(frame)}:{frame.f_lineno}"] += seconds
        functions = set()
        at: FrameType | None = frame
        while at is not None:
            functions.add(_place(at))
            at = at.f_back
        for function in functions:
            self.functions[function] += seconds

    def _top(self, spent: dict[str, float]) -> list[str]:
        most = sorted(spent.items(), key=lambda item: item[1], reverse=True)
        return [f"  {seconds / (self.total or 1):6.1%}  {place}" for place, seconds in most[:_SHOWN]]


def main() -> None:
    """Run the program of the command line in this thread, beside the sampler."""
    report, program = Path(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    sys.setswitchinterval(_SWITCH_SECONDS)
    threading.Thread(target=_watch, args=(report,), daemon=True).start()
    runpy.run_path(program, run_name="__main__")


def _watch(report: Path) -> None:
    # The kernel would delay each wait by 50 us, which is longer than a request keeps the lock.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1)
    while sys.stdin.readline():
        sampler = Sampler()
        while not select.select([sys.stdin], [], [], _INTERVAL_SECONDS)[0]:
            sampler.look()
        sys.stdin.readline()
        # In one step, so that nobody reads half of it.
        partial = report.with_suffix(".partial")
        partial.write_text(sampler.text())
        os.replace(partial, report)


def _cpu_seconds(native_id: int) -> float:
    try:
        with open(f"/proc/self/task/{native_id}/schedstat", "rb") as file:
            return int(file.read().split()[0]) / 1e9
    except OSError:
        # It has ended since.
        return 0


def _place(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name} {frame.f_code.co_name}"


if __name__ == "__main__":
    main()
