"""Vex commands on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

from tests.support.server import TOP


def on_terminal(*arguments: str, text: str = "", cwd: Path | None = None, columns: int = 80) -> tuple[int, str]:
    """Run a command on a terminal where somebody types this; returns the exit code and what is to be seen there."""
    ours, theirs = pty.openpty()
    with contextlib.ExitStack() as opened:
        opened.callback(os.close, ours)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, columns, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        process = subprocess.Popen(
            [sys.executable, str(TOP / "vex.py"), *arguments],
            cwd=cwd,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
        )
        os.close(theirs)
        os.write(ours, text.encode())
        shown = bytearray()
        # Linux says EIO when nobody has the other side any more.
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                shown += piece
        return process.wait(timeout=60), shown.decode().replace("\r\n", "\n")
