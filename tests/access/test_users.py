"""Users: passwords, what is remembered of them, throttling, and the commands that manage them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from tests.support.raw import basic
from tests.support.server import PASSWORD, TOP, USER, Client, ServerTestCase, vex
from vex.access.users import Users
from vex.errors import TOOMANYREQUESTS, UNAUTHORIZED, Failure, Kind, RegistryError
from vex.storage.database import Database

HERE, THERE = "192.0.2.1", "192.0.2.2"
NEW_PASSWORD = "another horse battery"


class UsersCase(unittest.TestCase):
    """Users in a database of their own; tests set the time that has passed, `now`, and the time of day, `wall`."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "vex.db"
        self.now = self.wall = 1_000_000.0
        self.users = self.open()
        self.users.add("alice", PASSWORD)

    def open(self) -> Users:
        """Open the database as another process does."""
        database = Database(self.path)
        self.addCleanup(database.close)
        return Users(database, failures_per_minute=3, clock=lambda: self.wall, monotonic=lambda: self.now)

    def execute(self, sql: str) -> list[tuple[bytes, bytes, int]]:
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(sql).fetchall()

    def assert_refused(self, kind: Kind, name: str, password: str, address: str = HERE) -> RegistryError:
        with self.assertRaises(RegistryError) as caught:
            self.users.check(name, password, address)
        self.assertEqual(caught.exception.kind, kind)
        return caught.exception


class Passwords(UsersCase):
    """Which passwords are right."""

    def test_a_password_is_right_for_its_user_alone(self) -> None:
        self.users.check("alice", PASSWORD, HERE)
        wrong = self.assert_refused(UNAUTHORIZED, "alice", PASSWORD + "x")
        unknown = self.assert_refused(UNAUTHORIZED, "bob", PASSWORD)
        self.assertEqual(wrong.message, unknown.message)
        self.assert_refused(UNAUTHORIZED, "ALICE", PASSWORD)

    def test_passwords_are_stored_as_scrypt_with_a_salt_for_each_user(self) -> None:
        self.users.add("bob", PASSWORD)
        rows = self.execute("SELECT salt, hash, version FROM user ORDER BY name")
        self.assertEqual(len({row[0] for row in rows}), 2)
        self.assertEqual(len({row[1] for row in rows}), 2)
        salt, stored, _ = rows[0]
        self.assertEqual(
            stored, hashlib.scrypt(PASSWORD.encode(), salt=salt, n=2**14, r=8, p=1, maxmem=2**26, dklen=len(stored))
        )
        self.assertNotIn(PASSWORD.encode(), self.path.read_bytes() + self.path.with_name("vex.db-wal").read_bytes())

    def test_an_unknown_user_costs_as_much_time_as_a_known_one(self) -> None:
        seconds = []
        for name in ("alice", "nobody"):
            start = time.process_time()
            self.assert_refused(UNAUTHORIZED, name, "wrong password")
            seconds.append(time.process_time() - start)
        # Without the hash it would be a hundredth.
        self.assertGreater(seconds[1], seconds[0] / 5)

    def test_a_verified_password_is_remembered_for_five_minutes(self) -> None:
        self.users.check("alice", PASSWORD, HERE)
        # From here on only memory can tell that the password is right.
        self.execute("UPDATE user SET hash = zeroblob(32)")
        self.now += 299
        self.users.check("alice", PASSWORD, HERE)
        self.now += 2
        self.assert_refused(UNAUTHORIZED, "alice", PASSWORD)

    def test_what_is_remembered_ends_with_a_change_of_the_user_by_another_process(self) -> None:
        self.users.check("alice", PASSWORD, HERE)
        self.open().set_password("alice", NEW_PASSWORD)
        self.assert_refused(UNAUTHORIZED, "alice", PASSWORD)
        self.users.check("alice", NEW_PASSWORD, HERE)
        self.open().delete("alice")
        self.assert_refused(UNAUTHORIZED, "alice", NEW_PASSWORD)

    def test_a_name_that_is_used_again_does_not_bring_the_old_password_back(self) -> None:
        self.users.check("alice", PASSWORD, HERE)
        self.users.delete("alice")
        self.users.add("alice", NEW_PASSWORD)
        self.assert_refused(UNAUTHORIZED, "alice", PASSWORD)

    def test_passwords_of_any_script_are_taken(self) -> None:
        password = "\u043f\u0430\u0440\u043e\u043b\u044c: \U0001f40e \u00e9 "
        self.users.add("bob", password)
        self.users.check("bob", password, HERE)

    def test_passwords_that_no_client_could_send_are_refused(self) -> None:
        for password in ("", "nul\0nul\0nul", "line\nbreak", "x" * 5000):
            with self.subTest(password[:10]), self.assertRaises(Failure):
                self.users.set_password("alice", password)
        self.users.check("alice", PASSWORD, HERE)


