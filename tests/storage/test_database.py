"""Transactions: what queries see while another process writes, and what makes them durable."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import tempfile
import threading
import unittest
from pathlib import Path

from vex.errors import Failure
from vex.storage.database import Database
from vex.storage.files import sync
from vex.storage.schema import LATEST

# The number of F_FULLFSYNC on macOS, which Linux does not know.
F_FULLFSYNC = 51


class Reads(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "vex.db"
        self.database = Database(self.path)
        self.addCleanup(self.database.close)

    def add_user_elsewhere(self, name: str) -> None:
        """Write as a command of another process does."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("INSERT INTO user VALUES (?, x'00', x'00', 1, 1)", (name,))

    def test_queries_of_one_read_see_one_state_and_the_next_read_the_newer_one(self) -> None:
        count = "SELECT count(*) FROM user"
        with self.database.read() as tx:
            self.assertEqual(tx.value(count), 0)
            self.add_user_elsewhere("alice")
            self.assertEqual(tx.value(count), 0)
            self.assertEqual(list(tx.each("SELECT name FROM user")), [])
        with self.database.read() as tx:
            self.assertEqual(tx.value(count), 1)

    def test_a_read_within_another_sees_the_same_and_ends_alone(self) -> None:
        with self.database.read() as outer:
            self.assertEqual(outer.value("SELECT count(*) FROM user"), 0)
            self.add_user_elsewhere("alice")
            with self.database.read() as inner:
                self.assertEqual(inner.value("SELECT count(*) FROM user"), 0)
            self.assertEqual(outer.value("SELECT count(*) FROM user"), 0)

    def test_a_read_that_fails_ends(self) -> None:
        with self.assertRaises(ZeroDivisionError), self.database.read() as tx:
            self.assertEqual(tx.value("SELECT count(*) FROM user"), 0)
            raise ZeroDivisionError
        self.add_user_elsewhere("alice")
        with self.database.write() as tx:
            self.assertEqual(tx.value("SELECT count(*) FROM user"), 1)

    def test_a_glance_waits_for_nobody_and_sees_what_was_committed_last(self) -> None:
        def names() -> list[str]:
            return self.database.glance(lambda tx: [row[0] for row in tx.rows("SELECT name FROM user ORDER BY name")])

        self.add_user_elsewhere("alice")
        self.assertEqual(names(), ["alice"])
        with self.database.write() as tx:
            tx.execute("INSERT INTO user VALUES ('bob', x'00', x'00', 1, 1)")
            seen: list[list[str]] = []
            other = threading.Thread(target=lambda: seen.append(names()))
            other.start()
            other.join(20)
            self.assertEqual(seen, [["alice"]])
        self.assertEqual(names(), ["alice", "bob"])
        self.add_user_elsewhere("carol")
        self.assertEqual(names(), ["alice", "bob", "carol"])


class Refused(unittest.TestCase):
    def test_a_database_that_is_refused_is_closed_at_once(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "vex.db")
            Database(path).close()
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute(f"PRAGMA user_version = {LATEST + 1}")
            try:
                Database(path)
            except Failure as error:
                # As long as the error is there, so are those whom it passed; whoever closes a database removes its log.
                self.assertIn("newer Vex", str(error))
                self.assertEqual(os.listdir(directory), ["vex.db"])
            else:
                self.fail("opened")


class Sync(unittest.TestCase):
    def test_a_file_system_that_cannot_flush_the_drive_is_synced(self) -> None:
        with tempfile.TemporaryFile() as file:
            sync(file.fileno(), F_FULLFSYNC)
            # A command that is known here is given to the file, and does its own.
            sync(file.fileno(), fcntl.F_GETFD)

    def test_a_sync_that_fails_is_told(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        os.close(writing)
        for full in (None, F_FULLFSYNC):
            with self.assertRaises(OSError):
                sync(writing, full)


if __name__ == "__main__":
    unittest.main()
