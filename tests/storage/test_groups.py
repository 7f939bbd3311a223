"""Writers that wait for each other: what they share, what each has alone, and what all of them are told."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Callable

from vex.errors import DISK_FULL, UNAVAILABLE, Kind, RegistryError
from vex.http.answers import Revisions
from vex.registry.policies import Policies
from vex.registry.pulls import Pulls
from vex.registry.storage import Storage
from vex.registry.uploads import UploadLimits, Uploads
from vex.storage.blobs import BlobFiles
from vex.storage.database import Database, Transaction
from vex.storage.groups import MEMBERS, Group

_WAIT_SECONDS = 20
Work = Callable[[Transaction], object]


class Writer(threading.Thread):
    """A thread that writes; `error` is what it was told, `durable` what another process saw when it had been told."""

    def __init__(self, test: GroupTestCase, work: Work) -> None:
        super().__init__(daemon=True)
        self._test = test
        self._work = work
        self.error: Exception | None = None
        self.durable: list[str] = []

    def run(self) -> None:
        try:
            self._test.run_work(self._write)
        except Exception as error:
            self.error = error
        self.durable = self._test.committed()

    def _write(self) -> None:
        with self._test.database.write() as tx:
            self._work(tx)


class GroupTestCase(unittest.TestCase):
    """A database, and writers that come one while the other writes."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "vex.db"
        self.failures: list[str] = []
        self.database = Database(self.path, on_failure=self.failures.append, join_seconds=_WAIT_SECONDS)
        self.addCleanup(self.database.close)

    def run_work(self, work: Callable[[], None]) -> None:
        """Do the work of a writer."""
        work()

    def committed(self) -> list[str]:
        """Look as another process does."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return [row[0] for row in connection.execute("SELECT name FROM user ORDER BY name")]

    def together(self, *works: Work) -> list[Writer]:
        """Have each writer come while the one before it writes; returns them, in this order, when they have ended."""
        writers: list[Writer] = []

        def work(number: int) -> Work:
            def run(tx: Transaction) -> None:
                if number + 1 < len(writers) and writers[number + 1].ident is None:
                    writers[number + 1].start()
                    self.wait_until(lambda: self.database._lock.writers_wait)
                works[number](tx)

            return run

        writers += [Writer(self, work(number)) for number in range(len(works))]
        writers[0].start()
        for writer in writers:
            self.wait_until(lambda writer=writer: writer.ident is not None)  # type: ignore[misc]
            writer.join(_WAIT_SECONDS)
            self.assertFalse(writer.is_alive())
        return writers

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not holds():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)

    def assert_told(self, error: Exception | None, kind: Kind) -> None:
        assert isinstance(error, RegistryError), error
        self.assertIs(error.kind, kind)


def adding(name: str) -> Work:
    return lambda tx: tx.execute("INSERT INTO user VALUES (?, x'00', x'00', 1, 1)", (name,))


def failing(tx: Transaction) -> None:
    adding("nobody")(tx)
    raise ZeroDivisionError


def breaking_the_commit(tx: Transaction) -> None:
    # What is checked at the commit alone, and fails there.
    tx.execute("PRAGMA defer_foreign_keys = ON")
    tx.execute("INSERT INTO lease VALUES (1, 1, 1)")


class Shared(GroupTestCase):
    def test_writers_that_wait_share_a_commit_and_none_is_told_before_it(self) -> None:
        before = self.database.commits.counts().own
        writers = self.together(*map(adding, "abcdef"))
        self.assertEqual([writer.error for writer in writers], [None] * 6)
        self.assertEqual([writer.durable for writer in writers], [list("abcdef")] * 6)
        self.assertEqual(self.database.commits.counts().own - before, 1)

    def test_a_writer_alone_has_a_commit_of_its_own(self) -> None:
        for number, name in enumerate("ab", 1):
            with self.database.write() as tx:
                adding(name)(tx)
            self.assertEqual(self.database.commits.counts().own, number)
            self.assertEqual(len(self.committed()), number)

    def test_a_writer_sees_what_others_of_its_group_wrote_before_it(self) -> None:
        seen: list[int] = []

        def look(tx: Transaction) -> None:
            seen.append(tx.value("SELECT count(*) FROM user"))
            adding(f"user {len(seen)}")(tx)

        self.together(look, look, look)
        self.assertEqual(seen, [0, 1, 2])

    def test_callbacks_are_each_called_once_when_all_is_durable_and_the_lock_is_free(self) -> None:
        called: list[tuple[str, list[str]]] = []

        def work(name: str) -> Work:
            def run(tx: Transaction) -> None:
                adding(name)(tx)
                tx.after_commit(lambda: called.append((name, self.committed())))
                tx.after_commit(self.database.check)

            return run

        self.together(work("a"), work("b"), work("c"))
        self.assertEqual(sorted(called), [(name, ["a", "b", "c"]) for name in "abc"])

    def test_a_read_that_comes_between_sees_nothing_that_is_not_durable(self) -> None:
        seen: list[tuple[list[str], list[str]]] = []

        def read() -> None:
            with self.database.read() as tx:
                seen.append(([row[0] for row in tx.rows("SELECT name FROM user ORDER BY name")], self.committed()))

        readers = [threading.Thread(target=read) for _ in range(5)]

        def work(number: int) -> Work:
            def run(tx: Transaction) -> None:
                adding(f"user {number}")(tx)
                readers[number].start()

            return run

        self.together(*map(work, range(5)))
        for reader in readers:
            reader.join(_WAIT_SECONDS)
        self.assertEqual(len(seen), 5)
        for found, durable in seen:
            self.assertEqual(found, durable)

    def test_reads_get_their_turn_among_writers_that_never_pause(self) -> None:
        done = threading.Event()
        waited: list[float] = []

        def write() -> None:
            while not done.is_set():
                with self.database.write() as tx:
                    tx.execute("UPDATE total SET repositories = repositories + 1")

        writers = [threading.Thread(target=write, daemon=True) for _ in range(4)]
        for writer in writers:
            writer.start()
        for _ in range(50):
            started = time.monotonic()
            with self.database.read() as tx:
                tx.value("SELECT repositories FROM total")
            waited.append(time.monotonic() - started)
        done.set()
        for writer in writers:
            writer.join(_WAIT_SECONDS)
        self.assertLess(max(waited), _WAIT_SECONDS / 4)

    def test_a_group_takes_so_many_and_for_so_long(self) -> None:
        group = Group(_WAIT_SECONDS)
        self.assertTrue(group.takes_more)
        group.members = MEMBERS
        self.assertFalse(group.takes_more)
        self.assertFalse(Group(0).takes_more)

    def test_a_write_within_another_block_is_refused_and_harms_nobody(self) -> None:
        with self.assertRaises(RuntimeError), self.database.write() as tx:
            adding("a")(tx)
            with self.database.write():
                self.fail("begun")
        with self.assertRaises(RuntimeError), self.database.read(), self.database.write():
            self.fail("begun")
        with self.database.write() as tx:
            adding("b")(tx)
        self.assertEqual(self.committed(), ["b"])


class Failing(GroupTestCase):
    def test_one_that_fails_takes_back_its_own_part_alone(self) -> None:
        for place in range(3):
            works = [adding(f"{place} {name}") for name in "ab"]
            works.insert(place, failing)
            writers = self.together(*works)
            failed = writers.pop(place)
            self.assertIsInstance(failed.error, ZeroDivisionError)
            self.assertEqual([writer.error for writer in writers], [None, None])
            self.assertLessEqual({f"{place} a", f"{place} b"}, set(self.committed()))
        self.assertNotIn("nobody", self.committed())
        self.assertEqual(len(self.committed()), 6)

    def test_callbacks_of_one_that_fails_are_not_called(self) -> None:
        called: list[str] = []

        def fail(tx: Transaction) -> None:
            tx.after_commit(lambda: called.append("failed"))
            failing(tx)

        def work(tx: Transaction) -> None:
            tx.after_commit(lambda: called.append("done"))

        self.together(work, fail, work)
        self.assertEqual(called, ["done", "done"])

    def test_where_all_fail_nothing_is_committed(self) -> None:
        self.together(failing, failing, failing)
        self.assertEqual(self.database.commits.counts().own, 0)
        self.assertEqual(self.committed(), [])

    def test_a_commit_that_fails_is_told_to_all_and_ends_the_database(self) -> None:
        writers = self.together(adding("a"), breaking_the_commit, adding("b"))
        for writer in writers:
            self.assertIsInstance(writer.error, sqlite3.IntegrityError)
            self.assertEqual(writer.durable, [])
        self.assertEqual(self.failures, ["FOREIGN KEY constraint failed"])
        with self.assertRaises(RegistryError) as raised, self.database.write():
            self.fail("goes on")
        self.assert_told(raised.exception, UNAVAILABLE)

    def test_a_disk_without_space_is_told_to_all_whose_part_is_lost_and_the_next_succeed(self) -> None:
        def fill(tx: Transaction) -> None:
            tx.execute(f"PRAGMA max_page_count = {tx.value('PRAGMA page_count')}")
            tx.execute("INSERT INTO user VALUES ('large', zeroblob(100000), x'00', 1, 1)")

        first, full = self.together(adding("a"), fill)
        self.assert_told(full.error, DISK_FULL)
        self.assert_told(first.error, DISK_FULL)
        self.assertEqual(first.durable, [])
        self.assertEqual(self.failures, [])
        with self.database.write() as tx:
            adding("b")(tx)
        self.assertEqual(self.committed(), ["b"])


class Deletions(GroupTestCase):
    def run_work(self, work: Callable[[], None]) -> None:
        self.storage.delete(work)

    def setUp(self) -> None:
        super().setUp()
        files = BlobFiles(self.path.parent)
        (self.path.parent / "ballast").write_bytes(b"room")
        uploads = Uploads(files, UploadLimits(10, 0, 1, 60))
        self.storage = Storage(self.database, files, uploads, Pulls(0), Revisions(), Policies())

    def test_each_is_tried_again_with_the_space_that_one_of_them_let_go_of(self) -> None:
        pages: list[int] = []

        def fill(tx: Transaction) -> None:
            if not pages:
                pages.append(tx.value("PRAGMA page_count"))
                tx.execute(f"PRAGMA max_page_count = {pages[0]}")
                tx.execute("INSERT INTO user VALUES ('large', zeroblob(100000), x'00', 1, 1)")

        writers = self.together(adding("a"), adding("b"), adding("c"), fill)
        self.assertEqual([writer.error for writer in writers], [None] * 4)
        self.assertEqual(self.committed(), ["a", "b", "c"])
        self.assertFalse((self.path.parent / "ballast").exists())


if __name__ == "__main__":
    unittest.main()
