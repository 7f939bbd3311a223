"""What is done by itself: each step for itself, what cannot be removed, and a clock that is wrong for a moment."""

from __future__ import annotations

import os
import time
import unittest
from pathlib import Path
from typing import Callable

from tests.proof.crash.points import Trap
from tests.proof.crash.server import TrapServer
from tests.support.in_process import DAY, HOUR, InProcessTestCase, Options, directory_in_memory
from tests.support.server import Server, digest_of, image, running
from vex.storage.timekeeping import TimeOfDay

MINUTE = 60
# What expires soon makes rounds come soon.
QUICK = ("--audit-keep", "1s", "--pull-grace", "0s")


def wait_until(condition: Callable[[], bool], server: Server) -> None:
    """Wait until something is so, in a server that goes round and round."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.02)


class Removal(unittest.TestCase):
    """A file that cannot be removed, when what made it needless is committed."""

    server: TrapServer

    def setUp(self) -> None:
        directory = directory_in_memory()
        self.addCleanup(directory.cleanup)
        self.server = TrapServer(Path(directory.name), *QUICK)
        self.addCleanup(self.server.kill)

    def aside(self) -> list[str]:
        return [path.name for path in (self.server.data / "uploads").iterdir()]

    def test_a_committed_deletion_succeeds_each_file_is_tried_and_logged_and_tried_again(self) -> None:
        auth = self.server.auth
        for call, method in (("rename uploads", "DELETE"), ("unlink uploads", "PUT")):
            for forever in (False, True):
                with self.subTest(call, method=method, forever=forever):
                    layers = [f"layer {call} {forever} {number}".encode() for number in range(4)]
                    digests = set(map(digest_of, layers))
                    auth.push_image("app", "1", *layers)
                    other = image(config=b"{}", annotations={"case": f"{call} {forever}"})
                    self.server.points.arm(Trap(call, "EIO", forever=forever))
                    if method == "DELETE":
                        self.assertEqual(auth.request("DELETE", "/v2/app/manifests/1").status, 202)
                    else:
                        # The tag is pointed elsewhere, which removes what it pointed to.
                        auth.push_manifest("app", "1", other)
                    left = len(self.server.files() & digests) if call == "rename uploads" else len(self.aside())
                    self.assertEqual(left, 4) if forever else self.assertLessEqual(left, 1)
                    self.server.points.disarm()
                    self.wait_until_removed(digests)
        log = self.server.log.read_text()
        self.assertIn("cannot remove the file", log)
        self.assertNotIn("Traceback", log)

    def wait_until_removed(self, digests: set[str]) -> None:
        wait_until(lambda: not self.server.files() & digests and not self.aside(), self.server)

    def test_a_file_that_stays_is_logged_once_and_does_not_keep_the_rest_from_being_removed(self) -> None:
        auth = self.server.auth
        auth.push_image("app", "1", b"stays")
        stays = self.server.data / "blobs/sha256" / digest_of(b"stays")[7:]
        # A directory can be renamed, but not unlinked, not even by root.
        stays.unlink()
        stays.mkdir()
        self.assertEqual(auth.request("DELETE", "/v2/app/manifests/1").status, 202)
        self.assertEqual(self.server.files(), set())
        auth.push_image("app", "2", b"later")
        rounds = self.server.metric('vex_housekeeping_success_timestamp_seconds{step="removals"}')
        auth.request("DELETE", "/v2/app/manifests/2")
        wait_until(
            lambda: self.server.metric('vex_housekeeping_success_timestamp_seconds{step="removals"}') > rounds,
            self.server,
        )
        wait_until(lambda: self.server.files() == set(), self.server)
        self.assertEqual(self.server.log.read_text().count("cannot remove the file"), 1)

    def test_an_upload_whose_file_cannot_be_removed_ends_as_it_should(self) -> None:
        auth = self.server.auth
        location = auth.request("POST", "/v2/app/blobs/uploads/").headers["Location"]
        self.server.points.arm(Trap("unlink uploads", "EIO", forever=True))
        self.assertEqual(auth.request("DELETE", location).status, 204)
        wrong = auth.request("POST", f"/v2/app/blobs/uploads/?digest={digest_of(b'other')}", b"content")
        self.assertEqual((wrong.status, wrong.codes), (400, ["DIGEST_INVALID"]))
        self.server.points.disarm()
        wait_until(lambda: not self.aside(), self.server)

    def test_a_deletion_that_is_not_answered_202_has_removed_nothing_whatever_query_fails(self) -> None:
        auth = self.server.auth
        for nth in range(1, 40):
            auth.push_image("app", "1", b"layer")
            self.server.points.arm(Trap("database select", "EIO", nth=nth, forever=True))
            answer = auth.request("DELETE", "/v2/app/manifests/1")
            sprung = self.server.points.sprung
            self.server.points.disarm()
            self.assertEqual(
                self.server.public.get("/v2/app/manifests/1").status, 404 if answer.status == 202 else 200, nth
            )
            if not sprung:
                break
        else:
            self.fail("there is no end to the queries")
        wait_until(lambda: not self.server.files(), self.server)

    def test_a_deletion_that_has_no_space_lets_go_of_what_is_kept_for_it_and_is_tried_once_more(self) -> None:
        auth, ballast = self.server.auth, self.server.data / "ballast"
        for forever in (False, True):
            with self.subTest(forever=forever):
                auth.push_image("app", "1", b"layer")
                wait_until(ballast.exists, self.server)
                self.server.points.arm(Trap("database delete", "ENOSPC", forever=forever))
                answer = auth.request("DELETE", "/v2/app/manifests/1")
                self.assertEqual(answer.status, 507 if forever else 202)
                self.assertGreater(self.server.points.sprung, int(forever))
                self.server.points.disarm()
                self.assertEqual(self.server.public.get("/v2/app/manifests/1").status, 200 if forever else 404)


class Steps(InProcessTestCase):
    options = Options(pull_grace=0)

    def test_a_step_that_cannot_be_done_keeps_no_other_from_being_done(self) -> None:
        location = self.ok(202, "POST", "/v2/app/blobs/uploads/").headers["Location"]
        upload = self.site.directory / "uploads" / location.partition("?")[0].rpartition("/")[2]
        upload.unlink()
        upload.mkdir()
        (self.site.directory / "ballast").mkdir()
        blob = self.push_blob("app", b"held for a day")
        with self.assertLogs("vex", "ERROR") as logged:
            self.site.advance(DAY + 1)
        self.assertEqual(self.site.request("HEAD", f"/v2/app/blobs/{blob}").status, 404)
        self.assertEqual(self.site.holdings().files, set())
        self.assertEqual(len(logged.records), 2, logged.output)
        self.assertEqual(
            set(self.site.housekeeping.succeeded),
            {"removals", "uploads", "pulls", "fetches", "leases", "manifests", "repositories", "audit"},
        )


class Clocks(InProcessTestCase):
    """The time of day, which is wrong for a moment, and a steady clock, which is not."""

    options = Options(pull_grace=0, keep_replaced=HOUR, audit_keep=30 * DAY)

    def setUp(self) -> None:
        super().setUp()
        self.passed = 0
        self.watch()
        self.upload = self.ok(202, "POST", "/v2/app/blobs/uploads/").headers["Location"]
        self.blob = self.push_blob("app", b"held for a day")
        self.push_image("app", "1", b"replaced")
        self.replaced = self.site.request("HEAD", "/v2/app/manifests/1").headers["Docker-Content-Digest"]
        self.push_image("app", "1", b"new")

    def watch(self) -> None:
        """End, and begin as a start of the program does."""
        self.site.close()
        self.site.open(TimeOfDay(self.site.directory, clock=self.site.clock, steady=lambda: self.passed))

    def go_on(self, seconds: int) -> None:
        """Let time pass as it should."""
        self.passed += seconds
        self.site.advance(seconds)

    def jump(self, seconds: int) -> None:
        """Set the time of day, a minute after the round before."""
        self.passed += MINUTE
        with self.assertLogs("vex", "WARNING") as logged:
            self.site.advance(seconds + MINUTE)
        self.assertEqual(len(logged.records), 1, logged.output)
        self.assertIn(f"the time of day jumped by {seconds:+} seconds", logged.output[0])

    def upload_file(self) -> Path:
        return self.site.directory / "uploads" / self.upload.partition("?")[0].rpartition("/")[2]

    def kept(self) -> tuple[bool, bool, bool, bool]:
        """Tell what is there: the upload's file, the blob without a manifest, the replaced manifest, its change in the
        trail.
        """
        holdings = self.site.holdings()
        with self.site.database.read() as tx:
            changes = tx.value("SELECT count(*) FROM tag_change")
        return (
            self.upload_file().exists(),
            self.blob in holdings.files,
            ("app", self.replaced) in holdings.manifests,
            changes > 0,
        )

    def test_a_jump_ahead_removes_nothing_and_the_way_back_neither(self) -> None:
        self.jump(365 * DAY)
        self.go_on(MINUTE)
        self.assertEqual(self.kept(), (True,) * 4)
        self.jump(-365 * DAY)
        self.go_on(MINUTE)
        self.assertEqual(self.kept(), (True,) * 4)
        self.assertEqual(self.site.request("GET", self.upload).status, 204)

    def test_after_a_day_of_normal_time_what_is_too_old_goes(self) -> None:
        self.jump(365 * DAY)
        for _ in range(23):
            self.go_on(HOUR)
            self.assertEqual(self.kept(), (True,) * 4)
        self.go_on(HOUR)
        self.assertEqual(self.kept(), (False,) * 4)
        self.assertFalse((self.site.directory / "clock-jumped").exists())

    def test_a_restart_does_not_shorten_the_day(self) -> None:
        self.jump(365 * DAY)
        # Of an upload from before, the time of its file is looked at.
        os.utime(self.upload_file(), (self.site.now - 365 * DAY,) * 2)
        with self.assertLogs("vex", "WARNING"):
            self.watch()
        self.go_on(23 * HOUR)
        self.assertEqual(self.kept(), (True,) * 4)
        self.go_on(2 * HOUR)
        self.assertEqual(self.kept(), (False,) * 4)

    def test_a_clock_that_is_slightly_off_changes_nothing(self) -> None:
        self.passed += 2 * DAY
        self.site.advance(2 * DAY + 9 * MINUTE)
        self.assertEqual(self.kept(), (False, False, False, True))

    def test_what_is_not_about_age_goes_on(self) -> None:
        self.jump(-365 * DAY)
        self.assertIn("ballast", self.site.housekeeping.succeeded)
        self.assertNotIn("leases", self.site.housekeeping.succeeded)


class Metrics(unittest.TestCase):
    def test_the_last_success_of_each_step_is_told_and_stays_where_it_fails(self) -> None:
        with running(*QUICK) as server:

            def done(step: str) -> float:
                return server.metric(f'vex_housekeeping_success_timestamp_seconds{{step="{step}"}}')

            wait_until(lambda: done("ballast") > 0, server)
            steps = (
                "pages summaries files removals uploads pulls fetches leases manifests repositories audit ballast"
                " tokens logins memory"
            )
            for step in steps.split():
                self.assertAlmostEqual(done(step), time.time(), delta=20, msg=step)
            # What keeps space free cannot be written where a directory is.
            ballast = server.data / "ballast"
            ballast.unlink()
            ballast.mkdir()
            wait_until(lambda: "housekeeping could not finish: ballast" in server.log.read_text(), server)
            # What waits for a day need not be looked for all the time.
            seldom = done("repositories")
            failed = done("ballast")
            later = done("memory")
            wait_until(lambda: done("memory") > later, server)
            self.assertEqual((done("ballast"), done("repositories")), (failed, seldom))


if __name__ == "__main__":
    unittest.main()
