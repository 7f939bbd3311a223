"""Tokens of machines: the commands that manage them, what is stored of them, when they end, and their last use."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
import tempfile
import time
import unittest
from pathlib import Path
from typing import Callable

from tests.support.server import USER, Client, ServerTestCase, digest_of, running, vex
from vex.access.tokens import Tokens
from vex.access.users import Users
from vex.errors import UNAUTHORIZED, Failure, RegistryError
from vex.storage.database import Database

DAY = 24 * 3600


class TokensCase(unittest.TestCase):
    """Tokens and users in a database of their own, with a clock that tests set."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "vex.db"
        self.now = 1_000_000.0
        self.database = Database(self.path)
        self.addCleanup(self.database.close)
        self.asked: list[Callable[[], None]] = []
        self.tokens = Tokens(self.database, clock=lambda: self.now, monotonic=lambda: self.now, soon=self.asked.append)
        self.users = Users(self.database, failures_per_minute=3, clock=lambda: self.now)

    def used(self, name: str) -> int | None:
        return next(token.used for token in self.tokens.list() if token.name == name)


class Lifetimes(TokensCase):
    """Which tokens are right, and until when."""

    def test_a_token_is_right_for_its_name_alone_until_it_is_withdrawn(self) -> None:
        secret, other = self.tokens.add("ci", repositories="*"), self.tokens.add("cd", repositories="*")
        identity = self.tokens.check("ci", secret)
        assert identity is not None
        self.assertEqual((identity.name, identity.read_only, identity.repositories), ("ci", False, "*"))
        for name, wrong in (
            ("cd", secret),
            ("ci", other),
            ("CI", secret),
            ("ci", secret + "x"),
            ("ci", secret[:-1]),
            ("ci", ""),
            ("ci", secret[4:]),
        ):
            self.assertIsNone(self.tokens.check(name, wrong))
        self.tokens.delete("ci")
        self.assertIsNone(self.tokens.check("ci", secret))
        self.assertIsNone(self.tokens.find("ci", identity.version))
        self.tokens.add("ci", repositories="*")
        self.assertIsNone(self.tokens.check("ci", secret))
        self.assertIsNone(self.tokens.find("ci", identity.version))

    def test_a_token_expires(self) -> None:
        secret = self.tokens.add("ci", lifetime=90 * DAY, repositories="*")
        identity = self.tokens.check("ci", secret)
        assert identity is not None
        self.now += 90 * DAY - 1
        self.assertTrue(self.tokens.check("ci", secret) and self.tokens.find("ci", identity.version))
        self.now += 1
        self.assertIsNone(self.tokens.find("ci", identity.version))
        with self.assertRaises(RegistryError) as caught:
            self.tokens.check("ci", secret)
        self.assertEqual(caught.exception.kind, UNAUTHORIZED)
        self.assertIn("has expired", caught.exception.message)

    def test_a_token_that_ends_and_was_made_by_a_clock_that_was_ahead_is_not_valid_meanwhile(self) -> None:
        today = self.now
        self.now += 365 * DAY
        secret, endless = (
            self.tokens.add("ci", lifetime=90 * DAY, repositories="*"),
            self.tokens.add("cd", repositories="*"),
        )
        identity = self.tokens.check("ci", secret)
        assert identity is not None
        for now in (today, today + 365 * DAY - 61):
            self.now = now
            with self.assertRaises(RegistryError) as caught:
                self.tokens.check("ci", secret)
            self.assertEqual(caught.exception.kind, UNAUTHORIZED)
            self.assertIn("clock", caught.exception.message)
            self.assertIsNone(self.tokens.find("ci", identity.version))
            # One without an end is valid at any time.
            self.assertTrue(self.tokens.check("cd", endless))
        # Clocks of machines differ by some seconds.
        self.now = today + 365 * DAY - 60
        self.assertTrue(self.tokens.check("ci", secret))

    def test_what_is_stored_does_not_give_the_token(self) -> None:
        secret = self.tokens.add("ci", repositories="*")
        self.assertRegex(secret, r"^vex_[A-Za-z0-9_-]{43}$")
        [row] = self.tokens.list()
        self.assertEqual(row.hash, hashlib.sha256(secret.encode()).digest())
        self.database.close()
        self.assertNotIn(secret[4:].encode(), self.path.read_bytes())