class Names(UsersCase):
    """1 to 64 of letters, digits, `.`, `_`, `-`, `@`, a letter or a digit first."""

    def test_names_of_the_grammar_are_taken(self) -> None:
        for name in ("a", "A.b_c-d@example.com", "0", "x" * 64):
            self.users.add(name, PASSWORD)
        self.assertEqual(self.users.names(), ["0", "A.b_c-d@example.com", "a", "alice", "x" * 64])

    def test_other_names_are_refused(self) -> None:
        for name in (
            "",
            "x" * 65,
            "a b",
            "a:b",
            "a/b",
            "\u00e9",
            "a\n",
            "a\0",
            "\uff11",
            "-u",
            "--help",
            ".",
            ".profile",
            "_a",
            "@a",
        ):
            with self.subTest(name), self.assertRaises(Failure):
                self.users.add(name, PASSWORD)
        self.assertEqual(self.users.names(), ["alice"])

    def test_a_user_of_before_with_another_name_logs_in_and_is_changed(self) -> None:
        self.execute("UPDATE user SET name = '-u'")
        self.users.check("-u", PASSWORD, HERE)
        self.users.set_password("-u", NEW_PASSWORD)
        self.users.check("-u", NEW_PASSWORD, HERE)
        self.users.delete("-u")
        self.assertEqual(self.users.names(), [])

    def test_a_name_is_taken_once(self) -> None:
        with self.assertRaises(Failure):
            self.users.add("alice", NEW_PASSWORD)
        self.users.check("alice", PASSWORD, HERE)

    def test_a_user_that_is_not_there_cannot_be_changed(self) -> None:
        with self.assertRaises(Failure):
            self.users.set_password("bob", PASSWORD)
        with self.assertRaises(Failure):
            self.users.delete("bob")


class Throttle(UsersCase):
    """Failed logins, three a minute in these tests, per address and user."""

    def fail_logins(self, count: int, name: str = "alice", address: str = HERE) -> None:
        for _ in range(count):
            self.assert_refused(UNAUTHORIZED, name, "wrong password", address)

    def test_failures_past_the_limit_are_told_to_wait(self) -> None:
        self.fail_logins(3)
        error = self.assert_refused(TOOMANYREQUESTS, "alice", "wrong password")
        wait = int(dict(error.headers)["Retry-After"])
        self.assertTrue(1 <= wait <= 60, wait)
        self.now += wait
        self.fail_logins(1)
        self.assert_refused(TOOMANYREQUESTS, "alice", "wrong password")

    def test_a_minute_later_all_is_forgotten(self) -> None:
        self.fail_logins(3)
        self.now += 60
        self.fail_logins(3)
        self.assert_refused(TOOMANYREQUESTS, "alice", "wrong password")

    def test_other_addresses_and_other_users_are_not_affected(self) -> None:
        self.fail_logins(3)
        self.users.check("alice", PASSWORD, THERE)
        self.fail_logins(1, name="bob")

    def test_names_that_nobody_has_are_throttled_too(self) -> None:
        self.fail_logins(3, name="nobody")
        self.assert_refused(TOOMANYREQUESTS, "nobody", "wrong password")

    def test_a_password_that_was_right_before_is_never_refused(self) -> None:
        self.users.check("alice", PASSWORD, HERE)
        self.fail_logins(3)
        self.assert_refused(TOOMANYREQUESTS, "alice", "wrong password")
        self.users.check("alice", PASSWORD, HERE)

    def test_logins_that_succeed_are_not_counted(self) -> None:
        for _ in range(6):
            self.users.check("alice", PASSWORD, HERE)
            self.now += 0.1
        self.fail_logins(3)


