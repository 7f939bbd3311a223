"""Whether requests should come here: what /readyz answers, and what a registry whose storage failed says at its end."""

from __future__ import annotations

import logging
import os
import signal
import time

from vex.errors import Failure
from vex.http.message import PLAIN_TEXT, Response
from vex.registry.storage import Storage

_log = logging.getLogger("vex")


class Readiness:
    """What is known of the registry as a whole; any thread may use it. `since` is when it was ready, 0 until then."""

    def __init__(self) -> None:
        self.since = 0.0
        self._stopping = False
        self._failure = ""

    def ready(self) -> None:
        """Note that requests may come."""
        self.since = time.time()

    def stopping(self) -> None:
        """Note that the end begins."""
        self._stopping = True

    def storage_failed(self, reason: str) -> None:
        """Note that the outcome of a transaction is unknown, and end the registry."""
        _log.critical("the outcome of a transaction is unknown: %s; stopping", reason)
        self._failure = reason
        os.kill(os.getpid(), signal.SIGTERM)

    def raise_failure(self) -> None:
        """Raise Failure if the storage failed."""
        if self._failure:
            raise Failure(
                f"storage failed ({self._failure}): what was committed last is not certain; check the disk,"
                " then start again"
            )

    def response(self, storage: Storage) -> Response:
        """Answer at /readyz."""
        reason = self._reason(storage)
        return Response(503, PLAIN_TEXT, f"{reason}\n".encode()) if reason else Response(200, PLAIN_TEXT, b"ready\n")

    def _reason(self, storage: Storage) -> str:
        """Say why requests should not come here; "" when they may."""
        if self._failure:
            return f"storage failed: {self._failure}; check the disk, then start again"
        if self._stopping:
            return "shutting down"
        if not self.since:
            return "starting"
        try:
            free = storage.files.free_bytes()
        except OSError as error:
            return f"storage failed: {error.strerror}; check the disk"
        kept = storage.uploads.limits.free_bytes
        if free < kept:
            return (
                f"out of disk space: {free} bytes are free, less than the {kept} that free-space keeps; delete tags,"
                " or add space"
            )
        return ""
