"""Health, as those who ask over new connections see it: alive, ready, and if not, why; and the page that links both and
the metrics.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import Callable

from tests.support.page import Page
from tests.support.raw import connected
from tests.support.registries import temporary_directory
from tests.support.server import TOP, Answer, Client, digest_of, free_port, running
from tests.support.uploads import begin_upload
from vex import VERSION


class HealthTestCase(unittest.TestCase):
    def assert_ready(self, client: Client) -> None:
        answer = client.get("/readyz")
        self.assertEqual((answer.status, answer.body), (200, b"ready\n"))

    def await_reason(self, client: Client, reason: str) -> None:
        """Wait until the registry says why it is not ready; it is alive all the time."""
        answer = self.wait_for(lambda: client.get("/readyz"), lambda answer: answer.status != 200)
        self.assertEqual(answer.status, 503)
        self.assertEqual(answer.headers["Content-Type"], "text/plain; charset=utf-8")
        self.assertRegex(answer.body.decode(), reason)
        alive = client.get("/healthz")
        self.assertEqual((alive.status, alive.body), (200, b""))

    def wait_for(self, ask: Callable[[], Answer], wanted: Callable[[Answer], bool]) -> Answer:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(ConnectionError, http.client.HTTPException):
                answer = ask()
                if wanted(answer):
                    return answer
            time.sleep(0.02)
        raise AssertionError("it never came")


class Readiness(HealthTestCase):
    def test_one_that_shuts_down_says_so_to_new_connections_until_the_last_upload_has_ended(self) -> None:
        with running() as server, contextlib.closing(begin_upload(server)) as wire:
            self.assert_ready(server.internal)
            server.process.send_signal(signal.SIGTERM)
            self.await_reason(server.internal, r"^shutting down\n$")
            with self.assertRaises(ConnectionRefusedError):
                for _ in range(1000):
                    socket.create_connection(server.addresses["auth"]).close()
                    time.sleep(0.02)
            # Each loop that accepts connections looks ten times a second whether it is to end.
            until = time.monotonic() + 0.7
            while time.monotonic() < until:
                self.await_reason(server.internal, r"^shutting down\n$")
            wire.send(b"56789")
            self.assertEqual(wire.answer().status, 201)
            self.assertEqual(server.stop(), 0)

    @unittest.skipUnless(hasattr(resource, "prlimit"), "needs prlimit, which Linux has")
    def test_after_a_storage_error_it_says_what_failed(self) -> None:
        with running() as server, contextlib.closing(begin_upload(server)):
            server.auth.push_image("app", "v1", b"layer")
            # Writing past this fails with EFBIG, which SQLite reports as an I/O error.
            written = (server.data / "vex.db-wal").stat().st_size
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (written, written))
            answer = server.auth.request("POST", f"/v2/app/blobs/uploads/?digest={digest_of(b'lost')}", b"lost")
            self.assertEqual(answer.status, 500)
            self.await_reason(server.internal, r"^storage failed: disk I/O error; check the disk, then start again\n$")

    def test_without_the_space_that_uploads_leave_free_it_says_how_much_is_missing_and_pulls_go_on(self) -> None:
        with running() as server:
            stored = server.auth.push_image("app", "v1", b"layer")
            server.restart("--free-space", "1024TiB")
            self.await_reason(
                server.internal,
                (
                    r"^out of disk space: [0-9]+ bytes are free, less than the 1125899906842624 that free-space keeps;"
                    r" .*\n$"
                ),
            )
            self.assertEqual(server.public.get(f"/v2/app/manifests/{stored}").status, 200)
            server.restart("--free-space", "0")
            self.assert_ready(server.internal)

    @unittest.skipUnless(hasattr(fcntl, "F_SETPIPE_SZ"), "needs pipes whose size can be set, which Linux has")
    def test_while_it_starts_it_says_so(self) -> None:
        # The pipe is full, and the server has to wait before it can say that it is ready.
        reading, writing = os.pipe()
        size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        os.write(writing, bytes(size))
        with temporary_directory() as directory:
            address = ("127.0.0.1", free_port())
            process = self._start(directory, writing, f"127.0.0.1:{address[1]}")
            try:
                self.wait_for(lambda: Client(address).get("/healthz"), lambda answer: answer.status == 200)
                self.await_reason(Client(address), r"^starting\n$")
                with open(reading, "rb") as pipe:
                    pipe.read(size)
                    for line in pipe:
                        if line == b"ready\n":
                            break
                    self.wait_for(lambda: Client(address).get("/readyz"), lambda answer: answer.status == 200)
            finally:
                process.kill()
                process.wait(timeout=60)

    def _start(self, directory: Path, output: int, address: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            str(TOP / "vex.py"),
            "serve",
            "--data-dir",
            str(directory),
            "--internal-addr",
            address,
        ]
        process = subprocess.Popen(
            [*command, "--public-addr", "off", "--auth-addr", "off"], stdout=output, stderr=subprocess.DEVNULL
        )
        os.close(output)
        return process


class IndexTest(HealthTestCase):
    def test_the_page_links_what_is_there_and_everything_that_it_links_works(self) -> None:
        with running() as server:
            answer = server.internal.get("/")
            self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "text/html; charset=utf-8"))
            self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
            self.assertEqual(
                answer.headers["Content-Security-Policy"], server.public.get("/").headers["Content-Security-Policy"]
            )
            page = Page(answer.body.decode())
            self.assertEqual(page.faults, [])
            self.assertIn(f"Vex {VERSION}", page.text)
            links = [part.partition('"')[0] for part in answer.body.decode().split('href="')[1:]]
            links += [part.partition('"')[0] for part in answer.body.decode().split('src="')[1:]]
            self.assertLessEqual({"/healthz", "/readyz", "/metrics"}, set(links))
            for link in links:
                self.assertEqual(
                    link if link.startswith("#") else server.internal.get(link).status,
                    "#main" if link.startswith("#") else 200,
                    link,
                )
            with connected(server.addresses["internal"]) as wire:
                wire.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                head = wire.answer("HEAD")
                self.assertEqual((head.status, wire.rest()), (200, b""))


if __name__ == "__main__":
    unittest.main()
