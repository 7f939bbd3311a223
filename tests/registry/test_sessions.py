"""Places for upload sessions: who gets one when there are few, whose ends for another, and that a session ends with the
credentials that opened it.
"""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.in_process import MINUTE, InProcessTestCase, Options
from tests.support.server import PASSWORD, USER, Answer, Client, ServerTestCase, digest_of, vex
from vex.names import RepositoryName

LIMIT, SHARE = 256, 128


class Places(InProcessTestCase):
    """A registry with the default of 256 places, of which half are for one identity."""

    options = Options(upload_expiry=24 * 3600)

    def open(self, user: str = USER) -> Answer:
        return self.site.request("POST", "/v2/app/blobs/uploads/", user=user)

    def fill(self, *users: str) -> list[str]:
        return [
            str(self.ok(202, "POST", "/v2/app/blobs/uploads/", user=user).headers["Location"])
            for user in users
            for _ in range(SHARE)
        ]

    def assert_refused(self, answer: Answer) -> None:
        self.assertEqual((answer.status, answer.codes), (429, ["TOOMANYREQUESTS"]))
        self.assertGreater(int(answer.headers["Retry-After"]), 0)

    def test_one_identity_has_at_most_half_of_the_places(self) -> None:
        self.fill("greedy")
        self.assert_refused(self.open("greedy"))
        self.fill("other")
        self.assert_refused(self.open("third"))

    def test_at_the_limit_the_session_that_was_idle_for_longest_gives_way(self) -> None:
        first, second, *rest = self.fill("one", "two")
        self.site.now += 4 * MINUTE
        self.assert_refused(self.open("third"))
        self.site.now += 2 * MINUTE
        self.ok(202, "PATCH", first, b"still in use")
        self.ok(202, "POST", "/v2/app/blobs/uploads/", user="third")
        self.ok(404, "GET", second)
        for location in (first, *rest):
            self.ok(204, "GET", location)
        self.assertEqual(len(self.site.uploads), LIMIT)

    def test_who_has_half_of_the_places_makes_room_among_his_own_sessions(self) -> None:
        other = str(self.open("other").headers["Location"])
        self.site.now += 1
        own = self.fill("greedy")
        self.site.now += 6 * MINUTE
        self.ok(202, "POST", "/v2/app/blobs/uploads/", user="greedy")
        self.ok(204, "GET", other)
        self.ok(404, "GET", own[0])
        self.ok(204, "GET", own[1])

    def test_sessions_that_an_earlier_process_left_give_way_too_and_count_for_their_owner(self) -> None:
        locations = self.fill("greedy")
        self.site.restart()
        self.site.now = int(time.time())
        self.assert_refused(self.open("greedy"))
        self.site.now += 6 * MINUTE
        self.ok(202, "POST", "/v2/app/blobs/uploads/", user="greedy")
        self.assertEqual(
            sorted(self.site.request("GET", location).status for location in locations), [204] * (SHARE - 1) + [404]
        )

    def test_a_session_that_a_request_works_on_does_not_give_way(self) -> None:
        location, *_ = self.fill("greedy")
        token = location.partition("?")[0].rpartition("/")[2]
        self.site.now += 6 * MINUTE
        with self.site.uploads.session(RepositoryName("app"), token):
            self.ok(202, "POST", "/v2/app/blobs/uploads/", user="greedy")
        self.ok(204, "GET", location)

    def test_a_blob_in_one_request_and_a_mount_need_no_place(self) -> None:
        self.push_image("source", "v1", b"layer")
        self.fill("one", "two")
        self.push_blob("app", b"whole")
        self.push_blob("app", b"")
        self.ok(201, "POST", f"/v2/app/blobs/uploads/?mount={digest_of(b'layer')}&from=source")
        self.assertEqual(len(self.site.uploads), LIMIT)
        self.assert_refused(self.open())

    def test_of_a_blob_in_one_request_nothing_is_left_where_it_fails_or_the_process_ends(self) -> None:
        self.ok(400, "POST", f"/v2/app/blobs/uploads/?digest={digest_of(b'other')}", b"content")
        uploads = self.site.directory / "uploads"
        self.assertEqual(list(uploads.iterdir()), [])
        with self.site.uploads.single(RepositoryName("app"), "sha256") as upload:
            self.assertEqual(list(uploads.iterdir()), [upload.path])
        # As a process leaves it that is killed.
        upload.path.write_bytes(b"half a blob")
        self.site.restart()
        self.assertEqual((list(uploads.iterdir()), len(self.site.uploads)), ([], 0))


