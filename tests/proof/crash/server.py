"""The server on the layer that springs traps."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.proof.crash.points import Points, Trap
from tests.support.server import TOP, Server

RUNNER = TOP / "tests" / "proof" / "crash" / "runner.py"


class TrapServer(Server):
    """A server whose points can be armed, before it starts and while it runs."""

    def __init__(
        self, directory: Path, *flags: str, environment: Mapping[str, str] | None = None, points: Path | None = None
    ) -> None:
        """Start it with nothing armed."""
        path = points or directory / "points"
        self.points = Points(path)
        self.program = (str(RUNNER), str(path))
        super().__init__(directory, *flags, environment=environment)

    def kill_at(self, trap: Trap, seconds: float) -> bool:
        """Arm a trap that ends the server, and kill it when it was not sprung in time; returns whether it was."""
        self.points.arm(trap)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        else:
            return self.points.sprung > 0
        finally:
            self.kill()
            self.points.disarm()

    def wait_ready(self, seconds: float = 20) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + seconds
        while self.internal.get("/readyz").status != 200:
            assert time.monotonic() < deadline, "not ready"
