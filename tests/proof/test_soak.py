"""A mixed load of pushes, pulls, moves and deletions for VEX_TEST_SOAK seconds: what a server holds at its end is what
it held in its middle.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import sys
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.load import Load
from tests.support.server import Server, digest_of, running

SECONDS = float(os.environ.get("VEX_TEST_SOAK") or 5)
MIB = 2**20
_PULLERS = 3
# Past 16 MiB the log is cut back at a checkpoint; a transaction may come on top.
_LOG_BYTES = 17 * MIB
_GROWTH_BYTES = 6 * MIB
# Two connections to the database, each with its log, are opened once something reads that can wait, and stay.
_READERS_DESCRIPTORS = 2 * 2


class Held(NamedTuple):
    """What a process holds, in bytes and numbers; `log` is the write-ahead log."""

    resident: int
    threads: int
    descriptors: int
    log: int


@unittest.skipUnless(Path("/proc/self/status").exists(), "needs /proc, which Linux has")
class SoakTest(unittest.TestCase):
    """One server, loaded twice for half of the time."""

    alone = True

    def test_memory_threads_descriptors_and_log_stay_as_they_are(self) -> None:
        # Nothing that was deleted is kept for pulls under way, so that the data stays as small as it is.
        with running("--pull-grace", "0") as server:
            server.wait_for_housekeeping()
            new = _held(server)
            # The first login and push open the database once more, and that stays; their connections do not.
            server.auth.push_image("calm", "1")
            calm = self.settled(server, new._replace(descriptors=sys.maxsize))
            calm = calm._replace(descriptors=calm.descriptors + _READERS_DESCRIPTORS)
            self.load(server)
            middle = self.settled(server, calm)
            self.load(server)
            end = self.settled(server, calm)
            self.assertLess(end.resident - middle.resident, _GROWTH_BYTES, (calm, middle, end))
            self.assertLess(end.log, _LOG_BYTES)
            self.assertNotIn("Traceback", server.log.read_text())

    def load(self, server: Server) -> None:
        """Have all clients work for half of the time."""
        over = threading.Event()
        failures: list[str] = []
        pullers = [threading.Thread(target=_pull, args=(server, number, over, failures)) for number in range(_PULLERS)]
        with Load(server) as load:
            for thread in pullers:
                thread.start()
            over.wait(SECONDS / 2)
            over.set()
            for thread in pullers:
                thread.join()
        self.assertEqual((load.failures, failures), ([], []))

    def settled(self, server: Server, calm: Held) -> Held:
        """Wait until the connections are gone, with their threads and descriptors; returns what is held then."""
        deadline = time.monotonic() + 20
        while True:
            held = _held(server)
            if held.threads <= calm.threads and held.descriptors <= calm.descriptors:
                return held
            self.assertLess(time.monotonic(), deadline, (calm, held))


def _pull(server: Server, number: int, over: threading.Event, failures: list[str]) -> None:
    choose = random.Random(number)
    with contextlib.closing(http.client.HTTPConnection(*server.addresses["public"], timeout=60)) as connection:
        while not over.is_set():
            name = f"moving/{choose.randrange(3)}"
            for path, digest in _parts(connection, name, str(choose.randrange(3))):
                status, body = _get(connection, path)
                # What is moved or deleted meanwhile goes at once here.
                if status not in (200, 404) or (status == 200 and digest_of(body) != digest):
                    failures.append(f"{path}: {status}, {len(body)} bytes")


def _parts(connection: http.client.HTTPConnection, name: str, tag: str) -> Iterator[tuple[str, str]]:
    connection.request("GET", f"/v2/{name}/manifests/{tag}")
    response = connection.getresponse()
    body = response.read()
    if response.status == 200:
        yield f"/v2/{name}/manifests/{digest_of(body)}", digest_of(body)
        for found in set(body.decode().split('"digest": "')[1:]):
            digest = found.partition('"')[0]
            yield f"/v2/{name}/blobs/{digest}", digest


def _get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


def _held(server: Server) -> Held:
    process = Path(f"/proc/{server.process.pid}")
    fields = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    log = server.data / "vex.db-wal"
    return Held(
        int(fields["VmRSS"].split()[0]) * 1024,
        int(fields["Threads"]),
        len(os.listdir(process / "fd")),
        log.stat().st_size if log.exists() else 0,
    )
