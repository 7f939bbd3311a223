"""Power cuts: everything that was not synced is dropped while clients work or a backup has just ended, and every
promise is kept; and a proof that this test sees a missing sync.

VEX_TEST_POWER_CUTS says how many, and VEX_TEST_SEED repeats the choices.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path

from tests.proof.crash.clients import Clients
from tests.proof.crash.disk import Disk, disk_in
from tests.proof.crash.journal import Journal
from tests.proof.crash.oracle import losses
from tests.proof.crash.points import SKIP, Points, Trap
from tests.proof.crash.server import RUNNER, TrapServer
from tests.support.in_process import directory_in_memory
from tests.support.server import Server, running, vex

CUTS = int(os.environ.get("VEX_TEST_POWER_CUTS") or 5)
SEED = os.environ.get("VEX_TEST_SEED") or str(random.SystemRandom().randrange(10**9))
_FOUND_WITHIN = 50


class PowerTestCase(unittest.TestCase):
    """A server on a disk that loses its power, and a journal on one that does not."""

    @contextlib.contextmanager
    def site(self, trap: Trap | None = None) -> Iterator[tuple[TrapServer, Disk, Journal]]:
        """Run a server on a disk, with a trap armed from its start on."""
        with directory_in_memory() as name, disk_in(Path(name)) as disk:
            server = TrapServer(
                disk.mounted, "--free-space", "0", "--shutdown-timeout", "1s", points=Path(name) / "points"
            )
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
                # After the ioctl the server goes on for a moment, and a sync that comes behind the commit it waits for
                # is told of success.
                with journal.silenced():
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


class BackupPowerTest(unittest.TestCase):
    """A backup to a disk that loses its power as soon as the command has said that it is done."""

    server: Server

    @classmethod
    def setUpClass(cls) -> None:
        context = running()
        cls.server = context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)

    def setUp(self) -> None:
        directory = directory_in_memory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.points = Points(self.directory / "backup-points")
        self.addCleanup(self.points.close)

    def test_a_power_cut_takes_nothing_of_a_backup_that_was_done(self) -> None:
        with disk_in(self.directory) as disk:
            for cycle in range(max(2, CUTS // 5)):
                self.assertEqual(self.lost(disk, f"done {cycle}"), "", f"cycle {cycle}")

    def test_it_finds_that_the_content_of_a_blob_was_not_synced(self) -> None:
        self.assert_found("fsync uploads")

    def test_it_finds_that_the_copy_of_the_database_was_not_synced(self) -> None:
        self.assert_found("fsync vex.db.new")

    def test_it_finds_that_its_marker_was_not_synced(self) -> None:
        self.assert_found("fsync backup.new")

    def test_it_finds_that_the_name_of_the_database_was_not_synced(self) -> None:
        self.assert_found("fsync copy")

    def assert_found(self, point: str) -> None:
        """Back up without a sync until something is lost."""
        with disk_in(self.directory) as disk:
            for cycle in range(_FOUND_WITHIN):
                if self.lost(disk, f"{point} {cycle}", Trap(point, SKIP, forever=True)):
                    self.assertGreater(self.points.sprung, 0)
                    return
            self.fail(f"{_FOUND_WITHIN} power cuts without {point}, and nothing was lost")

    def lost(self, disk: Disk, seed: str, trap: Trap | None = None) -> str:
        """Push, back up, and cut the power; returns what is wrong with the backup then."""
        digest = self.server.auth.push_image("app", "1", seed.encode() * 10_000)
        if trap:
            self.points.arm(trap)
        target = disk.mounted / "copy"
        done = self.back_up(target)
        disk.cut_power()
        self.points.disarm()
        self.assertEqual(done.returncode, 0, done.stderr)
        disk.restore_power()
        # What an older backup had may come back, as litter.
        vex("check", "--repair", "--data-dir", str(target))
        checked = vex("check", "--hash", "--data-dir", str(target))
        if checked.returncode:
            return checked.stdout + checked.stderr
        with contextlib.closing(sqlite3.connect(target / "vex.db")) as connection:
            found = connection.execute("SELECT digest FROM manifest JOIN tag ON tag.manifest = manifest.id").fetchall()
        if found != [(digest,)]:
            return f"it has {found} instead of {digest}"
        # The next one must know it again.
        again = self.back_up(target)
        return again.stderr if again.returncode else ""

    def back_up(self, target: Path) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            str(RUNNER),
            str(self.directory / "backup-points"),
            "backup",
            str(target),
            "--data-dir",
            str(self.server.data),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _settle(server: TrapServer) -> None:
    """Have the log written from its start again: while it grows, syncing it also syncs the names of files."""
    with contextlib.closing(sqlite3.connect(server.data / "vex.db", timeout=30)) as connection:
        connection.execute("PRAGMA wal_checkpoint(RESTART)")
