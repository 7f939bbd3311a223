"""When manifests count as pulled and as asked for, and when that is written down."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import unittest

from tests.support.in_process import MINUTE, InProcessTestCase
from tests.support.logins import add_token
from tests.support.server import Client, running, vex
from vex.names import Digest, RepositoryName
from vex.registry.fetches import Fetches

APP = RepositoryName("app")


class Noted(InProcessTestCase):
    """In a registry whose clock a test sets."""

    def times(self, digest: str) -> tuple[int | None, int | None]:
        """Tell when a manifest of app was pulled and asked for, as far as that was written down."""
        with self.site.database.read() as tx:
            row = tx.row(
                "SELECT pulled, asked FROM repository_manifest JOIN manifest ON id = manifest WHERE digest = ?",
                (digest,),
            )
        assert row is not None
        return row[0], row[1]

    def test_a_get_counts_as_pulled_and_a_head_as_asked_for_by_tag_and_by_digest(self) -> None:
        first = self.push_image("app", "1", b"one").digest
        second = self.push_image("app", "2", b"two").digest
        self.site.advance(MINUTE)
        self.assertEqual((self.times(first), self.times(second)), ((None, None), (None, None)))
        self.ok(200, "GET", "/v2/app/manifests/1")
        self.ok(200, "HEAD", f"/v2/app/manifests/{second}")
        at = self.site.now
        self.site.advance(MINUTE)
        self.assertEqual((self.times(first), self.times(second)), ((at, None), (None, at)))
        self.ok(304, "GET", f"/v2/app/manifests/{second}", headers={"If-None-Match": f'"{second}"'})
        again = self.site.now
        self.site.advance(MINUTE)
        self.assertEqual((self.times(first), self.times(second)), ((at, None), (again, at)))

    def test_a_get_of_a_child_counts_for_all_indexes_above_it_and_not_the_other_way(self) -> None:
        child, other = (self.push_image("app", "", layer) for layer in (b"one", b"two"))
        inner = self.push_index("app", "", [child])
        outer = self.push_index("app", "outer", [inner, other])
        self.ok(200, "GET", f"/v2/app/manifests/{child.digest}")
        at = self.site.now
        self.site.advance(MINUTE)
        for digest, pulled in ((child.digest, at), (inner.digest, at), (outer.digest, at), (other.digest, None)):
            self.assertEqual(self.times(digest), (pulled, None))
        self.ok(200, "GET", "/v2/app/manifests/outer")
        later = self.site.now
        self.site.advance(MINUTE)
        self.assertEqual([self.times(one.digest)[0] for one in (child, inner, outer)], [at, at, later])

    def test_it_is_written_once_a_minute_with_the_last_time_and_only_where_something_was_fetched(self) -> None:
        digest = self.push_image("app", "1", b"one").digest
        self.site.advance(MINUTE)
        self.ok(200, "GET", "/v2/app/manifests/1")
        self.site.advance(MINUTE - 1)
        self.assertEqual(self.times(digest), (None, None))
        self.ok(200, "GET", "/v2/app/manifests/1")
        at = self.site.now
        self.site.advance(1)
        self.assertEqual(self.times(digest), (at, None))
        commits = self.site.database.commits.counts()
        self.site.storage.pulls.fetches.save(self.site.database, at_once=True)
        self.assertEqual(self.site.database.commits.counts(), commits)

    def test_an_answer_that_is_given_again_counts_also_without_a_time_for_pulls(self) -> None:
        digest = self.push_image("app", "1", b"one").digest
        for grace in (self.options.pull_grace, 0):
            self.site.options = self.options._replace(pull_grace=grace)
            self.site.restart()
            note, note_push = self.site.registry.read_manifest(APP, Digest(digest))[2:]
            for again in (note, note_push):
                self.site.now += MINUTE
                again()
                at = self.site.now
                self.site.advance(MINUTE)
                self.assertEqual(self.times(digest)[0], at)

    def test_what_cannot_be_written_is_written_later(self) -> None:
        digests = [self.push_image("app", str(number), b"%d" % number).digest for number in range(3)]
        for digest in digests:
            self.ok(200, "GET", f"/v2/app/manifests/{digest}")
        at = self.site.now
        with self.site.database.write() as tx:
            tx.execute(
                "CREATE TRIGGER no BEFORE UPDATE OF pulled ON repository_manifest"
                " BEGIN SELECT raise(ABORT, 'full'); END"
            )
        with self.assertRaisesRegex(sqlite3.IntegrityError, "full"):
            self.site.storage.pulls.fetches.save(self.site.database, at_once=True)
        with self.site.database.write() as tx:
            tx.execute("DROP TRIGGER no")
        self.site.now += 10
        self.site.storage.pulls.fetches.save(self.site.database, at_once=True)
        self.assertEqual([self.times(digest)[0] for digest in digests], [at] * 3)

    def test_a_clock_that_jumped_ahead_is_put_right_by_the_next_pull(self) -> None:
        digest = self.push_image("app", "1", b"one").digest
        self.site.jump(1000 * MINUTE)
        self.ok(200, "GET", "/v2/app/manifests/1")
        self.site.jump(-1000 * MINUTE)
        self.ok(200, "GET", "/v2/app/manifests/1")
        at = self.site.now
        self.site.advance(MINUTE)
        self.assertEqual(self.times(digest)[0], at)

    def test_many_are_noted_and_written_and_no_more_than_there_is_room_for(self) -> None:
        fetches = Fetches(clock=self.site.clock, steady=self.site.steady)
        for number in range(100_000):
            entry = fetches.entry(1, number, pulled=True)
            assert entry is not None
            entry.times[entry.key] = 1.0
        self.assertIsNone(fetches.entry(1, 100_000, pulled=True))
        self.assertIsNotNone(fetches.entry(1, 7, pulled=True))
        self.assertIsNotNone(fetches.entry(1, 100_000, pulled=False))


class Served(unittest.TestCase):
    """In a server, whose answers are given again."""

    def test_whose_fetches_do_not_count_leaves_no_trace_and_others_are_written_when_the_registry_ends(self) -> None:
        with running() as server:
            digest = server.auth.push_image("app", "1", b"one")
            secrets = {"scanner": add_token(server, "scanner", "--not-counted", "--read-only")}
            secrets["reader"] = add_token(server, "reader", "--read-only")
            listed = vex("token", "list", "--data-dir", str(server.data)).stdout
            self.assertRegex(listed, r"(?m)^reader .* read$")
            self.assertRegex(listed, r"(?m)^scanner .* read, not counted$")

            def fetched(name: str) -> list[int | None]:
                if server.process.poll() is not None:
                    server.start()
                # The first of an answer is kept, whoever asked for it, and the others are given again.
                for reader in ("scanner", name, name):
                    client = Client(server.addresses["auth"], reader, secrets[reader])
                    for method in ("GET", "HEAD"):
                        self.assertEqual(client.request(method, "/v2/app/manifests/1").status, 200)
                server.stop()
                with contextlib.closing(sqlite3.connect(server.data / "vex.db")) as connection:
                    return list(
                        connection.execute(
                            "SELECT pulled, asked FROM repository_manifest JOIN manifest ON id = manifest"
                            " WHERE digest = ?",
                            (digest,),
                        ).fetchone()
                    )

            self.assertEqual(fetched("scanner"), [None, None])
            for seconds in fetched("reader"):
                assert seconds is not None
                self.assertAlmostEqual(seconds, time.time(), delta=30)
