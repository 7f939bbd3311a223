"""Large answers that are being sent from memory: one copy of each, however many read it, and a limit on all of them
together.

A reader may take hours for an answer. So those that are equal share their bytes, and one for which there is no room is
given up, waits without its bytes, and is made again. Small answers do not come here.
"""

from __future__ import annotations

import threading
from typing import Callable

from vex.errors import BUSY, RegistryError
from vex.http.message import Response

LARGE_BYTES = 256 * 1024
# Sixteen of the largest manifests.
_LIMIT_BYTES = 64 * 1024 * 1024
_PATIENCE_SECONDS = 1.0
_ATTEMPTS = 10


class LargeAnswers:
    """The large answers under way; any thread may use it."""

    def __init__(self, limit: int = _LIMIT_BYTES, patience: float = _PATIENCE_SECONDS) -> None:
        self._left = limit
        self._patience = patience
        self._readers: dict[bytes, int] = {}
        self._bodies: dict[bytes, bytes] = {}
        self._changed = threading.Condition()

    def admit(self, make: Callable[[], Response]) -> Response:
        """Make an answer, whose body counts until it was sent; where there is no room, wait and make it again. Raises
        BUSY in the end.
        """
        for _ in range(_ATTEMPTS):
            response = make()
            if len(response.body) <= LARGE_BYTES or self._take(response):
                return response
            # Its bytes go before the wait.
            del response
            with self._changed:
                self._changed.wait(self._patience)
        raise RegistryError(
            BUSY,
            "as many large answers are being sent as there is memory for; try again in a moment",
            headers={"Retry-After": "10"},
        )

    def _take(self, response: Response) -> bool:
        body = response.body
        with self._changed:
            if body in self._bodies:
                response.body = body = self._bodies[body]
            elif len(body) > self._left:
                return False
            else:
                self._bodies[body] = body
                self._left -= len(body)
            self._readers[body] = self._readers.get(body, 0) + 1
        response.on_sent = lambda: self._release(body)
        return True

    def _release(self, body: bytes) -> None:
        with self._changed:
            self._readers[body] -= 1
            if not self._readers[body]:
                del self._readers[body], self._bodies[body]
                self._left += len(body)
                self._changed.notify_all()
