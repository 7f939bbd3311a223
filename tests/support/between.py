"""A server between a client and the registry, which passes reads on, and does something else once the client was told
what a tag points to.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable

from tests.support.server import Client

_BY_TAG = re.compile(r"/v2/.+/manifests/[^:/]+")
_ANSWERED_HERE = {"connection", "date", "server", "transfer-encoding"}


class Between(ThreadingHTTPServer):
    """Passes on to `client`; calls `interrupt` once, after the first answer about a tag, and before the client has
    it.
    """

    daemon_threads = True

    def __init__(self, client: Client, interrupt: Callable[[], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.client = client
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self.interrupted = ""

    @property
    def host(self) -> str:
        """HOST:PORT, as names of images begin."""
        return f"127.0.0.1:{self.server_address[1]}"

    def answered(self, method: str, path: str, status: int) -> None:
        """Interrupt what a client has begun."""
        with self._lock:
            if not self.interrupted and status == 200 and _BY_TAG.fullmatch(path):
                self.interrupted = method
                self._interrupt()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Between

    def do_GET(self) -> None:
        """Pass it on."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        answer = self.server.client.request(self.command, self.path, headers=headers)
        self.server.answered(self.command, self.path.partition("?")[0], answer.status)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _ANSWERED_HERE:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    do_HEAD = do_GET  # noqa: N815 -- the name that http.server looks for

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def between(client: Client, interrupt: Callable[[], None]) -> Iterator[Between]:
    """Run such a server for a block."""
    with Between(client, interrupt) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
