"""Logins that are known from a moment ago, and answers that are given again where credentials are asked for: whatever
changes about who may have them counts at the next request.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import unittest
from pathlib import Path

from tests.support.logins import add_token, user_version
from tests.support.raw import basic, connected
from tests.support.server import PASSWORD, USER, Client, Server, ServerTestCase, running, tls_flags, trusting, vex
from tests.support.server import write_certificate as written_certificate
from vex.access.bearer import LIFETIME, Grant, Signer
from vex.access.credentials import Authenticator, OnePort
from vex.access.identity import ANYONE, Identity, Need
from vex.access.tokens import Tokens
from vex.access.users import Users
from vex.errors import RegistryError
from vex.http.answers import Admit, Admitted, Answer, GuardedAnswers, Revisions
from vex.http.bodies import Input, body_of
from vex.http.heads import HeadLimits, parse_head
from vex.http.message import Request
from vex.storage.database import Database
from vex.storage.log_index import LogIndex

TOKEN = "/v2/_token"
MANIFEST = "/v2/team/app/manifests/v1"
HITS = 'vex_answer_cache_hits_total{listener="auth"}'
OTHER_PASSWORD = "another battery staple"


def command(server: Server, *arguments: str, text: str = "") -> None:
    """Run a command beside the server."""
    done = vex(*arguments, "--data-dir", str(server.data), text=text)
    assert done.returncode == 0, done.stderr


class KnownCase(ServerTestCase):
    """A registry with an image, whose requests with credentials are answered again."""

    @classmethod
    def setUpClass(cls) -> None:
        """Push the image."""
        super().setUpClass()
        cls.server.auth.push_image("team/app", "v1", b"layer")

    def status(self, authorization: str, path: str = MANIFEST, **fields: str) -> int:
        """Ask for something; "" sends no Authorization."""
        headers = {**fields, **({"Authorization": authorization} if authorization else {})}
        return Client(self.server.addresses["auth"]).get(path, headers).status

    def warm(self, authorization: str) -> None:
        """Ask until the answer is one that was given before."""
        self.assertEqual(self.status(authorization), 200)
        self.server.wait_until_counted()
        before = self.server.metric(HITS)
        self.assertEqual(self.status(authorization), 200)
        self.server.wait_until_counted()
        self.assertEqual(self.server.metric(HITS), before + 1)

    def add_user(self, name: str) -> str:
        """Make a user; returns an Authorization field."""
        command(self.server, "user", "add", name, text=PASSWORD + "\n")
        return basic(name)


class AnsweredAgain(KnownCase):
    """With a password for everything."""

    def test_one_who_is_removed_gets_nothing_more(self) -> None:
        field = self.add_user("removed")
        self.warm(field)
        command(self.server, "user", "delete", "removed")
        self.assertEqual(self.status(field), 401)

    def test_a_password_that_was_changed_is_wrong(self) -> None:
        field = self.add_user("changed")
        self.warm(field)
        command(self.server, "user", "password", "changed", text=OTHER_PASSWORD + "\n")
        self.assertEqual(self.status(field), 401)
        self.assertEqual(self.status(basic("changed", OTHER_PASSWORD)), 200)

    def test_a_user_of_the_same_name_and_password_is_another_one(self) -> None:
        field = self.add_user("again")
        self.warm(field)
        command(self.server, "user", "delete", "again")
        self.add_user("again")
        self.warm(field)

    def test_a_token_that_is_withdrawn_is_wrong(self) -> None:
        field = basic("ci", add_token(self.server, "ci"))
        self.warm(field)
        command(self.server, "token", "delete", "ci")
        self.assertEqual(self.status(field), 401)

    def test_a_token_for_other_repositories_is_denied_what_another_was_given(self) -> None:
        field = basic("outside", add_token(self.server, "outside", "--repository", "other/*"))
        self.assertEqual(self.status(field), 403)
        self.warm(basic())
        self.assertEqual(self.status(field), 403)

    def test_nobody_is_given_what_another_was_given(self) -> None:
        self.warm(basic())
        refused = self.server.metric("vex_logins_refused_total")
        for field in ("", basic(password="wrong password"), basic(user="nobody"), "Bearer x", basic() + "x", "Basic"):
            self.assertEqual(self.status(field), 401, field)
        self.assertEqual(self.server.metric("vex_logins_refused_total"), refused + 2)

    def test_credentials_in_two_lines_are_none(self) -> None:
        self.warm(basic())
        good = f"Authorization: {basic()}"
        for lines in ((good, good), (good, "Authorization: Basic x"), ("AUTHORIZATION: Basic x", good)):
            with connected(self.server.addresses["auth"]) as wire:
                host = "{}:{}".format(*self.server.addresses["auth"])
                head = [f"GET {MANIFEST} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity", *lines, "", ""]
                wire.send("\r\n".join(head).encode())
                self.assertEqual(wire.answer().status, 401, lines)

    def test_a_push_by_another_is_seen_at_once(self) -> None:
        self.server.auth.push_image("team/moving", "v1", b"one")
        path = "/v2/team/moving/manifests/v1"
        before = self.server.auth.get(path).body
        self.assertEqual(self.server.auth.get(path).body, before)
        self.server.auth.push_image("team/moving", "v1", b"two")
        self.assertNotEqual(self.server.auth.get(path).body, before)
        self.assertEqual(self.server.auth.request("DELETE", path).status, 202)
        self.assertEqual(self.server.auth.get(path).status, 404)

    def test_the_use_of_a_token_is_noted_that_is_answered_from_memory(self) -> None:
        field = basic("used", add_token(self.server, "used"))
        self.warm(field)
        with contextlib.closing(sqlite3.connect(self.server.data / "vex.db")) as connection, connection:
            connection.execute("UPDATE token SET used = 1 WHERE name = 'used'")
        self.warm(field)
        self.server.restart()
        with contextlib.closing(sqlite3.connect(self.server.data / "vex.db")) as connection:
            used = connection.execute("SELECT used FROM token WHERE name = 'used'").fetchone()[0]
        self.assertGreater(used, 1_600_000_000)

    def test_a_head_with_a_cookie_is_not_kept(self) -> None:
        for _ in range(2):
            self.assertEqual(self.status(basic(), Cookie="a=b"), 200)
        self.server.wait_until_counted()
        before = self.server.metric(HITS)
        self.assertEqual(self.status(basic(), Cookie="a=b"), 200)
        self.server.wait_until_counted()
        self.assertEqual(self.server.metric(HITS), before)


class Logged(KnownCase):
    """Whoever gets an answer of before is in the log, as the client of a trusted proxy."""

    flags = ("--access-log", "access.log", "--log-format", "json", "--trusted-proxies", "127.0.0.1")

    def test_the_log_has_the_user_and_the_client_of_each_answer(self) -> None:
        other = self.add_user("other")
        for _ in range(2):
            for field in (basic(), other):
                self.assertEqual(self.status(field, **{"X-Forwarded-For": "192.0.2.7"}), 200)
        self.server.wait_until_counted()
        lines = [line for line in (self.server.directory / "access.log").read_text().splitlines() if "/v1" in line][-4:]
        self.assertEqual(["192.0.2.7" in line for line in lines], [True] * 4)
        # Each connection writes its own line once the answer has been sent, whichever comes first.
        users = sorted(name for line in lines for name in (USER, "other") if f'"{name}"' in line)
        self.assertEqual(users, sorted([USER, "other"] * 2))


class OnePortAgain(KnownCase):
    """With anonymous reading."""

    flags = ("--anonymous-read", "yes")

    def bearer(self) -> str:
        """Get a Bearer token; returns an Authorization field."""
        answer = self.server.auth.get(f"{TOKEN}?scope=repository:team/app:pull")
        return f"Bearer {answer.json['token']}"

    def test_anyone_and_all_kinds_of_credentials_are_answered_again(self) -> None:
        self.warm("")
        self.warm(basic())
        self.warm(self.bearer())

    def test_wrong_credentials_are_refused_what_anyone_is_given(self) -> None:
        self.warm("")
        expired = Signer(self.server.data, clock=lambda: 1_000_000).sign(Grant(USER, 1, {}))
        for field in (basic(password="wrong password"), f"Bearer {expired}", self.bearer() + "x"):
            self.assertEqual(self.status(field), 401)

    def test_a_bearer_token_ends_with_its_user_and_with_the_key(self) -> None:
        self.add_user("short")
        signer = Signer(self.server.data)
        of_user = f"Bearer {signer.sign(Grant('short', user_version(self.server, 'short'), {}))}"
        self.warm(of_user)
        command(self.server, "user", "password", "short", text=OTHER_PASSWORD + "\n")
        self.assertEqual(self.status(of_user), 401)
        field = self.bearer()
        self.warm(field)
        command(self.server, "token", "rotate-key")
        self.assertEqual(self.status(field), 401)
        self.warm(self.bearer())

    def test_lists_are_those_of_now(self) -> None:
        tags = "/v2/team/listed/tags/list"
        for number in range(3):
            self.server.auth.push_image("team/listed", f"v{number}", b"layer")
            for field in ("", basic()):
                for _ in range(2):
                    answer = Client(self.server.addresses["auth"]).get(tags, {"Authorization": field} if field else {})
                    self.assertEqual(len(answer.json["tags"]), number + 1)


class Encrypted(unittest.TestCase):
    def test_answers_are_given_again_over_tls(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            certificate, key = written_certificate(directory)
            with running(*tls_flags(certificate, key, "auth")) as server:
                client = Client(server.addresses["auth"], USER, context=trusting(certificate))
                client.push_image("team/app", "v1", b"layer")
                bodies = {client.get(MANIFEST).body for _ in range(3)}
                server.wait_until_counted()
                self.assertEqual((len(bodies), server.metric(HITS)), (1, 2))


class CredentialsCase(unittest.TestCase):
    """Credentials over a database of their own, with clocks that tests set."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name) / "vex.db"
        self.now, self.steady, self.refused = 1_000_000.0, 1_000.0, 0
        self.database = Database(self.path)
        self.addCleanup(self.database.close)
        self.users = Users(self.database, monotonic=lambda: self.steady)
        self.tokens = Tokens(
            self.database, clock=lambda: self.now, monotonic=lambda: self.steady, soon=lambda _work: None
        )
        self.signer = Signer(Path(directory.name), clock=lambda: self.now)
        self.credentials = Authenticator(
            self.users,
            self.tokens,
            OnePort(self.signer, "", TOKEN, False),
            lambda: None,
            self.database.log_index,
            monotonic=lambda: self.steady,
        )
        self.need = Need("team/app", "pull", anyone=False)

    def identify(self, field: str) -> Identity:
        """Send a request with credentials."""
        data = f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {field}\r\n\r\n".encode()
        head = parse_head(data, HeadLimits())
        return self.credentials.identify(Request("auth", head, body_of(head, Input(lambda _view: 0)), "1.2.3.4"), "")

    def admitted(self, field: str) -> Admitted | None:
        """Ask whether somebody is let in who is known."""
        return self.credentials.admit(self.need, field.encode())

    def write_elsewhere(self) -> None:
        """Write something as a command of another process does."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("INSERT INTO repository (name) VALUES (?)", (f"r{self.steady}",))
        self.steady += 0.001


class Limits(CredentialsCase):
    """How long somebody is known, and for what."""

    def test_a_password_is_known_for_five_minutes_from_its_verification_on(self) -> None:
        self.users.add(USER, PASSWORD)
        self.assertIsNone(self.admitted(basic()))
        self.identify(basic())
        self.steady += 200
        self.identify(basic())
        self.steady += 99
        self.assertEqual(self.admitted(basic()), (USER, True))
        self.steady += 1
        self.assertIsNone(self.admitted(basic()))

    def test_a_token_is_known_until_it_expires_and_its_rights_are_those_of_now(self) -> None:
        field = basic("ci", self.tokens.add("ci", lifetime=100, repositories="team/*", read_only=True))
        self.identify(field)
        self.assertEqual(self.admitted(field), ("ci", False))
        self.assertIsNone(self.credentials.admit(Need("other", "pull", anyone=False), field.encode()))
        self.assertIsNone(self.credentials.admit(Need("team/app", "push", anyone=False), field.encode()))
        self.now += 99
        self.assertEqual(self.admitted(field), ("ci", False))
        self.now += 1
        self.assertIsNone(self.admitted(field))
        self.now -= 200
        self.assertIsNone(self.admitted(field), "made at a time that is still to come")

    def test_a_bearer_token_is_known_within_its_scope_until_it_expires(self) -> None:
        self.users.add(USER, PASSWORD)
        version = self.users.version(USER)
        assert version is not None
        field = f"Bearer {self.signer.sign(Grant(USER, version, {'team/app': ('pull',)}))}"
        self.identify(field)
        self.assertEqual(self.admitted(field), (USER, False))
        self.assertIsNone(self.credentials.admit(Need("team/other", "pull", anyone=False), field.encode()))
        self.now += LIFETIME - 1
        self.assertEqual(self.admitted(field), (USER, False))
        self.now += 1
        self.assertIsNone(self.admitted(field))
        self.now -= LIFETIME + 61
        self.assertIsNone(self.admitted(field), "issued by a clock that was ahead")

    def test_a_bearer_token_of_a_machines_token_has_its_limits_too(self) -> None:
        self.tokens.add("ci", lifetime=100, repositories="team/*")
        version = self.tokens.identities()[0].version
        field = f"Bearer {self.signer.sign(Grant('ci', version, {'team/app': ('pull',)}))}"
        self.identify(field)
        self.assertEqual(self.admitted(field), ("ci", False))
        self.now += 100
        self.assertIsNone(self.admitted(field))

    def test_another_key_ends_a_bearer_token(self) -> None:
        field = f"Bearer {self.signer.sign(Grant('', 0, {}))}"
        self.assertEqual(self.identify(field), ANYONE._replace(access={}))
        anyone = Need("team/app", "pull", anyone=True)
        self.assertEqual(self.credentials.admit(anyone, field.encode()), ("", False))
        self.signer.rotate()
        self.assertIsNone(self.credentials.admit(anyone, field.encode()))

    def test_what_is_refused_is_not_known(self) -> None:
        self.users.add(USER, PASSWORD)
        for field in (basic(password="wrong password"), "Bearer x", "x"):
            with self.assertRaises(RegistryError):
                self.identify(field)
            self.assertIsNone(self.admitted(field))

    def test_after_a_write_of_another_process_it_is_looked_up_whether_all_is_the_same(self) -> None:
        self.users.add(USER, PASSWORD)
        field = basic("ci", self.tokens.add("ci", repositories="*"))
        for each in (basic(), field):
            self.identify(each)
            self.write_elsewhere()
            self.assertIsNotNone(self.admitted(each))
        self.users.set_password(USER, OTHER_PASSWORD)
        self.tokens.delete("ci")
        for each in (basic(), field):
            self.assertIsNone(self.admitted(each))
        # Not even if what was there comes back: whoever it was has to be checked.
        self.users.set_password(USER, PASSWORD)
        self.assertIsNone(self.admitted(basic()))

    def test_where_it_cannot_be_told_what_was_written_nobody_is_known(self) -> None:
        self.users.add(USER, PASSWORD)
        self.credentials = Authenticator(
            self.users, self.tokens, None, lambda: None, LogIndex(self.path.with_name("none")), lambda: self.steady
        )
        self.identify(basic())
        self.assertIsNone(self.admitted(basic()))


class Indexes(unittest.TestCase):
    """What tells that something was committed."""

    def test_every_commit_of_any_connection_changes_the_state_and_nothing_else_does(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "vex.db"
            with contextlib.closing(Database(path)) as database:
                states = [database.log_index.state()]
                self.assertTrue(states[0])
                for number in range(20):
                    with contextlib.closing(sqlite3.connect(path)) as other, other:
                        other.execute("INSERT INTO repository (name) VALUES (?)", (f"other/{number}",))
                    states.append(database.log_index.state())
                    with database.write() as tx:
                        tx.execute("INSERT INTO repository (name) VALUES (?)", (f"own/{number}",))
                    states.append(database.log_index.raw_state())
                    count = database.glance(lambda tx: tx.value("SELECT count(*) FROM repository"))
                    self.assertEqual(count, 2 * number + 2)
                    self.assertEqual(database.log_index.state(), states[-1])
                self.assertEqual(len(set(states)), len(states))
                with contextlib.closing(sqlite3.connect(path)) as other:
                    other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                    other.execute("INSERT INTO repository (name) VALUES ('late')")
                    other.commit()
                self.assertNotIn(database.log_index.state(), states)
            self.assertEqual(database.log_index.state(), b"")


class Guarded(unittest.TestCase):
    """Which heads are told apart, and who gets which answer."""

    def setUp(self) -> None:
        self.revisions = Revisions()
        self.answers = GuardedAnswers(self.revisions)
        self.notes: list[str] = []
        self.known = {b"Basic reader": Admitted("reader", False), b"Basic pusher": Admitted("pusher", True)}

    def keep(self, head: bytes, *, anyone: bool = False, for_pushers: bool = True) -> Answer:
        basis = self.revisions.basis("app")._replace(
            on_use=lambda: self.notes.append("use"),
            on_push=(lambda: self.notes.append("push")) if for_pushers else None,
        )
        answer = Answer(b"", b"", "GET", "/", "manifest", 200, 0, basis, Admit(anyone, self.known.get))
        self.answers.keep(head, answer)
        return answer

    def users(self, *heads: bytes) -> list[str | None]:
        return [found and found.user for found in map(self.answers.find, heads)]

    def test_an_answer_is_given_to_whoever_is_let_in_and_noted_as_for_whom_it_was(self) -> None:
        head = b"GET / HTTP/1.1\r\nHost: x\r\n%sAccept: y\r\n\r\n"
        fields = b"", b"Authorization: Basic reader\r\n", b"authorization: Basic pusher\r\n", b"Authorization: x\r\n"
        self.keep(head % fields[1])
        self.assertEqual(self.users(*(head % field for field in fields)), [None, "reader", "pusher", None])
        self.assertEqual(self.notes, ["use", "push"])
        self.keep(head % fields[1], anyone=True, for_pushers=False)
        self.assertEqual(self.users(*(head % field for field in fields)), ["", "reader", None, None])
        self.revisions.changed("app")
        self.assertEqual(self.users(*(head % field for field in fields)), [None] * 4)

    def test_no_secret_is_kept(self) -> None:
        for line in (b"Proxy-Authorization: z", b"AUTHORIZATION: z", b"Authorization:z", b"Cookie: z", b"cookie: z"):
            head = b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n" % line
            self.keep(head, anyone=True)
            self.assertEqual(self.users(head), [None], line)
        self.keep(b"GET / HTTP/1.1\r\nAuthorization: Basic reader\r\n\r\n")
        self.assertEqual([*self.answers._answers], [b"GET / HTTP/1.1\r\n\r\n"])

    def test_a_field_before_the_request_line_is_none(self) -> None:
        self.keep(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", anyone=True)
        for head in (
            b"\r\nAuthorization: Basic reader\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"uthorization: Basic reader\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: xuthorization: Basic reader\r\n\r\n",
        ):
            self.assertEqual(self.users(head), [None])
