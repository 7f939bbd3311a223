"""Calls that fail: the Nth open, write, sync, rename, accept, statement and so on, with each error, once and from then
on, for N from 1 until none is left.

VEX_TEST_FAULTS=all tries everything, a number that many kinds of faults in each scenario with all their N, and where
each try is a process of its own, with some of their N; VEX_TEST_SEED repeats the choice.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import sqlite3
import subprocess
import sys
import time
import unittest
from collections.abc import Iterator
from pathlib import Path

from tests.proof.crash.clients import tag_target
from tests.proof.crash.content import blob_of
from tests.proof.crash.journal import Journal
from tests.proof.crash.oracle import losses
from tests.proof.crash.points import Points, Trap
from tests.proof.crash.scenarios import REPOSITORY, SCENARIOS, Hanging, Refused, Scenario, Session
from tests.proof.crash.server import RUNNER, TrapServer
from tests.support.in_process import directory_in_memory
from tests.support.server import Answer, digest_of

FAULTS = os.environ.get("VEX_TEST_FAULTS") or "2"
SEED = os.environ.get("VEX_TEST_SEED") or "1"
POINTS = (
    "open *",
    "write *",
    "fsync *",
    "rename *",
    "unlink *",
    "truncate *",
    "setxattr *",
    "accept",
    "sendfile *",
    "database *",
)
# Calls that do what they should, and then say that they failed: the outcome is unknown.
UNKNOWN = ("rename *", "fsync *", "database commit")
# No space is 507, exhaustion 503. SQLite reports a lack of descriptors as a file that cannot be opened.
ANSWERS = {"ENOSPC": {507}, "EIO": {500, 503}, "EMFILE": {500, 503}, "ENOMEM": {503}}
CODES = {507: "INSUFFICIENT_STORAGE", 500: "INTERNAL_ERROR", 503: "UNAVAILABLE"}
_CASES_PER_START = 100
_NO_ACCEPT_SECONDS = 0.3
_BALLAST_BYTES = 16 * 2**20


def faults(scenario: str) -> list[Trap]:
    """List all that there are in a scenario, or a sample."""
    points = [(point, False) for point in POINTS] + [(point, True) for point in UNKNOWN]
    listed = [
        Trap(point, error, after=after, forever=forever)
        for (point, after), error, forever in itertools.product(points, ANSWERS, (False, True))
    ]
    return (
        listed if FAULTS == "all" else random.Random(f"{SEED} {scenario}").sample(listed, min(int(FAULTS), len(listed)))
    )


class FaultTestCase(unittest.TestCase):
    """A server and a journal of what it acknowledged."""

    def setUp(self) -> None:
        directory = directory_in_memory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.journal = Journal(self.directory / "journal")
        self.addCleanup(self.journal.close)
        self.server = TrapServer(self.directory, "--shutdown-timeout", "1s")
        self.addCleanup(self.server.kill)


@unittest.skipUnless(Path("/proc/self/fd").exists(), "needs /proc, which Linux has")
class RequestTest(FaultTestCase):
    """One server for many faults; it is started again where it has to stop, and now and then."""

    def setUp(self) -> None:
        super().setUp()
        self.blobs: list[str] = []
        self.cases = 0

    def test_every_scenario_has_its_test(self) -> None:
        self.assertEqual(
            {name for name in SCENARIOS if not hasattr(self, f"test_{name.replace(' ', '_').lower()}")}, set()
        )

    def test_push_by_put(self) -> None:
        self._try_all("push by PUT")

    def test_push_by_patch(self) -> None:
        self._try_all("push by PATCH")

    def test_manifest(self) -> None:
        self._try_all("manifest")

    def test_delete(self) -> None:
        self._try_all("delete")

    def test_pull(self) -> None:
        self._try_all("pull")

    def _try_all(self, scenario: str) -> None:
        """Check that every fault is answered, loses nothing, and passes."""
        for trap in faults(scenario):
            with self.subTest(VEX_TEST_SEED=SEED, trap=trap):
                self._try_each(SCENARIOS[scenario], trap)
        self._start_again(self.server.stop(), 0)

    def _try_each(self, scenario: Scenario, fault: Trap) -> None:
        """Have the first passing fail, then the second, until there is none left."""
        for nth in itertools.count(1):
            trap = fault._replace(nth=nth)
            try:
                if not self._try(scenario, trap):
                    return
            except BaseException:
                self.server.kill()
                self.server.start()
                raise

    def _try(self, scenario: Scenario, trap: Trap) -> int:
        """Do a scenario with a fault, then without; returns how often the fault was met."""
        self.cases += 1
        seed = f"case {self.cases}"
        waits = trap.point == "accept" and trap.forever
        session = Session(self.server, self.journal, _NO_ACCEPT_SECONDS if waits else 20)
        scenario.prepare(Session(self.server, self.journal), seed)
        self.server.points.arm(trap)
        try:
            self._act(scenario, session, seed, trap, waits)
        finally:
            self.server.points.disarm()
        sprung = self.server.points.sprung
        if sprung and trap.point.startswith("database") and self._has_stopped():
            # From then on, not even a rollback works; that cannot be for want of space, but it is tried.
            self.assertFalse(trap.action == "ENOSPC" and not trap.forever, "a full disk is no reason to stop")
            self._start_again(self.server.process.wait(20), 1)
        self._check(session.blobs)
        again = Session(self.server, self.journal)
        scenario.act(again, seed)
        self._check(again.blobs)
        if self.cases % _CASES_PER_START == 0:
            self._start_again(self.server.stop(), 0)
        return sprung

    def _act(self, scenario: Scenario, session: Session, seed: str, trap: Trap, waits: bool) -> None:
        try:
            scenario.act(session, seed)
        except Refused as refused:
            self._check_answer(refused.answer, trap)
        except Hanging:
            self.assertTrue(waits, "no answer")
        except (OSError, http.client.HTTPException):
            pass  # a closed connection

    def _check_answer(self, answer: Answer, trap: Trap) -> None:
        self.assertIn(answer.status, ANSWERS[trap.action], answer)
        self.assertEqual(answer.codes, [CODES[answer.status]], answer)
        if answer.status == 503:
            self.assertGreater(int(answer.headers["Retry-After"]), 0)
        self.assertNotIn(b"/", answer.json["errors"][0]["message"].encode(), "a path")

    def _has_stopped(self) -> bool:
        """Tell whether the server is stopping: it says that it is not ready before it answers what made it stop."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.server.internal.get("/readyz").status != 200
        return True

    def _check(self, blobs: list[str]) -> None:
        """Check what the scenario was told, at once."""
        for seed in blobs:
            content = blob_of(seed)
            self.assertEqual(self.server.public.get(f"/v2/{REPOSITORY}/blobs/{digest_of(content)}").body, content)
        self.blobs += blobs
        for tag, allowed in self.journal.promises().tags.items():
            self.assertEqual(tag_target(self.server.public, tag, allowed)[1], "")

    def _start_again(self, code: int, expected: int) -> None:
        """Start after an end with an exit code, and check everything that was ever acknowledged."""
        self.assertEqual(code, expected, self.server.log.read_text()[-2000:])
        self.server.kill()
        self.server.start()
        blobs, self.blobs = self.blobs, []
        self._check(blobs)
        self.assertEqual(losses(self.server, self.journal), [])


