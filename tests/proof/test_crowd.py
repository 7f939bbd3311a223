"""Anonymous readers who ask for what costs most, many at once: those who push and pull hardly notice.

VEX_TEST_CROWD is the number of repositories, without which nothing is tested: with few, nothing costs much.
VEX_TEST_CROWD_SECONDS is how long the readers are there. Rates and times are compared with those of the same run.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from tests.bench.shape import fill
from tests.support.raw import basic
from tests.support.server import TOP, Server, digest_of

REPOSITORIES = int(os.environ.get("VEX_TEST_CROWD", "0"))
SECONDS = float(os.environ.get("VEX_TEST_CROWD_SECONDS", "60"))
LAYERS, FILES, FILE_BYTES = 32, 5_000, 4_000
# How many times as long a read may take while the crowd is there, and which part of the pushes is left.
_SLOWER = 3
_FEWER = 2
_PATIENCE_SECONDS = 120


class Rates(NamedTuple):
    """How long a GET of a manifest takes, as a rule, in seconds, and how many small images go in a second."""

    seconds: float
    pushes: float


@unittest.skipUnless(REPOSITORIES, "VEX_TEST_CROWD is not set: how many repositories?")
class Crowd(unittest.TestCase):
    alone = True

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        self.server = Server(Path(directory.name))
        self.addCleanup(self.server.kill)
        self.server.stop()
        fill(self.server.data, REPOSITORIES)
        self.server.start()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        # The check of so many files after a start is felt, too.
        while not self.server.metric('vex_housekeeping_success_timestamp_seconds{step="files"}'):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)
        layers = list(_layers())
        image = self.server.auth.push_image("crowd/layers", "v1", *layers)
        self.paths = [f"/r/crowd/layers/m/{image}/layer/{digest_of(layer)}/" for layer in layers]

    def test_those_who_push_and_pull_hardly_notice_a_crowd_of_readers(self) -> None:
        # Twice at most, each time compared with what goes without the crowd just before: other programs may need the
        # machine during one of both alone.
        for attempt in range(2):
            idle = self._measure(SECONDS / 4)
            with self._crowd() as readers:
                busy = self._measure(SECONDS)
            self._check(readers)
            told = (
                f"{idle.seconds * 1000:.2f} ms became {busy.seconds * 1000:.2f}, {idle.pushes:.0f} pushes a second"
                f" {busy.pushes:.0f}"
            )
            print(told, file=sys.stderr)
            if attempt or (busy.seconds < _SLOWER * idle.seconds and busy.pushes > idle.pushes / _FEWER):
                break
        self.assertLess(busy.seconds, _SLOWER * idle.seconds, told)
        self.assertGreater(busy.pushes, idle.pushes / _FEWER, told)
        self.assertNotIn("Traceback", self.server.log.read_text())

    def _check(self, readers: Mapping[str, subprocess.Popen[str]]) -> None:
        """Check that every kind of reader was answered, and nobody with an error."""
        for kind, reader in readers.items():
            found = json.loads(reader.communicate(timeout=_PATIENCE_SECONDS)[0])
            self.assertGreater(found.get("200", 0), 0, f"{kind}: {found}")
            self.assertLessEqual(set(found), {"200", "303", "307", "308", "404", "503"}, kind)

    def _measure(self, seconds: float) -> Rates:
        connection = http.client.HTTPConnection(*self.server.addresses["auth"], timeout=60)
        times = []
        with contextlib.closing(connection), self._pushing(seconds) as pushed:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                started = time.perf_counter()
                connection.request("GET", "/v2/crowd/layers/manifests/v1", headers={"Authorization": basic()})
                response = connection.getresponse()
                response.read()
                times.append(time.perf_counter() - started)
                self.assertEqual(response.status, 200)
                # Reads as those of people: what matters is how long each takes, not how many there are.
                time.sleep(0.002)
        return Rates(statistics.median(times), len(pushed) / seconds)

    @contextlib.contextmanager
    def _pushing(self, seconds: float) -> Iterator[list[str]]:
        pushed: list[str] = []
        until = time.monotonic() + seconds

        def push() -> None:
            while time.monotonic() < until:
                pushed.append(self.server.auth.push_image("crowd/pushed", str(len(pushed) % 10), os.urandom(1000)))

        thread = threading.Thread(target=push)
        thread.start()
        try:
            yield pushed
        finally:
            thread.join()

    @contextlib.contextmanager
    def _crowd(self) -> Iterator[dict[str, subprocess.Popen[str]]]:
        host, port = self.server.addresses["public"]
        readers = {}
        for kind, paths in (("search", []), ("layers", self.paths), ("crawl", [])):
            command = [sys.executable, "-m", "tests.support.crowd", kind, host, str(port), str(SECONDS + 1), *paths]
            readers[kind] = subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + _PATIENCE_SECONDS
            while self.server.metric('vex_requests_in_flight{listener="public"}') < LAYERS:
                self.assertLess(time.monotonic(), deadline)
            yield readers
        finally:
            for reader in readers.values():
                reader.wait(timeout=_PATIENCE_SECONDS)


def _layers() -> Iterator[bytes]:
    """Make layers of 20 MB and 5,000 files, which differ in the time of their gzip header alone: the same work, and
    nothing that is known already.
    """
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(FILES):
            content = os.urandom(FILE_BYTES)
            info = tarfile.TarInfo(f"usr/share/directory-{number % 100}/file-{number:05}")
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    packed = gzip.compress(buffer.getvalue(), compresslevel=1)
    for number in range(LAYERS):
        yield packed[:4] + struct.pack("<I", number + 1) + packed[8:]


if __name__ == "__main__":
    unittest.main()
