"""What a service manager such as systemd is told over the socket that it names: sd_notify(3). Without one, nothing is
done.

The watchdog is fed only while the server proves that it works: a process that hangs is restarted by the manager.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Callable

_log = logging.getLogger("vex")
_SEND_SECONDS = 5.0
# So often within the manager's time, so that one check that fails by chance ends nothing.
_CHECKS = 4


class Notifier:
    """Tells the manager what the server does; any thread may use it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # unix(7): an abstract address begins with NUL.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        microseconds = environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._interval = (
            int(microseconds) / 1e6 / _CHECKS if self._address and meant and microseconds.isdecimal() else 0.0
        )
        self._stop = threading.Event()

    def send(self, *assignments: str) -> None:
        """Send assignments such as `READY=1`, in one message."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_SECONDS)
                sender.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            _log.warning("cannot tell the service manager %s: %s", assignments[0], error)

    def reloading(self) -> None:
        """Say that a reload begins; `READY=1` ends it."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, seconds: float) -> None:
        """Say that the end begins, which takes this long at most; the watchdog is fed no more, and does not count."""
        self._stop.set()
        self.send("STOPPING=1", "STATUS=Finishing the requests under way", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def watch(self, check: Callable[[], None]) -> None:
        """Feed the watchdog, if there is one, as long as `check` returns; what it raises is logged."""
        if self._interval > 0:
            threading.Thread(target=self._watch, args=(check,), name="watchdog", daemon=True).start()

    def _watch(self, check: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                check()
                self.send("WATCHDOG=1")
            except Exception as error:  # whatever it is, the manager decides what to do
                _log.error("the watchdog is not fed: %s", error)
            self._stop.wait(self._interval)
