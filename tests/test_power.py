"""Power cuts: everything that was not synced is dropped while clients work, and every promise is kept; and a proof that this test sees a missing sync.

VEX_TEST_POWER_CUTS says how many, and VEX_TEST_SEED repeats the choices.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import unittest
from collections.abc import Iterator
from pathlib import Path

from tests.crash.clients import Clients
from tests.crash.disk import Disk, disk_in
from tests.crash.journal import Journal
from tests.crash.oracle import losses
from tests.crash.points import SKIP, Trap
from tests.crash.server import TrapServer
from tests.in_process import directory_in_memory

CUTS = int(os.environ.get("VEX_TEST_POWER_CUTS") or 5)
SEED = os.environ.get("VEX_TEST_SEED") or str(random.SystemRandom().randrange(10**9))
_FOUND_WITHIN = 50


class PowerTestCase(unittest.TestCase):
    """A server on a disk that loses its power, and a journal on one that does not."""

    @contextlib.contextmanager
    def site(self, trap: Trap | None = None) -> Iterator[tuple[TrapServer, Disk, Journal]]:
        """Run a server on a disk, with a trap armed from its start on."""
        with directory_in_memory() as name, disk_in(Path(name)) as disk:
            server = TrapServer(disk.mounted, "--free-space", "0", "--shutdown-timeout", "1s", points=Path(name) / "points")
            with contextlib.closing(Journal(Path(name) / "journal")) as journal:
                try:
                    if trap:
                        server.kill()
                        server.points.arm(trap)
                        server.start()
                    yield server, disk, journal
                finally:
                    server.kill()

    def cut(self, server: TrapServer, disk: Disk) -> None:
        """Cut the power, and start again."""
        disk.cut_power()
        server.kill()
        disk.restore_power()
        server.start()


class PowerTest(PowerTestCase):
    """Clients at work."""

    def test_a_power_cut_takes_nothing_that_was_acknowledged(self) -> None:
        choose = random.Random(SEED)
        with self.subTest(VEX_TEST_SEED=SEED), self.site() as (server, disk, journal):
            for cycle in range(CUTS):
                clients = Clients(server, journal, f"{SEED} {cycle}")
                clients.start()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.process.wait(choose.uniform(0.05, 0.4))
                clients.expect_the_end()
                self.cut(server, disk)
                clients.join()
                self.assertEqual(clients.failures, [])
                self.assertEqual(losses(server, journal), [], f"cycle {cycle}")


class MissingSyncTest(PowerTestCase):
    """With one sync taken out, the same check finds a loss."""

    def test_it_finds_that_the_content_of_a_blob_was_not_synced(self) -> None:
        self.assert_found(Trap("fsync uploads", SKIP, forever=True))

    def test_it_finds_that_the_name_of_a_blob_was_not_synced(self) -> None:
        self.assert_found(Trap("fsync blobs", SKIP, forever=True))

    def test_it_finds_that_commits_were_not_synced(self) -> None:
        self.assert_found(Trap("synchronous", SKIP, forever=True))

    def assert_found(self, trap: Trap) -> None:
        """Push until something acknowledged is lost."""
        with self.site(trap) as (server, disk, journal):
            for cycle in range(_FOUND_WITHIN):
                _settle(server)
                Clients(server, journal, f"{SEED} {cycle}").push_one(f"app:{cycle}")
                self.cut(server, disk)
                if losses(server, journal):
                    self.assertGreater(server.points.sprung, 0)
                    return
            self.fail(f"{_FOUND_WITHIN} power cuts without {trap.point}, and nothing was lost")


def _settle(server: TrapServer) -> None:
    """Have the log written from its start again: while it grows, syncing it also syncs the names of files."""
    with contextlib.closing(sqlite3.connect(server.data / "vex.db", timeout=30)) as connection:
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