class Names(TokensCase):
    """A name belongs to one user or one token."""

    def test_users_and_tokens_share_their_names(self) -> None:
        self.users.add("alice", "correct horse battery")
        self.tokens.add("ci", repositories="*")
        for add in (
            lambda: self.tokens.add("alice", repositories="*"),
            lambda: self.tokens.add("ci", repositories="*"),
            lambda: self.users.add("ci", "correct horse battery"),
        ):
            self.assertRaises(Failure, add)
        self.assertEqual((self.users.names(), [token.name for token in self.tokens.list()]), (["alice"], ["ci"]))
        self.assertRaises(Failure, self.tokens.delete, "alice")
        self.assertRaises(Failure, self.users.delete, "ci")

    def test_names_and_patterns_are_checked(self) -> None:
        for name in ("", "a b", "a/b", "-x", "x" * 65):
            self.assertRaises(Failure, self.tokens.add, name, repositories="*")
        for pattern in ("", "Team/*", "team/?", "team/[ab]", "a b", "team/*\n", "x" * 256):
            self.assertRaises(Failure, self.tokens.add, "ci", repositories=pattern)
        self.assertEqual(self.tokens.list(), [])


class LastUse(TokensCase):
    """When a token was used last."""

    def test_it_is_written_down_once_a_minute(self) -> None:
        secret = self.tokens.add("ci", repositories="*")
        self.tokens.save_uses()
        self.assertIsNone(self.used("ci"))
        self.tokens.check("ci", secret)
        self.tokens.save_uses()
        self.assertEqual(self.used("ci"), self.now)
        self.now += 59
        self.tokens.check("ci", secret)
        self.tokens.save_uses()
        self.assertEqual(self.used("ci"), self.now - 59)
        self.now += 1
        self.tokens.save_uses()
        self.assertEqual(self.used("ci"), self.now - 1)

    def test_it_is_written_down_soon_where_what_is_written_is_older_than_a_minute(self) -> None:
        secret = self.tokens.add("ci", repositories="*")
        for _ in range(3):
            self.tokens.check("ci", secret)
        [save] = self.asked
        save()
        self.assertEqual(self.used("ci"), self.now)
        self.now += 59
        self.tokens.check("ci", secret)
        self.assertEqual(len(self.asked), 1)
        self.now += 1
        self.tokens.check("ci", secret)
        self.asked[1]()
        self.assertEqual(self.used("ci"), self.now)

    def test_a_clock_that_goes_back_does_not_keep_it_from_being_written(self) -> None:
        secret = self.tokens.add("ci", repositories="*")
        self.tokens = Tokens(
            self.database, clock=lambda: self.now - 365 * DAY, monotonic=lambda: self.now, soon=self.asked.append
        )
        self.now += 365 * DAY
        self.tokens.check("ci", secret)
        self.tokens.save_uses()
        self.now += 60
        self.tokens.check("ci", secret)
        self.tokens.save_uses()
        self.assertEqual(self.used("ci"), self.now - 365 * DAY)

    def test_wrong_tokens_are_no_use(self) -> None:
        secret = self.tokens.add("ci", repositories="*")
        self.tokens.check("ci", secret + "x")
        self.tokens.save_uses(at_once=True)
        self.assertIsNone(self.used("ci"))

    def test_a_request_writes_nothing(self) -> None:
        secret = self.tokens.add("ci", repositories="*")
        with self.database.read() as tx:
            before = tx.value("SELECT total_changes()")
            for _ in range(100):
                self.tokens.check("ci", secret)
            self.assertEqual(tx.value("SELECT total_changes()"), before)


class Commands(ServerTestCase):
    """`vex token`, while the server runs."""

    flags = ("--failed-logins", "3")

    def token(self, *arguments: str, code: int = 0) -> str:
        """Run `vex token`; returns what it printed on standard output, or on standard error if it was to fail."""
        ended = vex("token", *arguments, "--data-dir", str(self.server.data))
        self.assertEqual(ended.returncode, code, ended.stderr)
        return ended.stderr if code else ended.stdout

    def status(self, name: str, password: str) -> int:
        return Client(self.server.addresses["auth"], name, password).get("/v2/").status

    def test_a_token_is_printed_alone_works_at_once_and_is_withdrawn_at_once(self) -> None:
        secret = self.token("add", "ci", "--expires", "90d", "--repository", "team/*", "--read-only")
        self.assertRegex(secret, r"\Avex_[A-Za-z0-9_-]{43}\n\Z")
        self.assertEqual(self.status("ci", secret.strip()), 200)
        self.assertNotIn(secret.strip(), self.token("list"))
        heading, row = self.token("list").splitlines()
        self.assertEqual(re.split("  +", heading), ["NAME", "CREATED", "EXPIRES", "LAST USE", "REPOSITORIES", "RIGHTS"])
        moment = r"20\d\d-\d\d-\d\d \d\d:\d\dZ"
        self.assertRegex(row, rf"^ci +{moment} +{moment} +(never|{moment}) +team/\* +read$")
        self.token("delete", "ci")
        self.assertEqual(self.status("ci", secret.strip()), 401)
        self.assertEqual(self.token("list"), "")

    def test_a_use_is_in_the_list_a_moment_later(self) -> None:
        secret = self.token("add", "seen").strip()
        self.assertEqual(self.status("seen", secret), 200)
        deadline = time.monotonic() + 20
        while "never" in self.token("list").replace("never", "", 1):
            self.assertLess(time.monotonic(), deadline, "the token that was used is listed as never used")
        self.token("delete", "seen")

    def test_what_cannot_be_done_is_said(self) -> None:
        self.assertIn(f"there is a user {USER}", self.token("add", USER, code=1))
        self.assertIn("there is no token nobody", self.token("delete", "nobody", code=1))
        self.assertIn("is not a pattern", self.token("add", "x", "--repository", "Team/*", code=1))
        for wrong in ("0s", "0.5s", "-1d", "1y", "", "4000d"):
            self.assertIn("--expires", self.token("add", "x", "--expires", wrong, code=2))
        self.assertEqual(self.token("list"), "")

    def test_wrong_tokens_are_throttled_and_right_ones_never(self) -> None:
        secret = self.token("add", "robot").strip()
        statuses = [self.status("robot", "vex_" + "A" * 43) for _ in range(5)]
        self.assertEqual(statuses, [401, 401, 401, 429, 429])
        self.assertEqual(self.status("robot", secret), 200)

    def test_the_last_use_is_there_after_a_stop(self) -> None:
        with running() as server:
            secret = vex("token", "add", "ci", "--data-dir", str(server.data)).stdout.strip()
            self.assertEqual(Client(server.addresses["auth"], "ci", secret).get("/v2/").status, 200)
            self.assertEqual(server.stop(), 0)
            with contextlib.closing(sqlite3.connect(server.data / "vex.db")) as connection:
                [(used,)] = connection.execute("SELECT used FROM token").fetchall()
            self.assertLess(abs(used - time.time()), 120)


