"""What HTTP tells of requests and connections to whom it may concern."""

from __future__ import annotations

from typing import Protocol

from vex.errors import Kind


class Observer(Protocol):
    """What is told of requests and connections; the metrics are."""

    def request_done(
        self, listener: str, method: str, op: str, status: int, seconds: float, received: int, sent: int, repeated: bool
    ) -> None:
        """Note a request that was answered, perhaps with an answer that was given before; sizes in bytes of bodies."""

    def request_refused(self, listener: str, kind: Kind) -> None:
        """Note a request that never reached a handler."""

    def connection_refused(self, listener: str) -> None:
        """Note a connection for which there was no thread, and no place to wait."""

    def connection_ended(self, listener: str, reason: str) -> None:
        """Note a connection that the server ended: `handshake`, `idle`, `head`, `stall`, `rate`, `limit` or
        `shutdown`.
        """
