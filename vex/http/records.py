"""What becomes known of a request once it is over: it is counted, and logged where that is wanted."""

from __future__ import annotations

import logging
import time
from typing import Callable

from vex.http.answers import Answer
from vex.http.message import Request
from vex.http.observer import Observer

_log = logging.getLogger("vex")
# What nginx logs for a client that did not wait for the whole answer.
_CLIENT_LEFT = 499


class Records:
    """The records of a listener; any thread may use it. `access` writes a line of the access log, None without one;
    `wanted` says that anything is logged.
    """

    def __init__(self, listener: str, observer: Observer, access: Callable[..., None] | None) -> None:
        self._listener = listener
        self._observer = observer
        self._access = access
        self.wanted = access is not None or _log.isEnabledFor(logging.DEBUG)

    def answered(self, request: Request, status: int, sent: int, started: float) -> None:
        """Record a request that was answered, with the bytes of the body that were sent; `started` is a time of
        `time.perf_counter`.
        """
        seconds, listener = time.perf_counter() - started, self._listener
        self._observer.request_done(
            listener, request.method, request.op, status, seconds, request.body.received, sent, False
        )
        _log.debug(
            "%s %s %s %s %s -> %d, %d bytes",
            listener,
            request.client,
            request.user or "-",
            request.method,
            request.path,
            status,
            sent,
        )
        self._log_request(request, status, sent, seconds)

    def repeated(self, answer: Answer, seconds: float, client: str) -> None:
        """Log a request that was answered with what was given before, and is counted."""
        _, _, method, path, _, status, sent, _, _, user = answer
        _log.debug("%s %s %s %s %s -> %d, %d bytes", self._listener, client, user or "-", method, path, status, sent)
        if self._access:
            self._access(self._listener, client, user, method, path, status, 0, sent, seconds)

    def left(self, request: Request) -> None:
        """Record a request whose client did not wait for the answer."""
        self._log_request(request, _CLIENT_LEFT, None, None)

    def in_clear(self, request: Request, status: int, sent: int) -> None:
        """Record a request that came without TLS where there is TLS."""
        self._log_request(request, status, sent, None)

    def unread(self, client: str, status: int, sent: int) -> None:
        """Record what was no request: what the method and the path are cannot be told."""
        if self._access:
            self._access(self._listener, client, "", "", "", status, None, sent, None)

    def _log_request(self, request: Request, status: int, sent: int | None, seconds: float | None) -> None:
        if self._access:
            self._access(
                self._listener,
                request.client,
                request.user,
                request.method,
                request.path,
                status,
                request.body.received,
                sent,
                seconds,
            )
