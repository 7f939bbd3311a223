"""Slow and greedy clients, many of each kind at once: others pull and push as if they were not there, and nothing of
them stays behind.

VEX_TEST_GREEDY is the number of each kind: silent on a listener with TLS, a byte of a head in a second, a byte of a
body in a second, readers that never read.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import socket
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from typing import Callable, NamedTuple

from tests.support.raw import basic
from tests.support.server import Client, digest_of, running, tls_flags, trusting, write_certificate

OF_EACH_KIND = int(os.environ.get("VEX_TEST_GREEDY", "100"))
# Longer than it takes to connect them all.
TIMEOUT_SECONDS = 3 + OF_EACH_KIND // 100
LARGE = bytes(8 * 2**20)
SMALL = os.urandom(2**20)
METRICS_SECONDS = 1.0
# A second connection to the database that only reads, with its log: opened when two ask at once, and kept.
_READER_FILES = 2
# What the allocator keeps for later; the stacks and buffers of 2,000 connections are far more.
_SLACK_MEBIBYTES = 16 + OF_EACH_KIND // 20
_FILES = 3 * 2 * 4 * OF_EACH_KIND
_FLAGS = (
    *(
        "--public-connections",
        f"{2 * OF_EACH_KIND + 50}",
        "--auth-connections",
        f"{OF_EACH_KIND + 50}",
        "--internal-connections",
        f"{OF_EACH_KIND + 50}",
    ),
    # Housekeeping, which gives memory back, comes round twice in this time.
    *("--pull-grace", "4s"),
    *("--backlog", "1000", "--upload-sessions", f"{OF_EACH_KIND + 50}"),
    *(
        "--handshake-timeout",
        f"{TIMEOUT_SECONDS}s",
        "--head-timeout",
        f"{TIMEOUT_SECONDS}s",
        "--stall-timeout",
        f"{TIMEOUT_SECONDS}s",
    ),
)


class Footprint(NamedTuple):
    """What the process takes; the connection that asks counts."""

    threads: float
    files: float
    mebibytes: float

    def within(self, before: Footprint) -> bool:
        """Tell whether it is no more than before, but for what is kept."""
        return (
            self.threads <= before.threads
            and self.files <= before.files + _READER_FILES
            and self.mebibytes <= before.mebibytes + _SLACK_MEBIBYTES
        )


class Greedy(unittest.TestCase):
    """One server; its internal listener, where the silent ones are, is over TLS."""

    alone = True

    def setUp(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < _FILES:
            self.skipTest(f"needs {_FILES} file descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, _FILES), hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        certificate, key = write_certificate(directory.name)
        self.context = trusting(certificate)
        server = running(*_FLAGS, *tls_flags(certificate, key, "internal"))
        self.server = server.__enter__()
        self.addCleanup(server.__exit__, None, None, None)
        self.internal = Client(self.server.addresses["internal"], context=self.context)
        self.server.auth.push_image("greedy", "v1", SMALL, LARGE)
        # How long each took, in seconds.
        self.scraped: list[float] = []

    def test_others_pull_and_push_meanwhile_and_nothing_stays_behind(self) -> None:
        for _ in range(2):
            self._pull()
            self._push()
        self.server.wait_for_housekeeping()
        before = self._footprint()
        with contextlib.ExitStack() as stack:
            bodies: list[socket.socket] = []
            heads: list[socket.socket] = []
            stack.enter_context(_dripping(bodies, heads))
            for _ in range(OF_EACH_KIND):
                bodies.append(stack.enter_context(self._slow_body()))
            with _repeating(self._pull, self._push, self._scrape) as done:
                readers = [stack.enter_context(self._reader()) for _ in range(OF_EACH_KIND)]
                silent = [stack.enter_context(self._connected("internal")) for _ in range(OF_EACH_KIND)]
                for _ in range(OF_EACH_KIND):
                    heads.append(stack.enter_context(self._connected("public")))
                # On a slow machine the first have their deadline before the last are connected.
                self.assertGreater(self._footprint().threads, before.threads + 3 * OF_EACH_KIND)
                self._wait_for_ends({"handshake": "internal", "head": "public", "stall": "public"})
            self.assertEqual([len(problems) for _, problems in done], [0, 0, 0], done)
            for count, _ in done:
                self.assertGreater(count, 5)
            # Not each of them: this machine may have other things to do for a moment.
            self.assertLess(
                sorted(self.scraped)[len(self.scraped) * 9 // 10], METRICS_SECONDS, "/metrics took too long"
            )
            self._assert_ended(silent, heads, readers)
            # A byte a second is progress: these are only cut after a minute.
            # Not by the number of threads: the one of a connection that has just been closed may still have been among
            # those before.
            self.assertEqual(self._metrics()["vex_uploads_open"], OF_EACH_KIND)
        self._assert_back(before)
        self.assertNotIn("Traceback", self.server.log.read_text())

    def _pull(self) -> None:
        answer = self.server.public.get(f"/v2/greedy/blobs/{digest_of(SMALL)}")
        assert (answer.status, digest_of(answer.body)) == (200, digest_of(SMALL)), answer.status

    def _push(self) -> None:
        self.server.auth.push_image("pushed", "v1", os.urandom(1000))

    def _scrape(self) -> None:
        started = time.monotonic()
        answer = self.internal.get("/metrics")
        assert answer.status == 200, answer
        self.scraped.append(time.monotonic() - started)

    def _metrics(self) -> dict[str, float]:
        lines = self.internal.get("/metrics").body.decode().splitlines()
        return {
            series: float(value)
            for series, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
        }

    def _footprint(self) -> Footprint:
        metrics = self._metrics()
        return Footprint(
            metrics["process_threads"], metrics["process_open_fds"], metrics["process_resident_memory_bytes"] / 2**20
        )

    @contextlib.contextmanager
    def _connected(self, listener: str) -> Iterator[socket.socket]:
        with socket.create_connection(self.server.addresses[listener], timeout=30) as connection:
            yield connection

    @contextlib.contextmanager
    def _reader(self) -> Iterator[socket.socket]:
        """Ask for a large blob, and read nothing of it."""
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(self.server.addresses["public"])
            connection.sendall(f"GET /v2/greedy/blobs/{digest_of(LARGE)} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            yield connection

    @contextlib.contextmanager
    def _slow_body(self) -> Iterator[socket.socket]:
        """Begin to push a blob."""
        with self._connected("auth") as connection:
            path = f"/v2/slow/blobs/uploads/?digest={digest_of(LARGE)}"
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {basic()}\r\nContent-Length:"
                f" {len(LARGE)}\r\n\r\n".encode()
            )
            yield connection

    def _wait_for_ends(self, listeners: dict[str, str]) -> None:
        """Wait until the server has ended as many connections as there are of a kind, for each reason on its
        listener.
        """
        patience = time.monotonic() + 3 * TIMEOUT_SECONDS
        for reason, listener in listeners.items():
            series = f'vex_connections_ended_total{{listener="{listener}",reason="{reason}"}}'
            while (ended := self._metrics().get(series, 0)) < OF_EACH_KIND and time.monotonic() < patience:
                time.sleep(0.2)
            self.assertEqual(ended, OF_EACH_KIND, reason)

    def _assert_ended(
        self, silent: list[socket.socket], heads: list[socket.socket], readers: list[socket.socket]
    ) -> None:
        """Check what the clients that were cut see: nothing, 408, and the beginning of a blob."""
        for connection in silent:
            self.assertEqual(connection.recv(1), b"")
        for connection in heads:
            response = http.client.HTTPResponse(connection)
            response.begin()
            self.assertEqual(response.status, 408)
        for connection in readers:
            self.assertEqual(connection.recv(15), b"HTTP/1.1 200 OK")

    def _assert_back(self, before: Footprint) -> None:
        """Check that threads, files and memory are back where they were, within some seconds."""
        patience = time.monotonic() + 10
        while not (now := self._footprint()).within(before) and time.monotonic() < patience:
            time.sleep(0.2)
        self.assertTrue(now.within(before), f"{before} before, {now} now")


@contextlib.contextmanager
def _dripping(bodies: list[socket.socket], heads: list[socket.socket]) -> Iterator[None]:
    """Send a byte a second to each of the connections that are in the lists, during the block."""
    over = threading.Event()

    def drip() -> None:
        while not over.wait(1):
            for connection in (*bodies, *heads):
                with contextlib.suppress(OSError):
                    # The beginning of a method that may yet become a long one.
                    connection.sendall(b"A")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _repeating(*actions: Callable[[], None]) -> Iterator[list[tuple[int, list[str]]]]:
    """Repeat each action in a thread of its own during the block; afterwards the list holds how often each worked, and
    what went wrong.
    """
    over = threading.Event()
    done: list[tuple[int, list[str]]] = []

    def repeat(action: Callable[[], None], problems: list[str]) -> int:
        count = 0
        while not over.wait(0.05):
            try:
                action()
                count += 1
            except (OSError, AssertionError, http.client.HTTPException) as error:
                problems.append(repr(error)[:300])
        return count

    results: list[tuple[list[int], list[str]]] = [([], []) for _ in actions]
    threads = [
        threading.Thread(target=lambda a=action, r=result: r[0].append(repeat(a, r[1])))
        for action, result in zip(actions, results)
    ]
    for thread in threads:
        thread.start()
    try:
        yield done
    finally:
        over.set()
        for thread in threads:
            thread.join()
        done += [(sum(counts), problems) for counts, problems in results]


if __name__ == "__main__":
    unittest.main()