class Commands(unittest.TestCase):
    """`vex user ...`."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.data = Path(directory.name) / "data"
        self.data.mkdir()

    def user(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return vex("user", *arguments, "--data-dir", str(self.data), text=text)

    def assert_done(self, result: subprocess.CompletedProcess[str], out: str = "") -> None:
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, out, ""))

    def assert_failed(self, result: subprocess.CompletedProcess[str], *words: str) -> None:
        self.assertEqual((result.returncode, result.stdout), (1, ""), result)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def names(self) -> list[str]:
        return self.user("list").stdout.splitlines()

    def make_registry(self) -> None:
        """Make the registry that commands work on."""
        Database(self.data / "vex.db").close()

    def test_users_are_added_listed_changed_and_deleted(self) -> None:
        self.make_registry()
        self.assert_done(self.user("add", "bob", text="a long password\n"))
        self.assert_done(self.user("add", "alice", text="a long password\r\n"))
        self.assert_done(self.user("list"), "alice\nbob\n")
        self.assert_done(self.user("password", "bob", text="another long password\n"))
        self.assert_done(self.user("delete", "alice"))
        self.assert_done(self.user("list"), "bob\n")

    def test_no_users_are_an_empty_list(self) -> None:
        self.make_registry()
        self.assert_done(self.user("list"))

    def test_failures_say_what_and_what_to_do(self) -> None:
        self.make_registry()
        self.assert_done(self.user("add", "bob", text="a long password\n"))
        self.assert_failed(self.user("add", "bob", text="a long password\n"), "bob", "vex user password")
        self.assert_failed(self.user("add", "no name", text="a long password\n"), "no name", "letters")
        self.assert_failed(self.user("add", "carol", text=""), "password")
        self.assert_failed(self.user("add", "carol", text="\n"), "password")
        self.assert_failed(self.user("password", "carol", text="a long password\n"), "carol")
        self.assert_failed(self.user("delete", "carol"), "carol")
        self.assertEqual(self.names(), ["bob"])

    def test_a_password_is_never_an_argument(self) -> None:
        for verb in ("add", "password"):
            result = self.user(verb, "bob", "a long password")
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertEqual(self.user(verb, "bob", "--password", "a long password").returncode, 2)

    def test_bytes_that_are_no_text_are_refused(self) -> None:
        command = [sys.executable, str(TOP / "vex.py"), "user", "add", "bob", "--data-dir", str(self.data)]
        for language in ("C", "C.UTF-8"):
            with self.subTest(language):
                environment = {**os.environ, "LC_ALL": language, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
                result = subprocess.run(
                    command,
                    input=b"\xff\xfe long password\n",
                    capture_output=True,
                    env=environment,
                    timeout=60,
                    check=False,
                )
                self.assertEqual(
                    (result.returncode, result.stdout, result.stderr.count(b"\n")), (1, b"", 1), result.stderr
                )
        self.assertEqual(self.names(), [])

    def test_a_terminal_is_asked_twice_without_echo(self) -> None:
        self.assertEqual(self.type_passwords("add", PASSWORD, PASSWORD), 0)
        self.assertEqual(self.names(), ["bob"])

    def test_two_passwords_that_differ_are_refused(self) -> None:
        self.assertEqual(self.type_passwords("add", PASSWORD, NEW_PASSWORD), 1)
        self.assertEqual(self.names(), [])

    def test_nobody_types_a_password_for_what_cannot_be_done(self) -> None:
        self.assertEqual(self.user("add", "bob", text="a long password\n").returncode, 0)
        for verb, name, words in (
            ("add", "bob", "already"),
            ("add", "no name", "is not a user name"),
            ("password", "carol", "there is no user carol"),
        ):
            with self.subTest(verb=verb, name=name):
                master, slave = pty.openpty()
                command = [sys.executable, str(TOP / "vex.py"), "user", verb, name, "--data-dir", str(self.data)]
                # Where it asked, it would wait for ever.
                ended = subprocess.run(
                    command,
                    stdin=slave,
                    stdout=slave,
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=60,
                    check=False,
                    start_new_session=True,
                )
                os.close(slave)
                os.close(master)
                self.assertEqual((ended.returncode, ended.stderr.count("\n")), (1, 1))
                self.assertIn(words, ended.stderr)

    def type_passwords(self, verb: str, *passwords: str) -> int:
        """Run a command on a terminal and type passwords; returns its exit code."""
        master, slave = pty.openpty()
        command = [sys.executable, str(TOP / "vex.py"), "user", verb, "bob", "--data-dir", str(self.data)]
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        shown = b""
        for count, password in enumerate(passwords, 1):
            while len(re.findall(b"(?:Password|Again): ", shown)) < count:
                shown += os.read(master, 1024)
            os.write(master, password.encode() + b"\n")
        # A terminal whose other end is closed gives an error at its end.
        with contextlib.suppress(OSError):
            while data := os.read(master, 1024):
                shown += data
        os.close(master)
        for password in passwords:
            self.assertNotIn(password.encode(), shown)
        return process.wait(timeout=60)


class Running(ServerTestCase):
    """Users of a server that runs."""

    flags = ("--debug",)

    def user(self, *arguments: str, text: str = "") -> None:
        result = vex("user", *arguments, "--data-dir", str(self.server.data), text=text)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_a_change_of_a_user_counts_from_the_next_request_on(self) -> None:
        old, new = (Client(self.server.addresses["auth"], "bob", password) for password in (PASSWORD, NEW_PASSWORD))
        self.assertEqual(old.get("/v2/").status, 401)
        self.user("add", "bob", text=PASSWORD + "\n")
        self.assertEqual(old.get("/v2/").status, 200)
        self.user("password", "bob", text=NEW_PASSWORD + "\n")
        self.assertEqual([old.get("/v2/").status, new.get("/v2/").status], [401, 200])
        self.user("delete", "bob")
        self.assertEqual([old.get("/v2/").status, new.get("/v2/").status], [401, 401])

    def test_the_log_holds_no_password_and_no_query(self) -> None:
        headers = {"Authorization": basic(password="a wrong password")}
        for client, given in ((self.server.auth, {}), (Client(self.server.addresses["auth"]), headers)):
            client.request("GET", "/v2/seen/in/log?digest=secret", headers=given)
        log = self.server.log.read_text()
        self.assertIn("/v2/seen/in/log", log)
        self.assertIn(USER, log)
        for secret in (
            PASSWORD,
            "a wrong password",
            basic().partition(" ")[2],
            headers["Authorization"].partition(" ")[2],
            "digest=secret",
        ):
            self.assertNotIn(secret, log)