class Withdrawn(ServerTestCase):
    """Commands of another process take the credentials away; each place that they held is free at once."""

    flags = ("--upload-sessions", "4")

    def client(self, *command: str) -> Client:
        """Make a token or a user with another process; returns a client that has it."""
        added = vex(*command, "--data-dir", str(self.server.data), text=PASSWORD + "\n")
        self.assertEqual(added.returncode, 0, added.stderr)
        name = command[2]
        return Client(
            self.server.addresses["auth"], name, added.stdout.split()[-1] if command[0] == "token" else PASSWORD
        )

    def withdraw(self, *command: str) -> None:
        ended = vex(*command, "--data-dir", str(self.server.data))
        self.assertEqual(ended.returncode, 0, ended.stderr)

    def open(self, client: Client, count: int = 1) -> list[str]:
        answers = [client.request("POST", "/v2/app/blobs/uploads/") for _ in range(count)]
        self.assertEqual([answer.status for answer in answers], [202] * count, answers)
        return [str(answer.headers["Location"]) for answer in answers]

    def file(self, location: str) -> Path:
        return self.server.data / "uploads" / location.partition("?")[0].rpartition("/")[2]

    def tearDown(self) -> None:
        for path in (self.server.data / "uploads").iterdir():
            self.server.auth.request("DELETE", f"/v2/app/blobs/uploads/{path.name}")

    def test_the_sessions_of_a_token_end_with_it_and_others_get_their_places(self) -> None:
        bot, other = self.client("token", "add", "bot"), self.client("user", "add", "other")
        taken = self.open(bot, 2)
        self.assertEqual(bot.request("POST", "/v2/app/blobs/uploads/").status, 429)
        self.open(other, 2)
        self.assertEqual(self.server.auth.request("POST", "/v2/app/blobs/uploads/").status, 429)
        self.withdraw("token", "delete", "bot")
        self.open(self.server.auth, 2)
        for location in taken:
            self.assert_error(self.server.auth.get(location), 404, "BLOB_UPLOAD_UNKNOWN")
            self.assertFalse(self.file(location).exists())
        self.withdraw("user", "delete", "other")

    def test_nobody_goes_on_with_a_session_of_a_user_who_is_gone(self) -> None:
        leaver = self.client("user", "add", "leaver")
        for method in ("GET", "PATCH", "PUT", "DELETE"):
            with self.subTest(method):
                (location,) = self.open(leaver)
                self.assertEqual(self.server.auth.get(location).status, 204)
                self.withdraw("user", "delete", "leaver")
                answer = self.server.auth.request(method, f"{location}&digest={digest_of(b'x')}", b"x")
                self.assert_error(answer, 404, "BLOB_UPLOAD_UNKNOWN")
                self.assertFalse(self.file(location).exists())
                leaver = self.client("user", "add", "leaver")
        self.withdraw("user", "delete", "leaver")

    def test_a_token_of_the_same_name_does_not_get_the_sessions_of_the_one_before(self) -> None:
        (location,) = self.open(self.client("token", "add", "again"))
        self.withdraw("token", "delete", "again")
        self.assertEqual(self.client("token", "add", "again").get(location).status, 404)
        self.withdraw("token", "delete", "again")

    def test_a_session_goes_on_over_a_restart_with_its_owner_and_ends_over_one_without(self) -> None:
        bot = self.client("token", "add", "restarted")
        (location,) = self.open(bot)
        self.assertEqual(bot.request("PATCH", location, b"first").status, 202)
        self.server.restart()
        self.assertEqual(self.server.auth.get(location).headers["Range"], "0-4")
        self.server.stop()
        self.withdraw("token", "delete", "restarted")
        self.server.start()
        self.assert_error(self.server.auth.get(location), 404, "BLOB_UPLOAD_UNKNOWN")

    def test_housekeeping_ends_what_nobody_asks_for(self) -> None:
        (location,) = self.open(self.client("token", "add", "forgotten"))
        self.server.stop()
        self.withdraw("token", "delete", "forgotten")
        self.server.start()
        deadline = time.monotonic() + 20
        while self.file(location).exists():
            self.assertLess(time.monotonic(), deadline, "the session stays")
            time.sleep(0.01)
        self.assertEqual(self.server.metric("vex_uploads_open"), 0)
