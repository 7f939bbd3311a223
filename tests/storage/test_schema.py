"""The schema: who may bring it up to date, what commands do with one that is older, and who may make a registry at
all.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from tests.support.server import OCI_MANIFEST, PASSWORD, TOP, Server, digest_of, image, running, vex
from vex.commands.cli import main
from vex.storage.database import Database
from vex.storage.schema import MIGRATIONS

LATEST = len(MIGRATIONS)


def make_registry(data: Path, schema: int) -> None:
    """Make the data directory of an older Vex, with a user and an image that a repository holds."""
    (data / "blobs/sha256").mkdir(parents=True)
    (data / "blobs/sha256" / digest_of(b"blob")[7:]).write_bytes(b"blob")
    with contextlib.closing(sqlite3.connect(data / "vex.db")) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        for name in MIGRATIONS[:schema]:
            connection.executescript((TOP / "vex/storage/sql" / name).read_text())
        connection.execute("INSERT INTO user VALUES ('alice', x'00', x'00', 1, 1)")
        connection.execute("INSERT INTO repository (id, name, emptied) VALUES (1, 'app', 1)")
        connection.execute(f"INSERT INTO blob (id, digest, size, created) VALUES (1, '{digest_of(b'blob')}', 4, 1)")
        connection.execute("INSERT INTO lease VALUES (1, 1, ?)", (int(time.time()) + 10**6,))
        content = json.dumps(image(config=b"blob")).encode()
        connection.execute(
            "INSERT INTO manifest VALUES (1, ?, ?, '', '{}', ?)", (digest_of(content), len(content), content)
        )
        connection.execute(
            "INSERT INTO repository_manifest (repository, manifest, media_type, pushed) VALUES (1, 1,"
            f" '{OCI_MANIFEST}', 1)"
        )
        connection.execute("INSERT INTO manifest_blob VALUES (1, 1, 1)")
        connection.execute(f"PRAGMA user_version = {schema}")


def schema_of(data: Path) -> int:
    """Read the number of the schema, from a process of its own perhaps beside others."""
    with contextlib.closing(sqlite3.connect(data / "vex.db")) as connection:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return version


def contents(directory: Path) -> dict[str, bytes]:
    """Read all files below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def run(*arguments: str) -> tuple[int, str]:
    """Run a command that asks for nothing in this process; returns its exit code and what it said."""
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        return main(list(arguments)), said.getvalue()


class SchemaTestCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="vex-test-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.data = self.directory / "data"

    def vex(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return vex(*arguments, "--data-dir", str(self.data), text=text)


class Older(SchemaTestCase):
    """Beside a running registry of an older Vex, which knows no later schema than its own."""

    def test_no_command_brings_the_schema_up_to_date_and_each_works_or_says_what_does(self) -> None:
        backup, layout = str(self.directory / "backup"), str(self.directory / "layout")
        tokens = (["token", "list"], ["token", "delete", "ci"], ["token", "rotate-key"], ["token", "add", "ci"])
        make_registry(self.data, 1)
        for command in (["user", "list"], ["check", "--hash"], ["check", "--repair"], ["backup", backup]):
            self.assertEqual(run(*command, "--data-dir", str(self.data))[0], 0, command)
        self.assertEqual(self.vex("user", "password", "alice", text=PASSWORD + "\n").returncode, 0)
        for command in (*tokens, ["user", "add", "bob"], ["export", "app", layout], ["log"]):
            code, said = run(*command, "--data-dir", str(self.data))
            self.assertEqual(code, 1, command)
            self.assertRegex(said, "older Vex .* vex serve")
        self.assertEqual((schema_of(self.data), schema_of(Path(backup))), (1, 1))

        self.data = self.directory / "with-tokens"
        make_registry(self.data, 4)
        for command in (["token", "add", "ci"], ["token", "list"], ["token", "delete", "ci"], ["token", "rotate-key"]):
            self.assertEqual(run(*command, "--data-dir", str(self.data))[0], 0, command)
        self.assertEqual(self.vex("user", "add", "bob", text=PASSWORD + "\n").returncode, 0)
        self.assertEqual(schema_of(self.data), 4)

    def test_a_start_brings_it_up_to_date_and_keeps_what_is_there(self) -> None:
        for schema in (1, LATEST - 1):
            with self.subTest(schema=schema):
                directory = self.directory / str(schema)
                make_registry(directory / "data", schema)
                server = Server(directory)
                try:
                    self.assertEqual(server.metric("vex_blobs"), 1)
                finally:
                    server.stop()
                self.assertEqual(schema_of(directory / "data"), LATEST)

    def test_what_is_there_counts_as_pulled_when_it_is_brought_up_to_date(self) -> None:
        make_registry(self.data, LATEST - 1)
        database = Database(self.data / "vex.db")
        self.addCleanup(database.close)
        with database.read() as tx:
            self.assertAlmostEqual(tx.value("SELECT pulled FROM repository_manifest"), time.time(), delta=30)
            self.assertIsNone(tx.value("SELECT asked FROM repository_manifest"))

    def test_a_token_that_is_not_counted_needs_a_registry_that_is_up_to_date(self) -> None:
        make_registry(self.data, LATEST - 1)
        code, said = run("token", "add", "ci", "--not-counted", "--data-dir", str(self.data))
        self.assertEqual(code, 1)
        self.assertRegex(said, "older Vex .* vex serve")

    def test_a_check_of_a_backup_changes_nothing_in_it(self) -> None:
        for schema in (1, LATEST):
            with self.subTest(schema=schema):
                self.data = self.directory / str(schema)
                make_registry(self.data, schema)
                backup = self.directory / f"backup {schema}"
                self.assertEqual(run("backup", str(backup), "--data-dir", str(self.data))[0], 0)
                before = contents(backup)
                for flags in ((), ("--hash",)):
                    self.assertEqual(run("check", *flags, "--data-dir", str(backup))[0], 0)
                self.assertEqual(contents(backup), before)
                self.assertEqual(run("backup", str(backup), "--data-dir", str(self.data))[0], 0)

    def test_a_schema_of_a_newer_vex_is_refused(self) -> None:
        make_registry(self.data, LATEST)
        with contextlib.closing(sqlite3.connect(self.data / "vex.db")) as connection:
            connection.execute(f"PRAGMA user_version = {LATEST + 1}")
        for command in (["user", "list"], ["check"]):
            code, said = run(*command, "--data-dir", str(self.data))
            self.assertEqual(code, 1)
            self.assertIn("newer Vex", said)


class First(SchemaTestCase):
    def test_first_commands_at_once_all_succeed(self) -> None:
        names = [f"user{number}" for number in range(4)]
        script = (
            "import os, sys; sys.path.insert(0, sys.argv.pop(1)); from vex.commands.cli import main; print(flush=True);"
            " os.read(0, 1);"
            " raise SystemExit(main(sys.argv[1:]))"
        )
        for attempt in range(2):
            data = self.directory / str(attempt)
            commands = [["user", "add", name] for name in names] + [["token", "add", "ci"]]
            running = [
                subprocess.Popen(
                    [sys.executable, "-c", script, str(TOP), *command, "--data-dir", str(data)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for command in commands
            ]
            for process in running:
                assert process.stdout is not None
                process.stdout.readline()
            # All have loaded what they need, and begin with the line that they wait for.
            for process in running:
                assert process.stdin is not None
                process.stdin.write(f"\n{PASSWORD}\n")
                process.stdin.flush()
            said = [process.communicate(timeout=60)[1] for process in running]
            self.assertEqual([process.returncode for process in running], [0] * len(commands), said)
            self.assertEqual(sum("a new one is there now" in text for text in said), 1, said)
            self.assertEqual(vex("user", "list", "--data-dir", str(data)).stdout.split(), names)

    def test_a_registry_is_made_by_those_who_add_and_they_say_where(self) -> None:
        for command in (("user", "add", "alice"), ("token", "add", "ci")):
            with self.subTest(command):
                self.data = self.directory / command[0]
                ran = self.vex(*command, text=PASSWORD + "\n")
                self.assertEqual(ran.returncode, 0, ran.stderr)
                self.assertIn(f"there was no registry in {self.data}", ran.stderr)
                again = self.vex(*command[:2], "other", text=PASSWORD + "\n")
                self.assertNotIn("no registry", again.stderr)

    def test_whoever_reads_changes_or_deletes_makes_none(self) -> None:
        commands = (
            ("user", "list"),
            ("user", "password", "alice"),
            ("user", "delete", "alice"),
            ("token", "list"),
            ("token", "delete", "ci"),
            ("token", "rotate-key"),
            ("log",),
            ("check",),
            ("check", "--repair"),
            ("backup", str(self.directory / "backup")),
            ("export", "app", str(self.directory / "layout")),
        )
        empty = self.directory / "empty"
        empty.mkdir()
        (self.directory / "nothing").mkdir()
        (self.directory / "nothing/vex.db").write_bytes(b"")
        for data in (self.directory / "missing", empty, self.directory / "nothing"):
            for command in commands:
                with self.subTest(command, data=data.name):
                    code, said = run(*command, "--data-dir", str(data))
                    self.assertEqual(code, 1)
                    self.assertIn(f"there is no registry in {data}", said)
        self.assertEqual(sorted(os.listdir(self.directory)), ["empty", "nothing"])
        self.assertEqual(os.listdir(empty), [])
        self.assertEqual((self.directory / "nothing/vex.db").read_bytes(), b"")

    def test_commands_find_the_registry_that_runs(self) -> None:
        with running() as server:
            listed = vex("user", "list", "--data-dir", str(server.data))
            self.assertEqual((listed.returncode, listed.stdout, listed.stderr), (0, "alice\n", ""))


if __name__ == "__main__":
    unittest.main()
