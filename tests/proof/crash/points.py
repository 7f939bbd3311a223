"""Points at which a test has the program fail, skip a call, or end: what a test arms, and what the runner reads at each
call.

Both map the same small file, so that a test can arm a point of a server that runs, and see whether it was passed,
without a request and without a restart. A point is named `KIND PLACE`: `fsync uploads`, `rename blobs`, `commit`; a
trap names points by a pattern of fnmatch. Nothing in `vex/` knows of this.
"""

from __future__ import annotations

import fnmatch
import json
import mmap
import struct
import threading
from pathlib import Path
from typing import NamedTuple

KILL, SKIP, HOLD = "kill", "skip", "hold"
_SIZE = 4096
_ARMED, _COUNTS, _TRAP = 0, struct.Struct("<qq"), 32


class Trap(NamedTuple):
    """What happens at the `nth` passing of a point, and `forever` or once; `action` is KILL, SKIP, the name of an
    errno, or HOLD, which delays the call until another trap is set, or none.

    `after` says that the call itself is done first: with an errno, a call that worked and says that it failed.
    """

    point: str
    action: str
    nth: int = 1
    after: bool = False
    forever: bool = False


class Points:
    """The mapped file; what one process arms, the other one sees with its next call."""

    def __init__(self, path: Path) -> None:
        """Map the file, which is made if it is missing."""
        if not path.exists():
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SIZE)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()

    @property
    def armed(self) -> bool:
        """Whether there is a trap."""
        return self._memory[_ARMED] != 0

    def arm(self, trap: Trap) -> None:
        """Set a trap; passings are counted from now."""
        self.disarm()
        text = json.dumps(trap).encode() + b"\n"
        self._memory[_TRAP : _TRAP + len(text)] = text
        self._store(0, 0)
        self._memory[_ARMED] = 1

    def disarm(self) -> None:
        """Have nothing happen any more."""
        self._memory[_ARMED] = 0

    @property
    def sprung(self) -> int:
        """How often the trap was sprung since it was set."""
        return self._load()[1]

    def sprung_at(self, point: str) -> Trap | None:
        """Count the passing of a point; returns the trap if this springs it."""
        with self._lock:
            if not self.armed:
                return None
            trap = self._trap()
            if not fnmatch.fnmatchcase(point, trap.point):
                return None
            passed, sprung = self._load()
            passed += 1
            due = passed == trap.nth or (trap.forever and passed > trap.nth)
            self._store(passed, sprung + due)
            return trap if due else None

    def holds(self, trap: Trap) -> bool:
        """Whether a trap is still the one that is set."""
        return self.armed and self._trap() == trap

    def _trap(self) -> Trap:
        return Trap(*json.loads(bytes(self._memory[_TRAP:]).partition(b"\n")[0]))

    def _load(self) -> tuple[int, int]:
        passed, sprung = _COUNTS.unpack_from(self._memory, 8)
        return passed, sprung

    def _store(self, passed: int, sprung: int) -> None:
        _COUNTS.pack_into(self._memory, 8, passed, sprung)