@unittest.skipUnless(Path("/proc/self/fd").exists(), "needs /proc, which Linux has")
class SyncTest(FaultTestCase):
    """A sync that failed: a second one would succeed, since the kernel has dropped what it could not write."""

    def test_it_is_not_tried_again_and_the_session_is_gone(self) -> None:
        session = Session(self.server, self.journal)
        for method, query in (("PATCH", ""), ("PUT", f"?digest={digest_of(b'content')}")):
            with self.subTest(method):
                location = session.write(202, "POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["Location"]
                self.server.points.arm(Trap("fsync uploads", "EIO", forever=True))
                with self.assertRaises(Refused) as caught:
                    session.write(201, method, f"{location}{query}", b"content")
                self.server.points.disarm()
                self.assertEqual((caught.exception.answer.status, self.server.points.sprung), (500, 1))
                self.assertEqual(self.server.auth.get(location).status, 404)
                self.assertEqual(self.server.public.get(f"/v2/{REPOSITORY}/blobs/{digest_of(b'content')}").status, 404)


def some(choose: random.Random) -> Iterator[int]:
    """Count from 1, or, where not everything is tried, skip most."""
    nth = 1
    while True:
        yield nth
        nth += 1 if FAULTS == "all" else choose.randrange(1, 25)


@unittest.skipUnless(Path("/proc/self/fd").exists(), "needs /proc, which Linux has")
class StartTest(FaultTestCase):
    """A start that finds much to do: files without a row, what was set aside, an old upload, a blob that nobody wants
    any more, too little ballast.
    """

    def test_a_start_that_fails_says_why_and_the_next_one_works(self) -> None:
        choose = random.Random(SEED)
        Session(self.server, self.journal).push("start")
        for fault in faults("start"):
            for nth in some(choose):
                trap = fault._replace(nth=nth)
                with self.subTest(VEX_TEST_SEED=SEED, trap=trap):
                    if not self._try(trap):
                        break

    def _try(self, trap: Trap) -> int:
        self.server.auth.push_blob(REPOSITORY, os.urandom(100))
        self.server.kill()
        self._litter()
        self.server.points.arm(trap)
        noted = self.server.log.stat().st_size
        try:
            self.server.start()
        except AssertionError:
            self.assertEqual(self.server.process.wait(20), 1)
            last = self.server.log.read_text().splitlines()[-1]
            self.assertRegex(last, "^vex: .*; ")
        else:
            self._wait_for_first_round(noted)
        sprung = self.server.points.sprung
        self.server.points.disarm()
        self.server.kill()
        self.server.start()
        self.assertEqual(losses(self.server, self.journal), [])
        return sprung

    def _wait_for_first_round(self, noted: int) -> None:
        """Wait until what is done behind the start has ended, or failed."""
        deadline = time.monotonic() + 20
        while self._due() and b"housekeeping could not finish" not in self.server.log.read_bytes()[noted:]:
            if self.server.process.poll() is not None:
                self.assertEqual(self.server.process.returncode, 1)
                return
            self.assertLess(time.monotonic(), deadline, "it does not end")
            time.sleep(0.01)

    def _due(self) -> bool:
        """Tell whether there is something left to do; filling the ballast up is the last of it."""
        if self.ballast and (self.server.data / "ballast").stat().st_size < self.ballast:
            return True
        with contextlib.closing(sqlite3.connect(self.server.data / "vex.db", timeout=30)) as connection:
            return connection.execute("SELECT 1 FROM lease WHERE expires = 1").fetchone() is not None

    def _litter(self) -> None:
        (self.server.data / "blobs/sha256" / digest_of(b"litter")[7:]).write_bytes(b"litter")
        (self.server.data / "uploads/removed-0123").write_bytes(b"set aside")
        old = self.server.data / "uploads" / ("0" * 64)
        old.write_bytes(b"old")
        os.utime(old, (0, 0))
        # One piece of it is missing; where there is little space, it is smaller, and stays as it is.
        ballast = self.server.data / "ballast"
        self.ballast = _BALLAST_BYTES if ballast.exists() and ballast.stat().st_size == _BALLAST_BYTES else 0
        if self.ballast:
            os.truncate(ballast, self.ballast - 1)
        with contextlib.closing(sqlite3.connect(self.server.data / "vex.db")) as connection, connection:
            connection.execute("UPDATE lease SET expires = 1")


@unittest.skipUnless(Path("/proc/self/fd").exists(), "needs /proc, which Linux has")
class BackupTest(FaultTestCase):
    """A backup into a directory that has an older one."""

    def test_a_backup_that_fails_says_why_and_the_next_one_is_sound(self) -> None:
        choose = random.Random(SEED)
        numbers = itertools.count()
        points = Points(self.directory / "backup-points")
        self.addCleanup(points.close)
        for fault in faults("backup"):
            for nth in some(choose):
                trap = fault._replace(nth=nth)
                with self.subTest(VEX_TEST_SEED=SEED, trap=trap):
                    # In the place of the one before: were there more each time, the last call would never be reached.
                    SCENARIOS["delete"].prepare(Session(self.server, self.journal), f"backup {next(numbers)}")
                    points.arm(trap)
                    done = self._backup()
                    self.assertIn(done.returncode, (0, 1), done.stderr)
                    self.assertNotIn("Traceback", done.stderr)
                    sprung = points.sprung
                    points.disarm()
                    self._check_backup()
                    if not sprung:
                        break

    def _backup(self) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            str(RUNNER),
            str(self.directory / "backup-points"),
            "backup",
            str(self.directory / "backup"),
        ]
        return subprocess.run(
            [*command, "--data-dir", str(self.server.data)], capture_output=True, text=True, timeout=60, check=False
        )

    def _check_backup(self) -> None:
        """Make another one, and compare its files with its rows and their digests."""
        done = self._backup()
        self.assertEqual(done.returncode, 0, done.stderr)
        with contextlib.closing(sqlite3.connect(self.directory / "backup" / "vex.db")) as connection:
            rows = {digest for (digest,) in connection.execute("SELECT digest FROM blob")}
        files = {f"sha256:{path.name}": path for path in (self.directory / "backup/blobs/sha256").iterdir()}
        self.assertEqual(rows, set(files))
        for digest, path in files.items():
            self.assertEqual(digest_of(path.read_bytes()), digest)
        left = {path.name for path in (self.directory / "backup").iterdir()} - {
            "vex.db",
            "blobs",
            "uploads",
            "lock",
            "backup",
        }
        self.assertLessEqual(left, {"vex.db-wal", "vex.db-shm"})
        self.assertEqual(list((self.directory / "backup/uploads").iterdir()), [])