class LimitedPushTestCase(ServerTestCase):
    """Pushes with a token for `team/*`, in a registry whose blobs are in `team/app` and in `secret`."""

    limited: Client

    @classmethod
    def setUpClass(cls) -> None:
        """Make the token."""
        super().setUpClass()
        added = vex("token", "add", "ci", "--repository", "team/*", "--data-dir", str(cls.server.data))
        cls.limited = Client(cls.server.addresses["auth"], "ci", added.stdout.strip())

    def given(self, client: Client, digest: str) -> dict[str, int]:
        """Ask for a blob by its digest in a repository that does not have it, in every way; returns the status of each,
        and what can be read then.
        """
        head = client.request("HEAD", f"/v2/team/head/blobs/{digest}").status
        mounted = client.request("POST", f"/v2/team/mount/blobs/uploads/?mount={digest}&from=secret").status
        anywhere = client.request("POST", f"/v2/team/anywhere/blobs/uploads/?mount={digest}").status
        read = max(client.get(f"/v2/team/{name}/blobs/{digest}").status for name in ("head", "mount", "anywhere"))
        return {"head": head, "mount": mounted, "anywhere": anywhere, "read": read}


class LimitedPushes(LimitedPushTestCase):
    """Where nothing is public."""

    flags = ("--public-addr", "off")

    def test_a_blob_of_repositories_that_it_may_not_pull_from_is_not_given(self) -> None:
        self.server.auth.push_image("secret", "1", b"secret")
        only_uploaded = self.server.auth.push_blob("secret", b"uploaded")
        refused = {"head": 404, "mount": 202, "anywhere": 202, "read": 404}
        for digest in (digest_of(b"secret"), only_uploaded):
            self.assertEqual(self.given(self.limited, digest), refused)

    def test_a_blob_of_a_repository_that_it_may_pull_from_is_given_whoever_else_has_it(self) -> None:
        for name in ("secret", "team/app"):
            self.server.auth.push_image(name, "1", b"shared")
        self.assertEqual(
            self.given(self.limited, digest_of(b"shared")), {"head": 200, "mount": 201, "anywhere": 201, "read": 200}
        )

    def test_a_user_is_given_everything(self) -> None:
        self.server.auth.push_image("secret", "2", b"for users")
        self.assertEqual(
            self.given(self.server.auth, digest_of(b"for users")),
            {"head": 200, "mount": 201, "anywhere": 201, "read": 200},
        )


class LimitedPushesInPublic(LimitedPushTestCase):
    """Where everyone can read everything at the public listener."""

    def test_a_blob_that_everyone_may_read_is_given(self) -> None:
        self.server.auth.push_image("secret", "1", b"not secret")
        self.assertEqual(
            self.given(self.limited, digest_of(b"not secret")),
            {"head": 200, "mount": 201, "anywhere": 201, "read": 200},
        )


class LimitedPushesAtOnePort(LimitedPushTestCase):
    """Where everyone can read everything at the auth listener."""

    flags = ("--public-addr", "off", "--anonymous-read", "yes")

    def test_a_blob_that_everyone_may_read_is_given(self) -> None:
        self.server.auth.push_image("secret", "1", b"not secret")
        self.assertEqual(
            self.given(self.limited, digest_of(b"not secret")),
            {"head": 200, "mount": 201, "anywhere": 201, "read": 200},
        )
